package broker

import (
	"errors"
	"sync"
	"sync/atomic"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/replication"
	"ottla.dev/ottla/internal/storage"
)

// What a partition answers when it does not do what was asked. The api package
// maps them to Kafka's codes.
var (
	ErrNotLeader         = errors.New("this node does not lead the partition")
	ErrFencedEpoch       = errors.New("the leader epoch given is older than the partition's")
	ErrUnknownEpoch      = errors.New("the leader epoch given is newer than the partition's")
	ErrGone              = errors.New("the topic was deleted")
	ErrNotEnoughReplicas = errors.New("fewer replicas in sync than min.insync.replicas")
	ErrTooFewAfterAppend = errors.New("appended, but fewer replicas in sync than min.insync.replicas")
	ErrTimeout           = errors.New("not replicated within the request's timeout")
	ErrFolder            = errors.New("the log folder of the partition has failed")
	ErrTooLarge          = errors.New("the batch is larger than max.message.bytes")
	ErrPolicy            = errors.New("records of a topic whose cleanup.policy is compact cannot be deleted by offset")
)

// Role is what the metadata says of a partition. Immutable.
type Role struct {
	Leader   model.NodeID
	Epoch    model.Epoch
	Version  int32 // partition epoch
	Leading  bool  // Leader is this node and its log is ready for the epoch
	Replicas []model.NodeID
	ISR      []model.NodeID
	Dead     error // ErrGone or ErrFolder: nothing works here any more
}

// Partition is a replica on this node.
type Partition struct {
	Topic *Topic
	Index int32

	self model.NodeID
	log  *storage.Log

	// role is replaced by the metadata goroutine, together with lead under mu.
	role atomic.Pointer[Role]

	// high is lead's high watermark for readers without the lock; on a
	// follower, what the leader said.
	high atomic.Int64

	mu sync.Mutex

	// lead is the replication state while this node leads, else nil.
	lead *replication.Leader

	// onHigh are writes with acks=all, onFlush those with acks=1; each is in
	// ascending order of the offset it waits for, because appends are.
	onHigh, onFlush writes

	// polls are parked fetches, in no order.
	polls map[*Poll]struct{}
}

// Name is the partition's name.
func (p *Partition) Name() model.TopicPartition {
	return model.TopicPartition{Topic: p.Topic.Name, Partition: p.Index}
}

// Log gives the log for questions that need no role.
func (p *Partition) Log() *storage.Log { return p.log }

// Role gives the partition's role of this moment.
func (p *Partition) Role() *Role { return p.role.Load() }

// High is the high watermark.
func (p *Partition) High() model.Offset { return model.Offset(p.high.Load()) }

// Stable is the last stable offset: below it every transaction has ended.
func (p *Partition) Stable() model.Offset { return p.log.LastStable(p.High()) }

// Lead gives the role if this node leads the partition and the client's idea of
// the epoch (-1 = none) is the same; else the reason as an error.
func (p *Partition) Lead(clientEpoch model.Epoch) (*Role, error) {
	r := p.role.Load()
	switch {
	case r.Dead != nil:
		return r, r.Dead
	case clientEpoch != model.NoEpoch && clientEpoch < r.Epoch:
		return r, ErrFencedEpoch
	case clientEpoch != model.NoEpoch && clientEpoch > r.Epoch:
		return r, ErrUnknownEpoch
	case !r.Leading:
		return r, ErrNotLeader
	}
	return r, nil
}

// Appended is storage's word that the log grew. Part of storage.Notify.
func (p *Partition) Appended(_ *storage.Log, _ model.Offset) { p.advance() }

// Flushed is storage's word that more of the log is on disk. Part of storage.Notify.
func (p *Partition) Flushed(_ *storage.Log, _ model.Offset) { p.advance() }

// Failed is storage's word that the folder is lost. Part of storage.Notify.
func (p *Partition) Failed(_ *storage.Log, _ error) { p.retire(ErrFolder) }

// advance brings the high watermark up to what the log says and wakes who can go on.
func (p *Partition) advance() {
	flushed := p.log.FlushedOffset()
	p.mu.Lock()
	if p.lead == nil {
		p.mu.Unlock()
		return
	}
	var fire *Poll
	if p.lead.Local(p.log.EndOffset(), flushed) {
		p.high.Store(int64(p.lead.High()))
		fire = p.takePollsLocked()
	}
	var done writes
	p.onHigh.popTo(p.lead.High(), &done)
	p.onFlush.popTo(flushed, &done)
	enough := p.lead.EnoughISR()
	p.mu.Unlock()

	for w := done.pop(); w != nil; w = done.pop() {
		if w.Acks == AcksAll && !enough {
			w.finish(ErrTooFewAfterAppend)
			continue
		}
		w.finish(nil)
	}
	firePolls(fire)
}

// setRole takes the role that the metadata gives. Called by the metadata goroutine.
func (p *Partition) setRole(r *Role, minISR int) error {
	old := p.role.Load()
	sameTerm := old != nil && old.Leading && r.Leader == p.self && old.Epoch == r.Epoch
	if r.Leader == p.self && !sameTerm {
		if err := p.log.SetLeaderEpoch(r.Epoch); err != nil {
			return err
		}
	}
	r.Leading = r.Leader == p.self
	p.mu.Lock()
	if p.role.Load().Dead != nil { // retired meanwhile
		p.mu.Unlock()
		return nil
	}
	switch {
	case sameTerm:
		p.lead.SetISR(r.Replicas, r.ISR, minISR)
	case r.Leading:
		p.lead = replication.NewLeader(p.self, r.Replicas, r.ISR, minISR, p.log.EndOffset(), p.log.FlushedOffset(), p.High())
	default:
		p.lead = nil
	}
	if p.lead != nil {
		p.high.Store(int64(p.lead.High()))
	}
	p.role.Store(r)
	var failed writes
	if !sameTerm {
		failed = p.takeWritesLocked()
	}
	fire := p.takePollsLocked()
	p.mu.Unlock()
	failed.finish(ErrNotLeader)
	firePolls(fire)
	p.advance()
	return nil
}

// retire ends the partition's service on this node for good.
func (p *Partition) retire(why error) {
	p.mu.Lock()
	r := *p.role.Load()
	r.Leading, r.Dead = false, why
	p.role.Store(&r)
	p.lead = nil
	failed := p.takeWritesLocked()
	fire := p.takePollsLocked()
	p.mu.Unlock()
	failed.finish(why)
	firePolls(fire)
}
