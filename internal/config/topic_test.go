package config

import (
	"errors"
	"strings"
	"testing"
)

func TestTopicOverridesGoBeforeTheBroker(t *testing.T) {
	c := mustLoad(t, profile("log.segment.bytes", "2000000", "log.retention.minutes", "5", "log.retention.hours", "7", "log.roll.hours", "2"))
	base := c.Topic(nil)
	if base.SegmentBytes != 2000000 || base.RetentionMs != 5*60_000 || base.SegmentMs != 2*3_600_000 {
		t.Errorf("%+v", base)
	}
	got := c.Topic(map[string]string{"segment.bytes": "3000000", "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "retention.ms": "-1", "no.such": "1", "segment.ms": "broken"})
	if got.SegmentBytes != 3000000 || !got.Compact || got.Delete || got.MinDirtyRatio != 0.1 || got.RetentionMs != -1 || got.SegmentMs != base.SegmentMs {
		t.Errorf("%+v", got)
	}
	if both := c.Topic(map[string]string{"cleanup.policy": "delete, compact"}); !both.Compact || !both.Delete {
		t.Errorf("%+v", both)
	}
	if none := c.Topic(map[string]string{"cleanup.policy": ""}); none.Compact || none.Delete {
		t.Errorf("%+v", none)
	}
	for range 20 { // whatever the order of a map
		small := c.Topic(map[string]string{"segment.bytes": "3000000", "internal.segment.bytes": "100"})
		if small.SegmentBytes != 100 {
			t.Fatalf("segment of %d bytes, want that of internal.segment.bytes", small.SegmentBytes)
		}
	}
}

func TestTopicDefaultsAreKafkasExceptForDurability(t *testing.T) {
	got := mustLoad(t, Default()).Topic(nil)
	want := Topic{
		TopicLog{SegmentBytes: 1 << 30, SegmentMs: 604800000, IndexBytes: 10485760, IndexIntervalBytes: 4096, FlushMessages: 1, FlushMs: 1<<63 - 1, FileDeleteDelayMs: 60000},
		TopicBatch{
			MaxMessageBytes: 1048588, MaxDecompressed: 2147483639, CompressionType: "producer", GzipLevel: -1, LZ4Level: 9, ZstdLevel: 3,
			TimestampType: "CreateTime", TimestampBeforeMax: 1<<63 - 1, TimestampAfterMax: 3600000,
		},
		TopicRetention{
			Delete: true, RetentionMs: 604800000, RetentionBytes: -1, DeleteRetentionMs: 86400000, MaxCompactionLagMs: 1<<63 - 1, MinDirtyRatio: 0.5,
			LocalRetentionMs: -2, LocalRetentionBytes: -2, RemoteCopyLagBytes: -1,
		},
		TopicReplica{MinInsync: 1},
	}
	if got.TopicLog != want.TopicLog || got.TopicBatch != want.TopicBatch || got.TopicRetention != want.TopicRetention || got.MinInsync != 1 || got.UncleanElection {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestValidateTopicTakesWhatKafkaTakes: each outcome was seen on Apache Kafka 4.4.0,
// except where said.
func TestValidateTopicTakesWhatKafkaTakes(t *testing.T) {
	for _, c := range []struct {
		key, val string
		bad      string
	}{
		{"no.such", "1", "is not a topic config"},
		{"retention.mss", "1", "did you mean retention.ms?"},
		{"message.format.version", "3.0", "is not a topic config"},
		{"segment.bytes", "x", "want a whole number"},
		{"segment.bytes", "5", "allowed are 1048576 or more"},
		{"segment.bytes", " 2000000 ", ""},
		{"remote.storage.enable", "true", "no remote storage"},
		{"remote.storage.enable", "false", ""},
		{"remote.log.copy.disable", "true", ""},
		{"cleanup.policy", "", ""},
		{"cleanup.policy", "compact,compact", ""},
		{"cleanup.policy", "compact, delete", ""},
		{"cleanup.policy", "delete,,compact", "is empty"},
		{"cleanup.policy", "remove", "allowed are compact, delete"},
		{"retention.ms", "-2", "allowed are -1 or more"},
		{"retention.bytes", "-5", ""},
		{"preallocate", "yes", "want true or false"},
		{"preallocate", " TRUE ", ""},
		{"min.cleanable.dirty.ratio", "NaN", "want a number"}, // Kafka takes it
		{"min.cleanable.dirty.ratio", "1e-1", ""},
		{"min.cleanable.dirty.ratio", "1.5", "allowed are 0 to 1"},
		{"compression.gzip.level", "0", "allowed are 1 to 9, or -1"},
		{"compression.gzip.level", "-1", ""},
		{"compression.zstd.level", "-131072", ""},
		{"compression.type", " gzip", ""},
		{"compression.type", "GZIP", "allowed are uncompressed"},
		{"min.insync.replicas", "+5", ""},
		{"segment.ms", "0x10", "want a whole number"},
		{"segment.jitter.ms", "-1", "allowed are 0 or more"},
		{"flush.messages", "0", "allowed are 1 or more"},
		{"max.message.bytes", "9999999999", "want a whole number"},
		{"message.timestamp.type", "createtime", "allowed are CreateTime, LogAppendTime"},
		{"leader.replication.throttled.replicas", "*", ""},
		{"leader.replication.throttled.replicas", "1:2,3:4", ""},
		{"leader.replication.throttled.replicas", "1:2,a", "a is not partition:broker"},
		{"leader.replication.throttled.replicas", "none", "none is not partition:broker"},
	} {
		err := ValidateTopic(c.key, c.val)
		if (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.val, err, c.bad)
		}
	}
	if !errors.Is(ValidateTopic("no.such", "1"), ErrUnknown) {
		t.Error("an unknown key is not ErrUnknown")
	}
}

func TestTopicConfigsAreHeldAgainstEachOther(t *testing.T) {
	c := mustLoad(t, Default())
	if err := c.ValidateTopicSet(map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}); err == nil || !strings.Contains(err.Error(), "must not exceed max.compaction.lag.ms=5") {
		t.Error(err)
	}
	if err := c.ValidateTopicSet(map[string]string{"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5", "segment.bytes": "2000000"}); err != nil {
		t.Error(err)
	}
	err := c.ValidateTopicSet(map[string]string{"segment.bytes": "1", "no.such": "x", "retention.ms": "y"})
	for _, want := range []string{"segment.bytes=1", "no.such", "retention.ms=y"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestTopicWithoutOverridesCostsNoAllocation(t *testing.T) {
	c := mustLoad(t, Default())
	var sink Topic
	if n := testing.AllocsPerRun(100, func() { sink = c.Topic(nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	_ = sink
	if n := testing.AllocsPerRun(100, func() { _ = c.Int(NumPartitions); _ = c.Bool(AutoCreateTopicsEnable) }); n != 0 {
		t.Errorf("getters: %v allocations", n)
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	props := Default()
	for b.Loop() {
		if _, _, err := Load(props); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTopicWithTwoOverrides(b *testing.B) {
	b.ReportAllocs()
	c := mustLoad(b, Default())
	overrides := map[string]string{"segment.bytes": "2000000", "retention.ms": "1000"}
	for b.Loop() {
		_ = c.Topic(overrides)
	}
}

// BenchmarkTable is the cost of the tables at a process's start.
func BenchmarkTable(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		mustTable(brokerText, nil)
	}
}
