package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// What damage to an index means.
const (
	meansIndex = "reads by offset may miss records; delete the file while the node is stopped, the next start makes it anew"
	meansTimes = "reads by time may miss records; delete the file while the node is stopped, the next start makes it anew"
	meansTxns  = "consumers with isolation.level=read_committed may get records of aborted transactions, or miss others"
)

// IndexEntry says where the batch begins that has Offset last.
type IndexEntry struct {
	At     int64 // position of the entry in its file
	Offset model.Offset
	Pos    int64 // position of the batch in the segment
}

// TimeEntry says that no record up to Offset has a larger timestamp.
type TimeEntry struct {
	At        int64
	Timestamp int64
	Offset    model.Offset
}

// StableOffset is the last stable offset when the transaction's marker was written.
func (t AbortedTxn) StableOffset() model.Offset { return t.stable }

// entries walks over a file of entries of one size. Zeros at the end, which Kafka
// reserves for a segment that is being written, do not count, unless they are the
// only entry. Where they turn out not to be the end, f gets nil for them.
func entries(fsys vfs.FS, path string, size int, f func(at int64, e []byte) error) error {
	return withFile(fsys, path, func(file vfs.File, total int64) error {
		in := bufio.NewReaderSize(io.NewSectionReader(file, 0, total), inspectBuffer)
		e := make([]byte, size)
		zeros := int64(0)
		for at := int64(0); at+int64(size) <= total; at += int64(size) {
			if _, err := io.ReadFull(in, e); err != nil {
				return fmt.Errorf("reading at position %d: %w", at, err)
			}
			if blank(e) && total > int64(size) {
				zeros++
				continue
			}
			if zeros > 0 {
				from := at - zeros*int64(size)
				if err := f(from, nil); err != nil {
					return err
				}
				zeros = 0
			}
			if err := f(at, e); err != nil {
				return err
			}
		}
		if odd := total % int64(size); odd != 0 {
			return damaged(total-odd, model.NoOffset, "a write was cut off", "%d bytes are left, an entry has %d", odd, size)
		}
		return nil
	})
}

func blank(e []byte) bool {
	for _, b := range e {
		if b != 0 {
			return false
		}
	}
	return true
}

