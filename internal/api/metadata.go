package api

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// notAsked stands in fields of authorized operations that were not requested.
const notAsked = math.MinInt32

// metadata is Metadata, key 3, versions 0 to 13: brokers, and topics with their
// partitions. v1 controller and null topics, v4 auto-creation may be refused, v7
// leader epochs, v8 authorized operations, v10 topic ids, v12 topics asked by
// id, v13 top-level error. KAFKA.md 3.9.
//
// As in Kafka, asking for a topic that auto-creation may create answers 3 and
// starts the creation; unlike there, the answer waits until it is done, so the
// client's next try finds the topic.
func (c call) metadata() {
	req, resp := c.msg.(*kmsg.MetadataRequest), kmsg.NewPtrMetadataResponse()
	if c.Version < 12 && byID(req) {
		c.refuseIDs(req)
		return
	}
	img := c.image()
	listener := c.Conn().Listener()
	for b := range img.Brokers() {
		if b.Fenced {
			continue
		}
		if ep, ok := endpoint(img, b.ID, listener); ok {
			resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: int32(b.ID), Host: ep.Host, Port: int32(ep.Port), Rack: b.Rack})
		}
	}
	id := c.s.cfg.ClusterID.String()
	resp.ClusterID = &id
	resp.ControllerID = -1
	if len(resp.Brokers) > 0 { // in KRaft any broker will do
		resp.ControllerID = resp.Brokers[int(c.s.random()%uint64(len(resp.Brokers)))].NodeID
	}
	resp.AuthorizedOperations = notAsked
	if c.Version >= 8 && c.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	ops := int32(notAsked)
	if req.IncludeTopicAuthorizedOperations {
		ops = topicOperations
	}
	all := req.Topics == nil || c.Version == 0 && len(req.Topics) == 0
	if all {
		for t := range img.Topics() {
			resp.Topics = append(resp.Topics, c.topic(img, t, ops))
		}
	}
	var create []string
	for _, rt := range once(req.Topics) {
		t, missing := c.find(img, rt)
		if t != nil {
			resp.Topics = append(resp.Topics, c.topic(img, t, ops))
			continue
		}
		if missing.ErrorCode == kerr.UnknownTopicOrPartition.Code && c.mayCreate(req) {
			create = append(create, *missing.Topic)
		}
		missing.AuthorizedOperations = ops
		resp.Topics = append(resp.Topics, missing)
	}
	if len(create) > 0 {
		c.s.autoCreate(create, resp)
	}
	c.reply(resp)
}

func (c call) mayCreate(req *kmsg.MetadataRequest) bool {
	return (c.Version < 4 || req.AllowAutoTopicCreation) && c.s.cfg.Settings.Bool(config.AutoCreateTopicsEnable)
}

// find looks up a topic by id or name; where both are given the id wins.
func (c call) find(img *image.Image, rt kmsg.MetadataRequestTopic) (*image.Topic, kmsg.MetadataResponseTopic) {
	missing := kmsg.NewMetadataResponseTopic()
	if id := model.UUID(rt.TopicID); c.Version >= 10 && id != model.ZeroUUID {
		t, _ := img.TopicByID(id)
		missing.ErrorCode, missing.TopicID = kerr.UnknownTopicID.Code, rt.TopicID
		return t, missing
	}
	name := ""
	if rt.Topic != nil {
		name = *rt.Topic
	}
	t, _ := img.Topic(name)
	missing.Topic, missing.ErrorCode = &name, kerr.UnknownTopicOrPartition.Code
	missing.IsInternal = model.InternalTopic(name)
	if model.CheckTopicName(name) != nil {
		missing.ErrorCode = kerr.InvalidTopicException.Code
	}
	return t, missing
}

// byID reports whether a request asks for topics by id.
func byID(req *kmsg.MetadataRequest) bool {
	return slices.ContainsFunc(req.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.Topic == nil || t.TopicID != [16]byte{} })
}

// refuseIDs answers versions 10 and 11, which have ids in their form but not in
// their meaning (KIP-516).
func (c call) refuseIDs(req *kmsg.MetadataRequest) {
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = -1
	for _, rt := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		if t.Topic = rt.Topic; t.Topic == nil {
			t.Topic = new(string)
		}
		t.TopicID, t.ErrorCode = rt.TopicID, kerr.InvalidRequest.Code
		resp.Topics = append(resp.Topics, t)
	}
	c.reply(resp)
}

// once leaves out what is asked for twice. Where some topics are asked for by
// id, those asked for by name do not count.
func once(topics []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	type key struct {
		id   [16]byte
		name string
	}
	seen := make(map[key]bool, len(topics))
	ids := slices.ContainsFunc(topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
	out := make([]kmsg.MetadataRequestTopic, 0, len(topics))
	for _, t := range topics {
		k := key{id: t.TopicID}
		if !ids && t.Topic != nil {
			k.name = *t.Topic
		}
		if seen[k] || ids && k.id == [16]byte{} {
			continue
		}
		seen[k] = true
		out = append(out, t)
	}
	return out
}

func (c call) topic(img *image.Image, t *image.Topic, ops int32) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	name := t.Name
	mt.Topic, mt.TopicID, mt.IsInternal, mt.AuthorizedOperations = &name, t.ID, model.InternalTopic(name), ops
	listener := c.Conn().Listener()
	mt.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, t.NumPartitions())
	for index, p := range t.Partitions() {
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch = index, int32(p.Leader), int32(p.LeaderEpoch)
		mp.Replicas, mp.ISR = ids(p.Replicas), ids(p.ISR)
		mp.OfflineReplicas = offline(img, p, listener)
		mp.ErrorCode = leaderError(img, p, listener)
		mt.Partitions = append(mt.Partitions, mp)
	}
	return mt
}

