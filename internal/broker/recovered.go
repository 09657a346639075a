package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// recovering is LeaderRecoveryState 1: the leader was elected although it may
// lack records that were acknowledged elsewhere (KIP-704). Whoever leads such a
// partition says when its log is sound again, which here it is as soon as it is
// open.
const recovering = 1

// reportTimeout bounds one report; it is made again with the next image.
const reportTimeout = 30 * time.Second

// reportRecovered tells the controller that the partitions in unsound are sound, all
// in one request. It does not wait for the answer: that comes as records. Called by
// the metadata goroutine.
func (b *Broker) reportRecovered() {
	parts := b.unsound
	if len(parts) == 0 {
		return
	}
	b.unsound = make(map[*Partition]*image.Partition)
	req := kmsg.NewPtrAlterPartitionRequest()
	req.SetVersion(3)
	req.BrokerID, req.BrokerEpoch = int32(b.cfg.NodeID), int64(b.Epoch())
	topics := make(map[model.UUID]int)
	for p, part := range parts {
		at, ok := topics[p.Topic.ID]
		if !ok {
			at = len(req.Topics)
			topics[p.Topic.ID] = at
			t := kmsg.NewAlterPartitionRequestTopic()
			t.TopicID = p.Topic.ID
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewAlterPartitionRequestTopicPartition()
		rp.Partition, rp.LeaderEpoch, rp.PartitionEpoch = p.Index, int32(part.LeaderEpoch), part.PartitionEpoch
		self := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
		self.BrokerID, self.BrokerEpoch = int32(b.cfg.NodeID), int64(b.Epoch())
		rp.NewEpochISR = append(rp.NewEpochISR, self)
		req.Topics[at].Partitions = append(req.Topics[at].Partitions, rp)
	}
	go b.report(req)
}

func (b *Broker) report(req *kmsg.AlterPartitionRequest) {
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	resp, err := b.cfg.Controller.Do(ctx, req)
	if err != nil {
		b.cfg.Log.Warn("the controller was not told that partitions are recovered", "error", err)
		return
	}
	for _, t := range resp.(*kmsg.AlterPartitionResponse).Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				b.cfg.Log.Debug("recovery not taken note of", "topic", model.UUID(t.TopidID).String(), "partition", p.Partition, "error", err)
			}
		}
	}
}
