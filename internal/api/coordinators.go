package api

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/model"
)

// client says who asks, as coordinators keep it.
func (c call) client() coord.Client {
	who := coord.Client{Principal: "User:ANONYMOUS"}
	if c.ClientID != nil {
		who.ID = *c.ClientID
	}
	host, _, err := net.SplitHostPort(c.Conn().RemoteAddr().String())
	if err != nil {
		host = c.Conn().RemoteAddr().String()
	}
	who.Host = "/" + host
	return who
}

// decide hands the request to the coordinator of a group. failed makes the
// answer for a code.
func (c call) decide(group string, failed func(code int16) kmsg.Response) {
	shard, err := c.s.cfg.Broker.Coordinator(model.OffsetsTopic, group)
	broker.Decide(shard, err, c.msg, c.client(), func(resp kmsg.Response, err error) {
		if err != nil {
			resp = failed(code(err))
		}
		c.reply(resp)
	})
}

// gather asks a coordinator for each of n things and calls done when the last
// has answered. ask gives the id whose coordinator is meant, and the request;
// got takes the answers, one at a time.
func (c call) gather(n int, ask func(i int) (id string, req kmsg.Request), got func(i int, resp kmsg.Response, err error), done func()) {
	if n == 0 {
		done()
		return
	}
	var mu sync.Mutex
	left := n
	for i := range n {
		id, req := ask(i)
		shard, err := c.s.cfg.Broker.Coordinator(model.OffsetsTopic, id)
		broker.Decide(shard, err, req, c.client(), func(resp kmsg.Response, err error) {
			mu.Lock()
			got(i, resp, err)
			left--
			last := left == 0
			mu.Unlock()
			if last {
				done()
			}
		})
	}
}

// Coordinator types of FindCoordinator.
const (
	groupCoordinator = 0
	txnCoordinator   = 1
	shareCoordinator = 2
)

// findCoordinator is FindCoordinator, key 10, versions 0 to 6: which broker
// decides about a group. v1 key types, v4 several keys (KIP-699). The topic that
// keeps the groups is made when the first is looked for.
//
// Transactional ids and share partitions are refused with INVALID_REQUEST and the
// reason while they have no coordinator.
func (c call) findCoordinator() {
	req, resp := c.msg.(*kmsg.FindCoordinatorRequest), kmsg.NewPtrFindCoordinatorResponse()
	keys := req.CoordinatorKeys
	if c.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		co := kmsg.NewFindCoordinatorResponseCoordinator()
		co.Key, co.NodeID, co.Port = key, -1, -1
		c.locate(req.CoordinatorType, key, &co)
		resp.Coordinators = append(resp.Coordinators, co)
	}
	if c.Version < 4 && len(resp.Coordinators) == 1 {
		co := resp.Coordinators[0]
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = co.ErrorCode, co.ErrorMessage, co.NodeID, co.Host, co.Port
		resp.Coordinators = nil
	}
	c.reply(resp)
}

func (c call) locate(kind int8, key string, co *kmsg.FindCoordinatorResponseCoordinator) {
	fail := func(err *kerr.Error, why string) {
		co.ErrorCode, co.ErrorMessage = err.Code, &why
	}
	switch {
	case kind == txnCoordinator:
		fail(kerr.InvalidRequest, "transactions are not there yet")
		return
	case kind == shareCoordinator:
		fail(kerr.InvalidRequest, "share groups are not there yet")
		return
	case kind != groupCoordinator:
		fail(kerr.InvalidRequest, "unknown coordinator type")
		return
	}
	if err := c.s.ensureTopic(model.OffsetsTopic); err != nil {
		c.s.cfg.Log.Warn("the coordinators' topic cannot be made", "topic", model.OffsetsTopic, "error", err)
		fail(kerr.CoordinatorNotAvailable, err.Error())
		return
	}
	img := c.image()
	t, ok := img.Topic(model.OffsetsTopic)
	if !ok {
		fail(kerr.CoordinatorNotAvailable, "the coordinators' topic is being made")
		return
	}
	p, _ := t.Partition(broker.CoordinatorPartition(key, t.NumPartitions()))
	ep, ok := endpoint(img, p.Leader, c.Conn().Listener())
	if !ok {
		fail(kerr.CoordinatorNotAvailable, "the coordinator's partition has no leader")
		return
	}
	co.NodeID, co.Host, co.Port = int32(p.Leader), ep.Host, int32(ep.Port)
	if c.Version < 4 {
		none := "NONE"
		co.ErrorMessage = &none
	} else {
		co.ErrorMessage = new(string)
	}
}

// ensureTopic makes an internal topic if it is not there.
func (s *Server) ensureTopic(name string) error {
	if _, ok := s.cfg.Image().Topic(name); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, autoCreateWait)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.SetVersion(7)
	req.TimeoutMillis = int32(autoCreateWait / time.Millisecond)
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic = name
	s.internalTopic(&t)
	req.Topics = append(req.Topics, t)
	resp, err := s.cfg.Controller.Do(ctx, req)
	if err != nil {
		return err
	}
	for _, rt := range resp.(*kmsg.CreateTopicsResponse).Topics {
		if err := kerr.ErrorForCode(rt.ErrorCode); err != nil && rt.ErrorCode != kerr.TopicAlreadyExists.Code {
			return err
		}
	}
	return s.cfg.Controller.Caught(ctx)
}
