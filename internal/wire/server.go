package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"ottla.dev/ottla/internal/metric"
)

// Handler serves requests.
type Handler interface {
	// Serve starts the work of a request and returns without waiting for
	// anything. It is called on the connection's reader goroutine, in arrival
	// order within a connection and concurrently for different ones. The request
	// is answered exactly once, here or later from any goroutine.
	Serve(r *Request)
}

// Config is what a Server needs. Listener and Handler are required.
type Config struct {
	Listener net.Listener
	Name     string      // the listener's name, for metrics and Conn.Listener
	TLS      *tls.Config // nil: plain
	Handler  Handler
	Log      *slog.Logger     // nil: none
	Metrics  *metric.Registry // may be nil

	// Opened, if not nil, is called on a connection's goroutine before its first
	// frame is read, after the TLS handshake; an error closes it. Closed, if not
	// nil, is called once when the connection is closed and its reader has ended,
	// also when Opened failed or was not reached; requests may be outstanding.
	Opened func(*Conn) error
	Closed func(*Conn, error)

	// MaxFrame bounds a frame's payload in bytes (socket.request.max.bytes); 0
	// means 100 MiB. Conn.SetMaxFrame changes it for one connection.
	MaxFrame int32
	// MaxRequest, if not nil, bounds the payload by API, in bytes; ≤ 0 refuses
	// the API. What is larger closes the connection. It is called with any bytes
	// that a peer may send.
	MaxRequest func(key, version int16) int64
	// Budget bounds the memory of requests in work (queued.max.request.bytes);
	// listeners share one. nil: no bound.
	Budget *Budget
	// MaxParked bounds the requests of one connection that are started and whose
	// answers are not written; 0 means 128.
	MaxParked int

	// Limits of this listener alone, as in LimitsConfig; 0: no bound.
	MaxConns       int
	MaxConnsPerIP  int
	PerIPOverrides map[string]int
	// Limits has further limits, those that listeners share among them. A
	// Protected listener (the brokers' own) does not wait when MaxConns are
	// reached: another listener's connection gives way.
	Limits    []*Limits
	Protected bool

	IdleTimeout  time.Duration // connections.max.idle.ms; 0: none
	StallTimeout time.Duration // for each step of a frame begun, at most (see the package), and for handshakes; 0: 30 s
	WriteTimeout time.Duration // for the peer to take any bytes of an answer; 0: 2 min
}

// Server accepts connections of one listener and serves them.
type Server struct {
	cfg   Config
	stats *stats

	pool     pool
	requests sync.Pool // *Request
	writers  sync.Pool // *writer

	limits []*Limits     // its own, and those of the Config
	stop   chan struct{} // closed when no more connections are accepted

	mu     sync.Mutex
	conns  map[*Conn]struct{}
	nextID uint64
	closed bool // stop is closed
	idle   bool // gone is closed: closed, and no connection left
	gone   chan struct{}
}

// NewServer returns a Server that accepts nothing before Serve. It panics when
// Listener or Handler is missing.
func NewServer(cfg Config) *Server {
	if cfg.Listener == nil || cfg.Handler == nil {
		panic("BUG: wire: a Server needs a Listener and a Handler")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = 100 << 20
	}
	if cfg.MaxParked <= 0 {
		cfg.MaxParked = 128
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = 30 * time.Second
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = 2 * time.Minute
	}
	s := &Server{
		cfg:   cfg,
		stats: newStats(cfg.Metrics, cfg.Name),
		stop:  make(chan struct{}),
		conns: make(map[*Conn]struct{}),
		gone:  make(chan struct{}),
	}
	own := NewLimits(LimitsConfig{MaxConns: cfg.MaxConns, MaxConnsPerIP: cfg.MaxConnsPerIP, PerIPOverrides: cfg.PerIPOverrides})
	s.limits = append([]*Limits{own}, cfg.Limits...)
	for _, l := range s.limits {
		l.join(s)
	}
	return s
}

// Serve accepts and serves connections until Shutdown, Close or the end of ctx,
// which closes at once. It returns when the last connection has ended: nil, or
// why the listener failed.
func (s *Server) Serve(ctx context.Context) error {
	unwatch := context.AfterFunc(ctx, func() { s.Close() })
	defer unwatch()
	scanned := make(chan struct{})
	go func() {
		s.scanLoop()
		close(scanned)
	}()
	err := s.acceptLoop()
	if err != nil {
		s.Close()
	}
	<-s.gone
	<-scanned
	return err
}

