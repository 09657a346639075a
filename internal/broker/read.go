package broker

import (
	"encoding/binary"
	"sync/atomic"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// Read is what a fetch wants of one partition.
type Read struct {
	Offset    model.Offset
	MaxBytes  int64
	MinOne    bool         // a whole batch even when it is larger than MaxBytes
	Committed bool         // isolation.level=read_committed
	Replica   model.NodeID // a follower's id, -1 for a consumer
	Epoch     model.Epoch  // the leader epoch the reader knows, -1 = none
	LastEpoch model.Epoch  // epoch of the reader's last record, -1 = none (KIP-595)
}

// Slice is what a read gives. Chunk must be closed unless Err is set or Diverges.
type Slice struct {
	Chunk    storage.Chunk
	High     model.Offset
	Stable   model.Offset
	Start    model.Offset
	Aborted  []storage.AbortedTxn // transactions that end in an abort, for read_committed
	Diverges bool                 // the reader's log must be cut: see DivergeEpoch, DivergeEnd
	Role     *Role

	DivergeEpoch model.Epoch
	DivergeEnd   model.Offset

	Err error
}

// Read takes records from the partition, at most up to what the reader may see.
// The data is a piece of the log's file, not a copy.
func (p *Partition) Read(r Read) (s Slice) {
	s.High, s.Stable, s.Start = model.NoOffset, model.NoOffset, model.NoOffset
	r.Epoch, r.LastEpoch = max(r.Epoch, model.NoEpoch), max(r.LastEpoch, model.NoEpoch)
	if s.Role, s.Err = p.Lead(r.Epoch); s.Err != nil {
		return s
	}
	if r.Replica >= 0 && (r.Replica == s.Role.Leader || !contains(s.Role.Replicas, r.Replica)) {
		s.Err = ErrNotLeader
		return s
	}
	high, stable := p.High(), p.Stable()
	start, end := p.log.StartOffset(), p.log.EndOffset()
	if r.LastEpoch != model.NoEpoch {
		latest, _ := p.log.LatestEpoch()
		epoch, stop := p.log.EpochEnd(r.LastEpoch)
		if r.LastEpoch > latest || epoch == model.NoEpoch {
			s.Err = &storage.RangeError{Offset: r.Offset, Start: start, End: end}
			return s
		}
		if epoch < r.LastEpoch || stop < r.Offset {
			s.High, s.Stable, s.Start = high, stable, start
			s.Diverges, s.DivergeEpoch, s.DivergeEnd = true, epoch, stop
			return s
		}
	}
	limit := high
	switch {
	case r.Replica >= 0:
		limit = end
	case r.Committed:
		limit = stable
	}
	if r.Offset < start || r.Offset > end {
		s.Err = &storage.RangeError{Offset: r.Offset, Start: start, End: end}
		return s
	}
	if r.Offset < limit {
		if s.Chunk, s.Err = p.log.Read(r.Offset, limit, r.MaxBytes, r.MinOne); s.Err != nil {
			return s
		}
		if s.Err = s.dropCut(r); s.Err != nil {
			return s
		}
	}
	s.High, s.Stable, s.Start = high, stable, start
	if r.Committed {
		if s.Aborted, s.Err = p.log.Aborted(r.Offset, limit); s.Err != nil {
			s.Chunk.Close()
		}
	}
	return s
}

// dropCut lets go of a chunk that holds not even one whole batch: Kafka gives
// nothing then, since Fetch version 3.
func (s *Slice) dropCut(r Read) error {
	n := s.Chunk.Len()
	if r.MinOne || n == 0 || n < r.MaxBytes {
		return nil
	}
	var head [12]byte // base offset, length of what follows
	if n >= int64(len(head)) {
		if _, err := s.Chunk.ReadAt(head[:], 0); err != nil {
			s.Chunk.Close()
			return err
		}
		if int64(len(head))+int64(binary.BigEndian.Uint32(head[8:])) <= n {
			return nil
		}
	}
	s.Chunk.Close()
	s.Chunk = storage.Chunk{}
	return nil
}

func contains(ids []model.NodeID, id model.NodeID) bool {
	for _, have := range ids {
		if have == id {
			return true
		}
	}
	return false
}

// Poll is one long poll: a fetch that found too little and waits on its
// partitions. Fire is called at most once, from any goroutine, and must not
// block or read: it starts whatever looks again.
type Poll struct {
	Fire func()

	fired atomic.Bool
	next  *Poll // link while it is being fired; owned by who took it
}

// Park makes the poll wait for the partition's next event. It fires at once if
// the high watermark or the role are no longer what the caller's Read saw.
func (p *Partition) Park(poll *Poll, saw *Slice) {
	p.mu.Lock()
	changed := p.High() != saw.High || p.role.Load() != saw.Role
	if !changed {
		if p.polls == nil {
			p.polls = make(map[*Poll]struct{})
		}
		p.polls[poll] = struct{}{}
	}
	p.mu.Unlock()
	if changed {
		poll.fire()
	}
}

// WakePolls ends the waiting of every parked fetch, so that a node can stop
// without waiting for them.
func (b *Broker) WakePolls() {
	b.topics.Load().byName.Scan(func(_ string, t *Topic) bool {
		for _, p := range *t.parts.Load() {
			if p == nil {
				continue
			}
			p.mu.Lock()
			fire := p.takePollsLocked()
			p.mu.Unlock()
			firePolls(fire)
		}
		return true
	})
}

// Unpark takes the poll out. It may still be in the middle of firing.
func (p *Partition) Unpark(poll *Poll) {
	p.mu.Lock()
	delete(p.polls, poll)
	p.mu.Unlock()
}

func (poll *Poll) fire() {
	if poll.fired.CompareAndSwap(false, true) {
		poll.Fire()
	}
}

// Cancel keeps the poll from firing. It reports whether it was the first: false
// means that Fire has been or is being called.
func (poll *Poll) Cancel() bool { return poll.fired.CompareAndSwap(false, true) }

// takePollsLocked empties the set. A poll parked on several partitions may be
// taken by two at a time, so only those it wins are linked.
func (p *Partition) takePollsLocked() *Poll {
	var head *Poll
	for poll := range p.polls {
		if poll.fired.CompareAndSwap(false, true) {
			poll.next, head = head, poll
		}
	}
	clear(p.polls)
	return head
}

func firePolls(head *Poll) {
	for head != nil {
		next := head.next
		head.next = nil
		head.Fire()
		head = next
	}
}
