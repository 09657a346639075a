package compat_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Members of different clients and versions take their turns in one group of the
// classic protocol: each goes on where the one before has stopped.
func TestGroup(t *testing.T) {
	b := newBroker(t)
	const parts, each = 3, 20
	b.createTopic(t, "shared", parts)
	cl := newClient(t, b.addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var want, got []string
	for i := range 3 * each {
		value := fmt.Sprintf("value %02d", i)
		want = append(want, value)
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "shared", Partition: int32(i % parts), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for _, turn := range []struct {
		name     string
		peer     javaPeer
		protocol string
	}{
		{"java", newestJava(), ""},
		{"java-cooperative", newestJava(), "CooperativeStickyAssignor"},
		{"java-before", javaPeer{"kafka-tools", toolsVersion}, "RangeAssignor"},
	} {
		t.Run(turn.name, func(t *testing.T) {
			out := turn.peer.run(t, "group", b.addr, "g", turn.protocol, "shared", fmt.Sprint(each))
			got = append(got, strings.Split(strings.TrimSpace(out), "\n")...)
		})
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("the group read %d values: %q", len(got), got)
	}
	groups, err := kadm.NewClient(cl).DescribeGroups(ctx, "g")
	if g := groups["g"]; err != nil || g.State != "Empty" || g.ProtocolType != "consumer" {
		t.Errorf("afterwards: %+v, %v", g, err)
	}
	b.stop(t)
}
