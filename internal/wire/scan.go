package wire

import "time"

// Bounds of the scan's interval: a timeout is noticed up to a quarter late.
const (
	minScan = 10 * time.Millisecond
	maxScan = 5 * time.Second
)

// bookedStall is the stall timeout of a frame that holds memory others wait for.
const bookedStall = 2 * time.Second

// watch is what the scan remembers of a connection; guarded by Conn.mu.
type watch struct {
	progress uint64    // as last seen
	since    time.Time // when it was first seen so
}

// stillSince is since when no progress was seen; the zero time if the scan has
// not met the connection yet.
func (c *Conn) stillSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.progress.Load() != c.seen.progress {
		return time.Now()
	}
	return c.seen.since
}

// scanLoop looks at all connections now and then. One pass over a few thousand
// connections costs less than a timer per connection, which each request would
// have to move; and requests need no clock: they only count progress.
func (s *Server) scanLoop() {
	every := min(s.cfg.StallTimeout, s.cfg.WriteTimeout)
	if s.cfg.IdleTimeout > 0 {
		every = min(every, s.cfg.IdleTimeout)
	}
	every = min(max(every/4, minScan), maxScan)
	t := time.NewTicker(min(every, bookedStall/4))
	defer t.Stop()
	var last time.Time
	for {
		select {
		case now := <-t.C:
			if now.Sub(last) < every && s.cfg.Budget.Waiting() == 0 {
				continue
			}
			last = now
			parked := 0
			for _, c := range s.list() {
				parked += c.scan(now)
			}
			s.stats.parked.Set(float64(parked))
		case <-s.gone:
			return
		}
	}
}

// scan closes the connection if it stood still for too long. It returns the
// number of requests outstanding.
func (c *Conn) scan(now time.Time) int {
	cfg := &c.srv.cfg
	c.mu.Lock()
	outstanding, writing := c.queue.count, c.queue.writing
	if p := c.progress.Load(); p != c.seen.progress || c.seen.since.IsZero() {
		c.seen = watch{p, now}
	}
	still := now.Sub(c.seen.since)
	c.mu.Unlock()
	switch phase := c.phase.Load(); {
	case writing:
		if still >= cfg.WriteTimeout {
			c.close(ErrStalled)
		}
	case phase == phaseFrame:
		if still >= cfg.StallTimeout {
			c.close(ErrStalled)
		}
	case phase == phaseBody:
		if still >= cfg.StallTimeout || still >= bookedStall && cfg.Budget.Waiting() > 0 {
			c.close(ErrStalled)
		}
	case phase == phaseIdle && outstanding == 0:
		if cfg.IdleTimeout > 0 && still >= cfg.IdleTimeout {
			c.close(ErrIdle)
		}
	}
	return outstanding
}
