package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/model"
)

// deleteRecords is DeleteRecords, key 21, versions 0 to 2 (KIP-107): it moves the
// starts of logs up. With one replica there is nobody to wait for, so the timeout
// does not come into it. KAFKA.md 3.13.
func (c call) deleteRecords() {
	req, resp := c.msg.(*kmsg.DeleteRecordsRequest), kmsg.NewPtrDeleteRecordsResponse()
	img := c.image()
	type answer struct {
		err error
		*broker.Deletion
	}
	var list []*broker.Deletion
	answers := make(map[model.TopicPartition]answer)
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			tp := model.TopicPartition{Topic: rt.Topic, Partition: rp.Partition}
			if _, twice := answers[tp]; twice {
				continue
			}
			p, err := c.s.partition(img, rt.Topic, rp.Partition)
			if err == nil && model.InternalTopic(rt.Topic) {
				err = kerr.InvalidTopicException
			}
			if err != nil {
				answers[tp] = answer{err: err}
				continue
			}
			d := &broker.Deletion{Partition: p, To: model.Offset(rp.Offset)}
			list = append(list, d)
			answers[tp] = answer{Deletion: d}
		}
	}
	c.s.cfg.Broker.DeleteRecords(list)
	for _, rt := range req.Topics {
		t := kmsg.NewDeleteRecordsResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			out := kmsg.NewDeleteRecordsResponseTopicPartition()
			out.Partition, out.LowWatermark = rp.Partition, -1
			a := answers[model.TopicPartition{Topic: rt.Topic, Partition: rp.Partition}]
			if a.Deletion != nil {
				out.LowWatermark, a.err = int64(a.Low), a.Err
			}
			out.ErrorCode = code(a.err)
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
	c.reply(resp)
}
