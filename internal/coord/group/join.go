package group

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
)

// newMemberTimeout is how long a new member may stay silent while the rebalance
// that it came with goes on; Kafka's number.
const newMemberTimeout = 5 * time.Minute

func joinError(req *kmsg.JoinGroupRequest, err *kerr.Error) coord.Result {
	r := kmsg.NewPtrJoinGroupResponse()
	r.ErrorCode, r.Generation, r.MemberID = err.Code, -1, req.MemberID
	if err == kerr.GroupMaxSizeReached {
		r.MemberID = ""
	}
	return coord.Result{About: req.Group, Response: r}
}

// join decides JoinGroup.
func (m *Machine) join(env coord.Env, t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) coord.Result {
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	switch {
	case req.Group == "":
		return joinError(req, kerr.InvalidGroupID)
	case session < m.cfg.MinSession || session > m.cfg.MaxSession:
		return joinError(req, kerr.InvalidSessionTimeout)
	}
	g := m.get(req.Group)
	if g == nil {
		if req.MemberID != "" {
			return joinError(req, kerr.UnknownMemberID)
		}
		g = m.make(req.Group)
		d := m.begin(env, g)
		d.writeEmpty() // whatever becomes of the join
		return d.joined(t, req, who)
	}
	return m.begin(env, g).joined(t, req, who)
}

func (d *decision) joined(t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) coord.Result {
	if err := d.join(t, req, who); err != nil {
		d.Response = joinError(req, err).Response
	}
	return d.Result
}

// join takes the member in, or says why not. The answer is given here or when the
// barrier opens.
func (d *decision) join(t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) *kerr.Error {
	c := &d.g.classic
	known := c.members[req.MemberID]
	if !c.accepts(req.MemberID, d.m.cfg.MaxSize) {
		d.turnAway(req.MemberID)
		return kerr.GroupMaxSizeReached
	}
	if !c.supports(req.ProtocolType, req.Protocols) {
		return kerr.InconsistentGroupProtocol
	}
	if req.MemberID == "" {
		return d.joinNew(t, req, who)
	}
	if c.pending[req.MemberID] {
		delete(c.pending, req.MemberID)
		d.cancel(pendingTimer(d.g.id, req.MemberID))
		d.addMember(req.MemberID, t, req, who)
		return nil
	}
	if req.InstanceID != nil {
		id, ok := c.static[*req.InstanceID]
		if !ok {
			return kerr.UnknownMemberID
		}
		if id != req.MemberID {
			return kerr.FencedInstanceID
		}
	}
	if known == nil {
		return kerr.UnknownMemberID
	}
	switch {
	case c.state == completing && known.same(req.Protocols),
		c.state == stable && known.id != c.leader && known.same(req.Protocols):
		d.Response = d.current(known) // the answer before got lost
	default:
		d.updateMember(known, t, req)
		d.prepare()
	}
	return nil
}

// turnAway forgets a member for which there is no room.
func (d *decision) turnAway(id string) {
	c := &d.g.classic
	if c.pending[id] {
		delete(c.pending, id)
		d.cancel(pendingTimer(d.g.id, id))
	}
	if m := c.members[id]; m != nil {
		d.removeMember(m)
	}
	d.tryCompleteJoin()
}

// joinNew takes in a member without an id.
func (d *decision) joinNew(t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) *kerr.Error {
	c := &d.g.classic
	if req.InstanceID != nil {
		id := d.newID(*req.InstanceID)
		if old, ok := c.static[*req.InstanceID]; ok {
			d.replaceStatic(c.members[old], id, t, req, who)
			return nil
		}
		d.addMember(id, t, req, who)
		return nil
	}
	id := d.newID(who.ID)
	if req.Version < 4 {
		d.addMember(id, t, req, who)
		return nil
	}
	c.pending[id] = true
	d.timer(pendingTimer(d.g.id, id), time.Duration(req.SessionTimeoutMillis)*time.Millisecond)
	r := kmsg.NewPtrJoinGroupResponse()
	r.ErrorCode, r.Generation, r.MemberID = kerr.MemberIDRequired.Code, -1, id
	d.Response = r
	return nil
}

// newID makes a member id as Kafka does: a name and a random UUID.
func (d *decision) newID(name string) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], d.Rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], d.Rand.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	if name == "" {
		return base64.RawURLEncoding.EncodeToString(b[:])
	}
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (d *decision) addMember(id string, t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) {
	c := &d.g.classic
	m := &member{id: id, instance: req.InstanceID, clientID: who.ID, clientHost: who.Host, isNew: true}
	if len(c.members) == 0 {
		c.protocolType = req.ProtocolType
	}
	c.add(m)
	c.newcomers = true
	d.updateMember(m, t, req)
	d.timer(sessionTimer(d.g.id, id), newMemberTimeout)
	d.prepare()
}

// updateMember takes over what a join says; its answer waits for the barrier.
func (d *decision) updateMember(m *member, t coord.Token, req *kmsg.JoinGroupRequest) {
	if m.join != 0 {
		d.wake(m.join, joinFailed(m, kerr.RebalanceInProgress)) // replaced by this one
	}
	m.session = time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	m.rebalance = m.session
	if req.Version >= 1 && req.RebalanceTimeoutMillis >= 0 {
		m.rebalance = time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
	}
	m.protocols, m.join = req.Protocols, t
}

func joinFailed(m *member, err *kerr.Error) *kmsg.JoinGroupResponse {
	r := kmsg.NewPtrJoinGroupResponse()
	r.ErrorCode, r.Generation, r.MemberID = err.Code, -1, m.id
	return r
}

// replaceStatic gives a static member that came back without its id a new one.
// In a stable group nothing else need change (KIP-345).
func (d *decision) replaceStatic(old *member, id string, t coord.Token, req *kmsg.JoinGroupRequest, who coord.Client) {
	c := &d.g.classic
	if old.join != 0 {
		d.wake(old.join, joinFailed(old, kerr.FencedInstanceID))
	}
	if old.sync != 0 {
		d.wake(old.sync, syncFailed(kerr.FencedInstanceID))
	}
	d.cancel(sessionTimer(d.g.id, old.id))
	leader := c.leader
	m := *old
	m.id, m.join, m.sync, m.clientID, m.clientHost = id, 0, 0, who.ID, who.Host
	delete(c.members, old.id)
	c.members[id] = &m
	c.static[*m.instance] = id
	if leader == old.id {
		c.leader = id
	}
	same := m.same(req.Protocols)
	d.updateMember(&m, t, req)
	d.timer(sessionTimer(d.g.id, id), m.session)
	if c.state != stable || !same && c.vote() != c.protocol {
		d.prepare()
		return
	}
	m.join = 0
	r := d.current(&m)
	if leader == old.id && req.Version < 9 {
		r.LeaderID, r.Members = leader, nil // it must not think that it has to assign
	} else if leader == old.id {
		r.SkipAssignment = true
	}
	d.Response = r
	d.writeGroup()
}

// current answers a join with the generation that there is.
func (d *decision) current(m *member) *kmsg.JoinGroupResponse {
	c := &d.g.classic
	r := kmsg.NewPtrJoinGroupResponse()
	r.Generation, r.LeaderID, r.MemberID = c.generation, c.leader, m.id
	protocol, protocolType := c.protocol, c.protocolType
	r.Protocol, r.ProtocolType = &protocol, &protocolType
	if m.id == c.leader {
		for _, other := range c.ordered() {
			rm := kmsg.NewJoinGroupResponseMember()
			rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = other.id, other.instance, other.metadata(c.protocol)
			r.Members = append(r.Members, rm)
		}
	}
	return r
}
