package storage

import (
	"errors"
	"fmt"
	"math"
	"os"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

const (
	// maxWrite and maxVec bound one combined write; a single larger batch is
	// written whole.
	maxWrite = 8 << 20
	maxVec   = 512

	// maxRounds is how often a caller drains the queue before a goroutine takes
	// over, so that nobody serves others for ever.
	maxRounds = 16

	// maxControl bounds a control batch's decompressed body.
	maxControl = 64 << 10
)

// Append is one batch on its way into a log. The caller fills the first fields
// and owns the value again once Done was called; reuse costs no allocation.
type Append struct {
	// Batch is exactly one batch. A leader's gets its base offset and leader epoch
	// stamped into its bytes, which must not change until Done.
	Batch batch.Batch

	// Epoch is the epoch the caller appends in: that of SetLeaderEpoch. Not for replicas.
	Epoch model.Epoch

	// MaxTimestamp and MaxTimestampOffset (the delta of the first record that has
	// it) are what validation found; storage goes by the batch's header alone.
	MaxTimestamp       int64
	MaxTimestampOffset model.Offset

	// Replica: offset and epoch are in the batch already (a follower's, Raft's). The
	// caller has checked its CRC. Offsets may have gaps.
	Replica bool

	// TxnVersion is transaction.version of the coordinator that wrote a marker; from
	// 2 on its epoch must be above the producer's.
	TxnVersion int16

	// Done is called once, in the order of the appends, when the batch is written
	// (which is not flushed) or refused. It must not block or call operations of
	// the log other than Append and accessors.
	Done func(*Append)

	// Results.
	Base       model.Offset // of the batch; of the original if Duplicate
	End        model.Offset // the batch is durable when the flushed offset is here
	Start      model.Offset // the log's start
	Duplicate  bool         // it was in the log already (KAFKA.md 5, Idempotence)
	AppendTime int64        // milliseconds if the log's time counts, else -1
	Err        error

	next *Append
	op   func() // not an append but an operation of the log
}

// writer is what a log has while it is being written: the write under way and
// its buffers. Dropped when the log rests.
type writer struct {
	staged []*Append // in order, refused ones and duplicates included
	vecs   [][]byte  // batches to write, in order
	bytes  int64     // in vecs
	next   model.Offset
	txns   []AbortedTxn // to enter with this write
	done   []doneTxn    // to publish with this write

	unsynced  int64 // records since the last sync was asked for
	allocated int64 // the file has blocks up to here; 0 = nothing reserved
	step      int64 // how much was reserved last
	warm      bool  // there was more than one write
	flushing  bool  // a sync for flush.ms is scheduled
}

// Append puts a batch into the log. Appends of one goroutine keep their order.
// The caller may find itself writing for others meanwhile.
func (l *Log) Append(a *Append) { l.push(a, a) }

// AppendAll is Append for several at once, which so share a write.
func (l *Log) AppendAll(as ...*Append) {
	if len(as) == 0 {
		return
	}
	for i, a := range as[1:] {
		as[i].next = a
	}
	l.push(as[0], as[len(as)-1])
}

func (l *Log) push(first, last *Append) {
	if l.queue.push(first, last) {
		l.drain()
	}
}

// drain serves the queue until it is empty.
func (l *Log) drain() {
	for range maxRounds {
		list := l.queue.take()
		if list == nil {
			return
		}
		l.serve(list)
	}
	go l.drain()
}

// serve runs a list of appends and operations in order, with as few writes as
// can be.
func (l *Log) serve(list *Append) {
	for list != nil {
		a := list
		list, a.next = a.next, nil
		if a.op != nil {
			l.commit()
			a.op()
			continue
		}
		l.stage(a)
	}
	l.commit()
}

// stage checks one append and adds it to the write under way.
func (l *Log) stage(a *Append) {
	a.Base, a.End, a.Start = model.NoOffset, model.NoOffset, l.StartOffset()
	a.Duplicate, a.AppendTime = false, -1
	w := l.writer
	if w == nil {
		w = &writer{}
		l.writer = w
		l.disk.activate(l)
	}
	if len(w.staged) == 0 {
		l.begin()
	}
	if a.Err = l.accept(a); a.Err == nil && !a.Duplicate {
		l.place(a)
	}
	w.staged = append(w.staged, a)
	if w.bytes >= maxWrite || len(w.vecs) >= maxVec || len(w.staged) >= maxVec {
		l.commit()
	}
}

// accept decides whether the batch may go into the log. It rolls the segment if
// the batch does not fit, before it looks at the producer: rolling writes what is
// staged, and if that fails the producer's state is another.
func (l *Log) accept(a *Append) error {
	if err := l.check(a); err != nil {
		return err
	}
	b := a.Batch
	a.Base = l.writer.next
	if a.Replica {
		a.Base = b.BaseOffset()
	}
	last := a.Base + model.Offset(b.LastOffsetDelta())
	if last < a.Base || last == math.MaxInt64 {
		return fmt.Errorf("%w: offsets %d to %d", ErrOffset, a.Base, last)
	}
	if l.mustRoll(b, last) {
		l.commit()
		if err := l.roll(a.Base, last); errors.Is(err, ErrOffset) {
			return err
		} else if err != nil {
			return l.disk.writeError(err)
		}
		l.begin()
		if !a.Replica {
			a.Base = l.writer.next
		}
	}
	dup, err := l.checkProducer(a)
	if err == nil && dup != nil {
		a.Duplicate, a.Base, a.End, a.AppendTime = true, dup.base(), dup.last+1, dup.timestamp
	}
	return err
}

// begin starts a write.
func (l *Log) begin() {
	l.writer.next = l.EndOffset()
	l.producers.begin()
}

// check looks at everything but the producer.
func (l *Log) check(a *Append) error {
	if err := l.usable(); err != nil {
		return err
	}
	b := a.Batch
	if len(b) < batch.HeaderSize || int64(b.Length())+batch.LengthEnd != int64(len(b)) || b.Magic() != 2 || b.LastOffsetDelta() < 0 {
		return fmt.Errorf("%w: %d bytes", ErrInvalid, len(b))
	}
	switch size := int64(len(b)); {
	case size > int64(l.cfg.SegmentBytes):
		return fmt.Errorf("%w: %d bytes, segment.bytes is %d", ErrTooLarge, size, l.cfg.SegmentBytes)
	case a.Replica:
		if base := b.BaseOffset(); base < l.writer.next {
			return fmt.Errorf("%w: the batch begins at %d, the log ends at %d", ErrOffset, base, l.writer.next)
		}
		return nil
	case a.Epoch != l.leader:
		return fmt.Errorf("%w: append in epoch %d, the log is led in %d", ErrFenced, a.Epoch, l.leader)
	case l.cfg.MaxMessageBytes > 0 && size > int64(l.cfg.MaxMessageBytes) && !b.Control():
		return fmt.Errorf("%w: %d bytes, allowed are %d", ErrMessageTooLarge, size, l.cfg.MaxMessageBytes)
	}
	return nil
}

// checkProducer decides by the producer's state. A leader's batch gets its offsets
// later; the state does not need them to decide.
func (l *Log) checkProducer(a *Append) (dup *span, err error) {
	b := a.Batch
	if l.noProducers || b.Producer().ID < 0 || a.Replica {
		return nil, nil
	}
	if !b.Control() {
		return l.producers.check(b)
	}
	if kind, epoch, ok := l.marker(b); ok && kind <= batch.Commit {
		return nil, l.producers.checkMarker(b, epoch, a.TxnVersion)
	}
	return nil, nil
}

// place adds an accepted batch to the write, with its offsets stamped in.
func (l *Log) place(a *Append) {
	w, b := l.writer, a.Batch
	if !a.Replica {
		b.SetBaseOffset(a.Base)
		b.SetLeaderEpoch(a.Epoch)
	}
	if b.LogAppendTime() {
		a.AppendTime = b.MaxTimestamp()
	}
	if t, kind, ended := l.applyProducer(b); ended {
		w.done = append(w.done, t)
		if kind == batch.Abort {
			w.txns = append(w.txns, l.aborted(b.Producer().ID, t))
		}
	}
	a.End = b.NextOffset()
	w.next = a.End
	w.vecs = append(w.vecs, b)
	w.bytes += int64(len(b))
}

// applyProducer takes a batch with its offsets into the producers' state. If it
// ends a transaction that was open here, kind tells how.
func (l *Log) applyProducer(b batch.Batch) (t doneTxn, kind batch.ControlType, ended bool) {
	by := b.Producer()
	if l.noProducers || by.ID < 0 {
		return t, 0, false
	}
	if !b.Control() {
		l.producers.apply(b)
		return t, 0, false
	}
	kind, epoch, ok := l.marker(b)
	if !ok || kind > batch.Commit {
		return t, 0, false
	}
	t, ended = l.producers.applyMarker(b, epoch)
	return t, kind, ended
}

// aborted is the index entry of a transaction that was just aborted.
func (l *Log) aborted(id int64, t doneTxn) AbortedTxn {
	stable := l.producers.unstable()
	if stable == model.NoOffset {
		stable = t.marker + 1
	}
	return AbortedTxn{Producer: id, First: t.first, Last: t.marker, stable: stable}
}

// commit writes what is staged with one call, publishes it and reports to all.
func (l *Log) commit() {
	w := l.writer
	if w == nil || len(w.staged) == 0 {
		return
	}
	end := model.NoOffset
	var flushed, sync bool
	if len(w.vecs) > 0 {
		if err := l.write(); err != nil {
			l.producers.rollback()
			l.refuse(err)
		} else {
			end = w.next
			flushed, sync = l.publish()
		}
	}
	l.report()
	if end == model.NoOffset {
		return
	}
	if l.notify != nil {
		l.notify.Appended(l, end)
		if flushed {
			l.notify.Flushed(l, end)
		}
	}
	if sync {
		l.wantSync(false)
	}
}

// write puts the staged batches into the file; after an error none is there.
func (l *Log) write() error {
	w, s := l.writer, l.active()
	if err := l.disk.admit(w.bytes); err != nil {
		return err
	}
	h, err := l.acquire(&s.file, s.base, logSuffix, os.O_CREATE)
	if err != nil {
		return l.disk.writeError(err)
	}
	defer h.unpin()
	if _, err = h.f.WriteVec(w.vecs, s.size); err == nil && len(w.txns) > 0 {
		err = l.writeTxns(s, w.txns)
	}
	if err == nil {
		l.markDirty(s, h)
		return nil
	}
	err = l.disk.writeError(err)
	if l.disk.Failed() != nil {
		return err
	}
	// Durably: the next write must not mix with remains of this one (D6).
	if cut := h.f.Truncate(s.size); cut != nil {
		return l.disk.fail(cut)
	}
	w.allocated = 0
	if cut := h.f.Sync(); cut != nil {
		return l.disk.fail(cut)
	}
	return err
}

// markDirty pins the active segment's file until it is synced (D5).
func (l *Log) markDirty(s *segment, h *handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.writing = true
	if s.dirty == nil {
		s.dirty = h.share()
	}
}

// publish makes the written batches part of the log. It reports whether the
// flushed offset was raised with it and whether a sync is due.
func (l *Log) publish() (flushed, sync bool) {
	w, s := l.writer, l.active()
	end := w.next
	l.mu.Lock()
	s.writing = false
	records := int64(0)
	for _, v := range w.vecs {
		b := batch.Batch(v)
		size, last := int64(len(b)), b.LastOffset()
		s.noteTime(b.MaxTimestamp(), last)
		s.addIndexLocked(last, s.size, size, int64(l.cfg.IndexInterval))
		s.size += size
		if l.epochs.assign(b.LeaderEpoch(), b.BaseOffset()) {
			l.sync.epochs = true
		}
		records += int64(b.LastOffsetDelta()) + 1
	}
	if len(w.txns) > 0 {
		s.txns.count += int32(len(w.txns))
		l.hasTxns = true
	}
	l.done = append(l.done, w.done...)
	l.unstable.Store(int64(l.producers.unstable()))
	l.hintLocked(hint{end, s.size, s})
	l.end.Store(int64(end))
	strict := l.cfg.FlushMessages == 1
	if !strict {
		flushed = l.raiseLocked(end)
	}
	w.unsynced += records
	sync = w.unsynced >= l.cfg.FlushMessages
	spill := len(s.index.tail) >= spillBytes || len(s.times.tail) >= spillBytes
	l.mu.Unlock()

	l.touched.Store(true)
	l.disk.bytesOut.Add(float64(w.bytes))
	switch {
	case sync || l.cfg.FlushMs == 0:
		sync, w.unsynced = true, 0
	case l.cfg.FlushMs != Never && !w.flushing:
		l.flushLater(w)
	}
	if spill {
		l.spillActive()
	}
	l.reserveAhead(s)
	return flushed, sync
}

// spillActive writes the active segment's index entries out. An error loses
// nothing of the log but breaks lookups, so it is one of the folder.
func (l *Log) spillActive() {
	s := l.active()
	err := l.spill(s, &s.index, indexSuffix, indexEntry)
	if err == nil {
		err = l.spill(s, &s.times, timeSuffix, timeEntry)
	}
	if err != nil {
		// Out of room: the entries stay in memory and are tried again.
		_ = l.disk.writeError(err)
	}
}

// refuse gives all that depend on the failed write its error.
func (l *Log) refuse(err error) {
	end := l.EndOffset()
	for _, a := range l.writer.staged {
		if a.Err == nil && a.End > end { // duplicates of staged batches too
			a.Base, a.End, a.AppendTime, a.Duplicate, a.Err = model.NoOffset, model.NoOffset, -1, false, err
		}
	}
}

// report empties the write and calls everyone back.
func (l *Log) report() {
	w := l.writer
	clear(w.vecs)
	w.vecs, w.bytes = w.vecs[:0], 0
	w.txns, w.done = w.txns[:0], w.done[:0]
	for i, a := range w.staged {
		w.staged[i] = nil
		if a.Done != nil {
			a.Done(a)
		}
	}
	w.staged = w.staged[:0]
}

// marker reads the control record of a batch; the epoch is that of a transaction
// marker. ok is false if the batch is not what it says.
func (l *Log) marker(b batch.Batch) (kind batch.ControlType, coordinatorEpoch int32, ok bool) {
	for r, err := range l.disk.codecs.Records(b, maxControl) {
		if err != nil {
			return 0, 0, false
		}
		kind, err = batch.ParseControlKey(r.Key)
		if err == nil && kind <= batch.Commit {
			coordinatorEpoch, err = batch.ParseEndTxnValue(r.Value)
		}
		return kind, coordinatorEpoch, err == nil
	}
	return 0, 0, false
}
