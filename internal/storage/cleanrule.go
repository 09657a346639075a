package storage

import (
	"math"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// The rules of compaction (KAFKA.md 5, Compaction), batch by batch in the order of
// the log. Offsets and timestamps never change; a batch keeps its first and last
// offset and with them its sequence numbers, whatever becomes of its records:
//
//   - A record stays if no later one has its key. What has no key goes. From upper on
//     everything stays: the map of keys does not reach there.
//   - The first compaction that keeps a tombstone, a null value, writes into its batch
//     when it may go: the delete horizon, in the place of the base timestamp. So does
//     the first that meets a transaction marker without any data left before it.
//   - Data of aborted transactions goes at once, its marker like any other.
//   - The last batch of each producer stays, if need be without records, because the
//     producer's state is made from it; so do the last one below upper and the
//     last one of all, because the end of what was compacted must be known.

// verdict is what becomes of a batch.
type verdict int8

const (
	dropBatch    verdict = iota // nothing is left of it
	keepBatch                   // as it is
	emptyBatch                  // only its header
	rebuildBatch                // some of its records, or a new horizon
)

// rules judges batches.
type rules struct {
	codecs *batch.Codecs
	keys   *keyMap
	upper  model.Offset // the map has the keys of what is below
	end    model.Offset // of what may be compacted, upper or above; the log may end there
	now    int64        // milliseconds
	delay  int64        // delete.retention.ms
	last   map[int64]lastOf
	txns   txnRules

	keep    []bool // of the batch in hand: which records stay
	keyless int64  // records that were dropped because they have no key
	dropped int64  // records
}

// lastOf is where a producer's state comes from.
type lastOf struct {
	data  model.Offset // last offset of its last batch; NoOffset if there is none in this epoch
	epoch int16
}

// judge decides on the next batch. With rebuildBatch, keep says which records stay.
func (r *rules) judge(b batch.Batch) (v verdict, newHorizon bool, err error) {
	idle := r.txns.observe(r.codecs, b) // nothing speaks for it but its own state
	gone := idle
	if b.Control() {
		gone = idle && b.HasHorizon() && b.BaseTimestamp() <= r.now
	}
	kept, tombstones := 0, false
	if !gone {
		if kept, tombstones, err = r.records(b); err != nil {
			return 0, false, err
		}
	}
	r.dropped += int64(b.Count()) - int64(kept)
	newHorizon = !b.HasHorizon() && (tombstones || b.Control() && idle)
	switch {
	case kept == 0 && r.needed(b) && b.Count() == 0:
		return keepBatch, false, nil
	case kept == 0 && r.needed(b):
		return emptyBatch, false, nil
	case kept == 0:
		return dropBatch, false, nil
	case kept == int(b.Count()) && !newHorizon:
		return keepBatch, false, nil
	}
	return rebuildBatch, newHorizon, nil
}

// records decides on each record of the batch.
func (r *rules) records(b batch.Batch) (kept int, tombstones bool, err error) {
	r.keep = r.keep[:0]
	dead := b.HasHorizon() && b.BaseTimestamp() <= r.now // its tombstones are
	for rec, err := range r.codecs.Records(b, 0) {
		if err != nil {
			return 0, false, err
		}
		stays := b.Control() || r.stays(&rec, dead)
		r.keep = append(r.keep, stays)
		if stays {
			kept++
			tombstones = tombstones || rec.Value == nil
		}
	}
	return kept, tombstones && !b.Control(), nil
}

func (r *rules) stays(rec *batch.Record, dead bool) bool {
	switch {
	case rec.Offset >= r.upper:
		return true
	case rec.Key == nil:
		r.keyless++
		return false
	case rec.Offset < r.keys.get(rec.Key):
		return false
	}
	return rec.Value != nil || !dead
}

// needed tells whether the batch must stay even without records.
func (r *rules) needed(b batch.Batch) bool {
	if next := b.NextOffset(); next == r.upper || next == r.end {
		return true
	}
	by := b.Producer()
	last, ok := r.last[by.ID]
	switch {
	case by.ID < 0 || !ok:
		return false
	case last.data != model.NoOffset:
		return b.LastOffset() == last.data
	}
	return b.Control() && by.Epoch == last.epoch // fences older epochs
}

// rebuild writes what judge left of the batch. The result is valid until the next.
func (r *rules) rebuild(w *batch.Builder, b batch.Batch, v verdict, newHorizon bool) (batch.Batch, error) {
	o := batch.Like(b)
	if v == emptyBatch {
		o.HasHorizon, o.Horizon = false, 0
	} else if newHorizon {
		o.HasHorizon, o.Horizon = true, math.MaxInt64
		if r.delay < math.MaxInt64-r.now {
			o.Horizon = r.now + r.delay
		}
	}
	w.Reset(o)
	if v == rebuildBatch {
		i := 0
		for rec, err := range r.codecs.Records(b, 0) {
			if err != nil {
				return nil, err
			}
			if r.keep[i] {
				w.AddAt(rec.Offset, rec.Timestamp, rec.Key, rec.Value, rec.Headers...)
			}
			i++
		}
	}
	if v == emptyBatch || b.LogAppendTime() {
		w.SetMaxTimestamp(b.MaxTimestamp())
	}
	w.SetLastOffset(b.LastOffset())
	return w.Build()
}

// txnRules follows the transactions of a log from batch to batch.
type txnRules struct {
	aborted   []AbortedTxn       // not yet begun, ascending by first offset
	open      map[int64]*txnOpen // aborted ones under way, by producer
	committed map[int64]struct{} // producers of committed ones under way that have data
	index     func(t AbortedTxn) // told of each aborted transaction that had data until now; may be nil
}

type txnOpen struct {
	AbortedTxn
	data bool // a batch of it was seen
}

func newTxnRules(aborted []AbortedTxn) txnRules {
	return txnRules{aborted: aborted, open: make(map[int64]*txnOpen), committed: make(map[int64]struct{})}
}

// observe takes the next batch. idle is true for data of an aborted transaction and
// for a marker whose transaction has no data left.
func (t *txnRules) observe(c *batch.Codecs, b batch.Batch) (idle bool) {
	for len(t.aborted) > 0 && t.aborted[0].First <= b.LastOffset() {
		if a := t.aborted[0]; t.open[a.Producer] == nil {
			t.open[a.Producer] = &txnOpen{AbortedTxn: a}
		}
		t.aborted = t.aborted[1:]
	}
	id := b.Producer().ID
	switch {
	case b.Control():
		return t.marker(c, b, id)
	case !b.Transactional():
		return false
	case t.open[id] != nil:
		t.open[id].data = true
		return true
	}
	t.committed[id] = struct{}{}
	return false
}

func (t *txnRules) marker(c *batch.Codecs, b batch.Batch, id int64) (idle bool) {
	if b.Count() == 0 { // compaction left it so
		return true
	}
	kind := batch.LeaderChange // of no concern here
	for r, err := range c.Records(b, maxControl) {
		if k, bad := batch.ParseControlKey(r.Key); err == nil && bad == nil {
			kind = k
		}
		break
	}
	switch kind {
	case batch.Abort:
		a := t.open[id]
		delete(t.open, id)
		if a != nil && a.data {
			if t.index != nil {
				t.index(a.AbortedTxn)
			}
			return false
		}
		return true
	case batch.Commit:
		_, data := t.committed[id]
		delete(t.committed, id)
		return !data
	}
	return false
}
