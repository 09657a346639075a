package quorum

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// cacheBytes is how much of the newest entries' data stays in memory, so that
// what was just written is not read back to be applied and sent.
const cacheBytes = 4 << 20

// raftLog is raft.Storage over a Kafka-format log of its own: entry i is the
// record at offset i−1, its term the leader epoch. Terms of all entries and the
// newest entries themselves are in memory.
//
// The raft goroutine reads; the writer goroutine appends, cuts and trims. Readers
// see an append when it is durable.
//
//	trim          cacheFirst             last
//	 │ entries on disk only │ and in cache │
//	 ▼──────────────────────▼──────────────▼
//	   first = trim.index+1
type raftLog struct {
	log    *storage.Log
	codecs *batch.Codecs
	build  *batch.Builder // of the writer goroutine
	now    func() int64

	mu sync.Mutex
	// trim is the entry before the first: its term is still known.
	trim position
	last uint64
	// terms are the entries with which a new term begins, ascending in both.
	terms []position
	// cache holds entries [last−len(cache)+1, last].
	cache      []*pb.Entry
	cacheBytes int
	// snap is what Snapshot answers, nil while there is none.
	snap *pb.Snapshot
	hard *pb.HardState
	conf *pb.ConfState
	// err is what a read from disk failed with: raft cannot carry it.
	err error
}

// InitialState is part of raft.Storage.
func (l *raftLog) InitialState() (*pb.HardState, *pb.ConfState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hard, l.conf, nil
}

// FirstIndex is part of raft.Storage.
func (l *raftLog) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trim.index + 1, nil
}

// LastIndex is part of raft.Storage.
func (l *raftLog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, nil
}

// Term is part of raft.Storage.
func (l *raftLog) Term(i uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.termLocked(i)
}

func (l *raftLog) termLocked(i uint64) (uint64, error) {
	switch {
	case i < l.trim.index:
		return 0, raft.ErrCompacted
	case i == l.trim.index:
		return l.trim.term, nil
	case i > l.last:
		return 0, raft.ErrUnavailable
	}
	at, found := slices.BinarySearchFunc(l.terms, i, func(p position, i uint64) int {
		return int(int64(p.index) - int64(i))
	})
	if !found {
		at--
	}
	return l.terms[at].term, nil
}

// Snapshot is part of raft.Storage.
func (l *raftLog) Snapshot() (*pb.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.snap == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return l.snap, nil
}

// Entries is part of raft.Storage.
func (l *raftLog) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	l.mu.Lock()
	if lo <= l.trim.index {
		l.mu.Unlock()
		return nil, raft.ErrCompacted
	}
	if hi > l.last+1 {
		l.mu.Unlock()
		return nil, raft.ErrUnavailable
	}
	if first := l.last + 1 - uint64(len(l.cache)); lo >= first {
		out := slices.Clone(limit(l.cache[lo-first:hi-first], maxSize))
		l.mu.Unlock()
		return out, nil
	}
	l.mu.Unlock()
	out, err := l.readDisk(lo, hi, maxSize)
	if err != nil {
		err = fmt.Errorf("reading raft entries [%d, %d): %w", lo, hi, err)
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}
	return out, err
}

// limit cuts a list of entries at a size, after at least one.
func limit(list []*pb.Entry, maxSize uint64) []*pb.Entry {
	var size uint64
	for i, e := range list {
		size += uint64(len(e.GetData())) + 32
		if i > 0 && size > maxSize {
			return list[:i]
		}
	}
	return list
}

func (l *raftLog) readDisk(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	var out []*pb.Entry
	most := int64(min(maxSize, 4<<20))
	err := readLog(l.log, model.Offset(lo)-1, model.Offset(hi)-1, most, func(b batch.Batch) error {
		e, err := decodeEntry(l.codecs, b)
		if err == nil && e.GetIndex() != lo+uint64(len(out)) {
			err = fmt.Errorf("%w: entry %d where %d was expected", ErrCorrupt, e.GetIndex(), lo+uint64(len(out)))
		}
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: entry %d is missing", ErrCorrupt, lo)
	}
	return limit(out, maxSize), nil
}

// append writes entries behind the log, after cutting off those they replace. It
// returns when the entries are durable. Only the writer goroutine calls it.
func (l *raftLog) append(entries []*pb.Entry) error {
	first := entries[0].GetIndex()
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	if first > last+1 {
		panic(fmt.Sprintf("BUG: raft entry %d cannot follow %d", first, last))
	}
	if first <= last {
		if err := l.cut(first - 1); err != nil {
			return err
		}
	}
	var buf []byte
	ends := make([]int, 0, len(entries))
	now := l.now()
	for _, e := range entries {
		var err error
		if buf, err = appendEntry(buf, l.build, e, now); err != nil {
			return err
		}
		ends = append(ends, len(buf))
	}
	if err := appendAll(l.log, buf, ends); err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	if err := l.log.Sync(context.Background()); err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		l.enterLocked(e)
	}
	l.evictLocked()
	return nil
}

// enterLocked makes an entry that is on disk visible.
func (l *raftLog) enterLocked(e *pb.Entry) {
	if n := len(l.terms); n == 0 || l.terms[n-1].term != e.GetTerm() {
		l.terms = append(l.terms, position{e.GetIndex(), e.GetTerm()})
	}
	l.last = e.GetIndex()
	l.cache = append(l.cache, e)
	l.cacheBytes += len(e.GetData())
}

