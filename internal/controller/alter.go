package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// alterPartition decides AlterPartition v2-3 (KAFKA.md 6): a leader asks for
// another ISR, or says that it has recovered.
func (c *Controller) alterPartition(env Env, req *kmsg.AlterPartitionRequest) Result {
	resp := kmsg.NewPtrAlterPartitionResponse()
	b, e := checkEpoch(env.Image, req.BrokerID, req.BrokerEpoch)
	if e != nil {
		resp.ErrorCode = e.Code
		return Result{Response: resp}
	}
	var recs []record.Metadata
	done := map[model.TopicIDPartition]bool{}
	for _, t := range req.Topics {
		rt := kmsg.NewAlterPartitionResponseTopic()
		rt.TopidID = t.TopicID // kmsg spells it so
		topic, known := env.Image.TopicByID(t.TopicID)
		for i := range t.Partitions {
			want := &t.Partitions[i]
			tp := model.TopicIDPartition{ID: t.TopicID, Partition: want.Partition}
			rp := kmsg.NewAlterPartitionResponseTopicPartition()
			rp.Partition = want.Partition
			switch {
			case !known:
				rp.ErrorCode = kerr.UnknownTopicID.Code
			case done[tp]:
				rp.ErrorCode = kerr.InvalidRequest.Code
			default:
				done[tp] = true
				if r := c.alterOne(env.Image, b, topic, want, req.Version, &rp); r != nil {
					recs = append(recs, r)
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return Result{Records: recs, Response: resp}
}

// alterOne decides one partition and fills in its answer.
func (c *Controller) alterOne(img *image.Image, b *image.Broker, t *image.Topic, want *kmsg.AlterPartitionRequestTopicPartition,
	version int16, resp *kmsg.AlterPartitionResponseTopicPartition,
) record.Metadata {
	p, ok := t.Partition(want.Partition)
	if !ok {
		resp.ErrorCode = kerr.UnknownTopicOrPartition.Code
		return nil
	}
	isr, epochs := nodes(want.NewISR), make(map[model.NodeID]int64)
	if version >= 3 {
		isr = isr[:0]
		for _, s := range want.NewEpochISR {
			isr = append(isr, model.NodeID(s.BrokerID))
			epochs[model.NodeID(s.BrokerID)] = s.BrokerEpoch
		}
	}
	if e := checkAlter(img, b, p, want, isr, epochs); e != nil {
		resp.ErrorCode = e.Code
		return nil
	}
	g := c.newChange(img, t, want.Partition, p)
	g.accept = func(r model.NodeID) bool { return active(img, r) && onlineDir(img, p, r) }
	g.isr, g.recovery = isr, want.LeaderRecoveryState
	if c.uncleanAllowed(img, t.Name) {
		g.election = unclean
	}
	r := g.record()
	resp.LeaderID, resp.LeaderEpoch = int32(g.leader), int32(p.LeaderEpoch)
	resp.ISR, resp.LeaderRecoveryState, resp.PartitionEpoch = ids(g.isr), g.recovery, p.PartitionEpoch
	if r == nil {
		return nil
	}
	resp.PartitionEpoch++
	if r.Leader != noChange {
		resp.LeaderEpoch++
	}
	if g.leader != b.ID {
		// The change completes a reassignment that moves the leader away: it is made,
		// and the one who asked learns that it leads no more.
		*resp = kmsg.AlterPartitionResponseTopicPartition{Partition: want.Partition, ErrorCode: kerr.NewLeaderElected.Code}
	}
	return r
}

func checkAlter(img *image.Image, b *image.Broker, p *image.Partition, want *kmsg.AlterPartitionRequestTopicPartition,
	isr []model.NodeID, epochs map[model.NodeID]int64,
) *kerr.Error {
	switch {
	case want.LeaderEpoch > int32(p.LeaderEpoch), want.PartitionEpoch > p.PartitionEpoch:
		return kerr.NotController // this controller is behind; the new one will know
	case want.LeaderEpoch < int32(p.LeaderEpoch):
		return kerr.FencedLeaderEpoch
	case b.ID != p.Leader:
		return kerr.InvalidRequest
	case want.PartitionEpoch < p.PartitionEpoch:
		return kerr.InvalidUpdateVersion
	case len(isr) > len(p.Replicas), !subset(isr, p.Replicas), hasTwice(isr), !slices.Contains(isr, p.Leader):
		return kerr.InvalidRequest
	case want.LeaderRecoveryState != recovered && want.LeaderRecoveryState != recovering:
		return kerr.InvalidRequest
	case want.LeaderRecoveryState == recovering && (len(isr) > 1 || p.RecoveryState == recovered):
		return kerr.InvalidRequest
	}
	for _, r := range isr {
		m, ok := img.Broker(r)
		epoch, given := epochs[r]
		if !ok || m.Fenced || m.InControlledShutdown || given && epoch != -1 && epoch != int64(m.Epoch) {
			return kerr.IneligibleReplica
		}
	}
	return nil
}

func hasTwice(list []model.NodeID) bool {
	for i, n := range list {
		if slices.Contains(list[:i], n) {
			return true
		}
	}
	return false
}

// electLeaders decides ElectLeaders v0-2: type 0 gives leadership back to the
// preferred replicas, type 1 elects even where records may be lost.
func (c *Controller) electLeaders(env Env, req *kmsg.ElectLeadersRequest) Result {
	resp := kmsg.NewPtrElectLeadersResponse()
	if req.ElectionType != 0 && req.ElectionType != 1 {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return Result{Response: resp}
	}
	kind := preferred
	if req.ElectionType == 1 {
		kind = unclean
	}
	var recs []record.Metadata
	elect := func(t *image.Topic, rt *kmsg.ElectLeadersResponseTopic, id int32, all bool) {
		r, e := c.electOne(env.Image, t, id, kind)
		if r != nil {
			recs = append(recs, r)
		}
		if all && e != nil && e.code == kerr.ElectionNotNeeded.Code {
			return // in an answer for all partitions these are left out
		}
		rp := kmsg.NewElectLeadersResponseTopicPartition()
		rp.Partition = id
		if e != nil {
			rp.ErrorCode, rp.ErrorMessage = e.code, text(e.text)
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	if req.Topics == nil {
		for t := range env.Image.Topics() {
			rt := kmsg.NewElectLeadersResponseTopic()
			rt.Topic = t.Name
			for id := range t.Partitions() {
				elect(t, &rt, id, true)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return Result{Records: recs, Response: resp}
	}
	done := map[model.TopicPartition]bool{}
	for _, want := range req.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = want.Topic
		t, _ := env.Image.Topic(want.Topic)
		for _, id := range want.Partitions {
			if tp := (model.TopicPartition{Topic: want.Topic, Partition: id}); !done[tp] {
				done[tp] = true
				elect(t, &rt, id, false)
			}
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return Result{Records: recs, Response: resp}
}

// electOne elects the leader of one partition; t is nil for an unknown topic.
func (c *Controller) electOne(img *image.Image, t *image.Topic, id int32, kind election) (record.Metadata, *refusal) {
	if t == nil {
		return nil, refuse(kerr.UnknownTopicOrPartition, "No such topic")
	}
	p, ok := t.Partition(id)
	if !ok {
		return nil, refuse(kerr.UnknownTopicOrPartition, "No such partition as %s-%d", t.Name, id)
	}
	if kind == preferred && len(p.Replicas) > 0 && p.Leader == p.Replicas[0] || kind == unclean && p.Leader != noLeader {
		return nil, refuse(kerr.ElectionNotNeeded, "The partition has the leader it should have.")
	}
	g := c.newChange(img, t, id, p)
	g.accept = func(r model.NodeID) bool { return active(img, r) && onlineDir(img, p, r) }
	g.election = kind
	r := g.record()
	if r == nil || r.Leader == noChange {
		if kind == preferred {
			return nil, refuse(kerr.PreferredLeaderNotAvailable, "The preferred replica %d may not lead now; in sync are %s.", p.Replicas[0], listed(p.ISR))
		}
		return nil, refuse(kerr.EligibleLeadersNotAvailable, "No replica of %s lives.", listed(p.Replicas))
	}
	if kind == preferred && g.leader != p.Replicas[0] {
		return r, refuse(kerr.PreferredLeaderNotAvailable, "The preferred replica %d may not lead now; %d does.", p.Replicas[0], g.leader)
	}
	return r, nil
}
