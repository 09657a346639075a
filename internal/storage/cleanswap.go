package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// Compaction puts one new segment in the place of a few neighbours. Its files go
// through these names, B being the base of the first:
//
//	1. B.log.cleaned …    written; files, then names synced
//	2. B.log.swap …       renamed, synced: from here on it counts, a crash is finished
//	                      by opening (leftovers.go)
//	3. old files          renamed to .deleted, synced; unlinked later
//	4. B.log, then B.index, B.timeindex, B.txnindex
//
// A crash before 2 leaves the old segments and after it the new one. Readers notice
// nothing: those of the old files have them open; the new ones are open, under
// whatever name, before they are part of the log; and who finds a name in between
// missing sees that the segments changed (Log.gen) and looks again.
//
// Steps 2 to 4 are one operation of the log's writer, so nothing else changes the
// segments meanwhile; appends wait for four syncs of names.

// output is a new segment while it is written. Its files stay open, pinned, until
// they have their names.
type output struct {
	l    *Log
	s    *segment
	pins []*handle // of the files, the log's first
	h    *handle   // the log's
	buf  []byte    // not written yet
	room int       // of buf
	txns []AbortedTxn
	gen  uint32 // of the log's segments when it became one of them
}

// errLarge: positions in a segment have 31 bits.
var errLarge = errors.New("a compacted segment would be larger than 2 GiB")

// outputFiles are the suffixes of a segment's files, in the order of their renaming.
var outputFiles = [...]string{logSuffix, indexSuffix, timeSuffix, txnSuffix}

func (l *Log) newOutput(base model.Offset, room int) (*output, error) {
	o := &output{l: l, s: newSegment(base, l.disk.now().UnixMilli()), room: room}
	o.s.index.count, o.s.times.count, o.s.txns.count, o.s.known = 0, 0, 0, true
	h, err := o.create(&o.s.file, logSuffix)
	if err != nil {
		return nil, err
	}
	o.h = h
	return o, nil
}

func (o *output) create(slot *atomic.Pointer[handle], suffix string) (*handle, error) {
	h, err := o.l.disk.files.acquire(slot, o.l.name(o.s.base, suffix+cleanedSuffix), os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	o.pins = append(o.pins, h)
	return h, nil
}

// append adds a batch with its offsets and everything in it.
func (o *output) append(b batch.Batch, interval int64) error {
	s := o.s
	if s.size+int64(len(b)) > math.MaxInt32 {
		return fmt.Errorf("%w: segment %d", errLarge, s.base)
	}
	s.noteTime(b.MaxTimestamp(), b.LastOffset())
	s.addIndexLocked(b.LastOffset(), s.size, int64(len(b)), interval) // nobody else knows the segment
	s.size += int64(len(b))
	o.buf = append(o.buf, b...)
	if len(o.buf) >= o.room {
		return o.flush()
	}
	return nil
}

func (o *output) flush() error {
	n := int64(len(o.buf))
	if n == 0 {
		return nil
	}
	if err := o.l.disk.admit(n); err != nil {
		return err
	}
	_, err := o.h.f.WriteAt(o.buf, o.s.size-n)
	o.buf = o.buf[:0]
	return err
}

// finish makes the files complete and durable, under their first names.
func (o *output) finish(mod time.Time) error {
	s, l := o.s, o.l
	if err := o.flush(); err != nil {
		return err
	}
	s.synced = s.size
	if s.size > 0 {
		s.addTimeLocked()
	}
	var txns []byte
	for _, t := range o.txns {
		txns = appendTxn(txns, t)
	}
	s.txns.tail = txns
	for _, x := range []struct {
		t      *table
		suffix string
		size   int
	}{{&s.index, indexSuffix, indexEntry}, {&s.times, timeSuffix, timeEntry}, {&s.txns, txnSuffix, txnEntry}} {
		if len(x.t.tail) == 0 && x.t == &s.txns { // made only where there is an entry
			continue
		}
		h, err := o.create(&x.t.slot, x.suffix)
		if err != nil {
			return err
		}
		if _, err := h.f.WriteAt(x.t.tail, 0); err != nil {
			return err
		}
		if err := h.f.Sync(); err != nil {
			return l.disk.fail(err)
		}
		x.t.count, x.t.tail = int32(len(x.t.tail)/x.size), nil
	}
	if err := l.disk.fs.Chtimes(l.name(s.base, logSuffix+cleanedSuffix), mod); err != nil {
		return err
	}
	if err := o.h.f.Sync(); err != nil {
		return l.disk.fail(err)
	}
	if err := l.disk.fs.SyncDir(l.dir); err != nil {
		if !l.alive.Load() { // deleted meanwhile, with its folder
			return ErrClosed
		}
		return l.disk.fail(err)
	}
	return nil
}

// has tells whether the segment has a file of this suffix.
func (o *output) has(suffix string) bool { return suffix != txnSuffix || len(o.txns) > 0 }

// close lets go of the files; drop removes them too, as long as they have their
// first names. Opening a log does the same.
func (o *output) close(drop bool) {
	for _, h := range o.pins {
		h.unpin()
	}
	o.pins = nil
	if !drop {
		return
	}
	o.s.doom()
	for _, suffix := range outputFiles {
		if err := removeFile(o.l.disk.fs, o.l.name(o.s.base, suffix+cleanedSuffix)); err != nil {
			o.l.disk.log.Warn("cannot remove what compaction began", "log", o.l.dir, "error", err)
		}
	}
}

// replace puts o in the place of group. errMoved if the log's segments changed since
// gen: what was dropped may have been so for records that are gone. Nothing has
// changed then, as after ErrClosed. Any other error is the
// folder's failure, and opening finishes the change or undoes it.
func (l *Log) replace(group []*segment, o *output, gen uint32) error {
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		l.mu.Lock()
		i, moved := slices.Index(l.segments, group[0]), l.gen != gen
		l.mu.Unlock()
		if moved {
			return errMoved
		}
		if err := o.commit(); err != nil {
			return err
		}
		err := l.swapIn(group, i, o)
		if err != nil && !errors.Is(err, ErrFailed) {
			err = l.disk.fail(fmt.Errorf("compacting %s: %w", l.dir, err))
		}
		return err
	})
}

