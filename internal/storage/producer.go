package storage

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// window is how many of a producer's last batches can be recognised when they
// come again: a client has at most five requests in flight.
const window = 5

// span is what is remembered of one batch of a producer.
type span struct {
	last      model.Offset
	timestamp int64 // its largest
	lastSeq   int32
	delta     int32 // last offset minus first, and as well sequence
}

func (s span) firstSeq() int32 {
	if s.delta > s.lastSeq { // the sequence wrapped inside the batch
		return math.MaxInt32 - (s.delta - s.lastSeq) + 1
	}
	return s.lastSeq - s.delta
}

func (s span) base() model.Offset { return s.last - model.Offset(s.delta) }

// producer is what a partition knows of a producer id.
type producer struct {
	// batches are the last count batches of this epoch; the newest is at
	// (next-1) mod window.
	batches     [window]span
	timestamp   int64        // of the last batch or marker
	txn         model.Offset // where its open transaction began, NoOffset if none
	coordinator int32        // epoch of the coordinator whose marker came last, -1 if none
	stamp       uint32       // the last write that saved it for undoing
	epoch       int16        // -1 if unknown
	count, next uint8
}

func newProducer() *producer {
	return &producer{txn: model.NoOffset, coordinator: -1, epoch: -1, timestamp: -1}
}

// lastSpan is the newest batch, nil if there is none in this epoch.
func (p *producer) lastSpan() *span {
	if p.count == 0 {
		return nil
	}
	return &p.batches[(p.next+window-1)%window]
}

func (p *producer) lastSeq() int32 {
	if s := p.lastSpan(); s != nil {
		return s.lastSeq
	}
	return -1
}

// find looks for the same batch among the last ones.
func (p *producer) find(epoch int16, firstSeq, lastSeq int32) *span {
	if epoch != p.epoch {
		return nil
	}
	for i := range p.count {
		if s := &p.batches[(p.next+window-1-i)%window]; s.lastSeq == lastSeq && s.firstSeq() == firstSeq {
			return s
		}
	}
	return nil
}

func (p *producer) setEpoch(epoch int16) {
	if epoch != p.epoch {
		p.epoch, p.count, p.next = epoch, 0, 0
	}
}

func (p *producer) push(s span) {
	p.batches[p.next] = s
	p.next = (p.next + 1) % window
	p.count = min(p.count+1, window)
}

// openTxn is a transaction that has records here and no marker yet.
type openTxn struct {
	first model.Offset
	id    int64 // of its producer
}

// doneTxn is a transaction whose marker is in the log. Until the marker is below
// the high watermark the transaction counts as undecided.
type doneTxn struct {
	first, marker model.Offset
}

// producers is the state of all producers of one log after its last batch. It is
// owned by the log's writer. Changes of a write that is under way can be undone.
type producers struct {
	byID map[int64]*producer
	open []openTxn // ascending by first

	stamp uint32 // number of the write under way
	undo  []undoProducer
}

// undoProducer is a producer as it was before the write under way.
type undoProducer struct {
	id  int64
	was producer
	new bool // it was not there
}

// begin starts a write: what follows can be undone until the next begin.
func (ps *producers) begin() {
	ps.stamp++
	ps.undo = ps.undo[:0]
}

// rollback undoes everything since begin.
func (ps *producers) rollback() {
	for _, u := range ps.undo {
		if u.new {
			delete(ps.byID, u.id)
			continue
		}
		*ps.byID[u.id] = u.was
	}
	if len(ps.undo) > 0 {
		ps.reopen()
	}
	ps.undo = ps.undo[:0]
}

// reopen derives the open transactions from the producers.
func (ps *producers) reopen() {
	ps.open = ps.open[:0]
	for id, p := range ps.byID {
		if p.txn != model.NoOffset {
			ps.open = append(ps.open, openTxn{p.txn, id})
		}
	}
	slices.SortFunc(ps.open, func(a, b openTxn) int { return cmp.Compare(a.first, b.first) })
}

// save returns the producer to change, made if need be, and remembers how it was.
func (ps *producers) save(id int64) *producer {
	p := ps.byID[id]
	if p == nil {
		p = newProducer()
		if ps.byID == nil {
			ps.byID = make(map[int64]*producer)
		}
		ps.byID[id] = p
		p.stamp = ps.stamp
		ps.undo = append(ps.undo, undoProducer{id: id, new: true})
		return p
	}
	if p.stamp != ps.stamp {
		p.stamp = ps.stamp
		ps.undo = append(ps.undo, undoProducer{id: id, was: *p})
	}
	return p
}

