package image

import (
	"iter"
	"maps"

	"ottla.dev/ottla/internal/model"
)

// A Delta says what differs between two images of one log. Topics, Brokers and
// Configs are exact; the flags mean that something was written, which now and
// then is what had been there before. The maps may be nil.
type Delta struct {
	From, To *Image

	Topics  map[model.UUID]*TopicDelta  // topics created, changed or deleted
	Brokers map[model.NodeID]struct{}   // brokers registered, changed or unregistered
	Configs map[ConfigResource]struct{} // resources whose configs differ

	Features, Controllers, ProducerIDs bool
	ACLs, Scram, Quotas, Tokens        bool
}

// A TopicDelta says what differs in one topic.
type TopicDelta struct {
	Name             string
	Created, Deleted bool
	// Partitions are those added or changed; of a deleted topic, all that it had.
	Partitions map[int32]struct{}
}

// Empty reports whether nothing differs.
func (d *Delta) Empty() bool {
	return len(d.Topics) == 0 && len(d.Brokers) == 0 && len(d.Configs) == 0 &&
		!d.Features && !d.Controllers && !d.ProducerIDs && !d.ACLs && !d.Scram && !d.Quotas && !d.Tokens
}

// Merge adds to d what next has changed since d.To and returns the sum: what
// differs between d.From and next.To. Both deltas are used up. A nil d is no
// change.
func (d *Delta) Merge(next *Delta) *Delta {
	if d == nil {
		return next
	}
	d.To = next.To
	for id, t := range next.Topics {
		have := d.topic(id)
		for n := range t.Partitions {
			have.touch(n)
		}
	}
	for id := range next.Brokers {
		d.broker(id)
	}
	for res := range next.Configs {
		d.config(res)
	}
	d.Features = d.Features || next.Features
	d.Controllers = d.Controllers || next.Controllers
	d.ProducerIDs = d.ProducerIDs || next.ProducerIDs
	d.ACLs = d.ACLs || next.ACLs
	d.Scram = d.Scram || next.Scram
	d.Quotas = d.Quotas || next.Quotas
	d.Tokens = d.Tokens || next.Tokens
	d.settle()
	return d
}

// topic returns the entry of a topic that may differ.
func (d *Delta) topic(id model.UUID) *TopicDelta {
	if t := d.Topics[id]; t != nil {
		return t
	}
	if d.Topics == nil {
		d.Topics = map[model.UUID]*TopicDelta{}
	}
	t := &TopicDelta{}
	d.Topics[id] = t
	return t
}

func (t *TopicDelta) touch(partition int32) {
	if t.Partitions == nil {
		t.Partitions = map[int32]struct{}{}
	}
	t.Partitions[partition] = struct{}{}
}

func (d *Delta) broker(id model.NodeID) {
	if d.Brokers == nil {
		d.Brokers = map[model.NodeID]struct{}{}
	}
	d.Brokers[id] = struct{}{}
}

// config notes a resource that may differ and reports whether it was noted before.
func (d *Delta) config(res ConfigResource) bool {
	if d.Configs == nil {
		d.Configs = map[ConfigResource]struct{}{}
	}
	n := len(d.Configs)
	d.Configs[res] = struct{}{}
	return len(d.Configs) == n
}

// settle drops what was touched but does not differ, and says of each topic what
// became of it. It costs O(touched).
func (d *Delta) settle() {
	for id := range d.Brokers {
		was, before := d.From.Broker(id)
		is, now := d.To.Broker(id)
		if before == now && (!before || was.equal(is)) {
			delete(d.Brokers, id)
		}
	}
	for res := range d.Configs {
		if maps.Equal(d.From.Config(res), d.To.Config(res)) {
			delete(d.Configs, res)
		}
	}
	for id, t := range d.Topics {
		was, before := d.From.TopicByID(id)
		is, now := d.To.TopicByID(id)
		t.Created, t.Deleted = now && !before, before && !now
		switch {
		case now:
			t.Name = is.Name
		case before:
			t.Name = was.Name
		}
		t.settle(was, is)
		if !before && !now || before && now && was.Name == is.Name && len(t.Partitions) == 0 {
			delete(d.Topics, id)
		}
	}
}

// settle drops the partitions that are the same in both; a topic that is not
// there, nil, has none.
func (t *TopicDelta) settle(was, is *Topic) {
	for n := range t.Partitions {
		a, before := was.partition(n)
		b, now := is.partition(n)
		if before == now && (!before || a.equal(b)) {
			delete(t.Partitions, n)
		}
	}
}

// partition is Partition for a topic that may be nil.
func (t *Topic) partition(n int32) (*Partition, bool) {
	if t == nil {
		return nil, false
	}
	return t.Partition(n)
}

// Diff compares two images that need not follow each other: the one that a
// broker has and the one of a snapshot that it was sent. It costs O(size).
func Diff(from, to *Image) *Delta {
	d := &Delta{From: from, To: to}
	for id := range union(from.brokers, to.brokers) {
		d.broker(id)
	}
	for res := range union(from.configs, to.configs) {
		d.config(res)
	}
	for id := range union(from.topics, to.topics) {
		was, _ := from.TopicByID(id)
		is, _ := to.TopicByID(id)
		if was == is {
			continue
		}
		t := d.topic(id)
		for _, side := range []*Topic{was, is} {
			if side == nil {
				continue
			}
			for n := range side.Partitions() {
				t.touch(n)
			}
		}
	}
	d.Features = !same(from.features, to.features, func(a, b int16) bool { return a == b })
	d.Controllers = !same(from.controllers, to.controllers, func(a, b *Controller) bool { return sameRecord(a.record(), b.record()) })
	d.ProducerIDs = from.nextPID != to.nextPID
	d.ACLs = !same(from.acls, to.acls, sameRecord)
	d.Scram = !same(from.scram, to.scram, sameRecord)
	d.Quotas = !same(from.quotas, to.quotas, sameRecord)
	d.Tokens = !same(from.tokens, to.tokens, sameRecord)
	d.settle()
	return d
}

// union yields the keys of both trees, those of both twice.
func union[K, V any](a, b tree[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, t := range []tree[K, V]{a, b} {
			for k, v := range t.all() {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// same reports whether two trees hold equal values under the same keys.
func same[K, V any](a, b tree[K, V], equal func(a, b V) bool) bool {
	if a.root == b.root {
		return true
	}
	if a.len() != b.len() {
		return false
	}
	for k, v := range a.all() {
		if w, ok := b.get(k); !ok || !equal(v, w) {
			return false
		}
	}
	return true
}
