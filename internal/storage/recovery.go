package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// Opening a log (KAFKA.md 4.5):
//
//  1. Finish or drop what a crash left half done (leftovers.go).
//  2. After an unclean stop, walk over every batch of the segments from the one
//     that holds the recovery point: magic, size, CRC, ascending offsets. Cut the
//     file at the first bad byte and drop the segments after it. Indexes, epochs
//     and producer state of these segments are made anew on the way.
//  3. A segment whose index files are missing or broken is walked over too.
//  4. Sync what was walked over: it may be in the page cache only (D3).
//  5. Producer state: the newest snapshot not above the end, and what came after.

// OpenLog opens, or creates, a log that is not a partition of a Folder: Raft's,
// or __cluster_metadata-0. s must outlive it.
func OpenLog(dir string, o LogOptions, s *Syncer) (*Log, error) {
	return openLog(s, nil, dir, model.TopicPartition{}, o)
}

func openLog(s *Syncer, folder *Folder, dir string, tp model.TopicPartition, o LogOptions) (*Log, error) {
	if err := s.Failed(); err != nil {
		return nil, err
	}
	l := &Log{
		disk: s, folder: folder, dir: dir, tp: tp, id: o.TopicID, noProducers: o.NoProducers,
		guarded: guarded{cfg: o.Config.withDefaults()},
		owned:   owned{leader: model.NoEpoch, snapshot: model.NoOffset},
	}
	l.alive.Store(true)
	l.unstable.Store(int64(model.NoOffset))
	l.sync.rolled = model.NoOffset
	if err := l.open(o); err != nil {
		l.abandon()
		return nil, fmt.Errorf("opening log %s: %w", dir, err)
	}
	l.notify = o.Notify
	s.register(l)
	return l, nil
}

// abandon lets go of all files of a log that could not be opened.
func (l *Log) abandon() {
	l.alive.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.aux {
		a.h.unpin()
	}
	l.aux = nil
	for _, s := range l.segments {
		if s.dirty != nil {
			s.dirty.unpin()
			s.dirty = nil
		}
		s.doom()
	}
}

func (l *Log) open(o LogOptions) error {
	names, err := l.names()
	if err != nil {
		return err
	}
	if err := l.openTopicID(names); err != nil {
		return err
	}
	if names, err = l.cleanUp(names); err != nil {
		return err
	}
	fresh := l.listSegments(names)
	if fresh {
		if err := l.createFirst(max(o.Start, 0)); err != nil {
			return err
		}
	}
	scanFrom := len(l.segments)
	if !o.Clean && !fresh {
		scanFrom = l.findLocked(o.RecoveryPoint)
	}
	if !l.loadEpochs(names) {
		scanFrom = 0
	}
	if scanFrom, err = l.checkIndexes(names, scanFrom); err != nil {
		return err
	}
	whole := max(o.RecoveryPoint, o.Start)
	if o.Clean {
		whole = math.MaxInt64
	}
	end, scanned, err := l.recover(scanFrom, whole)
	if err != nil {
		return err
	}
	return l.settleOpen(o, end, scanned, fresh, snapshotsIn(names))
}