// evictLocked drops the oldest entries from memory beyond the bound.
func (l *raftLog) evictLocked() {
	n := 0
	for l.cacheBytes > cacheBytes && n < len(l.cache)-1 {
		l.cacheBytes -= len(l.cache[n].GetData())
		l.cache[n] = nil
		n++
	}
	const many = 4096 // small entries cost more than their data
	if len(l.cache)-n > 2*many {
		for ; n < len(l.cache)-many; n++ {
			l.cacheBytes -= len(l.cache[n].GetData())
			l.cache[n] = nil
		}
	}
	if n > 0 {
		l.cache = slices.Clone(l.cache[n:])
	}
}

// cut removes the entries behind index; durably, before anything is written in
// their place.
func (l *raftLog) cut(index uint64) error {
	if err := l.log.TruncateTo(model.Offset(index)); err != nil {
		return fmt.Errorf("cutting the raft log behind entry %d: %w", index, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.last > index {
		if n := len(l.cache); n > 0 {
			l.cacheBytes -= len(l.cache[n-1].GetData())
			l.cache[n-1] = nil
			l.cache = l.cache[:n-1]
		}
		l.last--
	}
	for n := len(l.terms); n > 0 && l.terms[n-1].index > index; n-- {
		l.terms = l.terms[:n-1]
	}
	return nil
}

// trimTo gives up the entries up to and including p; the caller has made that
// durable in the state file.
func (l *raftLog) trimTo(p position) error {
	l.mu.Lock()
	if p.index <= l.trim.index {
		l.mu.Unlock()
		return nil
	}
	l.trim = p
	for len(l.terms) > 1 && l.terms[1].index <= p.index+1 {
		l.terms = l.terms[1:]
	}
	if first := l.last + 1 - uint64(len(l.cache)); p.index >= first {
		n := int(min(p.index+1-first, uint64(len(l.cache))))
		for _, e := range l.cache[:n] {
			l.cacheBytes -= len(e.GetData())
		}
		l.cache = slices.Clone(l.cache[n:])
	}
	l.mu.Unlock()
	if err := l.log.AdvanceStart(model.Offset(p.index)); err != nil {
		return fmt.Errorf("trimming the raft log to entry %d: %w", p.index, err)
	}
	return nil
}

// reset empties the log; the next entry will be p.index+1.
func (l *raftLog) reset(p position) error {
	if err := l.log.TruncateAll(model.Offset(p.index)); err != nil {
		return fmt.Errorf("emptying the raft log at entry %d: %w", p.index, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trim, l.last = p, p.index
	l.terms, l.cache, l.cacheBytes = nil, nil, 0
	return nil
}

// setSnapshot makes a snapshot the one that lagging voters get.
func (l *raftLog) setSnapshot(id SnapshotID, at position, conf *pb.ConfState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snap = &pb.Snapshot{
		Data:     appendSnapshotID(nil, id),
		Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: new(at.index), Term: new(at.term)},
	}
}

// failure is what a read failed with, nil if none did.
func (l *raftLog) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// A snapshot message carries the snapshot's id, never its bytes:
// end offset 8, epoch 4.
func appendSnapshotID(b []byte, id SnapshotID) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(id.End))
	return binary.BigEndian.AppendUint32(b, uint32(id.Epoch))
}

func parseSnapshotID(b []byte) (SnapshotID, error) {
	if len(b) != 12 {
		return SnapshotID{}, fmt.Errorf("%w: a snapshot id of %d bytes, 12 are expected", ErrCorrupt, len(b))
	}
	id := SnapshotID{model.Offset(binary.BigEndian.Uint64(b)), model.Epoch(binary.BigEndian.Uint32(b[8:]))}
	if id.End < 0 || id.Epoch < 0 {
		return SnapshotID{}, fmt.Errorf("%w: snapshot id %d, epoch %d", ErrCorrupt, id.End, id.Epoch)
	}
	return id, nil
}

// appendAll appends whole batches that lie in data, ended at ends, and waits
// until they are written. Those that an earlier try has written, before the disk
// was full, are passed over.
func appendAll(log *storage.Log, data []byte, ends []int) error {
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	list := make([]*storage.Append, 0, len(ends))
	from, have := 0, log.EndOffset()
	for _, end := range ends {
		b := batch.Batch(data[from:end:end])
		from = end
		if b.NextOffset() <= have {
			continue
		}
		wg.Add(1)
		list = append(list, &storage.Append{
			Batch: b, Replica: true,
			Done: func(a *storage.Append) {
				if a.Err != nil {
					mu.Lock()
					errs = append(errs, a.Err)
					mu.Unlock()
				}
				wg.Done()
			},
		})
	}
	log.AppendAll(list...)
	wg.Wait()
	return errors.Join(errs...)
}

// readLog calls f with the batches of a log from an offset to a limit, as many
// as about most bytes hold, at least one. The bytes are f's until it returns.
func readLog(log *storage.Log, from, limit model.Offset, most int64, f func(batch.Batch) error) error {
	data, err := readBytes(log, from, limit, most)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n, err := batch.Peek(data)
		if errors.Is(err, batch.ErrShort) || err == nil && n > len(data) {
			return nil // a cut batch, behind whole ones
		}
		if err != nil {
			return err
		}
		b := batch.Batch(data[:n:n])
		if err := b.Check(); err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// readBytes reads about most bytes of a log, from the batch that holds from on.
func readBytes(log *storage.Log, from, limit model.Offset, most int64) ([]byte, error) {
	c, err := log.Read(from, limit, most, true)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	data := make([]byte, c.Len())
	if n, err := c.ReadAt(data, 0); n < len(data) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return data, nil
}
