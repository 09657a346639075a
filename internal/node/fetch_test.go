package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
)

// one is the answer for the only partition asked for.
func one(resp *kmsg.FetchResponse) kmsg.FetchResponseTopicPartition {
	return resp.Topics[0].Partitions[0]
}

// KAFKA.md 3.6: the first partition with data gives a whole batch even when it
// is larger than every limit; the data begins with the batch that holds the offset.
func TestFetchGivesAtLeastOneBatch(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1)
	c.produce("t", 1, build(plain(), "a", "b", "c"))
	c.produce("t", 1, build(plain(), "d"))
	for _, maxBytes := range []int32{1, 0} {
		req := fetchRequest("t", id, 1)
		req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = maxBytes, 1
		p := one(do[*kmsg.FetchResponse](c, req, 13))
		if b := batch.Batch(p.RecordBatches); len(b) < batch.HeaderSize || b.BaseOffset() != 0 || b.Count() != 3 || b.Check() != nil {
			t.Fatalf("max bytes %d: %d bytes, want the whole batch of offsets 0 to 2", maxBytes, len(b))
		}
	}
}

func TestFetchErrors(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1)
	c.produce("t", 1, build(plain(), "a"))
	check := func(name string, req *kmsg.FetchRequest, version int16, want *kerr.Error) {
		t.Helper()
		p := one(do[*kmsg.FetchResponse](c, req, version))
		if p.ErrorCode != want.Code {
			t.Errorf("%s: error %d, want %d", name, p.ErrorCode, want.Code)
		}
		if p.HighWatermark != -1 || p.LastStableOffset != -1 || p.LogStartOffset != -1 {
			t.Errorf("%s: offsets %d %d %d, want -1", name, p.HighWatermark, p.LastStableOffset, p.LogStartOffset)
		}
	}
	with := func(change func(p *kmsg.FetchRequestTopicPartition)) *kmsg.FetchRequest {
		req := fetchRequest("t", id, 0)
		change(&req.Topics[0].Partitions[0])
		return req
	}
	check("offset beyond the end", fetchRequest("t", id, 2), 13, kerr.OffsetOutOfRange)
	check("negative offset", fetchRequest("t", id, -5), 13, kerr.OffsetOutOfRange)
	check("unknown topic id", fetchRequest("", [16]byte{1}, 0), 13, kerr.UnknownTopicID)
	check("unknown topic", fetchRequest("nope", [16]byte{}, 0), 12, kerr.UnknownTopicOrPartition)
	check("unknown partition", with(func(p *kmsg.FetchRequestTopicPartition) { p.Partition = 7 }), 13, kerr.UnknownTopicOrPartition)
	check("newer epoch", with(func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = 99 }), 13, kerr.UnknownLeaderEpoch)
	check("last epoch above the leader's", with(func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 99 }), 13, kerr.OffsetOutOfRange)
}

func TestLongPollWakesOnDataAndEndsInTime(t *testing.T) {
	f := start(t, nil, nil)
	c, other := f.dial(), f.dial()
	id := c.create("t", 1)
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis = 60000 // far beyond the client's patience: only data can end it
	got := make(chan *kmsg.FetchResponse)
	go func() { got <- do[*kmsg.FetchResponse](c, req, 13) }()
	other.produce("t", -1, build(plain(), "wake"))
	if v := values(t, one(<-got).RecordBatches, 0); len(v) != 1 || v[0] != "wake" {
		t.Fatalf("got %q", v)
	}
	began := time.Now()
	req = fetchRequest("t", id, 1)
	req.MaxWaitMillis = 50
	if p := one(do[*kmsg.FetchResponse](c, req, 13)); p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
		t.Fatalf("error %d, %d bytes at the end of the log", p.ErrorCode, len(p.RecordBatches))
	}
	if time.Since(began) < 50*time.Millisecond {
		t.Fatal("answered before max.wait although there was nothing")
	}
}

func TestLongPollCountsBytesOverPartitions(t *testing.T) {
	f := start(t, nil, nil)
	c, other := f.dial(), f.dial()
	id := c.create("t", 1)
	size := len(build(plain(), "x"))
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis, req.MinBytes = 60000, int32(2*size)
	got := make(chan *kmsg.FetchResponse)
	go func() { got <- do[*kmsg.FetchResponse](c, req, 13) }()
	other.produce("t", -1, build(plain(), "x"))
	other.produce("t", -1, build(plain(), "y"))
	if v := values(t, one(<-got).RecordBatches, 0); len(v) != 2 {
		t.Fatalf("got %q, want both: min.bytes is two batches", v)
	}
}

