package config

import (
	"errors"
	"fmt"
	"strconv"
)

// Topic is the effective configuration of one topic, typed. Times are milliseconds,
// sizes bytes; -1 means unlimited wherever a topic config may be unlimited.
type Topic struct {
	TopicLog
	TopicBatch
	TopicRetention
	TopicReplica
}

// TopicLog is what segments look like and when they are rolled and synced.
type TopicLog struct {
	SegmentBytes       int32
	SegmentMs          int64 // a segment is rolled at this age, less a random part of SegmentJitterMs
	SegmentJitterMs    int64
	IndexBytes         int32 // largest size of a segment's offset index
	IndexIntervalBytes int32 // bytes of log between two index entries
	Preallocate        bool
	FlushMessages      int64 // records until a sync; 1: each ack waits for its sync
	FlushMs            int64
	FileDeleteDelayMs  int64
}

// TopicBatch is what is demanded of a produced batch and done with it.
type TopicBatch struct {
	MaxMessageBytes    int32 // largest batch, as it lies in the log
	MaxDecompressed    int32 // largest record after decompression
	CompressionType    string
	GzipLevel          int32 // -1: the codec's own default
	LZ4Level           int32
	ZstdLevel          int32
	TimestampType      string // CreateTime or LogAppendTime
	TimestampBeforeMax int64  // how far a timestamp may lie behind the clock
	TimestampAfterMax  int64  // how far it may lie ahead
	DeadLetter         bool   // share groups may write what they cannot deliver
}

// TopicRetention is which data stays: by age and size, by key, and in remote storage.
type TopicRetention struct {
	Compact, Delete     bool // cleanup.policy; neither: everything stays
	RetentionMs         int64
	RetentionBytes      int64 // per partition
	DeleteRetentionMs   int64 // how long a tombstone stays after compaction
	MinCompactionLagMs  int64
	MaxCompactionLagMs  int64
	MinDirtyRatio       float64
	RemoteStorage       bool
	RemoteCopyDisable   bool
	RemoteDelete        bool  // remove remote data when remote storage is switched off
	LocalRetentionMs    int64 // -2: RetentionMs
	LocalRetentionBytes int64 // -2: RetentionBytes
	RemoteCopyLagMs     int64
	RemoteCopyLagBytes  int64
}

// TopicReplica is how copies of a partition relate.
type TopicReplica struct {
	MinInsync         int32
	UncleanElection   bool
	LeaderThrottled   []string // partition:broker or *; shared, do not modify
	FollowerThrottled []string // the same at the fetching side
}

// topicFields says where a topic config's value belongs; it has every row of the
// table (a test compares). A row that is null (internal.segment.bytes) is not set.
var topicFields = map[string]func(*Topic, value){
	"segment.bytes":          func(t *Topic, v value) { t.SegmentBytes = int32(v.num) },
	"internal.segment.bytes": func(t *Topic, v value) { t.SegmentBytes = int32(v.num) },
	"segment.ms":             func(t *Topic, v value) { t.SegmentMs = v.num },
	"segment.jitter.ms":      func(t *Topic, v value) { t.SegmentJitterMs = v.num },
	"segment.index.bytes":    func(t *Topic, v value) { t.IndexBytes = int32(v.num) },
	"index.interval.bytes":   func(t *Topic, v value) { t.IndexIntervalBytes = int32(v.num) },
	"preallocate":            func(t *Topic, v value) { t.Preallocate = v.num != 0 },
	"flush.messages":         func(t *Topic, v value) { t.FlushMessages = v.num },
	"flush.ms":               func(t *Topic, v value) { t.FlushMs = v.num },
	"file.delete.delay.ms":   func(t *Topic, v value) { t.FileDeleteDelayMs = v.num },

	"max.message.bytes":                   func(t *Topic, v value) { t.MaxMessageBytes = int32(v.num) },
	"max.decompressed.message.bytes":      func(t *Topic, v value) { t.MaxDecompressed = int32(v.num) },
	"compression.type":                    func(t *Topic, v value) { t.CompressionType = v.text },
	"compression.gzip.level":              func(t *Topic, v value) { t.GzipLevel = int32(v.num) },
	"compression.lz4.level":               func(t *Topic, v value) { t.LZ4Level = int32(v.num) },
	"compression.zstd.level":              func(t *Topic, v value) { t.ZstdLevel = int32(v.num) },
	"message.timestamp.type":              func(t *Topic, v value) { t.TimestampType = v.text },
	"message.timestamp.before.max.ms":     func(t *Topic, v value) { t.TimestampBeforeMax = v.num },
	"message.timestamp.after.max.ms":      func(t *Topic, v value) { t.TimestampAfterMax = v.num },
	"errors.deadletterqueue.group.enable": func(t *Topic, v value) { t.DeadLetter = v.num != 0 },

	"cleanup.policy":               setCleanupPolicy,
	"retention.ms":                 func(t *Topic, v value) { t.RetentionMs = max(v.num, -1) },
	"retention.bytes":              func(t *Topic, v value) { t.RetentionBytes = v.num },
	"delete.retention.ms":          func(t *Topic, v value) { t.DeleteRetentionMs = v.num },
	"min.compaction.lag.ms":        func(t *Topic, v value) { t.MinCompactionLagMs = v.num },
	"max.compaction.lag.ms":        func(t *Topic, v value) { t.MaxCompactionLagMs = v.num },
	"min.cleanable.dirty.ratio":    func(t *Topic, v value) { t.MinDirtyRatio = v.real },
	"remote.storage.enable":        func(t *Topic, v value) { t.RemoteStorage = v.num != 0 },
	"remote.log.copy.disable":      func(t *Topic, v value) { t.RemoteCopyDisable = v.num != 0 },
	"remote.log.delete.on.disable": func(t *Topic, v value) { t.RemoteDelete = v.num != 0 },
	"local.retention.ms":           func(t *Topic, v value) { t.LocalRetentionMs = v.num },
	"local.retention.bytes":        func(t *Topic, v value) { t.LocalRetentionBytes = v.num },
	"remote.copy.lag.ms":           func(t *Topic, v value) { t.RemoteCopyLagMs = v.num },
	"remote.copy.lag.bytes":        func(t *Topic, v value) { t.RemoteCopyLagBytes = v.num },

	"min.insync.replicas":                     func(t *Topic, v value) { t.MinInsync = int32(v.num) },
	"unclean.leader.election.enable":          func(t *Topic, v value) { t.UncleanElection = v.num != 0 },
	"leader.replication.throttled.replicas":   func(t *Topic, v value) { t.LeaderThrottled = v.list },
	"follower.replication.throttled.replicas": func(t *Topic, v value) { t.FollowerThrottled = v.list },
}

