package api

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// createTopics is CreateTopics, key 19, versions 2 to 7. v5 answers what was
// made (KIP-525), v6 quota errors, v7 topic ids. The controller decides
// (KAFKA.md 3.11); the answer waits until this broker has the topics too.
func (c call) createTopics() {
	req := c.msg.(*kmsg.CreateTopicsRequest)
	c.forward(req.TimeoutMillis, func(code int16, why *string) kmsg.Response {
		r := kmsg.NewPtrCreateTopicsResponse()
		for _, t := range req.Topics {
			ft := kmsg.NewCreateTopicsResponseTopic()
			ft.Topic, ft.ErrorCode, ft.ErrorMessage = t.Topic, code, why
			ft.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
			r.Topics = append(r.Topics, ft)
		}
		return r
	})
}

// deleteTopics is DeleteTopics, key 20, versions 1 to 6. v5 error messages, v6
// topics by id. The controller decides.
func (c call) deleteTopics() {
	req := c.msg.(*kmsg.DeleteTopicsRequest)
	c.forward(req.TimeoutMillis, func(code int16, why *string) kmsg.Response {
		r := kmsg.NewPtrDeleteTopicsResponse()
		add := func(name *string, id [16]byte) {
			ft := kmsg.NewDeleteTopicsResponseTopic()
			ft.Topic, ft.TopicID, ft.ErrorCode, ft.ErrorMessage = name, id, code, why
			r.Topics = append(r.Topics, ft)
		}
		for _, name := range req.TopicNames {
			add(&name, [16]byte{})
		}
		for _, t := range req.Topics {
			add(t.Topic, t.TopicID)
		}
		return r
	})
}

// createPartitions is CreatePartitions, key 37, versions 0 to 3. The controller
// decides; the answer waits until this broker has the partitions.
func (c call) createPartitions() {
	req := c.msg.(*kmsg.CreatePartitionsRequest)
	c.forward(req.TimeoutMillis, func(code int16, why *string) kmsg.Response {
		r := kmsg.NewPtrCreatePartitionsResponse()
		for _, t := range req.Topics {
			ft := kmsg.NewCreatePartitionsResponseTopic()
			ft.Topic, ft.ErrorCode, ft.ErrorMessage = t.Topic, code, why
			r.Topics = append(r.Topics, ft)
		}
		return r
	})
}

// forward asks the active controller, waits for its decision to arrive here, and
// answers. timeout is the request's, in milliseconds. failed makes the answer
// where there is no decision.
func (c call) forward(timeout int32, failed func(code int16, why *string) kmsg.Response) {
	resp, err := c.decided(timeout)
	if err != nil {
		resp = failed(code(err), text(err))
	}
	c.reply(resp)
}

func (c call) decided(timeout int32) (kmsg.Response, error) {
	if timeout <= 0 {
		return nil, kerr.RequestTimedOut
	}
	ctx, cancel := context.WithTimeout(c.s.ctx, max(time.Duration(timeout)*time.Millisecond, time.Second))
	defer cancel()
	resp, err := c.s.cfg.Controller.Do(ctx, c.msg)
	if err != nil {
		if ctx.Err() != nil {
			return nil, kerr.RequestTimedOut
		}
		return nil, err
	}
	if err := c.s.cfg.Controller.Caught(ctx); err != nil {
		c.s.cfg.Log.Warn("decided, but this broker has not followed yet", "error", err)
	}
	return resp, nil
}
