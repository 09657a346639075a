package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/api"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/wire"
)

// osNetwork listens on the operating system's sockets.
type osNetwork struct{}

func (osNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// port is one listener with its servers.
type port struct {
	config.Listener
	controller bool
	socket     net.Listener
	api        *api.Server
	wire       *wire.Server
	done       chan struct{} // closed when wire has ended; nil before start
}

// listen binds every address, so that a mistake shows before anything is written.
func (n *Node) listen(context.Context) error {
	s := n.cfg.Settings
	add := func(ls []config.Listener, controller bool) error {
		for _, l := range ls {
			socket, err := n.cfg.Network.Listen(l.Address())
			if err != nil {
				return bindError("listeners", l.String(), err)
			}
			n.ports = append(n.ports, &port{Listener: l, controller: controller, socket: socket})
		}
		return nil
	}
	if err := add(s.BrokerListeners(), false); err != nil {
		return err
	}
	if err := add(s.ControllerListeners(), true); err != nil {
		return err
	}
	return n.listenHTTP()
}

// bindError names the key to change.
func bindError(key, value string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %s is in use by another process; stop it or set %s to a free port", key, value, key)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", key, value, err)
}

// start serves the port's connections until close.
func (p *port) start(n *Node) {
	s := n.cfg.Settings
	limits := n.limits[0]
	if p.controller {
		limits = n.limits[1]
	}
	p.wire = wire.NewServer(wire.Config{
		Listener:    p.socket,
		Name:        p.Name,
		Handler:     p.api,
		Log:         n.cfg.Log,
		Metrics:     n.metrics,
		MaxFrame:    s.Int(config.SocketRequestMaxBytes),
		MaxRequest:  p.api.MaxRequest,
		Budget:      n.budget,
		Limits:      []*wire.Limits{limits},
		Protected:   p.Name == s.InterBroker() && len(s.BrokerListeners()) > 1,
		IdleTimeout: time.Duration(s.Long(config.ConnectionsMaxIdleMs)) * time.Millisecond,
	})
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		if err := p.wire.Serve(context.Background()); err != nil {
			select {
			case n.failed <- fmt.Errorf("listener %s: %w", p.Name, err):
			default:
			}
		}
	}()
}

func (p *port) close(ctx context.Context) {
	if p.wire == nil {
		p.socket.Close()
		return
	}
	p.api.Close()
	_ = p.wire.Shutdown(ctx) // its error only says that ctx ended first
	<-p.done
}

// Addr is the address that a listener of this name is bound to, "" if there is none.
func (n *Node) Addr(name string) string {
	for _, p := range n.ports {
		if p.Name == name {
			return p.socket.Addr().String()
		}
	}
	return ""
}

// endpoints are listeners as they are registered: with the port that was bound.
func (n *Node) endpoints(ls []config.Listener) []image.Endpoint {
	var out []image.Endpoint
	for _, l := range ls {
		out = append(out, image.Endpoint{Name: l.Name, Host: l.Host, Port: n.boundPort(l), Protocol: config.ProtocolNumber(l.Protocol)})
	}
	return out
}

func (n *Node) boundPort(l config.Listener) uint16 {
	if l.Port != 0 {
		return uint16(l.Port)
	}
	_, text, err := net.SplitHostPort(n.Addr(l.Name))
	if err != nil {
		return 0
	}
	port, _ := strconv.ParseUint(text, 10, 16)
	return uint16(port)
}

// features are the ranges that this node registers.
func features() []image.FeatureRange {
	var out []image.FeatureRange
	for _, f := range feature.Supported() {
		out = append(out, image.FeatureRange{Name: f.Name, Min: f.Min, Max: f.Max})
	}
	return out
}

// registration is what the broker says of itself to the controller.
func (n *Node) registration() *kmsg.BrokerRegistrationRequest {
	s := n.cfg.Settings
	req := kmsg.NewPtrBrokerRegistrationRequest()
	req.SetVersion(4)
	req.BrokerID = int32(s.NodeID())
	req.ClusterID = n.clusterID.String()
	req.IncarnationID = model.RandomUUID(n.rand.Uint64)
	req.PreviousBrokerEpoch = -1
	for _, ep := range n.endpoints(s.Advertised()) {
		l := kmsg.NewBrokerRegistrationRequestListener()
		l.Name, l.Host, l.Port, l.SecurityProtocol = ep.Name, n.hostname(ep.Host), ep.Port, ep.Protocol
		req.Listeners = append(req.Listeners, l)
	}
	for _, f := range features() {
		rf := kmsg.NewBrokerRegistrationRequestFeature()
		rf.Name, rf.MinSupportedVersion, rf.MaxSupportedVersion = f.Name, f.Min, f.Max
		req.Features = append(req.Features, rf)
	}
	if rack := s.String(config.BrokerRack); rack != "" {
		req.Rack = &rack
	}
	for _, f := range n.folders {
		req.LogDirs = append(req.LogDirs, f.ID())
	}
	if clean, epoch := n.clean(); clean {
		req.PreviousBrokerEpoch = int64(epoch)
	}
	return req
}

// clean tells whether all folders were closed cleanly, and by which life.
func (n *Node) clean() (bool, model.BrokerEpoch) {
	epoch := model.BrokerEpoch(-1)
	for _, f := range n.folders {
		ok, e := f.Clean()
		if !ok {
			return false, -1
		}
		epoch = e
	}
	return len(n.folders) > 0, epoch
}
