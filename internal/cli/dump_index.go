package cli

import (
	"fmt"
	"iter"
	"strings"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// index prints one of a segment's three indexes.
func (d *dumper) index(path string, size int64, kind storage.FileKind, base model.Offset) error {
	segment := segmentOf(path)
	switch kind {
	case storage.IndexFile:
		return d.table("index of offsets", path, size, 8, pull(storage.InspectIndex(d.fs, path, base), newIndexRow),
			storage.VerifyIndex(d.fs, path, segment, base))
	case storage.TimeIndexFile:
		return d.table("index of times", path, size, 12, pull(storage.InspectTimes(d.fs, path, base), newTimeRow),
			storage.VerifyTimes(d.fs, path, segment, base))
	}
	return d.table("index of aborted transactions", path, size, 34, pull(storage.InspectTxns(d.fs, path), newTxnRow),
		storage.VerifyTxns(d.fs, path, segment))
}

// segmentOf is the segment that an index belongs to.
func segmentOf(index string) string {
	for _, s := range []string{".index", ".timeindex", ".txnindex"} {
		if at := strings.LastIndex(index, s); at >= 0 {
			return index[:at] + ".log" + index[at+len(s):]
		}
	}
	return index
}

func (d *dumper) exists(path string) bool {
	_, err := d.fs.Stat(path)
	return err == nil
}

// pull turns a walk over entries into one over rows.
func pull[E any](seq iter.Seq2[E, error], f func(E) row) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for e, err := range seq {
			if !yield(f(e), err) {
				return
			}
		}
	}
}

// table prints a file of entries of one size, and holds it against its segment.
func (d *dumper) table(what, path string, size, entry int64, rows iter.Seq2[row, error], verify iter.Seq[error]) error {
	if err := d.heading(what, size); err != nil {
		return err
	}
	n := int64(0)
	for r, err := range rows {
		if err == nil {
			n++
			err = d.emit(1, "entry", r)
		}
		if err := d.fault(err); err != nil {
			return err
		}
	}
	if n == 0 && !d.bad {
		if err := d.note("no entries"); err != nil {
			return err
		}
	}
	if n*entry < size && !d.bad {
		if err := d.note("position %d to %d: zeros, reserved", n*entry, size); err != nil {
			return err
		}
	}
	if !d.verify {
		return nil
	}
	if segment := segmentOf(path); !d.exists(segment) {
		return d.note("not verified: %s is not there", segment)
	}
	for err := range verify {
		if err := d.fault(err); err != nil {
			return err
		}
	}
	if !d.bad {
		return d.note("agrees with its segment")
	}
	return nil
}

type indexRow struct {
	Offset   int64 `json:"offset"`
	Position int64 `json:"position"`
}

func newIndexRow(e storage.IndexEntry) row { return indexRow{int64(e.Offset), e.Pos} }

func (r indexRow) text() string {
	return fmt.Sprintf("the batch up to offset %d begins at position %d", r.Offset, r.Position)
}

type timeRow struct {
	Timestamp int64 `json:"timestamp"`
	Offset    int64 `json:"offset"`
}

func newTimeRow(e storage.TimeEntry) row { return timeRow{e.Timestamp, int64(e.Offset)} }

func (r timeRow) text() string {
	return fmt.Sprintf("up to offset %d the latest time is %s", r.Offset, clock(r.Timestamp))
}

type txnRow struct {
	Producer int64 `json:"producer"`
	First    int64 `json:"first_offset"`
	Last     int64 `json:"last_offset"`
	Stable   int64 `json:"last_stable_offset"`
}

func newTxnRow(t storage.AbortedTxn) row {
	return txnRow{t.Producer, int64(t.First), int64(t.Last), int64(t.StableOffset())}
}

func (r txnRow) text() string {
	return fmt.Sprintf("producer %d aborted offsets %d to %d, marker at %d; last stable offset %d", r.Producer, r.First, r.Last-1, r.Last, r.Stable)
}