// check decides on a produced data batch (KAFKA.md 5, Idempotence). dup is the
// batch of which it is a copy. Nothing changes.
func (ps *producers) check(b batch.Batch) (dup *span, err error) {
	by := b.Producer()
	p := ps.byID[by.ID]
	if p == nil {
		return nil, nil // unknown here: any first sequence will do
	}
	first, last := b.BaseSequence(), b.LastSequence()
	if s := p.find(by.Epoch, first, last); s != nil {
		return s, nil
	}
	switch {
	case by.Epoch < p.epoch:
		return nil, fmt.Errorf("%w: producer %d has epoch %d, the batch %d", ErrProducerEpoch, by.ID, p.epoch, by.Epoch)
	case by.Epoch != p.epoch:
		if first != 0 && p.epoch != -1 {
			return nil, fmt.Errorf("%w: the first batch of producer %d in epoch %d has sequence %d, not 0", ErrSequence, by.ID, by.Epoch, first)
		}
	case !follows(p.lastSeq(), first):
		return nil, fmt.Errorf("%w: producer %d is at sequence %d, the batch begins with %d", ErrSequence, by.ID, p.lastSeq(), first)
	}
	if p.txn != model.NoOffset && !b.Transactional() {
		return nil, fmt.Errorf("%w: producer %d, from offset %d on", ErrTxnState, by.ID, p.txn)
	}
	return nil, nil
}

// follows reports whether sequence next comes right after last; it wraps to 0.
func follows(last, next int32) bool {
	return int64(next) == int64(last)+1 || next == 0 && last == math.MaxInt32
}

// checkMarker decides on a transaction marker that a coordinator wrote.
func (ps *producers) checkMarker(b batch.Batch, coordinatorEpoch int32, txnVersion int16) error {
	by := b.Producer()
	p := ps.byID[by.ID]
	switch {
	case p == nil:
		return nil
	case by.Epoch < p.epoch, txnVersion >= 2 && by.Epoch == p.epoch && p.count > 0:
		return fmt.Errorf("%w: producer %d has epoch %d, the marker %d", ErrProducerEpoch, by.ID, p.epoch, by.Epoch)
	case coordinatorEpoch < p.coordinator:
		return fmt.Errorf("%w: producer %d had a marker of coordinator epoch %d, this one has %d", ErrCoordinatorEpoch, by.ID, p.coordinator, coordinatorEpoch)
	}
	return nil
}

// apply takes a data batch that is, or is about to be, in the log.
func (ps *producers) apply(b batch.Batch) {
	by := b.Producer()
	p := ps.save(by.ID)
	p.setEpoch(by.Epoch)
	p.push(span{last: b.LastOffset(), timestamp: b.MaxTimestamp(), lastSeq: b.LastSequence(), delta: b.LastOffsetDelta()})
	p.timestamp = b.MaxTimestamp()
	if b.Transactional() && p.txn == model.NoOffset {
		p.txn = b.BaseOffset()
		ps.open = append(ps.open, openTxn{p.txn, by.ID})
	}
}

// applyMarker takes a transaction marker that is, or is about to be, in the log.
// ok is false when the producer had no transaction open here.
func (ps *producers) applyMarker(b batch.Batch, coordinatorEpoch int32) (done doneTxn, ok bool) {
	by := b.Producer()
	p := ps.save(by.ID)
	p.setEpoch(by.Epoch)
	p.coordinator, p.timestamp = coordinatorEpoch, b.MaxTimestamp()
	if p.txn == model.NoOffset {
		return doneTxn{}, false
	}
	done = doneTxn{first: p.txn, marker: b.BaseOffset()}
	p.txn = model.NoOffset
	ps.open = slices.DeleteFunc(ps.open, func(t openTxn) bool { return t.first == done.first })
	return done, true
}

// unstable is where the oldest open transaction began, NoOffset if there is none.
func (ps *producers) unstable() model.Offset {
	if len(ps.open) == 0 {
		return model.NoOffset
	}
	return ps.open[0].first
}

// expire forgets producers that wrote nothing since before (milliseconds) and
// have no open transaction.
func (ps *producers) expire(before int64) {
	for id, p := range ps.byID {
		if p.txn == model.NoOffset && p.timestamp <= before {
			delete(ps.byID, id)
		}
	}
	ps.undo = ps.undo[:0]
}

// clear forgets everything.
func (ps *producers) clear() { *ps = producers{stamp: ps.stamp} }

// ProducerState is what a partition knows of one producer (DescribeProducers).
type ProducerState struct {
	Producer         model.Producer
	LastSequence     int32        // -1 = none in this epoch
	LastTimestamp    int64        // milliseconds
	CoordinatorEpoch int32        // -1 = no marker seen
	TxnStart         model.Offset // NoOffset = no open transaction
}

// list gives all producers by id.
func (ps *producers) list() []ProducerState {
	states := make([]ProducerState, 0, len(ps.byID))
	for id, p := range ps.byID {
		states = append(states, ProducerState{
			Producer:         model.Producer{ID: id, Epoch: p.epoch},
			LastSequence:     p.lastSeq(),
			LastTimestamp:    p.timestamp,
			CoordinatorEpoch: p.coordinator,
			TxnStart:         p.txn,
		})
	}
	slices.SortFunc(states, func(a, b ProducerState) int { return cmp.Compare(a.Producer.ID, b.Producer.ID) })
	return states
}