// names lists the log's folder, which is made if it is not there.
func (l *Log) names() (map[string]bool, error) {
	entries, err := l.disk.fs.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		l.sync.fresh = true
		return map[string]bool{}, l.disk.fs.MkdirAll(l.dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, nil
}

// openTopicID checks, or writes, partition.metadata.
func (l *Log) openTopicID(names map[string]bool) error {
	name := filepath.Join(l.dir, topicFile)
	if names[topicFile] {
		text, err := vfs.ReadFile(l.disk.fs, name, maxMeta)
		if err != nil {
			return err
		}
		id, err := parseTopicID(text)
		switch {
		case err == nil && l.id == model.ZeroUUID:
			l.id = id
			return nil
		case err == nil && id != l.id:
			return fmt.Errorf("%w: the folder is of topic id %s, wanted is %s", ErrMismatch, id, l.id)
		case err == nil:
			return nil
		}
		// Torn: it was made shortly before a crash and never synced.
	}
	if l.id == model.ZeroUUID {
		return nil
	}
	f, err := l.disk.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	// Not synced now: creating a partition costs no fsync. The first job syncs it.
	l.sync.fresh = true
	_, err = f.WriteAt(appendTopicID(nil, l.id), 0)
	return errors.Join(err, f.Close())
}

// listSegments makes the segments of the .log files. fresh is true if there are none.
func (l *Log) listSegments(names map[string]bool) (fresh bool) {
	now := l.disk.now().UnixMilli()
	for name := range names {
		if base, suffix, ok := parseName(name); ok && suffix == logSuffix {
			s := newSegment(base, now)
			if names[fmt.Sprintf("%020d%s", int64(base), txnSuffix)] {
				l.hasTxns = true
			} else {
				s.txns.count = 0
			}
			l.segments = append(l.segments, s)
		}
	}
	slices.SortFunc(l.segments, func(a, b *segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	return len(l.segments) == 0
}

// createFirst makes the only segment of an empty log. The folder is synced by the
// first job that syncs data.
func (l *Log) createFirst(base model.Offset) error {
	s := newSegment(base, l.disk.now().UnixMilli())
	s.index.count, s.times.count, s.txns.count, s.known = 0, 0, 0, true
	l.segments = []*segment{s}
	l.sync.dir, l.sync.fresh = true, true
	return l.createFile(base)
}

func (l *Log) createFile(base model.Offset) error {
	f, err := l.disk.fs.OpenFile(l.name(base, logSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// loadEpochs reads the epoch checkpoint. It is false if the file is broken: the
// epochs are then found by walking over all of the log.
func (l *Log) loadEpochs(names map[string]bool) bool {
	if !names[epochFile] {
		return true
	}
	text, err := vfs.ReadFile(l.disk.fs, filepath.Join(l.dir, epochFile), maxCheckpoint)
	if err == nil {
		l.epochs, err = parseEpochs(text)
	}
	if err != nil {
		l.disk.log.Warn("leader epochs cannot be read; they are made anew from the log", "log", l.dir, "error", err)
		l.epochs, l.sync.epochs = nil, true
		return false
	}
	return true
}

// checkIndexes learns the segments' sizes and returns the first segment, at most
// from, that must be walked over because its indexes are missing or broken.
func (l *Log) checkIndexes(names map[string]bool, from int) (int, error) {
	for i, s := range l.segments {
		info, err := l.disk.fs.Stat(l.name(s.base, logSuffix))
		if err != nil {
			return 0, err
		}
		s.size = info.Size()
		s.synced = s.size
		if i >= from || s.size == 0 {
			continue
		}
		if !names[fmt.Sprintf("%020d%s", int64(s.base), indexSuffix)] || !names[fmt.Sprintf("%020d%s", int64(s.base), timeSuffix)] {
			l.disk.log.Warn("a segment has no index; it is made anew", "log", l.dir, "segment", int64(s.base))
			from = i
			continue
		}
		if s.txns.count != 0 {
			if _, err := l.readTxns(s); errors.Is(err, errCorrupt) {
				l.disk.log.Warn("a transaction index is broken; it is made anew", "log", l.dir, "segment", int64(s.base), "error", err)
				from = i
			} else if err != nil {
				return 0, err
			}
		}
	}
	return from, nil
}

// recover walks over the segments from the given one on and returns the log's end.
// scanned is the number of segments that must be synced. Where a segment begins at
// whole or before, what came before it was on disk or is not wanted: a gap in front
// of it is compaction's or retention's doing.
func (l *Log) recover(from int, whole model.Offset) (end model.Offset, scanned int, err error) {
	if from == len(l.segments) {
		end, err = l.endOf(l.active())
		if err == nil {
			return end, 0, nil
		}
		if !errors.Is(err, batch.ErrCorrupt) && !errors.Is(err, batch.ErrInvalid) && !errors.Is(err, errCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, 0, err
		}
		l.disk.log.Warn("the last segment is damaged although the log was closed in order", "log", l.dir, "error", err)
		from--
	}
	began := time.Now()
	if err := l.loadProducers(l.segments[from].base); err != nil {
		return 0, 0, err
	}
	end = l.segments[from].base
	for i := from; i < len(l.segments); i++ {
		s := l.segments[i]
		lost := s.base < end || i > from && s.base > end && s.base > whole && !l.cfg.Compact && l.cfg.FlushMessages != 1
		if lost {
			l.disk.log.Warn("a segment does not follow the one before it; it is dropped", "log", l.dir, "segment", int64(s.base), "expected", int64(end))
			err = l.dropFrom(i)
			break
		}
		whole, next, err := l.walk(s)
		if err != nil {
			return 0, 0, err
		}
		end = next
		if !whole && i+1 < len(l.segments) {
			if err := l.dropFrom(i + 1); err != nil {
				return 0, 0, err
			}
		}
	}
	if err != nil {
		return 0, 0, err
	}
	l.disk.log.Info("log recovered", "log", l.dir, "from", int64(l.segments[from].base), "end", int64(end), "took", time.Since(began))
	return end, len(l.segments) - from, nil
}

// dropFrom removes the i-th segment and all after it, newest first.
func (l *Log) dropFrom(i int) error {
	l.wasCut = true
	gone := slices.Clone(l.segments[i:])
	l.segments = l.segments[:i]
	for _, s := range slices.Backward(gone) {
		if err := l.discard(s); err != nil {
			return err
		}
	}
	return nil
}

// endOf finds the end of the last segment of a log that was closed in order.
func (l *Log) endOf(s *segment) (model.Offset, error) {
	if err := l.activate(s); err != nil || s.size == 0 {
		return s.base, err
	}
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return 0, err
	}
	defer h.unpin()
	pos, err := l.indexed(view{s: s, size: s.size}, math.MaxInt64)
	if err != nil {
		return 0, err
	}
	end := s.base
	err = l.scan(h, pos, s.size, func(b batch.Batch, _ int64) bool {
		end = b.NextOffset()
		return true
	})
	return end, err
}

// walk checks every batch of a segment, makes its indexes anew and applies what
// it finds to epochs and producers. The file is cut at the first bad byte; whole
// is false then.
func (l *Log) walk(s *segment) (whole bool, end model.Offset, err error) {
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return false, 0, err
	}
	defer h.unpin()
	size := s.size
	s.size, s.synced, s.since, s.known = 0, 0, 0, true
	s.maxTime, s.firstTime, s.lastTime, s.maxOffset = noTime, noTime, noTime, s.base
	s.dirty = h.share()
	end = s.base
	var txns []AbortedTxn
	r := batches{f: h.f, size: size}
	for {
		b, err := r.next()
		if err == nil {
			err = s.checkNext(b, end)
		}
		if errors.Is(err, io.EOF) {
			whole = true
			break
		}
		if err != nil && (errors.Is(err, errCorrupt) || errors.Is(err, batch.ErrCorrupt)) {
			l.disk.log.Warn("log ends with bytes that are no batch; they are cut off", "log", l.dir, "segment", int64(s.base), "at", s.size, "bytes", size-s.size, "error", err)
			break
		}
		if err != nil {
			return false, 0, l.disk.readError(err)
		}
		s.noteTime(b.MaxTimestamp(), b.LastOffset())
		s.addIndexLocked(b.LastOffset(), s.size, int64(len(b)), int64(l.cfg.IndexInterval))
		s.size += int64(len(b))
		end = b.NextOffset()
		if l.epochs.assign(b.LeaderEpoch(), b.BaseOffset()) {
			l.sync.epochs = true
		}
		l.producers.begin()
		if t, kind, ended := l.applyProducer(b); ended && kind == batch.Abort {
			txns = append(txns, l.aborted(b.Producer().ID, t))
		}
	}
	l.wasCut = l.wasCut || !whole
	// Where nothing is cut this gives back the blocks that were reserved ahead.
	if err := h.f.Truncate(s.size); err != nil {
		return false, 0, err
	}
	return whole, end, l.rewriteTables(s, txns)
}

// checkNext demands that a batch follows the one that ended at end.
func (s *segment) checkNext(b batch.Batch, end model.Offset) error {
	if _, fits := s.relative(b.LastOffset()); b.BaseOffset() < end || b.LastOffsetDelta() < 0 || !fits {
		return fmt.Errorf("%w: offsets %d to %d after %d", errCorrupt, b.BaseOffset(), b.LastOffset(), end)
	}
	return nil
}

// rewriteTables replaces a segment's index files by what walk found.
func (l *Log) rewriteTables(s *segment, txns []AbortedTxn) error {
	tables := []struct {
		t      *table
		suffix string
		size   int
	}{{&s.index, indexSuffix, indexEntry}, {&s.times, timeSuffix, timeEntry}, {&s.txns, txnSuffix, txnEntry}}
	for _, x := range tables {
		drop(&x.t.slot)
		if err := removeFile(l.disk.fs, l.name(s.base, x.suffix)); err != nil {
			return err
		}
		x.t.count = 0
	}
	if s != l.active() {
		s.addTimeLocked()
	}
	for _, x := range tables[:2] {
		if err := l.spill(s, x.t, x.suffix, x.size); err != nil {
			return err
		}
	}
	if len(txns) == 0 {
		return nil
	}
	l.hasTxns = true
	err := l.writeTxns(s, txns)
	s.txns.count = int32(len(txns))
	return err
}

// settleOpen brings the whole log to its end after recovery.
func (l *Log) settleOpen(o LogOptions, end model.Offset, scanned int, fresh bool, snapshots []model.Offset) error {
	start := max(o.Start, l.segments[0].base)
	l.end.Store(int64(end))
	l.start.Store(int64(min(start, end)))
	if start > end { // the records up to the start were deleted, those after it lost
		if err := l.reset(start); err != nil {
			return err
		}
		return l.await(context.Background(), l.wantSync(true))
	}
	if l.epochs.cutEnd(end) {
		l.sync.epochs = true
	}
	if !o.Clean {
		if err := l.refillEpochs(start, end); err != nil {
			return err
		}
	}
	if l.epochs.cutStart(start) {
		l.sync.epochs = true
	}
	snapshots, err := l.dropStraySnapshots(snapshots, end)
	if err != nil {
		return err
	}
	if err := l.loadProducersFrom(snapshots, end); err != nil {
		return err
	}
	l.sync.synced = end
	l.flushed.Store(int64(end))
	if !o.Clean || l.Size() == 0 { // names may be in the page cache only
		l.sync.fresh, l.sync.dir = true, true
	}
	if fresh || scanned == 0 || l.Size() == 0 && !l.wasCut {
		l.mu.Lock()
		for _, s := range l.segments {
			if s.dirty != nil {
				s.dirty.unpin()
				s.dirty = nil
			}
		}
		l.mu.Unlock()
		l.letGo()
		return nil
	}
	l.sync.synced = l.segments[len(l.segments)-scanned].base
	l.flushed.Store(int64(l.sync.synced))
	if err := l.await(context.Background(), l.wantSync(true)); err != nil {
		return err
	}
	l.flushed.Store(int64(end))
	l.letGo()
	return nil
}

// refillEpochs finds the epochs before the first one that the checkpoint has. It
// may have been written for a start that the crash undid.
func (l *Log) refillEpochs(start, end model.Offset) error {
	first := end
	if len(l.epochs) > 0 {
		first = l.epochs[0].start
	}
	var found epochs
	for i := l.findLocked(start); i < len(l.segments) && l.segments[i].base < first; i++ {
		s := l.segments[i]
		h, err := l.acquire(&s.file, s.base, logSuffix, 0)
		if err != nil {
			return err
		}
		err = l.scan(h, 0, s.size, func(b batch.Batch, _ int64) bool {
			found.assign(b.LeaderEpoch(), b.BaseOffset())
			return b.NextOffset() < first
		})
		h.unpin()
		if err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	for _, e := range l.epochs {
		found.assign(e.epoch, e.start)
	}
	l.epochs, l.sync.epochs = found, true
	return nil
}

// letGo closes the files that opening used: most logs rest after a start.
func (l *Log) letGo() {
	for _, s := range l.segments {
		s.doom()
	}
}

// batches reads a file's batches one after another, each whole and checked.
type batches struct {
	f    io.ReaderAt
	size int64
	pos  int64 // of the next batch
	buf  []byte
	from int64 // position of buf[0]

	window int // bytes read at once; 0 = walkBuffer
}

const walkBuffer = 1 << 20

// next returns the batch at pos, valid until the next call; io.EOF at the file's
// end; errCorrupt or batch.ErrCorrupt if there is no whole batch.
func (r *batches) next() (batch.Batch, error) {
	left := r.size - r.pos
	if left == 0 {
		return nil, io.EOF
	}
	if left < batch.HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are no batch", errCorrupt, left)
	}
	head, err := r.at(batch.HeaderSize)
	if err != nil {
		return nil, err
	}
	n, err := batch.Peek(head)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if int64(n) > left {
		return nil, fmt.Errorf("%w: batch of %d bytes, the file has %d", errCorrupt, n, left)
	}
	b, err := r.at(n)
	if err != nil {
		return nil, err
	}
	r.pos += int64(n)
	return b, batch.Batch(b).Check()
}

// at returns n bytes at pos.
func (r *batches) at(n int) ([]byte, error) {
	if at := r.pos - r.from; r.buf != nil && at >= 0 && at+int64(n) <= int64(len(r.buf)) {
		return r.buf[at:][:n], nil
	}
	window := walkBuffer
	if r.window > 0 {
		window = r.window
	}
	want := int(min(max(int64(n), int64(window)), r.size-r.pos))
	r.buf = slices.Grow(r.buf[:0], want)[:want]
	r.from = r.pos
	got, err := r.f.ReadAt(r.buf, r.pos)
	r.buf = r.buf[:got]
	if got < n {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("%w: the file ended early", errCorrupt)
		}
		return nil, err
	}
	return r.buf[:n], nil
}
