package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
)

// member finds who asks, or says why it is none of the generation's members.
func (g *group) member(id string, instance *string, generation int32) (*member, *kerr.Error) {
	if g == nil {
		return nil, kerr.UnknownMemberID
	}
	c := &g.classic
	if instance != nil {
		known, ok := c.static[*instance]
		if !ok {
			return nil, kerr.UnknownMemberID
		}
		if known != id {
			return nil, kerr.FencedInstanceID
		}
	}
	m := c.members[id]
	if m == nil {
		return nil, kerr.UnknownMemberID
	}
	if generation != c.generation {
		return m, kerr.IllegalGeneration
	}
	return m, nil
}

// sync decides SyncGroup: the leader brings the assignment, the others wait for it.
func (m *Machine) sync(env coord.Env, t coord.Token, req *kmsg.SyncGroupRequest) coord.Result {
	fail := func(err *kerr.Error) coord.Result {
		return coord.Result{About: req.Group, Response: syncFailed(err)}
	}
	if req.Group == "" {
		return fail(kerr.InvalidGroupID)
	}
	g := m.get(req.Group)
	member, err := g.member(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		return fail(err)
	}
	c := &g.classic
	if req.ProtocolType != nil && *req.ProtocolType != c.protocolType || req.Protocol != nil && *req.Protocol != c.protocol {
		return fail(kerr.InconsistentGroupProtocol)
	}
	d := m.begin(env, g)
	switch c.state {
	case empty:
		return fail(kerr.UnknownMemberID)
	case preparing:
		return fail(kerr.RebalanceInProgress)
	case stable:
		d.hasSynced(member)
		d.touch(member)
		d.Response = c.assigned(member)
	case completing:
		if member.sync != 0 {
			d.wake(member.sync, syncFailed(kerr.RebalanceInProgress)) // replaced by this one
		}
		member.sync = t
		d.hasSynced(member)
		if member.id == c.leader {
			d.assign(req)
		}
	}
	return d.Result
}

// assign takes the leader's assignment: the generation is settled.
func (d *decision) assign(req *kmsg.SyncGroupRequest) {
	c := &d.g.classic
	for _, m := range c.members {
		m.assignment = []byte{}
	}
	for _, a := range req.GroupAssignment {
		if m := c.members[a.MemberID]; m != nil {
			m.assignment = a.MemberAssignment
		}
	}
	c.to(stable, d.Now)
	d.writeGroup()
	for _, m := range c.ordered() {
		if m.sync != 0 {
			d.wake(m.sync, c.assigned(m))
			m.sync = 0
			d.touch(m)
		}
	}
}

// hasSynced notes that a member has asked for its assignment; when all have,
// there is no hurry any more.
func (d *decision) hasSynced(m *member) {
	m.synced = true
	if d.g.classic.synced() {
		d.cancel(syncTimer(d.g.id))
	}
}

// assigned answers a sync with what the member has.
func (c *classic) assigned(m *member) *kmsg.SyncGroupResponse {
	r := kmsg.NewPtrSyncGroupResponse()
	protocol, protocolType := c.protocol, c.protocolType
	r.Protocol, r.ProtocolType, r.MemberAssignment = &protocol, &protocolType, m.assignment
	return r
}

// heartbeat decides Heartbeat.
func (m *Machine) heartbeat(env coord.Env, req *kmsg.HeartbeatRequest) coord.Result {
	r := kmsg.NewPtrHeartbeatResponse()
	g := m.get(req.Group)
	member, err := g.member(req.MemberID, req.InstanceID, req.Generation)
	if req.Group == "" {
		err = kerr.InvalidGroupID
	}
	if err != nil {
		r.ErrorCode = err.Code
		return coord.Result{About: req.Group, Response: r}
	}
	d := m.begin(env, g)
	switch g.classic.state {
	case empty:
		r.ErrorCode = kerr.UnknownMemberID.Code
	case preparing:
		r.ErrorCode = kerr.RebalanceInProgress.Code
		d.touch(member)
	default:
		d.touch(member)
	}
	d.Response = r
	return d.Result
}

// leave decides LeaveGroup; from v3 on for several members at once.
func (m *Machine) leave(env coord.Env, req *kmsg.LeaveGroupRequest) coord.Result {
	r := kmsg.NewPtrLeaveGroupResponse()
	g := m.get(req.Group)
	d := m.begin(env, g)
	d.About, d.Response = req.Group, r
	if req.Group == "" {
		r.ErrorCode = kerr.InvalidGroupID.Code
		return d.Result
	}
	leaving := req.Members
	if req.Version < 3 {
		one := kmsg.NewLeaveGroupRequestMember()
		one.MemberID = req.MemberID
		leaving = []kmsg.LeaveGroupRequestMember{one}
	}
	removed := false
	for _, l := range leaving {
		out := kmsg.NewLeaveGroupResponseMember()
		out.MemberID, out.InstanceID = l.MemberID, l.InstanceID
		if err := d.leaveOne(l); err != nil {
			out.ErrorCode = err.Code
		} else {
			removed = true
		}
		r.Members = append(r.Members, out)
	}
	if req.Version < 3 {
		r.ErrorCode, r.Members = r.Members[0].ErrorCode, nil
	}
	if removed {
		d.afterRemoval()
	}
	return d.Result
}

func (d *decision) leaveOne(l kmsg.LeaveGroupRequestMember) *kerr.Error {
	if d.g == nil {
		return kerr.UnknownMemberID
	}
	c := &d.g.classic
	id := l.MemberID
	if l.InstanceID != nil {
		known, ok := c.static[*l.InstanceID]
		switch {
		case !ok:
			return kerr.UnknownMemberID
		case id != "" && id != known:
			return kerr.FencedInstanceID
		}
		id = known
	}
	if c.pending[id] {
		delete(c.pending, id)
		d.cancel(pendingTimer(d.g.id, id))
		return nil
	}
	m := c.members[id]
	if m == nil {
		return kerr.UnknownMemberID
	}
	d.removeMember(m)
	return nil
}
