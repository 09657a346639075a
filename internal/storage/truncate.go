package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// TruncateTo removes all batches that hold off or come after it. The end becomes
// off, or the base of the batch that held it: a follower does so to what its
// leader does not have, Raft to what was overruled. An off at the end or beyond
// changes nothing.
//
// Crash safety: first the names of later segments go, newest first, and that is
// durable; then the file is cut and synced, before anything can be appended (D6);
// the folder's recovery point is lowered (D7). A crash in between leaves a prefix
// of the old log that recovery takes as it is.
func (l *Log) TruncateTo(off model.Offset) error {
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		if off >= l.EndOffset() {
			return nil
		}
		// The first segment is emptied, never removed: its name is what keeps the
		// log's offsets in a crash.
		return l.finish(l.truncate(max(off, l.segments[0].base)))
	})
}

// TruncateAll removes everything; the log goes on at start.
func (l *Log) TruncateAll(start model.Offset) error {
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		return l.finish(l.reset(start))
	})
}

// finish turns an error that left the log half changed into the folder's failure:
// opening it again recovers it.
func (l *Log) finish(err error) error {
	if err == nil || errors.Is(err, ErrFailed) {
		return err
	}
	return l.disk.fail(fmt.Errorf("truncating %s: %w", l.dir, err))
}

func (l *Log) truncate(off model.Offset) error {
	l.jobs.Lock()
	defer l.jobs.Unlock()
	l.mu.Lock()
	spares := l.dropSparesLocked()
	l.mu.Unlock()
	closeAll(spares)
	// Where the cut is: the start of the batch that holds off.
	l.mu.Lock()
	i := l.findLocked(off)
	s, v := l.segments[i], view{s: l.segments[i], size: l.segments[i].size}
	l.mu.Unlock()
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return err
	}
	defer h.unpin()
	end, pos := off, v.size
	from, err := l.indexed(v, off)
	if err == nil {
		err = l.scan(h, from, v.size, func(b batch.Batch, p int64) bool {
			if b.LastOffset() < off {
				return true
			}
			end, pos = min(off, b.BaseOffset()), p
			return false
		})
	}
	if err != nil {
		return err
	}
	if err := l.release(l.active()); err != nil {
		return err
	}
	gone := l.shorten(i, pos, end)
	if err := l.unlink(gone, end); err != nil {
		return err
	}
	if err := h.f.Truncate(pos); err != nil {
		return err
	}
	if err := l.cutTables(s, end); err != nil {
		return err
	}
	if err := h.f.Sync(); err != nil {
		return err
	}
	l.settled()
	return l.rewind(end)
}

// settled ends the time in which readers may have seen the indexes of before a
// truncation with the segments of after it: they start again.
func (l *Log) settled() {
	l.mu.Lock()
	l.gen++
	l.mu.Unlock()
}

// waitSettled lets a truncation that is under way end.
func (l *Log) waitSettled() {
	l.jobs.RLock()
	defer l.jobs.RUnlock()
}

// shorten takes the end away from readers: the i-th segment ends at pos, those
// after it are gone. It returns them.
func (l *Log) shorten(i int, pos int64, end model.Offset) []*segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := slices.Clone(l.segments[i+1:])
	clear(l.segments[i+1:])
	l.segments = l.segments[:i+1]
	s := l.segments[i]
	s.size, s.synced = pos, min(s.synced, pos)
	l.cutLocked(end)
	return gone
}

// cutLocked lowers everything that is not below end.
func (l *Log) cutLocked(end model.Offset) {
	l.gen++
	l.hints = nil
	l.end.Store(int64(end))
	l.flushed.Store(min(l.flushed.Load(), int64(end)))
	l.sync.synced = min(l.sync.synced, end)
	if l.sync.rolled > l.active().base {
		l.sync.rolled = model.NoOffset
	}
	if l.epochs.cutEnd(end) {
		l.sync.epochs = true
	}
	l.done = slices.DeleteFunc(l.done, func(t doneTxn) bool { return t.marker >= end })
}

// unlink makes files of segments disappear, newest first, with the producer
// snapshots after end, and makes that durable.
func (l *Log) unlink(gone []*segment, end model.Offset) error {
	for _, s := range slices.Backward(gone) {
		if err := l.discard(s); err != nil {
			return err
		}
	}
	if err := l.dropSnapshots(func(at model.Offset) bool { return at > end }); err != nil {
		return err
	}
	return l.disk.fs.SyncDir(l.dir)
}

// discard renames a segment's files so that they are removed later, lets go of
// its descriptors, and forgets what was to be synced. The log's file goes first:
// indexes without it are removed on opening.
func (l *Log) discard(s *segment) error {
	l.mu.Lock()
	if s.dirty != nil {
		s.dirty.unpin()
		s.dirty = nil
	}
	l.aux = slices.DeleteFunc(l.aux, func(a auxFile) bool {
		mine := a.t == &s.index || a.t == &s.times || a.t == &s.txns
		if mine {
			a.h.unpin()
		}
		return mine
	})
	delay := time.Duration(l.cfg.DeleteDelayMs) * time.Millisecond
	l.mu.Unlock()
	s.doom()
	var names []string
	for _, suffix := range []string{logSuffix, indexSuffix, timeSuffix, txnSuffix} {
		name := l.name(s.base, suffix)
		err := l.disk.fs.Rename(name, name+deletedSuffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			names = append(names, name+deletedSuffix)
		}
	}
	l.disk.unlinkLater(delay, names)
	return nil
}

