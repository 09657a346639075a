// Package group decides about consumer groups: who is a member, who leads, what
// is committed. It is the pure machine behind __consumer_offsets; internal/coord
// drives it. Rules and codes: KAFKA.md 8.2 and 8.3.
//
// The one idea: a group is offsets plus, if it has members, a membership of some
// protocol. Here is the classic protocol (JoinGroup, SyncGroup), in which the
// members agree among themselves and the coordinator keeps the barrier:
//
//	Empty ──join──▶ Preparing ──all have joined──▶ Completing ──leader syncs──▶ Stable
//	  ▲                 ▲  │                           │  │                        │
//	  └──none is left───┘  └───────member comes or goes┴──┴────────────────────────┘
//
// Hard state is what the records say: the generation that was last agreed on with
// its members and assignments, and the offsets. Everything about a rebalance under
// way is soft: after a failover the members join again.
//
// A Machine is not safe for concurrent use; its Shard owns it.
package group

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// Config is what a Machine is told once. All fields must be set.
type Config struct {
	InitialDelay     time.Duration // group.initial.rebalance.delay.ms
	MinSession       time.Duration // group.min.session.timeout.ms
	MaxSession       time.Duration // group.max.session.timeout.ms
	MaxSize          int           // group.max.size
	MaxMetadata      int           // offset.metadata.max.bytes
	OffsetsRetention time.Duration // offsets.retention.minutes
	OffsetsCheck     time.Duration // offsets.retention.check.interval.ms
}

// Machine is the state of one partition of __consumer_offsets.
type Machine struct {
	cfg    Config
	groups map[string]*group

	// live is set by Loaded: from there on Replay sees what this machine decided.
	live bool
}

// New makes an empty machine.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, groups: make(map[string]*group)}
}

// group is a group of any kind. It exists from its first record, of whatever
// type, to the tombstone of its GroupMetadata key; without members and offsets
// it goes when offsets are next looked at for expiry.
type group struct {
	id      string
	offsets offsets
	classic classic
}

// get finds a group, nil if there is none.
func (m *Machine) get(id string) *group { return m.groups[id] }

// make finds a group or makes an empty one.
func (m *Machine) make(id string) *group {
	g := m.groups[id]
	if g == nil {
		g = &group{id: id, classic: newClassic()}
		m.groups[id] = g
	}
	return g
}

// decision gathers what one call of the machine decides.
type decision struct {
	coord.Env
	coord.Result
	m *Machine
	g *group
}

func (m *Machine) begin(env coord.Env, g *group) *decision {
	d := &decision{Env: env, m: m, g: g}
	if g != nil {
		d.About = g.id
	}
	return d
}

func (d *decision) record(key, value []byte) {
	d.Records = append(d.Records, coord.Record{Key: key, Value: value})
}

func (d *decision) wake(t coord.Token, resp kmsg.Response) {
	if t != 0 {
		d.Wake = append(d.Wake, coord.Wake{Token: t, Response: resp})
	}
}

func (d *decision) timer(key string, after time.Duration) {
	d.Timers = append(d.Timers, coord.Timer{Key: key, At: d.Now.Add(after)})
}

func (d *decision) cancel(key string) { d.Timers = append(d.Timers, coord.Timer{Key: key}) }

// Handle decides a request; see coord.Machine.
func (m *Machine) Handle(env coord.Env, t coord.Token, req kmsg.Request, who coord.Client) coord.Result {
	switch req := req.(type) {
	case *kmsg.JoinGroupRequest:
		return m.join(env, t, req, who)
	case *kmsg.SyncGroupRequest:
		return m.sync(env, t, req)
	case *kmsg.HeartbeatRequest:
		return m.heartbeat(env, req)
	case *kmsg.LeaveGroupRequest:
		return m.leave(env, req)
	case *kmsg.OffsetCommitRequest:
		return m.commit(env, req)
	case *kmsg.OffsetFetchRequest:
		return m.fetch(env, req)
	case *kmsg.OffsetDeleteRequest:
		return m.deleteOffsets(env, req)
	case *kmsg.DescribeGroupsRequest:
		return m.describe(req)
	case *kmsg.ListGroupsRequest:
		return m.list(req)
	case *kmsg.DeleteGroupsRequest:
		return m.delete(env, req)
	}
	panic("BUG: group: no handler for " + kmsg.Key(req.Key()).Name())
}

// Loaded starts the timers of what the log had; see coord.Machine.
func (m *Machine) Loaded(env coord.Env) coord.Result {
	m.live = true
	d := m.begin(env, nil)
	d.timer(expiryTimer, m.cfg.OffsetsCheck)
	for _, g := range m.groups {
		for _, member := range g.classic.members {
			d.timer(sessionTimer(g.id, member.id), member.session)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		d.g = m.groups[id]
		for _, topic := range d.g.offsets.names() {
			d.dropStale(topic) // nobody may have been there to hear of the deletion
		}
		if len(d.g.classic.members) > m.cfg.MaxSize {
			d.prepare() // it has been made smaller: the last to join again are refused
		}
	}
	return d.Result
}

// Changed drops the offsets of deleted topics; see coord.Machine.
func (m *Machine) Changed(env coord.Env, delta *image.Delta) coord.Result {
	d := m.begin(env, nil)
	deleted := make(map[string]bool)
	for _, t := range delta.Topics {
		if t.Deleted {
			deleted[t.Name] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		d.g = m.groups[id]
		for _, topic := range slices.Sorted(maps.Keys(deleted)) {
			d.dropStale(topic)
		}
	}
	return d.Result
}

// Replay takes a record of the log; see coord.Machine. What cannot be read is
// passed over: a newer version may have written it.
func (m *Machine) Replay(offset model.Offset, _ int64, by model.Producer, r coord.Record) {
	if len(r.Key) < 2 {
		return
	}
	switch version := int16(r.Key[0])<<8 | int16(r.Key[1]); version {
	case 0, 1:
		m.replayOffset(offset, by, r)
	case 2:
		m.replayGroup(r)
	}
}

// EndTxn takes a transaction marker; see coord.Machine.
func (m *Machine) EndTxn(by model.Producer, commit bool) {
	for _, g := range m.groups {
		g.offsets.endTxn(by.ID, commit)
	}
}

// Timeout decides what the end of a timer means; see coord.Machine.
func (m *Machine) Timeout(env coord.Env, key string) coord.Result {
	kind, id, member := splitTimer(key)
	if kind == expiryTimer {
		return m.expireOffsets(env)
	}
	g := m.get(id)
	if g == nil {
		return coord.Result{}
	}
	d := m.begin(env, g)
	switch kind {
	case "session":
		d.sessionEnded(member)
	case "pending":
		if g.classic.pending[member] {
			delete(g.classic.pending, member)
			d.tryCompleteJoin()
		}
	case "join":
		d.joinEnded()
	case "sync":
		d.syncEnded()
	}
	return d.Result
}
