package node_test

import (
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/vfs"
)

func deleteRecords(c client, version int16, topic string, offset int64) kmsg.DeleteRecordsResponseTopicPartition {
	req := kmsg.NewPtrDeleteRecordsRequest()
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Offset = offset
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return do[*kmsg.DeleteRecordsResponse](c, req, version).Topics[0].Partitions[0]
}

// KAFKA.md 3.13: -1 is the high watermark; what is beyond it, or below -1, is out of
// range; a topic that is only compacted refuses; a deletion is never undone.
func TestDeleteRecords(t *testing.T) {
	fs := vfs.NewMem()
	f := start(t, fs, nil)
	c := f.dial()
	id := c.create("t", 1)
	c.create("kept", 1, "cleanup.policy", "")
	c.create("keyed", 1, "cleanup.policy", "compact")
	for i := range 10 {
		c.produce("t", -1, build(plain(), fmt.Sprint(i)))
	}
	for i, x := range []struct {
		topic string
		to    int64
		code  int16
		low   int64
	}{
		{"t", 3, 0, 3},
		{"t", 2, 0, 3}, // already gone
		{"t", 11, kerr.OffsetOutOfRange.Code, -1},
		{"t", -2, kerr.OffsetOutOfRange.Code, -1},
		{"nope", 0, kerr.UnknownTopicOrPartition.Code, -1},
		{"keyed", -1, kerr.PolicyViolation.Code, -1},
		{"kept", -1, 0, 0},
		{"t", 7, 0, 7},
	} {
		p := deleteRecords(c, int16(i%3), x.topic, x.to)
		if p.ErrorCode != x.code || p.LowWatermark != x.low {
			t.Errorf("%s to %d: error %d, low watermark %d; want %d, %d", x.topic, x.to, p.ErrorCode, p.LowWatermark, x.code, x.low)
		}
	}
	after := func(c client, want int64) {
		t.Helper()
		resp := do[*kmsg.FetchResponse](c, fetchRequest("t", id, want), 13).Topics[0].Partitions[0]
		if resp.ErrorCode != 0 || resp.LogStartOffset != want {
			t.Fatalf("fetch from %d: error %d, log start %d", want, resp.ErrorCode, resp.LogStartOffset)
		}
		resp = do[*kmsg.FetchResponse](c, fetchRequest("t", id, want-1), 13).Topics[0].Partitions[0]
		if resp.ErrorCode != kerr.OffsetOutOfRange.Code {
			t.Fatalf("fetch below the start: error %d", resp.ErrorCode)
		}
	}
	after(c, 7)
	// The power fails: what was confirmed as deleted stays deleted.
	g := start(t, fs.CrashClone(nil), nil)
	after(g.dial(), 7)
	if p := deleteRecords(g.dial(), 2, "t", -1); p.ErrorCode != 0 || p.LowWatermark != 10 {
		t.Fatalf("to the high watermark: error %d, low watermark %d", p.ErrorCode, p.LowWatermark)
	}
}