// leaderError is what Metadata says of a partition without a usable leader.
func leaderError(img *image.Image, p *image.Partition, listener string) int16 {
	if p.Leader == model.NoNode {
		return kerr.LeaderNotAvailable.Code
	}
	if _, ok := endpoint(img, p.Leader, listener); !ok {
		return kerr.ListenerNotFound.Code
	}
	return 0
}

// offline lists the replicas on brokers that are fenced, gone, not on the
// listener, or whose folder is lost.
func offline(img *image.Image, p *image.Partition, listener string) []int32 {
	var out []int32
	for i, id := range p.Replicas {
		b, ok := img.Broker(id)
		if ok && !b.Fenced {
			_, ok = endpoint(img, id, listener)
			if lost := i < len(p.Dirs) && p.Dirs[i] == model.DirLost; ok && !lost {
				continue
			}
		}
		out = append(out, int32(id))
	}
	return out
}

func ids(nodes []model.NodeID) []int32 {
	out := make([]int32, len(nodes))
	for i, n := range nodes {
		out[i] = int32(n)
	}
	return out
}

// autoCreateWait bounds how long an answer waits for a creation it started.
const autoCreateWait = 5 * time.Second

// autoCreate asks the controller for topics with the broker's defaults. What it
// refuses for good stands in the answer.
func (s *Server) autoCreate(names []string, resp *kmsg.MetadataResponse) {
	ctx, cancel := context.WithTimeout(s.ctx, autoCreateWait)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.SetVersion(7)
	req.TimeoutMillis = int32(autoCreateWait / time.Millisecond)
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
		s.internalTopic(&t)
		req.Topics = append(req.Topics, t)
	}
	answer, err := s.cfg.Controller.Do(ctx, req)
	if err != nil {
		s.cfg.Log.Warn("auto-creation of topics failed", "topics", names, "error", err)
		return
	}
	for _, t := range answer.(*kmsg.CreateTopicsResponse).Topics {
		switch t.ErrorCode {
		case 0, kerr.TopicAlreadyExists.Code:
			continue
		}
		for i := range resp.Topics {
			if resp.Topics[i].Topic != nil && *resp.Topics[i].Topic == t.Topic {
				resp.Topics[i].ErrorCode = t.ErrorCode
			}
		}
	}
	_ = s.cfg.Controller.Caught(ctx) // late is what Kafka always is
}

// internalTopic gives Kafka's own topics the settings that the node has for them.
func (s *Server) internalTopic(t *kmsg.CreateTopicsRequestTopic) {
	c := s.cfg.Settings
	var configs [][2]string
	switch t.Topic {
	case model.OffsetsTopic:
		t.NumPartitions, t.ReplicationFactor = c.Int(config.OffsetsTopicNumPartitions), int16(c.Int(config.OffsetsTopicReplicationFactor))
		configs = [][2]string{
			{"cleanup.policy", "compact"},
			{"compression.type", "producer"},
			{"segment.bytes", itoa(c.Int(config.OffsetsTopicSegmentBytes))},
		}
	case model.TxnTopic:
		t.NumPartitions, t.ReplicationFactor = c.Int(config.TransactionStateLogNumPartitions), int16(c.Int(config.TransactionStateLogReplicationFactor))
		configs = [][2]string{
			{"cleanup.policy", "compact"},
			{"compression.type", "uncompressed"},
			{"min.insync.replicas", itoa(c.Int(config.TransactionStateLogMinISR))},
			{"segment.bytes", itoa(c.Int(config.TransactionStateLogSegmentBytes))},
			{"unclean.leader.election.enable", "false"},
		}
	case model.ShareStateTopic:
		t.NumPartitions, t.ReplicationFactor = c.Int(config.ShareCoordinatorStateTopicNumPartitions), int16(c.Int(config.ShareCoordinatorStateTopicReplicationFactor))
		configs = [][2]string{
			{"cleanup.policy", "delete"},
			{"compression.type", "producer"},
			{"min.insync.replicas", itoa(c.Int(config.ShareCoordinatorStateTopicMinISR))},
			{"retention.ms", "-1"},
			{"segment.bytes", itoa(c.Int(config.ShareCoordinatorStateTopicSegmentBytes))},
		}
	}
	for _, kv := range configs {
		entry := kmsg.NewCreateTopicsRequestTopicConfig()
		entry.Name, entry.Value = kv[0], &kv[1]
		t.Configs = append(t.Configs, entry)
	}
}
