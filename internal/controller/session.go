package controller

import (
	"cmp"
	"slices"
	"time"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// A session is what the active controller remembers of one broker's life beside
// the image.
type session struct {
	// epoch is the life that the session belongs to; contact by another epoch
	// begins another session.
	epoch model.BrokerEpoch
	// heard is the time of the last registration or heartbeat.
	heard time.Time
	// offset is the last metadata offset that the broker said it has, -1 before.
	offset model.Offset
	// registered is the offset of the newest registration record of this life, 0
	// if that was written under an earlier controller: the epoch stands in then.
	registered model.Offset
	// shutdown is the offset at which the broker's controlled shutdown began, 0
	// while there is none: others must have seen it before the broker may stop.
	shutdown model.Offset
	// again is when to look once more at a broker that Tick decided to fence: the
	// decision may have been dropped. Zero before.
	again time.Time
	// spared is set when the session was extended because the controller itself had
	// stood still; that happens once between two signs of life.
	spared bool
}

// standstill is how late a tick may come. A later one means that this process was
// stopped, or that its machine slept: heartbeats could not be heard, and their
// absence says nothing about the brokers.
const standstill = time.Second

// fenceRetry is how long Tick waits for its own decision before it repeats it.
const fenceRetry = time.Second

// touch notes a sign of life.
func (c *Controller) touch(id model.NodeID, epoch model.BrokerEpoch, now time.Time) *session {
	s := c.sessions[id]
	if s == nil || s.epoch != epoch {
		s = &session{epoch: epoch, offset: model.NoOffset}
		c.sessions[id] = s
	}
	s.heard, s.again, s.spared = now, time.Time{}, false
	return s
}

// alive reports whether this life of a broker has a session that has not expired.
func (c *Controller) alive(b *image.Broker, now time.Time) bool {
	s := c.sessions[b.ID]
	return s != nil && s.epoch == b.Epoch && now.Sub(s.heard) < c.cfg.SessionTimeout
}

// Next is when Tick has something to do at the latest, given that nobody is heard
// of before; the zero time if there is nothing to wait for.
func (c *Controller) Next() time.Time {
	var next time.Time
	if c.cfg.Rebalance > 0 && len(c.sessions) > 1 {
		next = c.rebalanceAt
	}
	for _, s := range c.sessions {
		end := s.heard.Add(c.cfg.SessionTimeout)
		if s.again.After(end) {
			end = s.again
		}
		if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// Tick decides what time has brought: brokers whose sessions have expired are
// fenced; now and then leaderships go back to the preferred replicas. Each result
// is decided on env, so at most one is given at a time: call again while Next is
// not after now.
func (c *Controller) Tick(env Env) []Result {
	if r := c.expire(env); r != nil {
		return r
	}
	return c.rebalance(env)
}

// expire fences the brokers whose sessions have ended. Their leaderships move in
// the same decision, together, so that no partition moves from one dead broker to
// another.
func (c *Controller) expire(env Env) []Result {
	c.spare(env.Now)
	var dead []*image.Broker
	for id, s := range c.sessions {
		if env.Now.Sub(s.heard) < c.cfg.SessionTimeout || env.Now.Before(s.again) {
			continue
		}
		if b, ok := env.Image.Broker(id); ok && b.Epoch == s.epoch && !b.Fenced {
			dead = append(dead, b)
			s.again = env.Now.Add(fenceRetry)
		} else {
			delete(c.sessions, id)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	slices.SortFunc(dead, func(a, b *image.Broker) int { return cmp.Compare(a.ID, b.ID) })
	var recs []record.Metadata
	m := c.moves(env.Image)
	for _, b := range dead {
		recs = append(recs, fenceRecord(b, 1))
		m.remove(b.ID)
	}
	recs = m.appendTo(recs)
	return []Result{{Records: recs, Txn: len(recs) > maxRecords}}
}

// spare gives the brokers a third of a session to be heard of after a standstill.
func (c *Controller) spare(now time.Time) {
	if next := c.Next(); next.IsZero() || now.Sub(next) <= standstill {
		return
	}
	for _, s := range c.sessions {
		if !s.spared && s.again.IsZero() && now.Sub(s.heard) >= c.cfg.SessionTimeout {
			s.heard, s.spared = now.Add(c.cfg.SessionTimeout/3-c.cfg.SessionTimeout), true
		}
	}
}

// Replay keeps the soft state in step with what is committed: sessions of brokers
// that are gone or live another life end. It is called for every delta, on the
// active controller and on the others.
func (c *Controller) Replay(d *image.Delta) {
	if d == nil {
		return
	}
	for id := range d.Brokers {
		s := c.sessions[id]
		if s == nil {
			continue
		}
		b, ok := d.To.Broker(id)
		if !ok || b.Epoch > s.epoch {
			delete(c.sessions, id)
		}
	}
}

// caughtUp reports whether a broker at offset has its own registration.
func (s *session) caughtUp(offset model.Offset) bool {
	return offset >= max(model.Offset(s.epoch), s.registered)
}

// lowestActive is the lowest metadata offset that any broker reported which is
// neither fenced nor leaving; the largest offset there is if there is no such
// broker.
func (c *Controller) lowestActive(img *image.Image) model.Offset {
	low := model.Offset(1<<63 - 1)
	for b := range img.Brokers() {
		if b.Fenced || b.InControlledShutdown {
			continue
		}
		if s := c.sessions[b.ID]; s != nil && s.epoch == b.Epoch {
			low = min(low, s.offset)
		}
	}
	return low
}