// eventually polls until ok or a minute has passed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Size, time and log start: each takes what it may, and only that.
func TestExpiredRecordsAreRemoved(t *testing.T) {
	fs := vfs.NewMem()
	f := start(t, fs, map[string]string{
		"log.initial.task.delay.ms": "5", "log.retention.check.interval.ms": "20", "log.segment.delete.delay.ms": "0",
	})
	c := f.dial()
	topics := map[string][]string{
		"sized": {"internal.segment.bytes", "200", "retention.ms", "-1"},
		"aged":  {"internal.segment.bytes", "200", "retention.ms", "-1"},
		"kept":  {"internal.segment.bytes", "200", "cleanup.policy", "", "retention.ms", "1"},
	}
	for name, configs := range topics {
		c.create(name, 1, configs...)
		for i := range 20 {
			c.produce(name, -1, build(plain(), strings.Repeat("x", 50+i)))
		}
	}
	segments := func(topic string) (n int) {
		entries, err := fs.ReadDir(path.Join("/data", topic+"-0"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), ".log") {
				n++
			}
		}
		return n
	}
	for name := range topics {
		if n := segments(name); n != 20 {
			t.Fatalf("%s has %d segments", name, n)
		}
	}
	c.alter("sized", "retention.bytes", "500")
	c.alter("aged", "retention.ms", "1")
	eventually(t, "sized keeps at least 500 bytes, but no whole segment more", func() bool { return segments("sized") == 4 })
	eventually(t, "aged has an empty segment only", func() bool { return segments("aged") == 1 })
	if n := segments("kept"); n != 20 {
		t.Fatalf("kept has %d segments although its cleanup.policy is empty", n)
	}
	if p := deleteRecords(c, 2, "kept", 12); p.ErrorCode != 0 || p.LowWatermark != 12 {
		t.Fatalf("error %d, low watermark %d", p.ErrorCode, p.LowWatermark)
	}
	eventually(t, "kept has lost the segments below its start", func() bool { return segments("kept") == 8 })
	if p := c.produce("aged", -1, build(plain(), "next")); p.ErrorCode != 0 || p.BaseOffset != 20 {
		t.Fatalf("error %d, offset %d: retention must not change the end", p.ErrorCode, p.BaseOffset)
	}
}

// alter sets one config of a topic.
func (c client) alter(topic, name, value string) {
	c.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	cfg.Name, cfg.Value = name, &value
	res.Configs = append(res.Configs, cfg)
	req.Resources = append(req.Resources, res)
	if resp := do[*kmsg.IncrementalAlterConfigsResponse](c, req, 1); resp.Resources[0].ErrorCode != 0 {
		c.t.Fatalf("alter %s: error %d", topic, resp.Resources[0].ErrorCode)
	}
}

// A topic that is compacted keeps the last value of each key, across restarts, and its
// policy may change on the way.
func TestCompactedTopic(t *testing.T) {
	fs := vfs.NewMem()
	props := map[string]string{
		"log.cleaner.backoff.ms": "5", "log.cleaner.min.cleanable.ratio": "0.01", "log.initial.task.delay.ms": "5",
		"log.retention.check.interval.ms": "20", "log.segment.delete.delay.ms": "0",
	}
	f := start(t, fs, props)
	c := f.dial()
	id := c.create("t", 1, "internal.segment.bytes", "300", "cleanup.policy", "compact")
	for i := range 100 { // every record has the key k
		if p := c.produce("t", -1, build(plain(), fmt.Sprint(i))); p.ErrorCode != 0 {
			t.Fatalf("produce: error %d", p.ErrorCode)
		}
	}
	read := func(c client) []string {
		var all []string
		for from := int64(0); from < 100; {
			p := do[*kmsg.FetchResponse](c, fetchRequest("t", id, from), 13).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Fatalf("fetch: error %d", p.ErrorCode)
			}
			got := values(t, p.RecordBatches, 0)
			if len(p.RecordBatches) == 0 {
				break
			}
			all = append(all, got...)
			from = endOf(t, p.RecordBatches)
		}
		return all
	}
	var last []string
	eventually(t, "only the active segment's records and the newest below are left", func() bool {
		last = read(c)
		return len(last) <= 6
	})
	if last[len(last)-1] != "99" {
		t.Fatalf("%q: the newest value is lost", last)
	}
	f.stop()
	g := start(t, fs, props)
	if got := read(g.dial()); len(got) > 6 || got[len(got)-1] != "99" {
		t.Fatalf("after a restart: %q", got)
	}
}

// endOf is the offset after the last whole batch.
func endOf(t *testing.T, records []byte) (end int64) {
	t.Helper()
	for len(records) > 0 {
		n, err := batch.Peek(records)
		if err != nil || n > len(records) {
			break
		}
		end, records = int64(batch.Batch(records[:n]).NextOffset()), records[n:]
	}
	return end
}
