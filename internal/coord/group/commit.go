package group

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// mayCommit says why a commit is refused, or nil (KAFKA.md 8.3).
func (d *decision) mayCommit(req *kmsg.OffsetCommitRequest) *kerr.Error {
	if d.g == nil {
		switch {
		case req.Generation < 0:
			return nil // a group that only keeps offsets begins
		case req.Version >= 9:
			return kerr.GroupIDNotFound
		}
		return kerr.IllegalGeneration
	}
	c := &d.g.classic
	if req.Generation < 0 && req.MemberID == "" && req.InstanceID == nil {
		if len(c.members) > 0 || c.state != empty {
			return kerr.UnknownMemberID
		}
		return nil
	}
	if req.Generation < 0 && c.state == empty {
		return nil
	}
	m, err := d.g.member(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		return err
	}
	if c.state == completing {
		return kerr.RebalanceInProgress
	}
	d.touch(m)
	return nil
}

// commit decides OffsetCommit.
func (m *Machine) commit(env coord.Env, req *kmsg.OffsetCommitRequest) coord.Result {
	r := kmsg.NewPtrOffsetCommitResponse()
	d := m.begin(env, m.get(req.Group))
	d.About, d.Response = req.Group, r
	err := d.mayCommit(req)
	expires := int64(-1)
	if req.Version >= 2 && req.Version <= 4 && req.RetentionTimeMillis >= 0 {
		expires = env.Now.UnixMilli() + req.RetentionTimeMillis
	}
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		topic, missing := resolve(env.Image, req.Version >= 10, rt.Topic, rt.TopicID)
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition = rp.Partition
			metadata := ""
			if rp.Metadata != nil {
				metadata = *rp.Metadata
			}
			switch {
			case err != nil:
				p.ErrorCode = err.Code
			case missing != nil:
				p.ErrorCode = missing.Code
			case !hasPartition(topic, rp.Partition):
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case len(metadata) > m.cfg.MaxMetadata:
				p.ErrorCode = kerr.OffsetMetadataTooLarge.Code
			default:
				epoch := int32(-1)
				if req.Version >= 6 {
					epoch = rp.LeaderEpoch
				}
				d.writeOffset(req.Group, topic.Name, rp.Partition, offset{offset: rp.Offset, epoch: epoch, metadata: metadata, at: env.Now.UnixMilli(), expires: expires, topicID: topic.ID})
			}
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
	return d.Result
}

// resolve finds the topic that a request means, or says how it is missing.
func resolve(img *image.Image, byID bool, name string, id model.UUID) (*image.Topic, *kerr.Error) {
	if byID {
		if t, ok := img.TopicByID(id); ok {
			return t, nil
		}
		return nil, kerr.UnknownTopicID
	}
	if t, ok := img.Topic(name); ok {
		return t, nil
	}
	return nil, kerr.UnknownTopicOrPartition
}

func hasPartition(t *image.Topic, p int32) bool {
	_, ok := t.Partition(p)
	return ok
}

// fetch decides OffsetFetch for the one group that is asked about.
func (m *Machine) fetch(env coord.Env, req *kmsg.OffsetFetchRequest) coord.Result {
	ask := &req.Groups[0]
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = ask.Group
	g := m.get(ask.Group)
	if ask.Topics == nil {
		m.fetchAll(env, g, req, &out)
	}
	for _, rt := range ask.Topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		name, missing := rt.Topic, (*kerr.Error)(nil)
		if req.Version >= 10 {
			topic, err := resolve(env.Image, true, "", rt.TopicID)
			if missing = err; err == nil {
				name = topic.Name
			}
		}
		for _, p := range rt.Partitions {
			tp := fetched(g, name, rt.TopicID, p, req.RequireStable)
			if missing != nil {
				tp.ErrorCode = missing.Code
			}
			t.Partitions = append(t.Partitions, tp)
		}
		out.Topics = append(out.Topics, t)
	}
	r := kmsg.NewPtrOffsetFetchResponse()
	r.Groups = append(r.Groups, out)
	return coord.Result{About: ask.Group, Response: r}
}

// fetchAll lists everything that the group has committed.
func (m *Machine) fetchAll(env coord.Env, g *group, req *kmsg.OffsetFetchRequest, out *kmsg.OffsetFetchResponseGroup) {
	if g == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(g.offsets.topics)) {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic = name
		if req.Version >= 10 {
			topic, ok := env.Image.Topic(name)
			if !ok {
				continue // it has no id any more
			}
			t.TopicID = topic.ID
		}
		for _, p := range slices.Sorted(maps.Keys(g.offsets.topics[name])) {
			t.Partitions = append(t.Partitions, fetched(g, name, t.TopicID, p, req.RequireStable))
		}
		out.Topics = append(out.Topics, t)
	}
}

// fetched is the answer for one partition. Who asks by id is not given what was
// committed for another topic of the same name.
func fetched(g *group, topic string, id model.UUID, partition int32, stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, -1, -1, new(string)
	if g == nil {
		return p
	}
	if stable && g.offsets.isPending(topic, partition) {
		p.ErrorCode = kerr.UnstableOffsetCommit.Code
		return p
	}
	if o, ok := g.offsets.topics[topic][partition]; ok && (id == model.ZeroUUID || !o.ofAnother(id)) {
		p.Offset, p.LeaderEpoch, p.Metadata = o.offset, o.epoch, &o.metadata
	}
	return p
}

// deleteOffsets decides OffsetDelete.
func (m *Machine) deleteOffsets(env coord.Env, req *kmsg.OffsetDeleteRequest) coord.Result {
	r := kmsg.NewPtrOffsetDeleteResponse()
	g := m.get(req.Group)
	d := m.begin(env, g)
	d.About, d.Response = req.Group, r
	switch {
	case req.Group == "":
		r.ErrorCode = kerr.InvalidGroupID.Code
	case g == nil:
		r.ErrorCode = kerr.GroupIDNotFound.Code
	case len(g.classic.members) > 0 && g.classic.protocolType != "consumer":
		r.ErrorCode = kerr.NonEmptyGroup.Code
	}
	if r.ErrorCode != 0 {
		return d.Result
	}
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetDeleteResponseTopic()
		t.Topic = rt.Topic
		topic, missing := resolve(env.Image, false, rt.Topic, model.ZeroUUID)
		subscribed, known := g.subscribed(rt.Topic)
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetDeleteResponseTopicPartition()
			p.Partition = rp.Partition
			_, has := g.offsets.topics[rt.Topic][rp.Partition]
			switch {
			case missing != nil || !hasPartition(topic, rp.Partition):
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case len(g.classic.members) > 0 && (subscribed || !known):
				p.ErrorCode = kerr.GroupSubscribedToTopic.Code
			case has || g.offsets.isPending(rt.Topic, rp.Partition):
				d.record(offsetKey(g.id, rt.Topic, rp.Partition), nil)
			}
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
	return d.Result
}
