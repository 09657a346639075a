package node_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

func TestProduceAndFetchAtEveryVersion(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1)
	var want []string
	for v := int16(3); v <= 13; v++ {
		for _, acks := range []int16{1, -1} {
			value := fmt.Sprintf("v%d acks %d", v, acks)
			resp := do[*kmsg.ProduceResponse](c, produceRequest("t", id, acks, build(plain(), value)), v)
			p := resp.Topics[0].Partitions[0]
			if p.ErrorCode != 0 || p.BaseOffset != int64(len(want)) {
				t.Fatalf("produce v%d: error %d, base offset %d, want %d", v, p.ErrorCode, p.BaseOffset, len(want))
			}
			if v >= 13 && resp.Topics[0].TopicID != id || v < 13 && resp.Topics[0].Topic != "t" {
				t.Fatalf("produce v%d: answered for topic %q %v", v, resp.Topics[0].Topic, resp.Topics[0].TopicID)
			}
			want = append(want, value)
		}
	}
	for v := int16(4); v <= 18; v++ {
		resp := do[*kmsg.FetchResponse](c, fetchRequest("t", id, 3), v)
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.HighWatermark != int64(len(want)) || p.LastStableOffset != int64(len(want)) {
			t.Fatalf("fetch v%d: error %d, high watermark %d, stable %d", v, p.ErrorCode, p.HighWatermark, p.LastStableOffset)
		}
		if got := values(t, p.RecordBatches, 3); !slices.Equal(got, want[3:]) {
			t.Fatalf("fetch v%d: %q, want %q", v, got, want[3:])
		}
	}
}

func TestProduceWithoutAcksIsNotAnsweredAndIsThere(t *testing.T) {
	f := start(t, nil, nil)
	f.dial().create("t", 1)
	raw := f.raw()
	raw.send(1, produceRequest("t", [16]byte{}, 0, build(plain(), "quiet")), 9)
	raw.send(2, produceRequest("t", [16]byte{}, 1, build(plain(), "loud")), 9)
	resp := kmsg.NewPtrProduceResponse()
	raw.receive(2, resp, 9) // the first answer on the wire is the second request's
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Fatalf("error %d, base offset %d, want 1 behind the unanswered one", p.ErrorCode, p.BaseOffset)
	}
	// An error without an answer can only be told by closing.
	raw.send(3, produceRequest("nope", [16]byte{}, 0, build(plain(), "lost")), 9)
	raw.expectClosed()
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	f := start(t, nil, nil)
	id := f.dial().create("t", 1)
	raw := f.raw()
	poll := fetchRequest("t", id, 0) // waits for what the next request brings
	poll.MaxWaitMillis = 20000
	raw.send(1, poll, 13)
	for i := range int32(20) {
		raw.send(2+i, produceRequest("t", [16]byte{}, -1, build(plain(), fmt.Sprint(i))), 9)
	}
	fetched := kmsg.NewPtrFetchResponse()
	raw.receive(1, fetched, 13)
	if got := values(t, fetched.Topics[0].Partitions[0].RecordBatches, 0); len(got) == 0 || got[0] != "0" {
		t.Fatalf("the long poll was answered with %q", got)
	}
	for i := range int32(20) {
		resp := kmsg.NewPtrProduceResponse()
		raw.receive(2+i, resp, 9)
		if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Fatalf("request %d: error %d, base offset %d: not in the order of arrival", i, p.ErrorCode, p.BaseOffset)
		}
	}
}

// KAFKA.md 3.5, the table of results seen on Apache Kafka 4.4.0.
func TestProduceIsRefusedWithKafkasCodes(t *testing.T) {
	f := start(t, nil, nil)
	c := f.dial()
	c.create("t", 1)
	c.create("compacted", 1, "cleanup.policy", "compact")
	c.create("small", 1, "max.message.bytes", "100")
	now := time.Now().UnixMilli()

	edit := func(change func(b batch.Batch), values ...string) []byte {
		b := batch.Batch(build(plain(), values...))
		change(b)
		return b
	}
	noKey := batch.NewCodecs().NewBuilder(plain())
	noKey.Add(now, nil, []byte("v"))
	unkeyed, _ := noKey.Build()
	late := batch.NewCodecs().NewBuilder(plain())
	late.Add(now+2*3600*1000, []byte("k"), []byte("v"))
	future, _ := late.Build()
	txn := plain()
	txn.Producer, txn.Sequence, txn.Transactional = model.Producer{ID: 5}, 0, true
	control := plain()
	control.Control = true

	for name, tt := range map[string]struct {
		topic   string
		acks    int16
		records []byte
		version int16
		want    *kerr.Error
	}{
		"acks 2":              {"t", 2, build(plain(), "x"), 12, kerr.InvalidRequiredAcks},
		"unknown topic":       {"nope", 1, build(plain(), "x"), 12, kerr.UnknownTopicOrPartition},
		"unknown topic id":    {"", 1, build(plain(), "x"), 13, kerr.UnknownTopicID},
		"bad crc":             {"t", 1, edit(func(b batch.Batch) { b[len(b)-1] ^= 1 }, "x"), 12, kerr.CorruptMessage},
		"magic 1":             {"t", 1, edit(func(b batch.Batch) { b[16] = 1 }, "x"), 12, kerr.InvalidRecord},
		"empty records":       {"t", 1, []byte{}, 12, kerr.InvalidRecord},
		"two batches":         {"t", 1, append(build(plain(), "x"), build(plain(), "y")...), 12, kerr.InvalidRecord},
		"base offset":         {"t", 1, edit(func(b batch.Batch) { b.SetBaseOffset(3) }, "x"), 12, kerr.InvalidRecord},
		"control batch":       {"t", 1, build(control, "x"), 12, kerr.InvalidRecord},
		"transaction without": {"t", 1, build(txn, "x"), 12, kerr.TransactionalIDAuthorizationFailed},
		"null key, compacted": {"compacted", 1, unkeyed, 12, kerr.InvalidRecord},
		"too far in future":   {"t", 1, future, 12, kerr.InvalidTimestamp},
		"too large":           {"small", 1, build(plain(), string(make([]byte, 200))), 12, kerr.MessageTooLarge},
		"zstd before v7":      {"t", 1, build(func() batch.BuilderOptions { o := plain(); o.Codec = batch.Zstd; return o }(), "x"), 6, kerr.UnsupportedCompressionType},
	} {
		t.Run(name, func(t *testing.T) {
			resp := do[*kmsg.ProduceResponse](c, produceRequest(tt.topic, [16]byte{9}, tt.acks, tt.records), tt.version)
			p := resp.Topics[0].Partitions[0]
			if p.ErrorCode != tt.want.Code {
				t.Fatalf("error %d (%v), want %d", p.ErrorCode, kerr.ErrorForCode(p.ErrorCode), tt.want.Code)
			}
			if p.BaseOffset != -1 || p.LogAppendTime != -1 {
				t.Errorf("base offset %d, append time %d: want -1", p.BaseOffset, p.LogAppendTime)
			}
		})
	}
	if got := c.produce("t", 1, build(plain(), "fine")); got.BaseOffset != 0 {
		t.Fatalf("base offset %d: something that was refused is in the log", got.BaseOffset)
	}
}

