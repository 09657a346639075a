package group

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/model"
)

// offset is what a group has committed for a partition.
type offset struct {
	offset   int64
	epoch    int32
	metadata string
	at       int64      // when, milliseconds
	expires  int64      // explicit time of expiry, -1 for none
	topicID  model.UUID // of the topic at that time; zero if unknown
}

// offsets are a group's committed offsets, and those of transactions that have
// not ended.
type offsets struct {
	topics map[string]map[int32]offset

	// pending has, per producer, what its open transaction commits.
	pending map[int64]map[string]map[int32]offset
}

func (o *offsets) empty() bool { return len(o.topics) == 0 && len(o.pending) == 0 }

func put(topics *map[string]map[int32]offset, topic string, partition int32, to offset) {
	if *topics == nil {
		*topics = make(map[string]map[int32]offset)
	}
	if (*topics)[topic] == nil {
		(*topics)[topic] = make(map[int32]offset)
	}
	(*topics)[topic][partition] = to
}

func (o *offsets) remove(topic string, partition int32) {
	delete(o.topics[topic], partition)
	if len(o.topics[topic]) == 0 {
		delete(o.topics, topic)
	}
}

// isPending reports whether an open transaction commits an offset of the partition.
func (o *offsets) isPending(topic string, partition int32) bool {
	for _, topics := range o.pending {
		if _, ok := topics[topic][partition]; ok {
			return true
		}
	}
	return false
}

func (o *offsets) endTxn(producer int64, commit bool) {
	topics := o.pending[producer]
	delete(o.pending, producer)
	if !commit {
		return
	}
	for topic, parts := range topics {
		for p, to := range parts {
			put(&o.topics, topic, p, to)
		}
	}
}

// replayOffset takes an OffsetCommit record.
func (m *Machine) replayOffset(by model.Producer, r coord.Record) {
	var key kmsg.OffsetCommitKey
	if key.ReadFrom(r.Key) != nil {
		return
	}
	if r.Value == nil {
		if g := m.groups[key.Group]; g != nil {
			g.offsets.remove(key.Topic, key.Partition)
			m.forget(g)
		}
		return
	}
	v := kmsg.NewOffsetCommitValue()
	if v.ReadFrom(r.Value) != nil {
		return
	}
	o := offset{offset: v.Offset, epoch: -1, metadata: v.Metadata, at: v.CommitTimestamp, expires: -1, topicID: v.TopicID}
	if v.Version >= 3 {
		o.epoch = v.LeaderEpoch
	}
	if v.Version == retentionVersion {
		o.expires = v.ExpireTimestamp
	}
	g := m.make(key.Group)
	if by.ID < 0 {
		put(&g.offsets.topics, key.Topic, key.Partition, o)
		return
	}
	if g.offsets.pending == nil {
		g.offsets.pending = make(map[int64]map[string]map[int32]offset)
	}
	topics := g.offsets.pending[by.ID]
	put(&topics, key.Topic, key.Partition, o)
	g.offsets.pending[by.ID] = topics
}

// writeOffset records a commit.
func (d *decision) writeOffset(topic string, partition int32, o offset) {
	v := kmsg.NewOffsetCommitValue()
	v.Version = offsetValueVersion
	if o.expires >= 0 {
		v.Version, v.ExpireTimestamp = retentionVersion, o.expires
	}
	v.Offset, v.LeaderEpoch, v.Metadata, v.CommitTimestamp, v.TopicID = o.offset, o.epoch, o.metadata, o.at, o.topicID
	d.record(offsetKey(d.g.id, topic, partition), v.AppendTo(nil))
}

// dropOffsets records that what was committed for a topic is gone.
func (d *decision) dropOffsets(topic string) {
	for _, p := range slices.Sorted(maps.Keys(d.g.offsets.topics[topic])) {
		d.record(offsetKey(d.g.id, topic, p), nil)
	}
}

// expireOffsets drops offsets that are older than the retention: those of groups
// without members since the group became empty, those that nobody is subscribed
// to since their commit (KAFKA.md 8.3).
func (m *Machine) expireOffsets(env coord.Env) coord.Result {
	d := m.begin(env, nil)
	d.timer(expiryTimer, m.cfg.OffsetsCheck)
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		d.g = m.groups[id]
		d.expireGroup()
	}
	return d.Result
}

func (d *decision) expireGroup() {
	o, c := &d.g.offsets, &d.g.classic
	left := 0
	for _, topic := range slices.Sorted(maps.Keys(o.topics)) {
		subscribed, known := d.g.subscribed(topic)
		for _, p := range slices.Sorted(maps.Keys(o.topics[topic])) {
			if d.expired(o.topics[topic][p], subscribed, known) && !o.isPending(topic, p) {
				d.record(offsetKey(d.g.id, topic, p), nil)
			} else {
				left++
			}
		}
	}
	if left == 0 && len(o.pending) == 0 && c.state == empty && c.generation > 0 && len(c.pending) == 0 {
		d.record(groupKey(d.g.id), nil)
	}
}

func (d *decision) expired(o offset, subscribed, known bool) bool {
	c := &d.g.classic
	now := d.Now.UnixMilli()
	if o.expires >= 0 {
		return now >= o.expires
	}
	since := o.at
	switch {
	case len(c.members) > 0 && (!known || subscribed || c.state != stable):
		return false
	case len(c.members) == 0 && c.protocolType != "":
		since = max(since, c.since)
	}
	return now-since >= d.m.cfg.OffsetsRetention.Milliseconds()
}
