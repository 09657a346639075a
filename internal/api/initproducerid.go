package api

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producerIDWait bounds how long a client waits for a block of producer ids.
const producerIDWait = 30 * time.Second

// initProducerID is InitProducerId, key 22, versions 0 to 5: a producer id for an
// idempotent producer (KIP-98). KAFKA.md 9. A transactional id is refused with
// UNSUPPORTED_VERSION while there is no transaction coordinator.
func (c call) initProducerID() {
	req, resp := c.msg.(*kmsg.InitProducerIDRequest), kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.TransactionalID != nil {
		resp.ErrorCode = kerr.UnsupportedVersion.Code
		if *req.TransactionalID == "" {
			resp.ErrorCode = kerr.InvalidRequest.Code
		}
		c.reply(resp)
		return
	}
	if (req.ProducerID == -1) != (req.ProducerEpoch == -1) { // both or none
		resp.ErrorCode = kerr.InvalidRequest.Code
		c.reply(resp)
		return
	}
	ctx, cancel := context.WithTimeout(c.s.ctx, producerIDWait)
	defer cancel()
	id, err := c.s.cfg.Broker.NewProducerID(ctx)
	if err != nil {
		c.s.cfg.Log.Warn("no producer id", "error", err)
		resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code // retriable for every client
	} else {
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	c.reply(resp)
}
