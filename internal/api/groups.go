package api

import (
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/model"
)

// The classic group protocol (KAFKA.md 8.2): the coordinator of the group decides.

// joinGroup is JoinGroup, key 11, versions 0 to 9.
func (c call) joinGroup() {
	c.decide(c.msg.(*kmsg.JoinGroupRequest).Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrJoinGroupResponse()
		r.ErrorCode, r.Generation = code, -1
		return r
	})
}

// syncGroup is SyncGroup, key 14, versions 0 to 5.
func (c call) syncGroup() {
	c.decide(c.msg.(*kmsg.SyncGroupRequest).Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrSyncGroupResponse()
		r.ErrorCode = code
		return r
	})
}

// heartbeat is Heartbeat, key 12, versions 0 to 4.
func (c call) heartbeat() {
	c.decide(c.msg.(*kmsg.HeartbeatRequest).Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrHeartbeatResponse()
		r.ErrorCode = code
		return r
	})
}

// leaveGroup is LeaveGroup, key 13, versions 0 to 5.
func (c call) leaveGroup() {
	c.decide(c.msg.(*kmsg.LeaveGroupRequest).Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrLeaveGroupResponse()
		r.ErrorCode = code
		return r
	})
}

// offsetCommit is OffsetCommit, key 8, versions 2 to 10. KAFKA.md 8.3.
func (c call) offsetCommit() {
	req := c.msg.(*kmsg.OffsetCommitRequest)
	c.decide(req.Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrOffsetCommitResponse()
		for _, rt := range req.Topics {
			t := kmsg.NewOffsetCommitResponseTopic()
			t.Topic, t.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetCommitResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, code
				t.Partitions = append(t.Partitions, p)
			}
			r.Topics = append(r.Topics, t)
		}
		return r
	})
}

// offsetDelete is OffsetDelete, key 47, version 0.
func (c call) offsetDelete() {
	c.decide(c.msg.(*kmsg.OffsetDeleteRequest).Group, func(code int16) kmsg.Response {
		r := kmsg.NewPtrOffsetDeleteResponse()
		r.ErrorCode = code
		return r
	})
}

// offsetFetch is OffsetFetch, key 9, versions 1 to 10. v8 asks for several
// groups (KIP-709); older requests are turned into that form, and back.
func (c call) offsetFetch() {
	req, resp := c.msg.(*kmsg.OffsetFetchRequest), kmsg.NewPtrOffsetFetchResponse()
	groups := req.Groups
	if c.Version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{oldOffsetFetch(req)}
	}
	resp.Groups = make([]kmsg.OffsetFetchResponseGroup, len(groups))
	c.gather(len(groups), func(i int) (string, kmsg.Request) {
		one := kmsg.NewPtrOffsetFetchRequest()
		one.SetVersion(max(c.Version, 8))
		one.Groups, one.RequireStable = groups[i:i+1], req.RequireStable
		return groups[i].Group, one
	}, func(i int, r kmsg.Response, err error) {
		if err == nil {
			resp.Groups[i] = r.(*kmsg.OffsetFetchResponse).Groups[0]
			return
		}
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = groups[i].Group, code(err)
		resp.Groups[i] = g
	}, func() {
		if c.Version < 8 {
			oldOffsetFetchResponse(req, resp, c.Version)
		}
		c.reply(resp)
	})
}

func oldOffsetFetch(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.MemberEpoch = req.Group, -1
	if req.Topics != nil {
		g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(req.Topics))
	}
	for _, t := range req.Topics {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = t.Topic, t.Partitions
		g.Topics = append(g.Topics, gt)
	}
	return g
}

// oldOffsetFetchResponse moves the only group's answer to where versions below 8
// have it. Version 1 has no top-level error: every partition gets it.
func oldOffsetFetchResponse(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse, version int16) {
	g := resp.Groups[0]
	resp.Groups, resp.ErrorCode = nil, g.ErrorCode
	for _, gt := range g.Topics {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = gt.Topic
		for _, gp := range gt.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	if version >= 2 || g.ErrorCode == 0 {
		return
	}
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.ErrorCode = rp, -1, g.ErrorCode
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
}

// describeGroups is DescribeGroups, key 15, versions 0 to 6.
func (c call) describeGroups() {
	req, resp := c.msg.(*kmsg.DescribeGroupsRequest), kmsg.NewPtrDescribeGroupsResponse()
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(req.Groups))
	c.gather(len(req.Groups), func(i int) (string, kmsg.Request) {
		one := kmsg.NewPtrDescribeGroupsRequest()
		one.SetVersion(c.Version)
		one.Groups, one.IncludeAuthorizedOperations = req.Groups[i:i+1], req.IncludeAuthorizedOperations
		return req.Groups[i], one
	}, func(i int, r kmsg.Response, err error) {
		if err == nil {
			resp.Groups[i] = r.(*kmsg.DescribeGroupsResponse).Groups[0]
			return
		}
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.ErrorCode, g.AuthorizedOperations = req.Groups[i], code(err), notAsked
		resp.Groups[i] = g
	}, func() { c.reply(resp) })
}

// deleteGroups is DeleteGroups, key 42, versions 0 to 3.
func (c call) deleteGroups() {
	req, resp := c.msg.(*kmsg.DeleteGroupsRequest), kmsg.NewPtrDeleteGroupsResponse()
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(req.Groups))
	c.gather(len(req.Groups), func(i int) (string, kmsg.Request) {
		one := kmsg.NewPtrDeleteGroupsRequest()
		one.SetVersion(c.Version)
		one.Groups = req.Groups[i : i+1]
		return req.Groups[i], one
	}, func(i int, r kmsg.Response, err error) {
		if err == nil {
			resp.Groups[i] = r.(*kmsg.DeleteGroupsResponse).Groups[0]
			return
		}
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = req.Groups[i], code(err)
		resp.Groups[i] = g
	}, func() { c.reply(resp) })
}

// listGroups is ListGroups, key 16, versions 0 to 5: the groups of all
// coordinators on this node. v4 filters by state, v5 by type.
func (c call) listGroups() {
	resp := kmsg.NewPtrListGroupsResponse()
	shards := c.s.cfg.Broker.Coordinators(model.OffsetsTopic)
	if len(shards) == 0 {
		c.reply(resp)
		return
	}
	var mu sync.Mutex
	left := len(shards)
	for _, shard := range shards {
		shard.Do(c.msg, c.client(), func(r kmsg.Response, err error) {
			mu.Lock()
			if err != nil {
				resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
			} else {
				resp.Groups = append(resp.Groups, r.(*kmsg.ListGroupsResponse).Groups...)
			}
			left--
			last := left == 0
			mu.Unlock()
			if last {
				slices.SortFunc(resp.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return strings.Compare(a.Group, b.Group) })
				c.reply(resp)
			}
		})
	}
}
