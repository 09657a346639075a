package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// prepare begins a rebalance, or lets one that is under way see its new member.
func (d *decision) prepare() {
	c := &d.g.classic
	switch c.state {
	case preparing:
		d.tryCompleteJoin()
		return
	case completing:
		for _, m := range c.members {
			m.assignment = nil
			d.wake(m.sync, syncFailed(kerr.RebalanceInProgress))
			m.sync = 0
		}
	}
	d.cancel(syncTimer(d.g.id))
	c.initial = c.state == empty && d.m.cfg.InitialDelay > 0
	c.to(preparing, d.Now)
	if c.initial {
		c.newcomers, c.remaining = false, max(0, c.rebalanceTimeout()-d.m.cfg.InitialDelay)
		d.timer(joinTimer(d.g.id), d.m.cfg.InitialDelay)
		return
	}
	d.timer(joinTimer(d.g.id), c.rebalanceTimeout())
	d.tryCompleteJoin()
}

// tryCompleteJoin opens the barrier when everybody is there.
func (d *decision) tryCompleteJoin() {
	c := &d.g.classic
	if c.state != preparing || c.initial || len(c.pending) > 0 {
		return
	}
	for _, m := range c.members {
		if m.join == 0 {
			return
		}
	}
	d.completeJoin()
}

// joinEnded opens the barrier because time is up. The first rebalance of a group
// waits longer while new members keep coming.
func (d *decision) joinEnded() {
	c := &d.g.classic
	if c.state != preparing {
		return
	}
	if c.initial && c.newcomers && c.remaining > 0 {
		next := min(d.m.cfg.InitialDelay, c.remaining)
		c.newcomers, c.remaining = false, c.remaining-next
		d.timer(joinTimer(d.g.id), next)
		return
	}
	c.initial = false
	d.completeJoin()
}

// silentPause is the least time between two looks at a group whose static members
// are all silent; their own timeout may be zero.
const silentPause = time.Second

// completeJoin begins a generation with those who have joined. Dynamic members
// that have not are gone; static ones stay until their session ends.
func (d *decision) completeJoin() {
	c := &d.g.classic
	joined := 0
	for _, m := range c.ordered() {
		switch {
		case m.join != 0:
			joined++
		case m.instance == nil:
			d.removeMember(m)
		}
	}
	if joined == 0 && len(c.members) > 0 { // static members only, all silent
		d.timer(joinTimer(d.g.id), max(c.rebalanceTimeout(), silentPause))
		return
	}
	d.cancel(joinTimer(d.g.id))
	c.generation++
	if len(c.members) == 0 {
		c.protocol, c.leader = "", ""
		c.to(empty, d.Now)
		d.writeGroup()
		return
	}
	if lead := c.members[c.leader]; lead == nil || lead.join == 0 {
		for _, m := range c.ordered() {
			if m.join != 0 {
				c.leader = m.id
				break
			}
		}
	}
	c.protocol = c.vote()
	c.to(completing, d.Now)
	d.timer(syncTimer(d.g.id), c.rebalanceTimeout())
	for _, m := range c.ordered() {
		m.assignment, m.synced = nil, false
		if m.join == 0 {
			continue
		}
		d.wake(m.join, d.current(m))
		m.join, m.isNew = 0, false
		d.timer(sessionTimer(d.g.id, m.id), m.session)
	}
}

// syncEnded removes members that have not asked for their assignment in time,
// whether the leader has brought it or not.
func (d *decision) syncEnded() {
	c := &d.g.classic
	if c.state != completing && c.state != stable {
		return
	}
	gone := false
	for _, m := range c.ordered() {
		if !m.synced {
			d.removeMember(m)
			gone = true
		}
	}
	if gone {
		d.prepare()
	}
}

// sessionEnded removes a member that was not heard of, unless it waits for us.
func (d *decision) sessionEnded(id string) {
	c := &d.g.classic
	m := c.members[id]
	if m == nil {
		return
	}
	if !m.isNew && (m.join != 0 || m.sync != 0) {
		d.timer(sessionTimer(d.g.id, id), m.session)
		return
	}
	d.removeMember(m)
	d.afterRemoval()
}

// removeMember takes a member out and answers what it waits for.
func (d *decision) removeMember(m *member) {
	d.g.classic.remove(m)
	d.cancel(sessionTimer(d.g.id, m.id))
	if m.join != 0 {
		r := joinFailed(m, kerr.UnknownMemberID)
		r.MemberID = "" // it shall ask for a new one
		d.wake(m.join, r)
	}
	d.wake(m.sync, syncFailed(kerr.UnknownMemberID))
	m.join, m.sync = 0, 0
}

// afterRemoval goes on without the member.
func (d *decision) afterRemoval() {
	switch d.g.classic.state {
	case stable, completing:
		d.prepare()
	case preparing:
		d.tryCompleteJoin()
	}
}

func syncFailed(err *kerr.Error) *kmsg.SyncGroupResponse {
	r := kmsg.NewPtrSyncGroupResponse()
	r.ErrorCode = err.Code
	return r
}

// touch keeps a member's session.
func (d *decision) touch(m *member) { d.timer(sessionTimer(d.g.id, m.id), m.session) }

// millis is a duration in Kafka's unit.
func millis(t time.Duration) int32 { return int32(t / time.Millisecond) }
