package controller

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// A reassignment moves a partition to other brokers while it is in use
// (KAFKA.md 6):
//
//	replicas  1 2 3            asked for: 3 4
//	begun     replicas 3 4 1 2   adding 4   removing 1 2
//	4 in sync replicas 3 4                  the ones removed are dropped
//
// change.completeReassignment makes the last step, whenever a change of the ISR
// or of the brokers makes it possible. A cancelled reassignment goes back to the
// replicas that are not being added.

// alterReassignments decides AlterPartitionReassignments v0-1.
func (c *Controller) alterReassignments(env Env, req *kmsg.AlterPartitionAssignmentsRequest) Result {
	resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
	var recs []record.Metadata
	done := map[model.TopicPartition]bool{}
	for _, t := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = t.Topic
		for i := range t.Partitions {
			want := &t.Partitions[i]
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition = want.Partition
			tp := model.TopicPartition{Topic: t.Topic, Partition: want.Partition}
			var r record.Metadata
			e := refuse(kerr.InvalidRequest, "The partition is named twice.")
			if !done[tp] {
				done[tp] = true
				r, e = c.reassign(env.Image, tp, want.Replicas, req.Version >= 1 && !req.AllowReplicationFactorChange)
			}
			if e != nil {
				rp.ErrorCode, rp.ErrorMessage = e.code, text(e.text)
			} else if r != nil {
				recs = append(recs, r)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return Result{Records: recs, Response: resp}
}

// reassign decides one partition; nil target cancels.
func (c *Controller) reassign(img *image.Image, tp model.TopicPartition, target []int32, sameFactor bool) (record.Metadata, *refusal) {
	t, ok := img.Topic(tp.Topic)
	if !ok {
		return nil, refuse(kerr.UnknownTopicOrPartition, "Unable to find a topic named %s.", tp.Topic)
	}
	p, ok := t.Partition(tp.Partition)
	if !ok {
		return nil, refuse(kerr.UnknownTopicOrPartition, "Unable to find partition %s.", tp)
	}
	g := c.newChange(img, t, tp.Partition, p)
	g.accept = func(r model.NodeID) bool {
		return active(img, r) && (!slices.Contains(p.Replicas, r) || onlineDir(img, p, r))
	}
	if c.uncleanAllowed(img, t.Name) {
		g.election = unclean
	}
	before := without(p.Replicas, p.Adding...) // as it was before any reassignment
	wish := nodes(target)
	if target == nil {
		if len(p.Adding) == 0 && len(p.Removing) == 0 {
			return nil, refuse(kerr.NoReassignmentInProgress, "No partition reassignment is in progress.")
		}
		if len(without(p.ISR, p.Adding...)) == 0 && len(p.ISR) > 0 && g.election != unclean {
			return nil, refuse(kerr.InvalidReplicaAssignment, "The reassignment cannot be cancelled: of the replicas before it, %s, none is in sync.", listed(before))
		}
		g.isr = without(p.ISR, p.Adding...)
		g.adding, g.removing, wish = nil, nil, before
	} else {
		if e := checkTarget(img, wish); e != nil {
			return nil, e
		}
		if sameFactor && len(wish) != len(before) {
			return nil, refuse(kerr.InvalidReplicationFactor, "The replication factor is %d and would become %d.", len(before), len(wish))
		}
		g.adding, g.removing = without(wish, before...), without(p.Replicas, wish...)
		wish = append(wish, g.removing...)
	}
	g.setReplicas(img, wish)
	if r := g.record(); r != nil {
		return r, nil
	}
	return nil, nil
}

func checkTarget(img *image.Image, target []model.NodeID) *refusal {
	if len(target) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	for i, r := range target {
		if slices.Contains(target[:i], r) {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", r)
		}
		if _, ok := img.Broker(r); !ok {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", r)
		}
	}
	return nil
}

// setReplicas wishes for a replica set; those that stay keep their folders.
func (g *change) setReplicas(img *image.Image, replicas []model.NodeID) {
	g.replicas = replicas
	g.dirs = make([]model.UUID, len(replicas))
	for i, r := range replicas {
		if at := slices.Index(g.p.Replicas, r); at >= 0 && at < len(g.p.Dirs) {
			g.dirs[i] = g.p.Dirs[at]
		} else {
			g.dirs[i] = defaultDir(img, r)
		}
	}
}

// maxRebalance is how many leaderships one run of the rebalancer moves.
const maxRebalance = 1000

// rebalance gives leaderships back to the preferred replicas that may lead.
func (c *Controller) rebalance(env Env) []Result {
	if c.cfg.Rebalance == 0 || env.Now.Before(c.rebalanceAt) {
		return nil
	}
	c.rebalanceAt = env.Now.Add(c.cfg.Rebalance)
	if env.Image.NumBrokers() < 2 {
		return nil
	}
	var recs []record.Metadata
	for t := range env.Image.Topics() {
		for id, p := range t.Partitions() {
			if len(p.Replicas) == 0 || p.Leader == p.Replicas[0] || !slices.Contains(p.ISR, p.Replicas[0]) {
				continue
			}
			if r, e := c.electOne(env.Image, t, id, preferred); r != nil && e == nil {
				recs = append(recs, r)
			}
			if len(recs) == maxRebalance {
				c.rebalanceAt = env.Now.Add(time.Second) // the rest soon, but not at once
				return []Result{{Records: recs}}
			}
		}
	}
	if recs == nil {
		return nil
	}
	return []Result{{Records: recs}}
}