// KAFKA.md 5, Idempotence.
func TestIdempotentProducer(t *testing.T) {
	c := start(t, nil, nil).dial()
	c.create("t", 1)
	ask := kmsg.NewPtrInitProducerIDRequest()
	first := do[*kmsg.InitProducerIDResponse](c, ask, 5)
	if first.ErrorCode != 0 || first.ProducerEpoch != 0 {
		t.Fatalf("error %d, epoch %d", first.ErrorCode, first.ProducerEpoch)
	}
	second := do[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 5)
	if second.ProducerID == first.ProducerID {
		t.Fatal("two producers got one id")
	}
	send := func(epoch int16, seq int32) kmsg.ProduceResponseTopicPartition {
		o := plain()
		o.Producer, o.Sequence = model.Producer{ID: first.ProducerID, Epoch: epoch}, seq
		return c.produce("t", -1, build(o, fmt.Sprint(seq)))
	}
	for seq := range int32(7) {
		if p := send(0, seq); p.ErrorCode != 0 || p.BaseOffset != int64(seq) {
			t.Fatalf("sequence %d: error %d at %d", seq, p.ErrorCode, p.BaseOffset)
		}
	}
	if p := send(0, 3); p.ErrorCode != 0 || p.BaseOffset != 3 {
		t.Errorf("duplicate of one of the last five: error %d, base offset %d, want 3", p.ErrorCode, p.BaseOffset)
	}
	if p := send(0, 1); p.ErrorCode != kerr.OutOfOrderSequenceNumber.Code {
		t.Errorf("duplicate older than that: error %d", p.ErrorCode)
	}
	if p := send(0, 9); p.ErrorCode != kerr.OutOfOrderSequenceNumber.Code {
		t.Errorf("gap: error %d", p.ErrorCode)
	}
	if p := send(1, 5); p.ErrorCode != kerr.OutOfOrderSequenceNumber.Code {
		t.Errorf("new epoch that does not begin at 0: error %d", p.ErrorCode)
	}
	if p := send(1, 0); p.ErrorCode != 0 || p.BaseOffset != 7 {
		t.Errorf("new epoch: error %d at %d", p.ErrorCode, p.BaseOffset)
	}
	if p := send(0, 7); p.ErrorCode != kerr.InvalidProducerEpoch.Code {
		t.Errorf("old epoch: error %d", p.ErrorCode)
	}
}

func TestLogAppendTime(t *testing.T) {
	c := start(t, nil, nil).dial()
	id := c.create("t", 1, "message.timestamp.type", "LogAppendTime")
	before := time.Now().UnixMilli()
	p := c.produce("t", 1, build(plain(), "x"))
	if p.ErrorCode != 0 || p.LogAppendTime < before {
		t.Fatalf("error %d, append time %d, want at least %d", p.ErrorCode, p.LogAppendTime, before)
	}
	got := do[*kmsg.FetchResponse](c, fetchRequest("t", id, 0), 13)
	b := batch.Batch(got.Topics[0].Partitions[0].RecordBatches)
	if !b.LogAppendTime() || b.MaxTimestamp() != p.LogAppendTime {
		t.Errorf("on disk: append time bit %v, max timestamp %d", b.LogAppendTime(), b.MaxTimestamp())
	}
}

// As in Kafka, clients do not write to the topics that coordinators keep their state in.
func TestProducingToInternalTopicsIsRefused(t *testing.T) {
	c := start(t, nil, map[string]string{"offsets.topic.num.partitions": "1", "offsets.topic.replication.factor": "1"}).dial()
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKeys = []string{"g"}
	do[*kmsg.FindCoordinatorResponse](c, find, 4)
	if p := c.produce("__consumer_offsets", 1, build(plain(), "x")); p.ErrorCode != kerr.InvalidTopicException.Code {
		t.Fatalf("error %d, want %d", p.ErrorCode, kerr.InvalidTopicException.Code)
	}
}
