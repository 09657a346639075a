// Package api is the protocol surface: what Ottla answers to each Kafka request.
// There is a file per API; table.go lists them all, those that are refused
// included, and ApiVersions is answered from it.
//
// The one idea: a handler is thin. It decodes, asks broker, image or the
// controller, and encodes. Kafka's error codes exist only here (errors.go).
//
// Concurrency: wire calls Serve in arrival order on the connection's goroutine.
// A handler marked wait may take its time: it runs on a goroutine of its own
// and the connection's next request is not started before its answer. All
// others start their work and return; answers come from whoever finishes it.
package api

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/wire"
)

// Controller is how requests reach the active controller.
type Controller interface {
	// Do asks the active controller.
	Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	// Caught waits until this broker has taken on all that is decided now.
	Caught(ctx context.Context) error
}

// Config is what a Server is made of.
type Config struct {
	NodeID     model.NodeID
	ClusterID  model.UUID
	Settings   *config.Config
	Broker     *broker.Broker // nil on a node that is only a controller
	Controller Controller

	// Image gives the metadata that answers are made from: the broker's, or the
	// controller's on a controller listener.
	Image func() *image.Image

	// OnController says which of Kafka's two API sets this Server offers.
	OnController bool

	// Rand seeds session ids and picks; it is used under a lock.
	Rand *rand.Rand
	Log  *slog.Logger
}

// Server answers the requests of one kind of listener. Close it after the last
// connection.
type Server struct {
	cfg    Config
	table  [lastKey + 1]*entry
	shapes [lastKey + 1][]field

	// ctx ends when the Server closes; handlers that wait give up then.
	ctx    context.Context
	cancel context.CancelFunc

	sessions *sessions
	produces sync.Pool // of *produce
	fetches  sync.Pool // of *fetch

	mu   sync.Mutex
	rand *rand.Rand // guarded by mu
}

// NewServer makes a Server.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, rand: cfg.Rand}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range entries {
		e := &entries[i]
		if e.serve != nil && e.on&s.listener() != 0 {
			s.table[e.key] = e
			if !e.raw {
				s.shapes[e.key] = parseShape(shapes[e.key])
			}
		}
	}
	s.sessions = newSessions(int(cfg.Settings.Int(config.MaxIncrementalFetchSessionCacheSlots)), s.random)
	s.produces.New = func() any { return newProduce(s) }
	s.fetches.New = func() any { return newFetch(s) }
	return s
}

// Close makes handlers and long polls that wait give up and answer.
func (s *Server) Close() {
	s.cancel()
	if s.cfg.Broker != nil {
		s.cfg.Broker.WakePolls()
	}
}

func (s *Server) listener() listener {
	if s.cfg.OnController {
		return onController
	}
	return onBroker
}

// random draws from the Server's generator.
func (s *Server) random() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.Uint64()
}

// maxFetch is the largest Fetch request, in bytes: a hundred thousand partitions.
const maxFetch = 4 << 20

// MaxRequest is the largest frame accepted for a request, in bytes. Produce
// requests are bounded by socket.request.max.bytes alone; the others decode into
// structures many times their size (DESIGN.md section 4).
func (s *Server) MaxRequest(key, _ int16) int64 {
	switch {
	case key == int16(kmsg.Produce):
		return int64(s.cfg.Settings.Int(config.SocketRequestMaxBytes))
	case key == int16(kmsg.Fetch):
		return maxFetch
	case key >= 0 && int(key) < len(s.table) && s.table[key] != nil:
		return 2 << 20
	}
	return 64 << 10 // enough for any ApiVersions; the rest is refused anyway
}

// Serve starts one request. It is wire's Handler.
func (s *Server) Serve(r *wire.Request) {
	var e *entry
	if r.Key >= 0 && int(r.Key) < len(s.table) {
		e = s.table[r.Key]
	}
	if e == nil {
		r.Close(fmt.Errorf("api key %d is not offered on this listener", r.Key))
		return
	}
	if (r.Version < e.min || r.Version > e.max) && e.key != kmsg.ApiVersions {
		r.Close(fmt.Errorf("%s version %d is not offered, only %d to %d", e.key.Name(), r.Version, e.min, e.max))
		return
	}
	c := call{s: s, Request: r}
	if e.raw {
		e.serve(c)
		return
	}
	req := kmsg.RequestForKey(r.Key)
	req.SetVersion(r.Version)
	body := r.Body
	if e.keeps {
		body = bytes.Clone(body)
		r.Release()
	}
	if r.Version >= e.min && r.Version <= e.max {
		if !fits(s.shapes[r.Key], body, r.Version, req.IsFlexible()) {
			r.Close(fmt.Errorf("%s version %d has a length that its bytes do not hold", e.key.Name(), r.Version))
			return
		}
		if err := req.ReadFrom(body); err != nil {
			r.Close(fmt.Errorf("%s version %d cannot be decoded: %w", e.key.Name(), r.Version, err))
			return
		}
	}
	c.msg = req
	if !e.wait {
		e.serve(c)
		return
	}
	r.Barrier()
	go e.serve(c)
}

// call is one request on its way through a handler.
type call struct {
	*wire.Request
	s   *Server
	msg kmsg.Request // decoded; nil for raw handlers
}

// reply encodes an answer at the request's version.
func (c call) reply(resp kmsg.Response) {
	resp.SetVersion(c.Version)
	c.Reply(resp.AppendTo(c.Buffer(512)))
}

// image is the metadata that this answer is made from.
func (c call) image() *image.Image { return c.s.cfg.Image() }
