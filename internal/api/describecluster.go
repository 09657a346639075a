package api

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
)

// Endpoint types of DescribeCluster.
const (
	typeBrokers     = 1
	typeControllers = 2
)

// describeCluster is DescribeCluster, key 60, versions 0 to 2: cluster id and
// nodes. v1 endpoint types (KIP-919), v2 fenced brokers (KIP-1073). KAFKA.md 3.13.
func (c call) describeCluster() {
	req, resp := c.msg.(*kmsg.DescribeClusterRequest), kmsg.NewPtrDescribeClusterResponse()
	resp.ControllerID = -1
	resp.ClusterAuthorizedOperations = notAsked
	want := int8(typeBrokers)
	if c.Version >= 1 {
		want = req.EndpointType
	}
	here := int8(typeBrokers)
	if c.s.cfg.OnController {
		here = typeControllers
	}
	resp.EndpointType = typeBrokers
	if err := checkEndpoint(want, here, c.Version); err != nil {
		resp.ErrorCode, resp.ErrorMessage = code(err), text(err)
		c.reply(resp)
		return
	}
	resp.EndpointType, resp.ClusterID = want, c.s.cfg.ClusterID.String()
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	if c.s.cfg.OnController {
		c.controllers(resp)
	} else {
		c.brokers(resp, req.IncludeFencedBrokers)
	}
	c.reply(resp)
}

// checkEndpoint tells whether this listener can describe the nodes asked for.
func checkEndpoint(want, here int8, version int16) error {
	switch {
	case want != typeBrokers && want != typeControllers:
		return fmt.Errorf("%w: endpoint type %d; 1 is brokers, 2 is controllers", kerr.UnsupportedEndpointType, want)
	case want == here:
		return nil
	case version == 0: // which cannot ask for anything but brokers
		return fmt.Errorf("%w: DescribeCluster version 0 is for brokers, this is a controller's listener", kerr.InvalidRequest)
	}
	return fmt.Errorf("%w: endpoint type %d was asked for, this listener knows type %d", kerr.MismatchedEndpointType, want, here)
}

func (c call) brokers(resp *kmsg.DescribeClusterResponse, fenced bool) {
	img := c.image()
	for b := range img.Brokers() {
		if b.Fenced && !fenced {
			continue
		}
		if ep, ok := endpoint(img, b.ID, c.Conn().Listener()); ok {
			resp.Brokers = append(resp.Brokers, kmsg.DescribeClusterResponseBroker{NodeID: int32(b.ID), Host: ep.Host, Port: int32(ep.Port), Rack: b.Rack, IsFenced: b.Fenced})
			if !b.Fenced && resp.ControllerID < 0 {
				resp.ControllerID = int32(b.ID)
			}
		}
	}
}

func (c call) controllers(resp *kmsg.DescribeClusterResponse) {
	for ctl := range c.image().Controllers() {
		for _, ep := range ctl.Endpoints {
			if ep.Name == c.Conn().Listener() {
				resp.Brokers = append(resp.Brokers, controllerNode(ctl, ep))
			}
		}
	}
	if len(resp.Brokers) == 1 { // with more, which of them is active is quorum's to say
		resp.ControllerID = resp.Brokers[0].NodeID
	}
}

func controllerNode(ctl *image.Controller, ep image.Endpoint) kmsg.DescribeClusterResponseBroker {
	return kmsg.DescribeClusterResponseBroker{NodeID: int32(ctl.ID), Host: ep.Host, Port: int32(ep.Port)}
}
