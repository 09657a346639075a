package compat_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A fetcher sends Fetch requests of its own making to one topic.
type fetcher struct {
	cl    *kgo.Client
	topic string
	id    [16]byte
}

// newestFetch is the highest version of Fetch that the library knows.
func newestFetch() int16 {
	version, _ := kversion.Stable().LookupMaxKeyVersion(int16(kmsg.Fetch))
	return version
}

// newFetcher makes a fetcher whose Fetch requests have at most a version;
// versions from 13 on name topics by id.
func newFetcher(t *testing.T, b *broker, topic string, version int16) *fetcher {
	t.Helper()
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.Fetch), version)
	f := &fetcher{cl: newClient(t, b.addr, kgo.MaxVersions(versions)), topic: topic}
	t.Cleanup(f.cl.Close)
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	meta.Topics = append(meta.Topics, mt)
	resp, err := meta.RequestWith(context.Background(), f.cl)
	if err != nil {
		t.Fatal(err)
	}
	f.id = resp.Topics[0].TopicID
	return f
}

// fetch sends one request: partitions to add with their offsets, and to forget.
func (f *fetcher) fetch(t *testing.T, wait time.Duration, session, epoch int32, add map[int32]int64, forget ...int32) *kmsg.FetchResponse {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, 1<<20
	req.SessionID, req.SessionEpoch = session, epoch
	if len(add) > 0 {
		ft := kmsg.NewFetchRequestTopic()
		ft.Topic, ft.TopicID = f.topic, f.id
		for p := range int32(16) {
			if offset, ok := add[p]; ok {
				fp := kmsg.NewFetchRequestTopicPartition()
				fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = p, offset, 1<<20
				ft.Partitions = append(ft.Partitions, fp)
			}
		}
		req.Topics = append(req.Topics, ft)
	}
	if len(forget) > 0 {
		ft := kmsg.NewFetchRequestForgottenTopic()
		ft.Topic, ft.TopicID, ft.Partitions = f.topic, f.id, forget
		req.ForgottenTopics = append(req.ForgottenTopics, ft)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	resp, err := f.cl.Broker(1).Request(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.FetchResponse)
}

// seen describes a response: the partitions in it, each with the number of bytes it brought.
func seen(r *kmsg.FetchResponse) string {
	if r.ErrorCode != 0 {
		return kerr.TypedErrorForCode(r.ErrorCode).Message
	}
	var parts []string
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			what := "empty"
			if len(p.RecordBatches) > 0 {
				what = "data"
			}
			if p.ErrorCode != 0 {
				what = kerr.TypedErrorForCode(p.ErrorCode).Message
			}
			parts = append(parts, fmt.Sprintf("%d:%s", p.Partition, what))
		}
	}
	slices.Sort(parts)
	return fmt.Sprint(parts)
}

// KIP-227: within a session the server answers only with what changed.
func fetchSessions(t *testing.T, b *broker) {
	for _, version := range []int16{12, newestFetch()} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			topic := fmt.Sprintf("sessions-%d", version)
			b.createTopic(t, topic, 4)
			f := newFetcher(t, b, topic, version)
			send := func(partition int32) {
				goPeer{}.produce(t, b.addr, "", []*kgo.Record{{Partition: partition, Value: []byte("x")}}, []string{topic + "=none"})
			}
			check := func(step string, r *kmsg.FetchResponse, want string) {
				t.Helper()
				if got := seen(r); got != want {
					t.Fatalf("%s: the answer has %s, want %s", step, got, want)
				}
			}
			const short, long = 50 * time.Millisecond, 20 * time.Second
			full := f.fetch(t, short, 0, 0, map[int32]int64{0: 0, 1: 0, 2: 0, 3: 0})
			check("a new session names every partition", full, "[0:empty 1:empty 2:empty 3:empty]")
			session := full.SessionID
			if session == 0 {
				t.Fatal("no session was made")
			}
			check("nothing changed", f.fetch(t, short, session, 1, nil), "[]")
			send(2)
			check("one partition grew", f.fetch(t, long, session, 2, nil), "[2:data]")
			check("its offset moved on", f.fetch(t, short, session, 3, map[int32]int64{2: 1}), "[]")
			send(0)
			check("a forgotten partition stays away", f.fetch(t, short, session, 4, nil, 0), "[]")
			check("a partition comes back", f.fetch(t, long, session, 5, map[int32]int64{0: 0}), "[0:data]")
			check("a wrong epoch", f.fetch(t, short, session, 9, nil), kerr.InvalidFetchSessionEpoch.Message)
			check("an unknown session", f.fetch(t, short, session^0x55, 1, nil), kerr.FetchSessionIDNotFound.Message)
			closed := f.fetch(t, short, session, -1, map[int32]int64{1: 0})
			check("the last request closes the session and is answered in full", closed, "[1:empty]")
			if closed.SessionID != 0 {
				t.Errorf("closed, but session %d is named", closed.SessionID)
			}
			check("a closed session is unknown", f.fetch(t, short, session, 6, nil), kerr.FetchSessionIDNotFound.Message)
			check("past the end", f.fetch(t, short, 0, -1, map[int32]int64{1: 5}), "[1:"+kerr.OffsetOutOfRange.Message+"]")
		})
	}
}

// A waiting fetch is woken by the record it waits for: it is asked to wait
// longer than the test does.
func longPoll(t *testing.T, b *broker) {
	b.createTopic(t, "poll", 2)
	f := newFetcher(t, b, "poll", newestFetch())
	answer := make(chan string)
	go func() {
		answer <- seen(f.fetch(t, 5*time.Minute, 0, -1, map[int32]int64{1: 0}))
	}()
	goPeer{}.produce(t, b.addr, "", []*kgo.Record{{Partition: 1, Value: []byte("x")}}, []string{"poll=none"})
	if got := <-answer; got != "[1:data]" {
		t.Errorf("the answer has %s, want the record", got)
	}
}
