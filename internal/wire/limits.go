package wire

import (
	"math"
	"net"
	"sync"
	"time"
)

// LimitsConfig bounds connections; zeros mean no bound.
type LimitsConfig struct {
	MaxConns       int            // max.connections
	MaxConnsPerIP  int            // max.connections.per.ip
	PerIPOverrides map[string]int // max.connections.per.ip.overrides, by address in text
	MaxConnRate    float64        // max.connection.creation.rate, per second
}

// Limits bounds the connections of all listeners that share it (KAFKA.md 10.4).
// A connection beyond the total waits in its listener's accept loop, and those
// after it in the backlog; one beyond its address's share is closed at once; a
// rate too high delays accepting. All methods are safe for concurrent use.
type Limits struct {
	mu     sync.Mutex
	cfg    LimitsConfig
	left   sync.Cond // on mu: a connection has ended, or a server stops
	count  int
	byHost map[string]int
	pace   pace
	users  map[*Server]struct{} // whose connections may have to give way
}

// NewLimits returns Limits without connections.
func NewLimits(cfg LimitsConfig) *Limits {
	l := &Limits{
		cfg:    cfg,
		byHost: make(map[string]int),
		pace:   pace{perSecond: cfg.MaxConnRate},
		users:  make(map[*Server]struct{}),
	}
	l.left.L = &l.mu
	return l
}

// Set changes the limits. Connections that are open stay.
func (l *Limits) Set(cfg LimitsConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg = cfg
	l.pace.perSecond = cfg.MaxConnRate
	l.left.Broadcast()
}

// hostLimitLocked is how many connections a host may have.
func (l *Limits) hostLimitLocked(host string) int {
	if n, ok := l.cfg.PerIPOverrides[host]; ok {
		return n
	}
	if l.cfg.MaxConnsPerIP > 0 {
		return l.cfg.MaxConnsPerIP
	}
	return math.MaxInt
}

// enterHost counts a connection of host unless it has as many as its limit.
func (l *Limits) enterHost(host string) (limit int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit = l.hostLimitLocked(host)
	if l.byHost[host] >= limit {
		return limit, false
	}
	l.byHost[host]++
	return limit, true
}

func (l *Limits) leaveHost(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byHost[host]--; l.byHost[host] <= 0 {
		delete(l.byHost, host)
	}
}

// enter counts a connection of s. It waits for one to end when there are too
// many; a protected listener does not wait, another listener's connection that
// was idle for longest is closed for it. false means that s stops.
func (l *Limits) enter(s *Server) bool {
	l.mu.Lock()
	full := func() bool { return l.cfg.MaxConns > 0 && l.count >= l.cfg.MaxConns }
	for full() && !s.cfg.Protected && !s.stopped() {
		l.left.Wait()
	}
	if s.stopped() {
		l.mu.Unlock()
		return false
	}
	evict := full()
	l.count++
	var others []*Server
	if evict {
		for o := range l.users {
			if !o.cfg.Protected {
				others = append(others, o)
			}
		}
	}
	l.mu.Unlock()
	if c := mostIdle(others); c != nil {
		c.close(ErrEvicted)
	}
	return true
}

func (l *Limits) leave() {
	l.mu.Lock()
	l.count--
	l.left.Signal()
	l.mu.Unlock()
}

// join makes s known, part forgets it and wakes its accept loop.
func (l *Limits) join(s *Server) {
	l.mu.Lock()
	l.users[s] = struct{}{}
	l.mu.Unlock()
}

func (l *Limits) part(s *Server) {
	l.mu.Lock()
	delete(l.users, s)
	l.left.Broadcast()
	l.mu.Unlock()
}

// delay counts a connection at now and tells how long to wait for the next.
func (l *Limits) delay(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pace.take(now)
}

// mostIdle is the connection that showed no progress for longest, as far as the
// scans have seen; nil if there is none.
func mostIdle(servers []*Server) (idle *Conn) {
	var since time.Time
	for _, s := range servers {
		for _, c := range s.list() {
			if at := c.stillSince(); idle == nil || at.Before(since) {
				idle, since = c, at
			}
		}
	}
	return idle
}

// pace spaces events so that no more than perSecond come in a second, after a
// burst of one second's worth.
type pace struct {
	perSecond float64   // ≤ 0: no bound
	last      time.Time // when the last would have come at an even pace
}

// take counts an event at now and tells how long to wait for the next.
func (p *pace) take(now time.Time) time.Duration {
	if p.perSecond <= 0 {
		return 0
	}
	step := time.Duration(float64(time.Second) / p.perSecond)
	if burst := now.Add(-time.Second); p.last.Before(burst) {
		p.last = burst
	}
	p.last = p.last.Add(step)
	return p.last.Add(step).Sub(now)
}

// hostOf is the host of an address, without port and zone, IPv4 as such.
func hostOf(a net.Addr) string {
	if ta, ok := a.(*net.TCPAddr); ok {
		return ta.AddrPort().Addr().Unmap().WithZone("").String()
	}
	if a == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}