// walkEntries is what the Inspect functions of indexes share: parse gives an
// entry, and what is wrong with it after the one before.
func walkEntries[E any](fsys vfs.FS, path string, size int, means string, parse func(at int64, e []byte) (E, error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		var none E
		err := entries(fsys, path, size, func(at int64, e []byte) error {
			var entry E
			var err error
			if e == nil {
				err = damaged(at, model.NoOffset, means, "there are zeros among the entries")
			} else {
				entry, err = parse(at, e)
				if !yield(entry, nil) {
					return errEnough
				}
			}
			if err != nil && !yield(none, err) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(none, err)
		}
	}
}

// InspectIndex walks over an .index. Damage comes after the entry that it is
// about; the walk goes on.
func InspectIndex(fsys vfs.FS, path string, base model.Offset) iter.Seq2[IndexEntry, error] {
	return func(yield func(IndexEntry, error) bool) {
		last := IndexEntry{Offset: base - 1, Pos: -1}
		parse := func(at int64, b []byte) (IndexEntry, error) {
			e := IndexEntry{At: at, Offset: base + model.Offset(indexOffset(b)), Pos: indexPos(b)}
			was := last
			last = e
			if e.Offset <= was.Offset || e.Pos <= was.Pos {
				return e, damaged(at, e.Offset, meansIndex, "offset %d at position %d does not follow offset %d at position %d", e.Offset, e.Pos, was.Offset, was.Pos)
			}
			return e, nil
		}
		walkEntries(fsys, path, indexEntry, meansIndex, parse)(yield)
	}
}

// InspectTimes walks over a .timeindex, as InspectIndex does.
func InspectTimes(fsys vfs.FS, path string, base model.Offset) iter.Seq2[TimeEntry, error] {
	return func(yield func(TimeEntry, error) bool) {
		last := TimeEntry{Offset: base, Timestamp: -1}
		parse := func(at int64, b []byte) (TimeEntry, error) {
			e := TimeEntry{At: at, Timestamp: timeOf(b), Offset: base + model.Offset(timeOffset(b))}
			was := last
			last = e
			if e.Offset < was.Offset || e.Timestamp <= was.Timestamp {
				return e, damaged(at, e.Offset, meansTimes, "time %d up to offset %d does not follow time %d up to offset %d", e.Timestamp, e.Offset, was.Timestamp, was.Offset)
			}
			return e, nil
		}
		walkEntries(fsys, path, timeEntry, meansTimes, parse)(yield)
	}
}

// InspectTxns walks over a .txnindex, as InspectIndex does.
func InspectTxns(fsys vfs.FS, path string) iter.Seq2[AbortedTxn, error] {
	return func(yield func(AbortedTxn, error) bool) {
		last := model.NoOffset
		parse := func(at int64, b []byte) (AbortedTxn, error) {
			t, err := parseTxn(b)
			if err != nil {
				return t, damaged(at, model.NoOffset, meansTxns, "%s", strip(err))
			}
			was := last
			last = t.Last
			if t.Last <= was {
				return t, damaged(at, t.Last, meansTxns, "a transaction that ended at %d follows one that ended at %d", t.Last, was)
			}
			return t, nil
		}
		walkEntries(fsys, path, txnEntry, meansTxns, parse)(yield)
	}
}

// VerifyIndex holds an .index against its segment: at each entry's position a
// batch must begin that reaches up to the entry's offset.
func VerifyIndex(fsys vfs.FS, path, segment string, base model.Offset) iter.Seq[error] {
	return func(yield func(error) bool) {
		w := openWalk(fsys, segment)
		defer w.stop()
		for e, err := range InspectIndex(fsys, path, base) {
			if err != nil {
				continue // InspectIndex has said so
			}
			for w.ok && w.b.Pos < e.Pos {
				w.advance()
			}
			var d error
			switch {
			case w.err != nil:
				d = w.err
			case !w.ok || w.b.Pos != e.Pos:
				d = damaged(e.At, e.Offset, meansIndex, "no batch of the segment begins at position %d", e.Pos)
			case w.b.Header.LastOffset() != e.Offset:
				d = damaged(e.At, e.Offset, meansIndex, "the batch at position %d ends at offset %d, not at %d", e.Pos, w.b.Header.LastOffset(), e.Offset)
			}
			if d != nil && (!yield(d) || w.err != nil) {
				return
			}
		}
	}
}

// VerifyTimes holds a .timeindex against its segment: no batch up to an entry's
// offset may have a larger timestamp, and one must have that one.
func VerifyTimes(fsys vfs.FS, path, segment string, base model.Offset) iter.Seq[error] {
	return func(yield func(error) bool) {
		w := openWalk(fsys, segment)
		defer w.stop()
		most := int64(-1) // the largest timestamp of the batches passed
		for e, err := range InspectTimes(fsys, path, base) {
			if err != nil {
				continue
			}
			for w.ok && w.b.Header.BaseOffset() <= e.Offset {
				most = max(most, w.b.Header.MaxTimestamp())
				w.advance()
			}
			var d error
			switch {
			case w.err != nil:
				d = w.err
			case most != e.Timestamp:
				d = damaged(e.At, e.Offset, meansTimes, "the largest time up to offset %d is %d in the segment, not %d", e.Offset, most, e.Timestamp)
			}
			if d != nil && (!yield(d) || w.err != nil) {
				return
			}
		}
	}
}

// VerifyTxns holds a .txnindex against its segment: every entry must have its
// abort marker there, and every abort marker its entry. A file that is not there
// has no entries.
func VerifyTxns(fsys vfs.FS, path, segment string) iter.Seq[error] {
	return func(yield func(error) bool) {
		w := openWalk(fsys, segment)
		defer w.stop()
		codecs := batch.NewCodecs()
		// passed reports the abort markers below an offset, which have no entry.
		passed := func(below model.Offset) bool {
			for ; w.ok && w.b.Header.LastOffset() < below; w.advance() {
				if !isAbort(codecs, &w.b) {
					continue
				}
				h := w.b.Header
				if !yield(damaged(w.b.Pos, h.BaseOffset(), meansTxns, "the segment has an abort marker of producer %d that is not in the index", h.Producer().ID)) {
					return false
				}
			}
			return w.err == nil || yield(w.err) && false
		}
		at := int64(-txnEntry)
		for t, err := range InspectTxns(fsys, path) {
			if err != nil {
				continue // InspectTxns has said so, and a file need not be there
			}
			at += txnEntry
			if !passed(t.Last) {
				return
			}
			if w.ok && w.b.Header.LastOffset() == t.Last && w.b.Header.Producer().ID == t.Producer && isAbort(codecs, &w.b) {
				w.advance()
				continue
			}
			if !yield(damaged(at, t.Last, meansTxns, "the segment has no abort marker of producer %d at offset %d", t.Producer, t.Last)) {
				return
			}
		}
		passed(math.MaxInt64)
	}
}

// isAbort reports whether a batch is the marker of an aborted transaction.
func isAbort(codecs *batch.Codecs, b *BatchAt) bool {
	const most = 4 << 10 // markers have 78 bytes
	if !b.Header.Control() || !b.Header.Transactional() || b.Header.Codec() != batch.None {
		return false
	}
	all, err := b.Load(most)
	if err != nil {
		return false
	}
	for r, err := range codecs.Records(all, most) {
		if err != nil {
			return false
		}
		kind, err := batch.ParseControlKey(r.Key)
		return err == nil && kind == batch.Abort
	}
	return false
}

// headerWalk steps over the batches' headers of a segment.
type headerWalk struct {
	next func() (BatchAt, error, bool)
	stop func()
	b    BatchAt
	ok   bool
	err  error // of the disk
}

func openWalk(fsys vfs.FS, segment string) *headerWalk {
	w := &headerWalk{}
	w.next, w.stop = iter.Pull2(func(yield func(BatchAt, error) bool) {
		err := withFile(fsys, segment, func(f vfs.File, size int64) error {
			b := batchWalk{f: f, size: size, yield: yield}
			return b.run()
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(BatchAt{}, err)
		}
	})
	w.advance()
	return w
}

// advance goes to the next batch; damage of the segment is not ours to report.
func (w *headerWalk) advance() {
	for {
		b, err, ok := w.next()
		var d *Damage
		if errors.As(err, &d) {
			continue
		}
		w.b, w.err, w.ok = b, err, ok && err == nil
		return
	}
}
