package image

import (
	"fmt"
	"slices"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// topic returns a topic that may be changed in place.
func (b *builder) topic(id model.UUID) (*Topic, error) {
	if t := b.owned[id]; t != nil {
		return t, nil
	}
	t, ok := b.topics.get(id)
	if !ok {
		return nil, fmt.Errorf("no topic has the id %s", id)
	}
	c := *t
	b.own(&c)
	return &c, nil
}

// own puts a topic of this builder's into the image.
func (b *builder) own(t *Topic) {
	if b.owned == nil {
		b.owned = map[model.UUID]*Topic{}
	}
	b.owned[t.ID] = t
	b.topics = b.topics.put(b.edit, t.ID, t)
}

func (b *builder) createTopic(r *record.TopicRecord) error {
	if id, ok := b.names.get(r.Name); ok {
		return fmt.Errorf("topic %q exists with the id %s", r.Name, id)
	}
	if t, ok := b.topics.get(r.TopicID); ok {
		return fmt.Errorf("id %s is that of topic %q", r.TopicID, t.Name)
	}
	b.own(newTopic(r.Name, r.TopicID))
	b.names = b.names.put(b.edit, r.Name, r.TopicID)
	if key, ok := collider(r.Name); ok {
		b.colliders = b.colliders.put(b.edit, key, struct{}{})
	}
	b.delta.topic(r.TopicID)
	return nil
}

// collider is a name's place among those that can collide: only names with '.'
// or '_' can.
func collider(name string) (nameKey, bool) {
	for i := range len(name) {
		if name[i] == '.' || name[i] == '_' {
			return nameKey{model.CollisionKey(name), name}, true
		}
	}
	return nameKey{}, false
}

func (b *builder) removeTopic(r *record.RemoveTopicRecord) error {
	t, ok := b.topics.get(r.TopicID)
	if !ok {
		return fmt.Errorf("no topic has the id %s", r.TopicID)
	}
	d := b.delta.topic(t.ID)
	for n, p := range t.Partitions() {
		b.index(model.TopicIDPartition{ID: t.ID, Partition: n}, p.Replicas, nil)
		d.touch(n)
	}
	b.topics = b.topics.del(b.edit, t.ID)
	b.names = b.names.del(b.edit, t.Name)
	if key, ok := collider(t.Name); ok {
		b.colliders = b.colliders.del(b.edit, key)
	}
	delete(b.owned, t.ID)
	if res := (ConfigResource{TopicConfig, t.Name}); b.Config(res) != nil {
		b.configs = b.configs.del(b.edit, res)
		b.delta.config(res)
	}
	return nil
}

func (b *builder) setPartition(r *record.PartitionRecord) error {
	t, err := b.topic(r.TopicID)
	if err != nil {
		return err
	}
	p, err := newPartition(r)
	if err != nil {
		return err
	}
	b.put(t, r.PartitionID, p)
	return nil
}

func (b *builder) changePartition(r *record.PartitionChangeRecord) error {
	t, err := b.topic(r.TopicID)
	if err != nil {
		return err
	}
	p, ok := t.Partition(r.PartitionID)
	if !ok {
		return fmt.Errorf("topic %q has no partition %d", t.Name, r.PartitionID)
	}
	next, err := p.change(r)
	if err != nil {
		return err
	}
	b.put(t, r.PartitionID, next)
	return nil
}

// put replaces or adds a partition of a topic of this builder's.
func (b *builder) put(t *Topic, number int32, p *Partition) {
	var before []model.NodeID
	if old, ok := t.Partition(number); ok {
		before = old.Replicas
	}
	b.index(model.TopicIDPartition{ID: t.ID, Partition: number}, before, p.Replicas)
	t.parts = t.parts.put(b.edit, number, p)
	b.delta.topic(t.ID).touch(number)
}

// index keeps the index by broker: a partition's replicas were before and are
// after (INV-IMAGE-3).
func (b *builder) index(tp model.TopicIDPartition, before, after []model.NodeID) {
	for _, id := range before {
		if slices.Contains(after, id) {
			continue
		}
		held, _ := b.onNode.get(id)
		if held = held.del(b.edit, tp); held.len() > 0 {
			b.onNode = b.onNode.put(b.edit, id, held)
		} else {
			b.onNode = b.onNode.del(b.edit, id)
		}
	}
	for _, id := range after {
		if slices.Contains(before, id) {
			continue
		}
		held, ok := b.onNode.get(id)
		if !ok {
			held = newTree[model.TopicIDPartition, struct{}](cmpPartition)
		}
		b.onNode = b.onNode.put(b.edit, id, held.put(b.edit, tp, struct{}{}))
	}
}

// clearELR forgets the eligible leader replicas of one topic or of all.
func (b *builder) clearELR(r *record.ClearElrRecord) error {
	var ids []model.UUID
	if r.TopicName != "" {
		id, ok := b.names.get(r.TopicName)
		if !ok {
			return fmt.Errorf("no topic is called %q", r.TopicName)
		}
		ids = []model.UUID{id}
	} else {
		for id := range b.topics.all() {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		if err := b.clearTopicELR(id); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) clearTopicELR(id model.UUID) error {
	t, _ := b.topics.get(id)
	var have []int32
	for n, p := range t.Partitions() {
		if len(p.ELR) > 0 || len(p.LastKnownELR) > 0 {
			have = append(have, n)
		}
	}
	for _, n := range have {
		r := record.NewPartitionChangeRecord()
		r.PartitionID, r.TopicID = n, id
		r.EligibleLeaderReplicas, r.LastKnownELR = []int32{}, []int32{}
		if err := b.changePartition(r); err != nil {
			return err
		}
	}
	return nil
}
