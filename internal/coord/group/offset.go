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
	at       int64        // when, milliseconds
	expires  int64        // explicit time of expiry, -1 for none
	topicID  model.UUID   // of the topic at that time; zero if unknown
	record   model.Offset // where the log has it
}

// ofAnother reports whether it was committed for another topic than this one.
func (o offset) ofAnother(id model.UUID) bool { return o.topicID != model.ZeroUUID && o.topicID != id }

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

// remove takes out a partition, of open transactions too.
func (o *offsets) remove(topic string, partition int32) {
	drop(o.topics, topic, partition)
	for producer, topics := range o.pending {
		if drop(topics, topic, partition); len(topics) == 0 {
			delete(o.pending, producer)
		}
	}
}

func drop(topics map[string]map[int32]offset, topic string, partition int32) {
	delete(topics[topic], partition)
	if len(topics[topic]) == 0 {
		delete(topics, topic)
	}
}

// names lists the topics that have an offset, committed or pending.
func (o *offsets) names() []string {
	all := make(map[string]bool)
	for topic := range o.topics {
		all[topic] = true
	}
	for _, topics := range o.pending {
		for topic := range topics {
			all[topic] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// partitions lists those of a topic that have an offset, committed or pending.
func (o *offsets) partitions(topic string) []int32 {
	all := make(map[int32]bool)
	for p := range o.topics[topic] {
		all[p] = true
	}
	for _, topics := range o.pending {
		for p := range topics[topic] {
			all[p] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
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

// endTxn makes what a transaction has pending count, or forgets it. A commit that
// came to the log after the transaction's stays.
func (o *offsets) endTxn(producer int64, commit bool) {
	topics := o.pending[producer]
	delete(o.pending, producer)
	if !commit {
		return
	}
	for topic, parts := range topics {
		for p, to := range parts {
			if have, ok := o.topics[topic][p]; !ok || have.record < to.record {
				put(&o.topics, topic, p, to)
			}
		}
	}
}

// replayOffset takes an OffsetCommit record.
func (m *Machine) replayOffset(at model.Offset, by model.Producer, r coord.Record) {
	var key kmsg.OffsetCommitKey
	if key.ReadFrom(r.Key) != nil {
		return
	}
	if r.Value == nil {
		if g := m.groups[key.Group]; g != nil {
			g.offsets.remove(key.Topic, key.Partition)
		}
		return
	}
	v := kmsg.NewOffsetCommitValue()
	if v.ReadFrom(r.Value) != nil {
		return
	}
	o := offset{offset: v.Offset, epoch: -1, metadata: v.Metadata, at: v.CommitTimestamp, expires: -1, topicID: v.TopicID, record: at}
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

// writeOffset records a commit. The group begins with it if there is none.
func (d *decision) writeOffset(group, topic string, partition int32, o offset) {
	v := kmsg.NewOffsetCommitValue()
	v.Version = offsetValueVersion
	if o.expires >= 0 {
		v.Version, v.ExpireTimestamp = retentionVersion, o.expires
	}
	v.Offset, v.LeaderEpoch, v.Metadata, v.CommitTimestamp, v.TopicID = o.offset, o.epoch, o.metadata, o.at, o.topicID
	d.record(offsetKey(group, topic, partition), v.AppendTo(nil))
}

// dropOffsets records that what was committed for a topic is gone, open
// transactions included.
func (d *decision) dropOffsets(topic string) {
	for _, p := range d.g.offsets.partitions(topic) {
		d.record(offsetKey(d.g.id, topic, p), nil)
	}
}

// dropStale is dropOffsets for what was committed for a topic that is no more.
func (d *decision) dropStale(name string) {
	o := &d.g.offsets
	topic, ok := d.Image.Topic(name)
	for _, p := range o.partitions(name) {
		if has, committed := o.topics[name][p]; !ok || committed && has.ofAnother(topic.ID) {
			d.record(offsetKey(d.g.id, name, p), nil)
		}
	}
}

// expireOffsets drops the offsets whose time is over, and groups with nothing left.
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
		for _, p := range slices.Sorted(maps.Keys(o.topics[topic])) {
			if d.expired(topic, o.topics[topic][p]) && !o.isPending(topic, p) {
				d.record(offsetKey(d.g.id, topic, p), nil)
			} else {
				left++
			}
		}
	}
	if left == 0 && len(o.pending) == 0 && c.state == empty && len(c.pending) == 0 {
		d.record(groupKey(d.g.id), nil)
	}
}

// expired reports whether an offset's time is over (KAFKA.md 8.3): counted from
// the commit for groups that only keep offsets and for topics that no member of a
// stable consumer group is subscribed to, and from when the last member left.
// Offsets of other groups with members stay.
func (d *decision) expired(topic string, o offset) bool {
	c := &d.g.classic
	since := o.at
	switch {
	case c.protocolType == "":
	case c.state == empty:
		if c.since >= 0 {
			since = c.since
		}
	case c.state == stable:
		if subscribed, known := d.g.subscribed(topic); subscribed || !known {
			return false
		}
	default:
		return false
	}
	now := d.Now.UnixMilli()
	if o.expires >= 0 {
		return now >= o.expires
	}
	return now-since >= d.m.cfg.OffsetsRetention.Milliseconds()
}