func TestDeletingATopicEndsItsLongPolls(t *testing.T) {
	f := start(t, nil, nil)
	c, other := f.dial(), f.dial()
	id := c.create("t", 1)
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis = 60000
	got := make(chan *kmsg.FetchResponse)
	go func() { got <- do[*kmsg.FetchResponse](c, req, 13) }()
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.TimeoutMillis = 10000
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.TopicID = id
	del.Topics = append(del.Topics, topic)
	if resp := do[*kmsg.DeleteTopicsResponse](other, del, 6); resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("deleting: error %d", resp.Topics[0].ErrorCode)
	}
	switch code := one(<-got).ErrorCode; code {
	case kerr.UnknownTopicID.Code, kerr.UnknownTopicOrPartition.Code:
	default:
		t.Fatalf("error %d, want that the topic is not there", code)
	}
}

func TestFetchSessionOverTheWire(t *testing.T) {
	c := start(t, nil, nil).dial()
	a, b := c.create("a", 1), c.create("b", 1)
	c.produce("a", 1, build(plain(), "1"))
	full := fetchRequest("a", a, 0)
	full.Topics = append(full.Topics, fetchRequest("b", b, 0).Topics...)
	full.SessionEpoch = 0
	resp := do[*kmsg.FetchResponse](c, full, 13)
	if resp.SessionID == 0 || len(resp.Topics) != 2 {
		t.Fatalf("session %d with %d topics, want both in the first answer", resp.SessionID, len(resp.Topics))
	}
	next := fetchRequest("a", a, 1)
	next.SessionID, next.SessionEpoch = resp.SessionID, 1
	c.produce("b", 1, build(plain(), "2"))
	resp = do[*kmsg.FetchResponse](c, next, 13)
	if len(resp.Topics) != 1 || resp.Topics[0].TopicID != b {
		t.Fatalf("%d topics, want only b, which has news", len(resp.Topics))
	}
	next.Topics = nil
	if resp = do[*kmsg.FetchResponse](c, next, 13); resp.ErrorCode != kerr.InvalidFetchSessionEpoch.Code {
		t.Fatalf("repeated epoch: error %d", resp.ErrorCode)
	}
}

func TestLargeFetchGoesByFile(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1)
	var want []string
	for i := range 40 {
		v := fmt.Sprintf("%d %s", i, make([]byte, 10_000))
		want = append(want, v)
		if p := c.produce("t", 1, build(plain(), v)); p.ErrorCode != 0 {
			t.Fatalf("error %d", p.ErrorCode)
		}
	}
	got := values(t, one(do[*kmsg.FetchResponse](c, fetchRequest("t", id, 0), 13)).RecordBatches, 0)
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("record %d differs", i)
		}
	}
}

func TestStoppingDoesNotWaitForLongPolls(t *testing.T) {
	f := start(t, nil, nil)
	c := f.dial()
	id := c.create("t", 1)
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis, req.Version = 600000, 13
	raw := f.raw()
	raw.send(1, req, 13)
	raw2 := f.raw() // its answer shows that the poll of raw has arrived, as both go through the node
	raw2.send(2, fetchRequest("t", id, 0), 13)
	raw2.receive(2, kmsg.NewPtrFetchResponse(), 13)
	f.stop()
	resp := kmsg.NewPtrFetchResponse()
	raw.receive(1, resp, 13)
	// The broker gives up its leaderships before it stops.
	if code := one(resp).ErrorCode; code != 0 && code != kerr.NotLeaderForPartition.Code {
		t.Fatalf("error %d", code)
	}
}

func TestDataOfAnOldSegmentDoesNotWaitForMinBytes(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1, "segment.bytes", "1048576")
	big := string(make([]byte, 700_000))
	c.produce("t", 1, build(plain(), big))
	c.produce("t", 1, build(plain(), big)) // rolls
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis, req.MinBytes = 600000, 1_000_000
	req.Topics[0].Partitions[0].PartitionMaxBytes = 10 << 20
	if v := values(t, one(do[*kmsg.FetchResponse](c, req, 13)).RecordBatches, 0); len(v) != 1 {
		t.Fatalf("%d records, want the one of the first segment, at once", len(v))
	}
}

// As in Kafka, min.bytes counts up to what the answer may have.
func TestFullAnswerDoesNotWaitForMinBytes(t *testing.T) {
	f := start(t, nil, nil)
	c := f.dial()
	id := c.create("t", 1)
	for range 3 {
		c.produce("t", 1, build(plain(), string(make([]byte, 1000))))
	}
	req := fetchRequest("t", id, 0)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 600000, 1<<30, 2000
	if n := len(one(do[*kmsg.FetchResponse](c, req, 13)).RecordBatches); n != 2000 {
		t.Fatalf("%d bytes, want as many as the answer may have", n)
	}
}
