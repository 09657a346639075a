package storage

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// FuzzCompactionRules gives the rules two batches of any bytes with a right checksum,
// as a log may have them that somebody else wrote. Whatever they make of them is a
// valid batch with the same range, and a subset of its records.
func FuzzCompactionRules(f *testing.F) {
	marker := batch.EndTxnMarker(model.Producer{ID: 1}, false, 0, 5)
	for _, b := range []batch.Batch{
		keyed(batch.Plain(3, 0), 10, kv{"a", "1"}, kv{"", "x"}, kv{"a", ""}),
		keyed(idempotent(1, 0, true), 10, kv{"a", "1"}, kv{"b", ""}),
		keyed(batch.BuilderOptions{Codec: batch.LZ4, Producer: model.NoProducer, Sequence: -1, HasHorizon: true, Horizon: 7}, 10, kv{"a", ""}, kv{"b", "2"}),
	} {
		f.Add([]byte(b), []byte(marker))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		codecs := batch.NewCodecs()
		r := rules{codecs: codecs, keys: newKeyMap(0, 0), now: 100, delay: 5, upper: 1 << 40, txns: newTxnRules([]AbortedTxn{{Producer: 1, First: 0, Last: 3}})}
		w := codecs.NewBuilder(batch.Plain(0, 0))
		r.keys.put([]byte("a"), 4)
		for _, bytes := range [][]byte{first, second} {
			b, ok := asBatch(bytes)
			if !ok {
				continue
			}
			v, horizon, err := r.judge(b)
			if err != nil || v == dropBatch || v == keepBatch {
				continue
			}
			out, err := r.rebuild(w, b, v, horizon)
			if err != nil { // offsets out of order, or out of the batch's range
				continue
			}
			checkRebuilt(t, codecs, b, out)
		}
	})
}

func checkRebuilt(t *testing.T, codecs *batch.Codecs, b, out batch.Batch) {
	if err := out.Check(); err != nil {
		t.Fatal(err)
	}
	if out.BaseOffset() != b.BaseOffset() || out.LastOffset() != b.LastOffset() || out.Producer() != b.Producer() || out.BaseSequence() != b.BaseSequence() {
		t.Fatalf("%d to %d became %d to %d", b.BaseOffset(), b.LastOffset(), out.BaseOffset(), out.LastOffset())
	}
	times := map[model.Offset]int64{}
	for r, err := range codecs.Records(b, 1<<20) {
		if err != nil {
			return
		}
		times[r.Offset] = r.Timestamp
	}
	for r, err := range codecs.Records(out, 1<<20) {
		if ts, ok := times[r.Offset]; err != nil || !ok || ts != r.Timestamp {
			t.Fatalf("record %d at %d was at %d (%v), %v", r.Offset, r.Timestamp, ts, ok, err)
		}
	}
}

// asBatch gives bytes the length, format version and checksum of a batch.
func asBatch(b []byte) (batch.Batch, bool) {
	if len(b) < batch.HeaderSize || len(b) > 1<<16 {
		return nil, false
	}
	out := slices.Clone(b)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-batch.LengthEnd))
	out[16] = 2
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out, true
}