// Shutdown stops accepting, lets each connection finish what it has started and
// closes it. When ctx ends first, it closes what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stopAccepting()
	for _, c := range s.list() {
		c.drain()
	}
	select {
	case <-s.gone:
		return err
	case <-ctx.Done():
		s.Close()
		return errors.Join(err, ctx.Err())
	}
}

// Close closes the listener and all connections at once.
func (s *Server) Close() error {
	err := s.stopAccepting()
	for _, c := range s.list() {
		c.close(ErrClosed)
	}
	return err
}

// Addr is the listener's address.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

func (s *Server) stopAccepting() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	s.finishLocked()
	s.mu.Unlock()
	for _, l := range s.limits {
		l.part(s)
	}
	return s.cfg.Listener.Close()
}

// finishLocked notes when the last connection of a stopped server is gone.
func (s *Server) finishLocked() {
	if s.closed && !s.idle && len(s.conns) == 0 {
		s.idle = true
		close(s.gone)
	}
}

func (s *Server) list() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// acceptLoop accepts until the server stops.
func (s *Server) acceptLoop() error {
	const firstPause, lastPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for !s.stopped() {
		nc, err := s.cfg.Listener.Accept()
		switch {
		case err == nil:
			pause = firstPause
			s.accept(nc)
			if !s.sleep(s.delay()) {
				return nil
			}
		case s.stopped():
			return nil
		case transient(err):
			s.cfg.Log.Warn("cannot accept a connection for now", "listener", s.cfg.Name, "err", err)
			if !s.sleep(pause) {
				return nil
			}
			pause = min(2*pause, lastPause)
		default:
			return fmt.Errorf("wire: accept on listener %s: %w", s.cfg.Name, err)
		}
	}
	return nil
}

// transient: the next Accept may succeed.
func transient(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func (s *Server) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// sleep waits for d; false when the server stops meanwhile.
func (s *Server) sleep(d time.Duration) bool {
	if d <= 0 {
		return !s.stopped()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// accept starts a connection, or closes it when it may not live.
func (s *Server) accept(nc net.Conn) {
	if tc, ok := nc.(*net.TCPConn); ok {
		// A peer that vanished is noticed within two minutes.
		_ = tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6})
	}
	host := hostOf(nc.RemoteAddr())
	if !s.admit(host) {
		nc.Close()
		return
	}
	if s.cfg.TLS != nil {
		nc = tls.Server(nc, s.cfg.TLS)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		s.leave(host)
		return
	}
	s.nextID++
	c := newConn(s, nc, s.nextID, host)
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.stats.conns.Inc()
	go c.run()
}

// admit counts a connection in all limits, waiting where it has to; false means
// that it may not live.
func (s *Server) admit(host string) bool {
	for i, l := range s.limits {
		if limit, ok := l.enterHost(host); !ok {
			for _, l := range s.limits[:i] {
				l.leaveHost(host)
			}
			s.stats.refused.Inc()
			s.cfg.Log.Info("connection refused: its address has too many", "listener", s.cfg.Name, "address", host, "limit", limit)
			return false
		}
	}
	for i, l := range s.limits {
		if !l.enter(s) {
			for _, l := range s.limits[:i] {
				l.leave()
			}
			for _, l := range s.limits {
				l.leaveHost(host)
			}
			return false
		}
	}
	return true
}

// leave takes a connection out of all limits.
func (s *Server) leave(host string) {
	for _, l := range s.limits {
		l.leaveHost(host)
		l.leave()
	}
}

// delay is how long the accept loop has to pause after a connection.
func (s *Server) delay() (d time.Duration) {
	now := time.Now()
	for _, l := range s.limits {
		d = max(d, l.delay(now))
	}
	return d
}

// forget takes a connection out whose reader has ended.
func (s *Server) forget(c *Conn) {
	if f := s.cfg.Closed; f != nil {
		f(c, c.cause)
	}
	level := slog.LevelDebug
	if errors.Is(c.cause, ErrMalformed) || errors.Is(c.cause, ErrStalled) {
		level = slog.LevelInfo
	}
	s.cfg.Log.Log(context.Background(), level, "connection closed", "listener", s.cfg.Name, "address", c.host, "why", c.cause)
	s.stats.conns.Dec()
	s.leave(c.host)
	s.mu.Lock()
	delete(s.conns, c)
	s.finishLocked()
	s.mu.Unlock()
}
