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
	resp, err := c.forward(c.msg.(*kmsg.CreateTopicsRequest).TimeoutMillis)
	if err != nil {
		failed := kmsg.NewPtrCreateTopicsResponse()
		for _, t := range c.msg.(*kmsg.CreateTopicsRequest).Topics {
			ft := kmsg.NewCreateTopicsResponseTopic()
			ft.Topic, ft.ErrorCode, ft.ErrorMessage = t.Topic, code(err), text(err)
			ft.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
			failed.Topics = append(failed.Topics, ft)
		}
		resp = failed
	}
	c.reply(resp)
}

// deleteTopics is DeleteTopics, key 20, versions 1 to 6. v5 error messages, v6
// topics by id. The controller decides.
func (c call) deleteTopics() {
	req := c.msg.(*kmsg.DeleteTopicsRequest)
	resp, err := c.forward(req.TimeoutMillis)
	if err != nil {
		failed := kmsg.NewPtrDeleteTopicsResponse()
		add := func(name *string, id [16]byte) {
			ft := kmsg.NewDeleteTopicsResponseTopic()
			ft.Topic, ft.TopicID, ft.ErrorCode, ft.ErrorMessage = name, id, code(err), text(err)
			failed.Topics = append(failed.Topics, ft)
		}
		for _, name := range req.TopicNames {
			add(&name, [16]byte{})
		}
		for _, t := range req.Topics {
			add(t.Topic, t.TopicID)
		}
		resp = failed
	}
	c.reply(resp)
}

// forward asks the active controller and waits for its decision to arrive here.
// timeout is the request's, in milliseconds.
func (c call) forward(timeout int32) (kmsg.Response, error) {
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
