package storage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"ottla.dev/ottla/internal/model"
)

// AbortedTxn is a transaction whose records a read_committed consumer skips. The
// .txnindex of the segment that has the abort marker has it, big endian:
//
//	 0  version          int16 = 0
//	 2  producerId       int64
//	10  firstOffset      int64
//	18  lastOffset       int64   of the marker
//	26  lastStableOffset int64   when the marker was written
//
// Entries ascend by lastOffset. The file exists only where there is an entry.
type AbortedTxn struct {
	Producer    int64
	First, Last model.Offset
	stable      model.Offset
}

const txnEntry = 34

func appendTxn(dst []byte, t AbortedTxn) []byte {
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.Producer))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.First))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.Last))
	return binary.BigEndian.AppendUint64(dst, uint64(t.stable))
}

func parseTxn(e []byte) (AbortedTxn, error) {
	if v := binary.BigEndian.Uint16(e); v != 0 {
		return AbortedTxn{}, fmt.Errorf("%w: aborted transaction entry has version %d, only 0 is known", errCorrupt, v)
	}
	t := AbortedTxn{
		Producer: int64(binary.BigEndian.Uint64(e[2:])),
		First:    model.Offset(binary.BigEndian.Uint64(e[10:])),
		Last:     model.Offset(binary.BigEndian.Uint64(e[18:])),
		stable:   model.Offset(binary.BigEndian.Uint64(e[26:])),
	}
	if t.First < 0 || t.Last < t.First || t.stable < 0 {
		return t, fmt.Errorf("%w: aborted transaction from %d to %d, stable offset %d", errCorrupt, t.First, t.Last, t.stable)
	}
	return t, nil
}

// parseTxns decodes a whole .txnindex: entries must ascend.
func parseTxns(b []byte) ([]AbortedTxn, error) {
	if len(b)%txnEntry != 0 {
		return nil, fmt.Errorf("%w: transaction index of %d bytes is not a multiple of %d", errCorrupt, len(b), txnEntry)
	}
	var txns []AbortedTxn
	for ; len(b) > 0; b = b[txnEntry:] {
		t, err := parseTxn(b)
		if err != nil {
			return nil, err
		}
		if n := len(txns); n > 0 && t.Last <= txns[n-1].Last {
			return nil, fmt.Errorf("%w: aborted transaction ending at %d after one ending at %d", errCorrupt, t.Last, txns[n-1].Last)
		}
		txns = append(txns, t)
	}
	return txns, nil
}

// writeTxns adds entries to the active segment's transaction index; they count
// once the write they belong to is published. Called by the writer.
func (l *Log) writeTxns(s *segment, txns []AbortedTxn) error {
	h, err := l.acquire(&s.txns.slot, s.base, txnSuffix, os.O_CREATE)
	if err != nil {
		return err
	}
	defer h.unpin()
	n, err := l.count(&s.txns, h, txnEntry)
	if err != nil {
		return err
	}
	b := make([]byte, 0, len(txns)*txnEntry)
	for _, t := range txns {
		b = appendTxn(b, t)
	}
	if _, err := h.f.WriteAt(b, int64(n)*txnEntry); err != nil {
		return errors.Join(err, h.f.Truncate(int64(n)*txnEntry))
	}
	l.mu.Lock()
	l.auxLocked(&s.txns, h)
	l.mu.Unlock()
	return nil
}

// Aborted lists the aborted transactions that have records in [from, to),
// ascending by first offset. A consumer needs them to read that range with
// isolation.level=read_committed.
func (l *Log) Aborted(from, to model.Offset) ([]AbortedTxn, error) {
	for range maxRetries {
		l.mu.Lock()
		if !l.hasTxns {
			l.mu.Unlock()
			return nil, nil
		}
		gen, segments := l.gen, slices.Clone(l.segments[l.findLocked(from):])
		l.mu.Unlock()
		found, err := l.abortedIn(segments, from, to)
		if err != nil {
			l.waitSettled() // a truncation may be the cause
		}
		if !l.moved(gen) {
			return found, err
		}
		l.waitSettled()
	}
	return nil, fmt.Errorf("aborted transactions of %s: %w", l.dir, errMoved)
}

func (l *Log) abortedIn(segments []*segment, from, to model.Offset) ([]AbortedTxn, error) {
	var found []AbortedTxn
	for _, s := range segments {
		txns, err := l.readTxns(s)
		if err != nil {
			return nil, fmt.Errorf("aborted transactions of segment %d of %s: %w", s.base, l.dir, l.disk.readError(err))
		}
		for _, t := range txns {
			if t.Last >= from && t.First < to {
				found = append(found, t)
			}
		}
		if n := len(txns); n > 0 && txns[n-1].stable >= to {
			break // all that was undecided below to had ended by then
		}
	}
	slices.SortFunc(found, func(a, b AbortedTxn) int { return cmp.Compare(a.First, b.First) })
	return found, nil
}

// readTxns reads a segment's transaction index, nil if there is none.
func (l *Log) readTxns(s *segment) ([]AbortedTxn, error) {
	l.mu.Lock()
	n := s.txns.count
	l.mu.Unlock()
	if n == 0 {
		return nil, nil
	}
	h, err := l.acquire(&s.txns.slot, s.base, txnSuffix, 0)
	if errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		s.txns.count = max(s.txns.count, 0)
		l.mu.Unlock()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer h.unpin()
	if n < 0 {
		if n, err = l.count(&s.txns, h, txnEntry); err != nil {
			return nil, err
		}
	}
	b := make([]byte, int(n)*txnEntry)
	if _, err := h.f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return parseTxns(b)
}
