package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/model"
)

// offsetForLeaderEpoch is OffsetForLeaderEpoch, key 23, versions 2 to 4: where a
// leader epoch ends, so that a client finds out that its log was cut (KIP-320).
// KAFKA.md 3.8.
func (c call) offsetForLeaderEpoch() {
	req, resp := c.msg.(*kmsg.OffsetForLeaderEpochRequest), kmsg.NewPtrOffsetForLeaderEpochResponse()
	img := c.image()
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			out := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			out.Partition, out.LeaderEpoch, out.EndOffset = rp.Partition, -1, -1
			p, err := c.s.partition(img, rt.Topic, rp.Partition)
			if err == nil {
				_, err = p.Lead(model.Epoch(rp.CurrentLeaderEpoch))
			}
			if err == nil {
				epoch, end := p.Log().EpochEnd(model.Epoch(rp.LeaderEpoch))
				out.LeaderEpoch, out.EndOffset = int32(epoch), int64(end)
			}
			out.ErrorCode = code(err)
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
	c.reply(resp)
}
