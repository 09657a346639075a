package controller

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func cluster(b *testing.B, brokers, topics, partitions int) *world {
	b.Helper()
	w := newWorld(Config{})
	w.play(b, "activate")
	for id := 1; id <= brokers; id++ {
		w.play(b, fmt.Sprint("register ", id))
		w.play(b, fmt.Sprint("beat ", id))
	}
	for i := range topics {
		w.play(b, fmt.Sprintf("create topic-%d partitions=%d rf=3", i, partitions))
	}
	return w
}

// BenchmarkHeartbeat is a broker's sign of life in a cluster of 50,000 partitions.
func BenchmarkHeartbeat(b *testing.B) {
	w := cluster(b, 5, 50, 1000)
	_, a := parse("beat 1")
	req := w.beat(a)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.c.Handle(w.env(), req, Requester{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFence decides what the loss of one of five brokers means for 50,000
// partitions with three replicas each.
func BenchmarkFence(b *testing.B) {
	w := cluster(b, 5, 50, 1000)
	_, a := parse("beat 1 fence")
	req := w.beat(a)
	b.ReportAllocs()
	for b.Loop() {
		r, err := w.c.Handle(w.env(), req, Requester{})
		if err != nil || len(r.Records) < 20000 {
			b.Fatal(len(r.Records), err)
		}
	}
}

// BenchmarkCreate decides one topic of 1,000 partitions beside 50,000 others.
func BenchmarkCreate(b *testing.B) {
	w := cluster(b, 5, 50, 1000)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "new", 1000, 3
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.Topics = 7, append(req.Topics, topic)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.c.Handle(w.env(), req, Requester{}); err != nil {
			b.Fatal(err)
		}
	}
}
