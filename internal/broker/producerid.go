package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producerIDs hands out producer ids from blocks that the controller allocates.
// A caller waits for a block rather than being told to come again.
type producerIDs struct {
	broker *Broker

	mu        sync.Mutex
	next, end int64 // ids [next, end) are free
	spare     int64 // first id of the block after, -1 if none
	spareLen  int64
	fetching  chan struct{} // closed when the request in flight is done; nil if none
	err       error         // how the last request ended
}

// NewProducerID takes the next free producer id. It may wait for the controller.
func (b *Broker) NewProducerID(ctx context.Context) (int64, error) {
	ids := &b.ids
	for {
		ids.mu.Lock()
		if ids.next == ids.end && ids.spareLen > 0 {
			ids.next, ids.end, ids.spareLen = ids.spare, ids.spare+ids.spareLen, 0
		}
		free := ids.end - ids.next
		if free < ids.low() && ids.spareLen == 0 && ids.fetching == nil {
			ids.fetching = make(chan struct{})
			go ids.fetch(context.WithoutCancel(ctx))
		}
		if free > 0 {
			id := ids.next
			ids.next++
			ids.mu.Unlock()
			return id, nil
		}
		wait := ids.fetching
		ids.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		ids.mu.Lock()
		err := ids.err
		ids.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
}

// low is how many free ids make it ask for more: Kafka prefetches at 90 % use.
func (*producerIDs) low() int64 { return 100 }

func (ids *producerIDs) fetch(ctx context.Context) {
	req := kmsg.NewPtrAllocateProducerIDsRequest()
	req.BrokerID = int32(ids.broker.cfg.NodeID)
	req.BrokerEpoch = int64(ids.broker.Epoch())
	var start, length int64
	resp, err := ids.broker.cfg.Controller.Do(ctx, req)
	if err == nil {
		r := resp.(*kmsg.AllocateProducerIDsResponse)
		start, length = r.ProducerIDStart, int64(r.ProducerIDLen)
		if code := kerr.ErrorForCode(r.ErrorCode); code != nil {
			err = code
		} else if length <= 0 {
			err = fmt.Errorf("the controller allocated %d ids", length)
		}
	}
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if ids.err = err; err == nil {
		ids.spare, ids.spareLen = start, length
	}
	close(ids.fetching)
	ids.fetching = nil
}
