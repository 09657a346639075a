package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync/atomic"

	"ottla.dev/ottla/internal/model"
)

// A table is a file of entries of one size, ascending. Its last entries may be
// in memory only: they are written in blocks, because an index write for each
// append would double the system calls.
//
//	NNN.index      8 bytes an entry: relativeOffset int32 | position int32
//	NNN.timeindex 12 bytes an entry: timestamp int64 | relativeOffset int32
//	NNN.txnindex  34 bytes an entry: see txnindex.go
//
// relativeOffset is the offset minus NNN, the segment's base. An .index entry is
// the last offset of a batch and where the batch begins. A .timeindex entry says
// that no record up to that offset has a larger timestamp.
//
// Kafka reserves the active segment's indexes as sparse files; here they are as
// long as their entries always, which Kafka reads as well. After a crash they are
// made anew for every segment that may have unsynced data.
type table struct {
	slot atomic.Pointer[handle]

	// count is the number of entries in the file, -1 before it is looked up.
	count int32

	// stale means that the file has unsynced entries and is in Log.aux (D2).
	stale bool

	// tail has the entries after those. Owned by the writer, guarded by Log.mu.
	tail []byte
}

const (
	indexEntry = 8
	timeEntry  = 12

	// spillBytes is how long a tail gets before it is written to the file.
	spillBytes = 4 << 10
)

// entries is the number of entries in the file and in the tail.
func (t *table) entries(size int) int { return max(int(t.count), 0) + len(t.tail)/size }

// Index lookups ask for the last entry whose key is at most a target. key reads
// an entry's key.
func indexOffset(e []byte) int64 { return int64(int32(binary.BigEndian.Uint32(e))) }
func indexPos(e []byte) int64    { return int64(binary.BigEndian.Uint32(e[4:])) }
func timeOf(e []byte) int64      { return int64(binary.BigEndian.Uint64(e)) }
func timeOffset(e []byte) int64  { return int64(int32(binary.BigEndian.Uint32(e[8:]))) }

// searchTail finds the last entry of the tail whose key is at most target.
func (t *table) searchTail(size int, key func([]byte) int64, target int64) ([]byte, bool) {
	n := sort.Search(len(t.tail)/size, func(i int) bool { return key(t.tail[i*size:]) > target })
	if n == 0 {
		return nil, false
	}
	return t.tail[(n-1)*size:][:size], true
}

// searchFile finds the last of the first n entries of a file whose key is at most
// target, and copies it to entry.
func searchFile(f io.ReaderAt, n int, key func([]byte) int64, target int64, entry []byte) (bool, error) {
	size := int64(len(entry))
	var failed error
	at := func(i int) int64 {
		if _, err := f.ReadAt(entry, int64(i)*size); err != nil && failed == nil {
			failed = err
		}
		return key(entry)
	}
	i := sort.Search(n, func(i int) bool { return failed != nil || at(i) > target })
	if failed != nil || i == 0 {
		return false, failed
	}
	at(i - 1)
	return failed == nil, failed
}

// lookup finds the last entry of one of s's tables whose key is at most target.
// The log's mu is not held: it is taken for the tail alone.
func (l *Log) lookup(s *segment, t *table, suffix string, size int, key func([]byte) int64, target int64, entry []byte) (bool, error) {
	l.mu.Lock()
	if e, ok := t.searchTail(size, key, target); ok {
		copy(entry, e)
		l.mu.Unlock()
		return true, nil
	}
	n := t.count
	l.mu.Unlock()
	if n == 0 {
		return false, nil
	}
	h, err := l.acquire(&t.slot, s.base, suffix, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, l.disk.readError(err)
	}
	defer h.unpin()
	if n < 0 {
		if n, err = l.count(t, h, size); err != nil {
			return false, err
		}
	}
	ok, err := searchFile(h.f, int(n), key, target, entry)
	if err != nil {
		return false, l.disk.readError(fmt.Errorf("reading %s: %w", h.f.Name(), err))
	}
	return ok, nil
}

// count looks up how many entries the file has. Only tables of segments that
// nobody writes, or that the writer has not begun to write, are uncounted.
func (l *Log) count(t *table, h *handle, size int) (int32, error) {
	bytes, err := h.f.Size()
	if err != nil {
		return 0, l.disk.readError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.count < 0 {
		t.count = int32(bytes / int64(size))
	}
	return t.count, nil
}

// spill writes a tail to its file, made if need be. The file is synced later (D2).
// Called by the writer.
func (l *Log) spill(s *segment, t *table, suffix string, size int) error {
	h, err := l.acquire(&t.slot, s.base, suffix, os.O_CREATE)
	if err != nil {
		return err
	}
	defer h.unpin()
	n, err := l.count(t, h, size)
	if err != nil {
		return err
	}
	if len(t.tail) == 0 {
		return nil
	}
	if _, err := h.f.WriteAt(t.tail, int64(n)*int64(size)); err != nil {
		return err
	}
	l.mu.Lock()
	t.count = n + int32(len(t.tail)/size)
	t.tail = t.tail[:0]
	l.auxLocked(t, h)
	l.mu.Unlock()
	return nil
}

// auxLocked remembers that a file must be synced before the recovery point passes
// its segment. It takes a pin of its own.
func (l *Log) auxLocked(t *table, h *handle) {
	if t != nil {
		if t.stale {
			return
		}
		t.stale = true
	}
	l.aux = append(l.aux, auxFile{h.share(), t})
}

// addIndexLocked enters the batch of these offsets and position if enough bytes
// came since the last entry; size is the batch's.
func (s *segment) addIndexLocked(last model.Offset, pos, size, interval int64) {
	if s.since > interval {
		if rel, ok := s.relative(last); ok {
			s.index.tail = binary.BigEndian.AppendUint32(s.index.tail, uint32(rel))
			s.index.tail = binary.BigEndian.AppendUint32(s.index.tail, uint32(pos))
		}
		s.addTimeLocked()
		s.since = 0
	}
	s.since += size
}

// addTimeLocked enters the largest timestamp so far if it is larger than the last
// entry's.
func (s *segment) addTimeLocked() {
	rel, ok := s.relative(s.maxOffset)
	if s.maxTime <= s.lastTime || !ok {
		return
	}
	s.times.tail = binary.BigEndian.AppendUint64(s.times.tail, uint64(s.maxTime))
	s.times.tail = binary.BigEndian.AppendUint32(s.times.tail, uint32(rel))
	s.lastTime = s.maxTime
}

// noteTime takes a batch's largest timestamp into account.
func (s *segment) noteTime(ts int64, last model.Offset) {
	if s.firstTime == noTime && s.size == 0 {
		s.firstTime = ts
	}
	if ts > s.maxTime {
		s.maxTime, s.maxOffset = ts, last
	}
}