// cutTables drops the index entries of what is at end or after it, and finds the
// segment's largest timestamp again.
func (l *Log) cutTables(s *segment, end model.Offset) error {
	rel := int64(end - s.base)
	if err := l.cutTable(s, &s.index, indexSuffix, indexEntry, indexOffset, rel); err != nil {
		return err
	}
	if err := l.cutTable(s, &s.times, timeSuffix, timeEntry, timeOffset, rel); err != nil {
		return err
	}
	if l.hasTxns {
		last := func(e []byte) int64 { t, _ := parseTxn(e); return int64(t.Last) }
		if err := l.cutTable(s, &s.txns, txnSuffix, txnEntry, last, int64(end)); err != nil {
			return err
		}
	}
	return l.activate(s)
}

// cutTable keeps the entries whose key is below end.
func (l *Log) cutTable(s *segment, t *table, suffix string, size int, key func([]byte) int64, end int64) error {
	h, err := l.acquire(&t.slot, s.base, suffix, 0)
	if errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		for len(t.tail) >= size && key(t.tail[len(t.tail)-size:]) >= end {
			t.tail = t.tail[:len(t.tail)-size]
		}
		t.count = 0
		l.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	defer h.unpin()
	n, err := l.count(t, h, size)
	if err != nil {
		return err
	}
	keep, e := n, make([]byte, size)
	for ; keep > 0; keep-- {
		if _, err := h.f.ReadAt(e, int64(keep-1)*int64(size)); err != nil {
			return err
		}
		if key(e) < end {
			break
		}
	}
	l.mu.Lock()
	for len(t.tail) >= size && key(t.tail[len(t.tail)-size:]) >= end {
		t.tail = t.tail[:len(t.tail)-size]
	}
	t.count = keep
	if keep < n {
		l.auxLocked(t, h)
	}
	l.mu.Unlock()
	if keep == n {
		return nil
	}
	return h.f.Truncate(int64(keep) * int64(size))
}

// activate learns what the writer must know of the segment it appends to: the
// timestamps, and how much came since the last index entry.
func (l *Log) activate(s *segment) error {
	// All at once in the end: readers must not see times that are half known.
	l.mu.Lock()
	v := view{s: s, size: s.size}
	if v.size == 0 {
		s.firstTime, s.maxTime, s.lastTime, s.maxOffset, s.since, s.known = noTime, noTime, noTime, s.base, 0, true
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return err
	}
	defer h.unpin()
	first, maxTime, lastTime, maxOffset := int64(noTime), int64(noTime), int64(noTime), s.base
	var e [timeEntry]byte
	ok, err := l.lookup(s, &s.times, timeSuffix, timeEntry, timeOf, 1<<63-1, e[:])
	if err != nil {
		return err
	}
	if ok {
		lastTime, maxOffset = timeOf(e[:]), s.base+model.Offset(timeOffset(e[:]))
		maxTime = lastTime
	}
	err = l.scan(h, 0, v.size, func(b batch.Batch, _ int64) bool {
		first = b.MaxTimestamp()
		return false
	})
	if err != nil {
		return err
	}
	pos, err := l.indexed(v, maxOffset)
	if err != nil {
		return err
	}
	err = l.scan(h, pos, v.size, func(b batch.Batch, _ int64) bool {
		if b.MaxTimestamp() > maxTime {
			maxTime, maxOffset = b.MaxTimestamp(), b.LastOffset()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	s.firstTime, s.maxTime, s.lastTime, s.maxOffset, s.since, s.known = first, maxTime, lastTime, maxOffset, 0, true
	return err
}

// rewind brings the rest of the log's state back to its new end.
func (l *Log) rewind(end model.Offset) error {
	if model.Offset(l.start.Load()) > end {
		l.start.Store(int64(end))
	}
	if err := l.loadProducers(end); err != nil {
		return err
	}
	if l.folder != nil {
		if err := l.folder.lower(l); err != nil {
			return err
		}
	}
	l.wantSync(true)
	return nil
}

// reset is TruncateAll on the writer.
func (l *Log) reset(start model.Offset) error {
	l.jobs.Lock()
	defer l.jobs.Unlock()
	l.mu.Lock()
	spares := l.dropSparesLocked()
	l.mu.Unlock()
	closeAll(spares)
	if err := l.release(l.active()); err != nil {
		return err
	}
	s := newSegment(start, l.disk.now().UnixMilli())
	s.index.count, s.times.count, s.txns.count, s.known = 0, 0, 0, true
	l.mu.Lock()
	gone := l.segments
	l.segments = []*segment{s}
	l.cutLocked(start)
	l.end.Store(int64(start))
	l.start.Store(int64(start))
	l.flushed.Store(int64(start))
	l.sync.synced, l.sync.rolled = start, model.NoOffset
	l.done, l.hasTxns = nil, false
	l.epochs, l.sync.epochs = nil, true
	l.mu.Unlock()
	l.producers.clear()
	l.unstable.Store(int64(model.NoOffset))
	l.snapshot = model.NoOffset
	if err := l.unlink(gone, -1); err != nil {
		return err
	}
	if err := l.createFile(start); err != nil {
		return err
	}
	if err := l.disk.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if l.folder != nil {
		if err := l.folder.lower(l); err != nil {
			return err
		}
	}
	l.wantSync(true)
	return nil
}

// dropSnapshots removes the producer snapshots at offsets that are unwanted.
func (l *Log) dropSnapshots(unwanted func(at model.Offset) bool) error {
	entries, err := l.disk.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at, suffix, ok := parseName(e.Name())
		if ok && suffix == snapshotSuffix && unwanted(at) {
			if err := removeFile(l.disk.fs, l.name(at, snapshotSuffix)); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseName splits a file name of 20 digits and a suffix.
func parseName(name string) (base model.Offset, suffix string, ok bool) {
	digits, rest, ok := strings.Cut(name, ".")
	if !ok || len(digits) != 20 {
		return 0, "", false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return model.Offset(n), "." + rest, err == nil && n >= 0 && digits[0] != '+'
}
