package storage

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

const (
	// minStep and maxStep bound how far disk blocks are reserved ahead of the
	// writer; a step doubles each time it was used up. Reserved blocks spare
	// fdatasync the journal's allocation.
	minStep = 64 << 10
	maxStep = 8 << 20
)

// mustRoll reports whether the batch, which would end at last, begins a new
// segment (KAFKA.md 5, Roll). Called by the writer.
func (l *Log) mustRoll(b batch.Batch, last model.Offset) bool {
	s, w := l.active(), l.writer
	size := s.size + w.bytes
	if size == 0 {
		_, fits := s.relative(last)
		return !fits
	}
	if _, fits := s.relative(last); !fits || size+int64(len(b)) > int64(l.cfg.SegmentBytes) {
		return true
	}
	// Entries that the staged batches will add: at most one each.
	if s.index.entries(indexEntry)+len(w.vecs) >= int(l.cfg.IndexBytes)/indexEntry ||
		s.times.entries(timeEntry)+len(w.vecs) >= int(l.cfg.IndexBytes)/timeEntry-1 {
		return true
	}
	first := s.firstTime
	if s.size == 0 {
		first = batch.Batch(w.vecs[0]).MaxTimestamp()
	}
	age := b.MaxTimestamp() - first
	if first < 0 {
		age = l.disk.now().UnixMilli() - s.created
	}
	return age > l.cfg.SegmentMs-l.jitter(s.base)
}

// jitter spreads the rolls of many partitions. It is the same for a segment each
// time it is asked for.
func (l *Log) jitter(base model.Offset) int64 {
	if l.cfg.JitterMs <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", l.dir, int64(base))
	return int64(h.Sum64() % uint64(min(l.cfg.JitterMs, l.cfg.SegmentMs)))
}

// roll begins a new segment at the log's end, or at base if the batch from base
// to last would be too far from there. Nothing is staged. Crash safety:
//
//   - The old segment's data is on disk before the new file exists, if the log is
//     strict: a lost end of the old one would look like a gap. Otherwise recovery
//     finds the gap and drops what comes after it.
//   - Indexes, snapshot and names are synced by the pool; until then the recovery
//     point stays below the old segment (D2), and nothing in the new one is
//     flushed before its name is (D1).
func (l *Log) roll(base, last model.Offset) error {
	old, end := l.active(), l.EndOffset()
	if int64(last-end) <= math.MaxInt32 {
		base = end
	}
	if old.size == 0 && old.base == base {
		return fmt.Errorf("%w: no segment can hold offsets %d to %d", ErrOffset, base, last)
	}
	if err := l.seal(old, end); err != nil {
		return err
	}
	if l.cfg.FlushMessages == 1 && old.size > 0 {
		if err := l.await(context.Background(), l.wantSync(false)); err != nil {
			return err
		}
	}
	s := newSegment(base, l.disk.now().UnixMilli())
	s.index.count, s.times.count, s.txns.count, s.known = 0, 0, 0, true
	h, err := l.disk.files.acquire(&s.file, l.name(base, logSuffix), os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	h.unpin()
	l.mu.Lock()
	if old.size == 0 { // it began where no batch can go
		l.segments = l.segments[:len(l.segments)-1]
	}
	l.segments = append(l.segments, s)
	l.sync.dir = true
	if l.sync.rolled == model.NoOffset {
		l.sync.rolled = old.base
	}
	spares := l.dropSparesLocked()
	l.mu.Unlock()
	closeAll(spares)
	if old.size == 0 {
		err = l.discard(old)
	}
	l.wantSync(true)
	return err
}

// seal writes out what belongs to a segment that is complete: its indexes with
// the last time entry, the producers' state after it, and gives back reserved
// blocks.
func (l *Log) seal(s *segment, end model.Offset) error {
	if s.size > 0 {
		l.mu.Lock()
		s.addTimeLocked()
		l.mu.Unlock()
		if err := l.spill(s, &s.index, indexSuffix, indexEntry); err != nil {
			return err
		}
		if err := l.spill(s, &s.times, timeSuffix, timeEntry); err != nil {
			return err
		}
	}
	if err := l.release(s); err != nil {
		return err
	}
	return l.takeSnapshot(end)
}

// takeSnapshot writes the producers' state after the records below end.
func (l *Log) takeSnapshot(end model.Offset) error {
	if l.noProducers || l.snapshot >= end {
		return nil
	}
	name := l.name(end, snapshotSuffix)
	f, err := l.disk.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	h := l.disk.files.adopt(f)
	defer h.unpin()
	h.doom() // nobody looks for it: it is closed when it is synced
	if _, err := f.WriteAt(appendSnapshot(nil, &l.producers), 0); err != nil {
		return err
	}
	l.mu.Lock()
	l.aux = append(l.aux, auxFile{h: h.share()})
	l.sync.dir = true
	l.mu.Unlock()
	l.snapshot = end
	return nil
}

// reserveAhead keeps disk blocks reserved in front of the writer.
func (l *Log) reserveAhead(s *segment) {
	w := l.writer
	if w.allocated >= s.size+w.step/2 && w.step > 0 {
		return
	}
	if w.step == 0 && !w.warm { // one append is no rate
		w.warm = true
		return
	}
	step := min(max(2*w.step, minStep), maxStep, int64(l.cfg.SegmentBytes)-s.size)
	from := max(w.allocated, s.size)
	if step <= 0 || l.disk.reserved.Load()+step > maxReserved {
		return
	}
	h := s.file.Load()
	if h == nil || !h.pin() {
		return
	}
	defer h.unpin()
	if h.f.Allocate(from, step) != nil { // no room; the write itself will tell
		return
	}
	l.disk.reserved.Add(step - w.step)
	w.step, w.allocated = step, from+step
}

// release gives back the blocks that are reserved behind the segment's end.
func (l *Log) release(s *segment) error {
	w := l.writer
	if w == nil || w.allocated == 0 {
		return nil
	}
	l.disk.reserved.Add(-w.step)
	cut := w.allocated > s.size
	w.step, w.allocated, w.warm = 0, 0, false
	if !cut {
		return nil
	}
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return err
	}
	defer h.unpin()
	return h.f.Truncate(s.size)
}

// flushLater asks for a sync flush.ms after the first record that needs one.
func (l *Log) flushLater(w *writer) {
	w.flushing = true
	wait := time.Duration(min(l.cfg.FlushMs, int64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	l.disk.keeper.after(wait, func() {
		_ = l.do(func() error {
			w.flushing = false
			return nil
		})
		l.wantSync(false)
	})
}