// rename gives the files with these suffixes other names.
func (o *output) rename(from, to string, suffixes ...string) error {
	for _, suffix := range suffixes {
		if !o.has(suffix) {
			continue
		}
		name := o.l.name(o.s.base, suffix)
		if err := o.l.disk.fs.Rename(name+from, name+to); err != nil {
			return err
		}
	}
	return nil
}

// commit is step 2. If a name cannot be had, nothing has changed.
func (o *output) commit() error {
	disk := o.l.disk
	err := o.rename(cleanedSuffix, swapSuffix, outputFiles[:]...)
	if err == nil {
		if err := disk.fs.SyncDir(o.l.dir); err != nil {
			return disk.fail(err)
		}
		return nil
	}
	// While the one that failed is there as .cleaned, the others do not count.
	for _, suffix := range outputFiles {
		if rerr := removeFile(disk.fs, o.l.name(o.s.base, suffix+swapSuffix)); rerr != nil {
			return disk.fail(errors.Join(err, rerr))
		}
	}
	return disk.writeError(err)
}

// swapIn is steps 3 and 4, on the writer. i is the group's place.
func (l *Log) swapIn(group []*segment, i int, o *output) error {
	l.mu.Lock()
	l.segments = slices.Concat(l.segments[:i], []*segment{o.s}, l.segments[i+len(group):])
	l.gen++
	o.gen = l.gen
	l.mu.Unlock()
	for _, s := range group {
		if err := l.discard(s); err != nil {
			return err
		}
	}
	if err := l.disk.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if err := errors.Join(o.rename(swapSuffix, "", logSuffix), l.disk.fs.SyncDir(l.dir)); err != nil {
		return err
	}
	for _, s := range group[1:] { // opening would look for a segment there
		if err := removeFile(l.disk.fs, l.name(s.base, snapshotSuffix)); err != nil {
			return err
		}
	}
	return errors.Join(o.rename(swapSuffix, "", outputFiles[1:]...), l.disk.fs.SyncDir(l.dir))
}

// modTime is when a segment's file was last written.
func (l *Log) modTime(s *segment) (time.Time, error) {
	info, err := l.disk.fs.Stat(l.name(s.base, logSuffix))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// fileSize is the size of one of a segment's files, 0 if there is none.
func (l *Log) fileSize(base model.Offset, suffix string) (int64, error) {
	info, err := l.disk.fs.Stat(l.name(base, suffix))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