func setCleanupPolicy(t *Topic, v value) {
	t.Compact, t.Delete = false, false
	for _, p := range v.list {
		t.Compact = t.Compact || p == "compact"
		t.Delete = t.Delete || p == "delete"
	}
}

// set puts a value where it belongs.
func (t *Topic) set(p *Property, v value) {
	if !v.null {
		topicFields[p.Name](t, v)
	}
}

// Topic gives the effective configuration of a topic with these overrides. An
// override that this version does not know or cannot read counts as absent: it was
// checked when it was set, so a newer version wrote it.
func (c *Config) Topic(overrides map[string]string) Topic {
	if len(overrides) == 0 {
		return c.topic
	}
	t := c.topic
	for key, val := range overrides {
		p, ok := LookupTopic(key)
		if !ok {
			continue
		}
		v, err := p.parse(val)
		if err != nil || p.Name == "segment.bytes" && overrides["internal.segment.bytes"] != "" {
			continue
		}
		t.set(p, v)
	}
	return t
}

// baseTopic is the configuration of a topic without overrides.
func (c *Config) baseTopic() Topic {
	var t Topic
	for _, p := range topicTable().rows {
		t.set(p, c.inherited(p).value)
	}
	return t
}

// Sources of a value, as DescribeConfigs and CreateTopics number them.
const (
	SourceTopic         int8 = 1 // set on the topic
	SourceBroker        int8 = 2 // set at run time for this broker
	SourceDefaultBroker int8 = 3 // set at run time for all brokers
	SourceStatic        int8 = 4 // from the file
	SourceDefault       int8 = 5
)

// origin is a topic config's value where the topic has no override.
type origin struct {
	value  value
	given  string // the characters that were set, or the default's
	source int8
}

// inherited gives what a topic config is without an override. Of several broker
// properties, one that was set at run time goes before one in the file, whatever their
// order (KAFKA.md 11.1).
func (c *Config) inherited(p *Property) origin {
	for i, layer := range c.layers() {
		for _, rule := range p.from {
			given, ok := layer[rule.name]
			if !ok {
				continue
			}
			if v, err := p.convert(given, rule.times); err == nil {
				if rule.times != 1 {
					given = v.text
				}
				return origin{v, given, SourceBroker + int8(i)}
			}
		}
	}
	return origin{p.initial, p.Default, SourceDefault}
}

// layers gives what was set on the broker, in order of precedence: the sources
// SourceBroker, SourceDefaultBroker and SourceStatic.
func (c *Config) layers() [3]map[string]string {
	return [3]map[string]string{c.broker, c.cluster, c.static}
}

// convert reads a broker property's value as a topic config. Ranges were checked
// against the broker property, whose range may be wider (retention of -2 hours means
// unlimited).
func (p *Property) convert(given string, times int64) (value, error) {
	v, err := parseValue(p.Type, given)
	if err != nil || times == 1 {
		return v, err
	}
	v.num *= times // hours and minutes are 32-bit, so this cannot overflow
	if v.num < 0 {
		v.num = -1
	}
	v.text = strconv.FormatInt(v.num, 10)
	return v, nil
}

// ErrUnknown: there is no property of that name.
var ErrUnknown = errors.New("unknown property")

// ValidateTopic says why a topic config cannot have a value, or nil: the key is
// unknown (ErrUnknown), the value is of another type or out of range, or this node
// cannot do what it asks for.
func ValidateTopic(key, val string) error {
	p, ok := LookupTopic(key)
	if !ok {
		return fmt.Errorf("%w: %s is not a topic config%s", ErrUnknown, key, suggest(key, topicTable()))
	}
	v, err := p.parse(val)
	if err != nil {
		return err
	}
	if p.Status == Refused && !p.isDefault(v) {
		return &ValueError{Key: key, Value: val, Want: "refused: " + p.Why}
	}
	return nil
}

// ValidateTopicSet checks all overrides of a topic, each by itself and against each other.
func (c *Config) ValidateTopicSet(overrides map[string]string) error {
	var errs []error
	for _, p := range topicTable().rows { // table order: the same mistakes give the same text
		if val, ok := overrides[p.Name]; ok {
			errs = append(errs, ValidateTopic(p.Name, val))
		}
	}
	for key, val := range overrides {
		if _, ok := LookupTopic(key); !ok {
			errs = append(errs, ValidateTopic(key, val))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	t := c.Topic(overrides)
	if t.MinCompactionLagMs > t.MaxCompactionLagMs {
		return &ValueError{
			Key: "min.compaction.lag.ms", Value: strconv.FormatInt(t.MinCompactionLagMs, 10),
			Want: fmt.Sprintf("must not exceed max.compaction.lag.ms=%d", t.MaxCompactionLagMs),
		}
	}
	return nil
}
