package storage

import (
	"cmp"
	"errors"
	"fmt"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// OffsetTime is a record found by time (ListOffsets, KAFKA.md 3.7).
type OffsetTime struct {
	Offset    model.Offset
	Timestamp int64       // milliseconds
	Epoch     model.Epoch // of its batch
}

// OffsetForTime finds the first record below limit whose timestamp is ts
// (milliseconds) or later. ok is false if there is none.
func (l *Log) OffsetForTime(ts int64, limit model.Offset) (found OffsetTime, ok bool, err error) {
	err = l.search(func() { found, ok = OffsetTime{}, false }, func(v view) error {
		if ok || v.s.base >= limit {
			return errStop
		}
		if maxTime, _, err := l.times(v.s); err != nil || maxTime < ts {
			return err
		}
		found, ok, err = l.firstSince(v, ts, limit)
		return err
	})
	return found, ok, err
}

// MaxTimestamp finds the record with the largest timestamp, the first of several.
// ok is false if there is none below limit.
func (l *Log) MaxTimestamp(limit model.Offset) (found OffsetTime, ok bool, err error) {
	var best view
	bestTime := int64(noTime)
	begin := func() { best, bestTime, found, ok = view{}, noTime, OffsetTime{}, false }
	err = l.search(begin, func(v view) error {
		if v.s.base < limit {
			maxTime, at, err := l.times(v.s)
			if err == nil && at >= limit { // the largest is not visible yet: look at all
				maxTime, err = l.maxBelow(v, limit)
			}
			if err == nil && maxTime > bestTime {
				best, bestTime = v, maxTime
			}
			if err != nil || v.next < min(limit, l.EndOffset()) {
				return err
			}
		}
		if bestTime == noTime { // that was the last
			return errStop
		}
		found, ok, err = l.firstSince(best, bestTime, limit)
		return cmp.Or(err, errStop)
	})
	return found, ok, err
}

// errStop ends a search.
var errStop = errors.New("enough")

// search calls f with each segment from the start on, until errStop. If segments were
// taken away or replaced meanwhile, it starts again, with begin.
func (l *Log) search(begin func(), f func(v view) error) error {
	for range maxRetries {
		begin()
		l.mu.Lock()
		gen, n, i := l.gen, len(l.segments), l.findLocked(model.Offset(l.start.Load()))
		l.mu.Unlock()
		var err error
		for ; i < n && err == nil; i++ {
			v, ok := l.viewAt(gen, i)
			if !ok {
				err = errMoved
				break
			}
			err = f(v)
		}
		if err != nil && !errors.Is(err, errStop) {
			l.waitSettled() // a truncation may be the cause
		}
		switch {
		case l.moved(gen):
		case err == nil, errors.Is(err, errStop):
			return nil
		default:
			return l.disk.readError(fmt.Errorf("searching %s by time: %w", l.dir, err))
		}
		l.waitSettled()
	}
	return fmt.Errorf("searching %s by time: %w", l.dir, errMoved)
}

// times gives a segment's largest timestamp and the last offset of the first
// batch that has it, from the end of its time index if need be.
func (l *Log) times(s *segment) (maxTime int64, at model.Offset, err error) {
	l.mu.Lock()
	if s.known {
		defer l.mu.Unlock()
		return s.maxTime, s.maxOffset, nil
	}
	n := s.times.count
	l.mu.Unlock()
	h, err := l.acquire(&s.times.slot, s.base, timeSuffix, 0)
	if err != nil {
		return noTime, s.base, err
	}
	defer h.unpin()
	if n < 0 {
		if n, err = l.count(&s.times, h, timeEntry); err != nil {
			return noTime, s.base, err
		}
	}
	maxTime, at = noTime, s.base
	if n > 0 {
		var e [timeEntry]byte
		if _, err := h.f.ReadAt(e[:], int64(n-1)*timeEntry); err != nil {
			return noTime, s.base, err
		}
		maxTime, at = timeOf(e[:]), s.base+model.Offset(timeOffset(e[:]))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.known {
		s.maxTime, s.maxOffset, s.known = maxTime, at, true
	}
	return maxTime, at, nil
}

// firstSince finds the segment's first visible record that is not older than ts.
func (l *Log) firstSince(v view, ts int64, limit model.Offset) (found OffsetTime, ok bool, err error) {
	h, err := l.acquire(&v.s.file, v.s.base, logSuffix, 0)
	if err != nil {
		return found, false, err
	}
	defer h.unpin()
	pos, err := l.before(v, ts)
	if err != nil {
		return found, false, err
	}
	start := l.StartOffset()
	for pos < v.size && !ok {
		candidate, next := int64(-1), v.size
		err = l.scan(h, pos, v.size, func(b batch.Batch, p int64) bool {
			if b.BaseOffset() >= limit {
				return false
			}
			if b.MaxTimestamp() < ts || b.LastOffset() < start {
				return true
			}
			candidate, next = p, p+int64(b.Length())+batch.LengthEnd
			return false
		})
		if err != nil || candidate < 0 {
			return found, false, err
		}
		if found, ok, err = l.firstInBatch(h, candidate, v.size, ts, start, limit); err != nil {
			return found, false, err
		}
		pos = next
	}
	return found, ok, nil
}

// before is a position from which no record at or after ts is missed.
func (l *Log) before(v view, ts int64) (int64, error) {
	var e [timeEntry]byte
	ok, err := l.lookup(v.s, &v.s.times, timeSuffix, timeEntry, timeOf, ts-1, e[:])
	if err != nil || !ok {
		return 0, err
	}
	// Up to this offset all are older; the index has a batch that ends there or before.
	return l.indexed(v, v.s.base+model.Offset(timeOffset(e[:])))
}

// firstInBatch looks at the records of the batch at pos.
func (l *Log) firstInBatch(h *handle, pos, size, ts int64, start, limit model.Offset) (found OffsetTime, ok bool, err error) {
	b, err := l.readBatch(h, pos, size)
	if err != nil {
		return found, false, err
	}
	for r, err := range l.disk.codecs.Records(b, 0) {
		if err != nil {
			return found, false, err
		}
		t := r.Timestamp
		if b.LogAppendTime() {
			t = b.MaxTimestamp()
		}
		if t >= ts && r.Offset >= start && r.Offset < limit {
			return OffsetTime{r.Offset, t, b.LeaderEpoch()}, true, nil
		}
	}
	return found, false, nil
}

// maxBelow is the largest timestamp of the batches that begin below limit.
func (l *Log) maxBelow(v view, limit model.Offset) (int64, error) {
	h, err := l.acquire(&v.s.file, v.s.base, logSuffix, 0)
	if err != nil {
		return noTime, err
	}
	defer h.unpin()
	maxTime := int64(noTime)
	err = l.scan(h, 0, v.size, func(b batch.Batch, _ int64) bool {
		if b.LastOffset() >= limit {
			return false
		}
		maxTime = max(maxTime, b.MaxTimestamp())
		return true
	})
	return maxTime, err
}
