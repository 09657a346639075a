package broker

import (
	"sync/atomic"

	"github.com/tidwall/btree"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// table finds hosted topics by name and by id. A published table is never
// changed: the metadata goroutine copies it, which is O(1), and changes the copy.
type table struct {
	byName btree.Map[string, *Topic]
	byID   btree.Map[string, *Topic] // key: the 16 bytes of the id
}

func (t *table) clone() *table {
	return &table{byName: *t.byName.Copy(), byID: *t.byID.Copy()}
}

func (t *table) put(topic *Topic) {
	t.byName.Set(topic.Name, topic)
	t.byID.Set(string(topic.ID[:]), topic)
}

func (t *table) remove(topic *Topic) {
	if now, ok := t.byName.Get(topic.Name); ok && now == topic {
		t.byName.Delete(topic.Name)
	}
	t.byID.Delete(string(topic.ID[:]))
}

// Topic is a topic with at least one partition on this node.
type Topic struct {
	Name string
	ID   model.UUID

	codecs *batch.Codecs // the node's

	// settings are the effective topic configs. Replaced by the metadata
	// goroutine when a config changes.
	settings atomic.Pointer[Settings]

	// parts holds the hosted partitions by index, nil where another node has
	// it. The slice is replaced, never changed.
	parts atomic.Pointer[[]*Partition]
}

// Settings is a topic's configuration in the forms its users want it.
type Settings struct {
	config.Topic

	// rules are the produce rules of the topic; the caller adds the time.
	rules batch.Rules

	// cleanup says which records of the topic are removed.
	cleanup storage.Cleanup
}

func newSettings(t config.Topic) *Settings {
	s := &Settings{Topic: t}
	s.rules = batch.Rules{
		LogAppendTime:   t.TimestampType == "LogAppendTime",
		BeforeMax:       t.TimestampBeforeMax,
		AfterMax:        t.TimestampAfterMax,
		Compacted:       t.Compact,
		MaxDecompressed: int64(t.MaxDecompressed),
		MaxSize:         int(t.MaxMessageBytes),
		KeepCodec:       t.CompressionType == "producer",
	}
	s.cleanup = storage.Cleanup{
		Delete:            t.Delete,
		Compact:           t.Compact,
		RetentionMs:       t.RetentionMs,
		RetentionBytes:    t.RetentionBytes,
		DeleteRetentionMs: t.DeleteRetentionMs,
		MinLagMs:          t.MinCompactionLagMs,
		MaxLagMs:          t.MaxCompactionLagMs,
		MinDirtyRatio:     t.MinDirtyRatio,
	}
	switch t.CompressionType {
	case "gzip":
		s.rules.Compression, s.rules.Level = batch.Gzip, int(t.GzipLevel)
	case "snappy":
		s.rules.Compression = batch.Snappy
	case "lz4":
		s.rules.Compression, s.rules.Level = batch.LZ4, int(t.LZ4Level)
	case "zstd":
		s.rules.Compression, s.rules.Level = batch.Zstd, int(t.ZstdLevel)
	}
	return s
}

// Settings gives the topic's configuration of this moment.
func (t *Topic) Settings() *Settings { return t.settings.Load() }

// Partition finds a hosted partition, nil if this node has it not.
func (t *Topic) Partition(index int32) *Partition {
	parts := *t.parts.Load()
	if index < 0 || int(index) >= len(parts) {
		return nil
	}
	return parts[index]
}

// setPartition replaces one entry in the published slice.
func (t *Topic) setPartition(index int32, p *Partition) {
	old := *t.parts.Load()
	parts := make([]*Partition, max(len(old), int(index)+1))
	copy(parts, old)
	parts[index] = p
	t.parts.Store(&parts)
}

func logConfig(t config.Topic, producerExpireMs int64) storage.LogConfig {
	if t.Compact { // or the record that must be compacted soon would lie in the active segment
		t.SegmentMs = min(t.SegmentMs, t.MaxCompactionLagMs)
	}
	return storage.LogConfig{
		SegmentBytes:     t.SegmentBytes,
		SegmentMs:        t.SegmentMs,
		JitterMs:         t.SegmentJitterMs,
		IndexBytes:       t.IndexBytes,
		IndexInterval:    set(t.IndexIntervalBytes),
		FlushMessages:    t.FlushMessages,
		FlushMs:          set(t.FlushMs),
		ProducerExpireMs: producerExpireMs,
		DeleteDelayMs:    set(t.FileDeleteDelayMs),
		Compact:          t.Compact,
	}
}

// set writes 0 as storage wants it, for which a zero field is one that was not set.
func set[N int32 | int64](n N) N {
	if n == 0 {
		return -1
	}
	return n
}
