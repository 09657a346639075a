package api

import (
	"iter"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// describeTopicPartitions is DescribeTopicPartitions, key 75, version 0: topics
// page by page, with eligible leader replicas (KIP-966). KAFKA.md 3.10.
func (c call) describeTopicPartitions() {
	req, resp := c.msg.(*kmsg.DescribeTopicPartitionsRequest), kmsg.NewPtrDescribeTopicPartitionsResponse()
	img := c.image()
	limit := int(c.s.cfg.Settings.Int(config.MaxRequestPartitionSizeLimit))
	left := min(limit, max(1, int(req.ResponsePartitionLimit)))
	from, first := "", int32(0)
	if req.Cursor != nil {
		from, first = req.Cursor.Topic, req.Cursor.Partition
		if first < 0 || !mentions(req, from) {
			c.fail(req, kerr.InvalidRequest)
			return
		}
	}
	for name := range wanted(img, req, from) {
		if left == 0 {
			resp.NextCursor = cursor(name, 0)
			break
		}
		t, ok := img.Topic(name)
		if !ok {
			missing := unknownTopic(name)
			missing.AuthorizedOperations = topicOperations
			resp.Topics = append(resp.Topics, missing)
			continue
		}
		start := int32(0)
		if name == from {
			start = first
		}
		dt := describeTopic(t)
		for index, p := range t.Partitions() {
			if index < start {
				continue
			}
			if left == 0 {
				resp.NextCursor = cursor(name, index)
				break
			}
			left--
			dt.Partitions = append(dt.Partitions, c.describePartition(img, index, p))
		}
		resp.Topics = append(resp.Topics, dt)
		if resp.NextCursor != nil {
			break
		}
	}
	c.reply(resp)
}

// mentions reports whether a request asks for a topic, by name or because it
// asks for all.
func mentions(req *kmsg.DescribeTopicPartitionsRequest, topic string) bool {
	return len(req.Topics) == 0 || slices.ContainsFunc(req.Topics, func(t kmsg.DescribeTopicPartitionsRequestTopic) bool { return t.Topic == topic })
}

// fail answers an error on every topic that was asked for.
func (c call) fail(req *kmsg.DescribeTopicPartitionsRequest, err *kerr.Error) {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	for _, rt := range req.Topics {
		t := unknownTopic(rt.Topic)
		t.ErrorCode = err.Code
		resp.Topics = append(resp.Topics, t)
	}
	c.reply(resp)
}

// wanted gives topic names in order from the cursor on: those asked for, or all.
func wanted(img *image.Image, req *kmsg.DescribeTopicPartitionsRequest, from string) iter.Seq[string] {
	if len(req.Topics) == 0 {
		return func(yield func(string) bool) {
			for t := range img.TopicsFrom(from) {
				if !yield(t.Name) {
					return
				}
			}
		}
	}
	var names []string
	for _, rt := range req.Topics {
		if rt.Topic >= from {
			names = append(names, rt.Topic)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return slices.Values(slices.Compact(names))
}

func cursor(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	n := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	n.Topic, n.Partition = topic, partition
	return &n
}

func unknownTopic(name string) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.ErrorCode, t.Topic = kerr.UnknownTopicOrPartition.Code, &name
	t.IsInternal = model.InternalTopic(name)
	t.AuthorizedOperations = notAsked
	return t
}

func describeTopic(t *image.Topic) kmsg.DescribeTopicPartitionsResponseTopic {
	name := t.Name
	dt := kmsg.NewDescribeTopicPartitionsResponseTopic()
	dt.Topic, dt.TopicID, dt.IsInternal = &name, t.ID, model.InternalTopic(name)
	dt.AuthorizedOperations = topicOperations
	return dt
}

func (c call) describePartition(img *image.Image, index int32, p *image.Partition) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	dp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	listener := c.Conn().Listener()
	dp.Partition, dp.LeaderID, dp.LeaderEpoch = index, int32(p.Leader), int32(p.LeaderEpoch)
	dp.Replicas, dp.ISR = ids(p.Replicas), ids(p.ISR)
	dp.EligibleLeaderReplicas, dp.LastKnownELR = ids(p.ELR), ids(p.LastKnownELR)
	dp.OfflineReplicas = offline(img, p, listener)
	dp.ErrorCode = leaderError(img, p, listener)
	return dp
}
