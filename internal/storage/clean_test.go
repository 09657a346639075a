package storage

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// compacting is a cleanup.policy that compacts whatever there is.
func compacting() Cleanup {
	return Cleanup{Compact: true, RetentionMs: -1, RetentionBytes: -1, DeleteRetentionMs: 1000, MaxLagMs: math.MaxInt64, MinDirtyRatio: 0}
}

// kv is a record of a test: key=value, "" for null.
type kv struct{ key, value string }

func null(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func keyed(o batch.BuilderOptions, ts int64, records ...kv) batch.Batch {
	b := batch.NewCodecs().NewBuilder(o)
	for _, r := range records {
		b.Add(ts, null(r.key), null(r.value))
	}
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return slices.Clone(out)
}

func idempotent(id int64, seq int32, transactional bool) batch.BuilderOptions {
	return batch.BuilderOptions{Producer: model.Producer{ID: id}, Sequence: seq, Transactional: transactional}
}

// compact rolls the log and compacts it at a time; it fails the test if that does
// not work.
func compact(t testing.TB, c *Cleaner, l *Log, p Cleanup, now int64) (more bool) {
	t.Helper()
	if err := l.do(func() error {
		if l.active().size == 0 {
			return nil
		}
		return l.roll(l.EndOffset(), l.EndOffset())
	}); err != nil {
		t.Fatal(err)
	}
	return cleanOnce(t, c, l, p, now)
}

func cleanOnce(t testing.TB, c *Cleaner, l *Log, p Cleanup, now int64) (more bool) {
	t.Helper()
	d, err := c.Look(l, p, l.LastStable(l.EndOffset()), time.UnixMilli(now))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Due {
		return false
	}
	more, err = c.Clean(context.Background(), l, p, d, time.UnixMilli(now))
	if err != nil {
		t.Fatal(err)
	}
	return more
}

// records lists what a reader finds: "offset key=value", empty batches as "offset-last empty".
func records(t testing.TB, l *Log) (out []string) {
	t.Helper()
	codecs := batch.NewCodecs()
	all, err := readGaps(l, l.StartOffset(), l.EndOffset())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.Count() == 0 {
			out = append(out, fmt.Sprintf("%d-%d empty", b.BaseOffset(), b.LastOffset()))
		}
		for r, err := range codecs.Records(b, 0) {
			if err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("%d %s=%s", r.Offset, r.Key, r.Value)
			if r.Value == nil {
				text = fmt.Sprintf("%d %s deleted", r.Offset, r.Key)
			}
			if b.Control() {
				text = fmt.Sprintf("%d marker", r.Offset)
			}
			out = append(out, text)
		}
	}
	return out
}

// readGaps reads all batches in order; between them, and at the end, offsets may be missing.
func readGaps(l *Log, from, limit model.Offset) ([]batch.Batch, error) {
	var all []batch.Batch
	for from < limit {
		c, err := l.Read(from, limit, 1<<20, true)
		if err != nil {
			return all, err
		}
		b := make([]byte, c.Len())
		n, err := c.ReadAt(b, 0)
		c.Close()
		if n != len(b) {
			return all, fmt.Errorf("chunk of %d bytes gave %d: %w", len(b), n, err)
		}
		if n == 0 {
			return all, nil
		}
		for len(b) > 0 {
			size, err := batch.Peek(b)
			if err != nil || size > len(b) {
				break
			}
			one := batch.Batch(b[:size])
			if err := one.Check(); err != nil {
				return all, fmt.Errorf("at %d: %w", from, err)
			}
			if one.LastOffset() < from {
				return all, fmt.Errorf("batch %d to %d after %d", one.BaseOffset(), one.LastOffset(), from)
			}
			all = append(all, one)
			from = one.NextOffset()
			b = b[size:]
		}
	}
	return all, nil
}

func wantRecords(t testing.TB, l *Log, want ...string) {
	t.Helper()
	if got := records(t, l); !slices.Equal(got, want) {
		t.Errorf("the log has\n%q, want\n%q", got, want)
	}
}

func cleanFixture(t testing.TB) (*vfs.Mem, *Folder, *Log, *Cleaner) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	return mem, f, openPart(t, f, LogConfig{Compact: true}), f.NewCleaner(CleanerConfig{})
}

// KAFKA.md 5, Compaction: a record stays iff no later one has its key; what has no
// key goes; offsets never change.
func TestCompactionKeepsTheNewestRecordOfEachKey(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			_, f, l, c := cleanFixture(t)
			o := batch.Plain(0, 0)
			o.Codec = codec
			lead(t, l, keyed(o, 10, kv{"a", "1"}, kv{"b", "2"}, kv{"", "no key"}, kv{"a", "3"}))
			lead(t, l, keyed(o, 20, kv{"c", "4"}))
			lead(t, l, keyed(o, 30, kv{"c", "5"}, kv{"d", "6"}))
			if !compact(t, c, l, compacting(), 100) {
				t.Fatal("nothing was compacted")
			}
			want := []string{"1 b=2", "3 a=3", "5 c=5", "6 d=6"}
			wantRecords(t, l, want...)
			all, err := readGaps(l, 0, 7)
			if err != nil || all[0].BaseOffset() != 0 || all[0].LastOffset() != 3 || all[0].Codec() != codec || all[0].MaxTimestamp() != 10 {
				t.Errorf("first batch %d to %d, %v, %v", all[0].BaseOffset(), all[0].LastOffset(), all[0].Codec(), err)
			}
			if compact(t, c, l, compacting(), 100) {
				t.Error("compacted again although nothing is dirty")
			}
			lead(t, l, keyed(o, 40, kv{"b", "7"}))
			if at, ok, err := l.OffsetForTime(25, 8); err != nil || !ok || at.Offset != 5 {
				t.Errorf("at time 25: %v %v %v", at, ok, err)
			}
			closeFolder(t, f)
			f = openFolder(t, l.disk.fs)
			l = openPart(t, f, LogConfig{Compact: true})
			wantRecords(t, l, append(want, "7 b=7")...)
			c = f.NewCleaner(CleanerConfig{})
			if d, _ := c.Look(l, compacting(), 8, time.UnixMilli(0)); d.Due {
				t.Error("the checkpoint of the cleaner is lost")
			}
			compact(t, c, l, compacting(), 100)
			wantRecords(t, l, "3 a=3", "5 c=5", "6 d=6", "7 b=7")
		})
	}
}

// KAFKA.md 5: the first compaction that sees a tombstone writes its horizon; a later
// one after that time drops it.
func TestTombstonesStayUntilTheirHorizon(t *testing.T) {
	_, _, l, c := cleanFixture(t)
	lead(t, l, keyed(batch.Plain(0, 0), 10, kv{"a", "1"}, kv{"b", "2"}))
	lead(t, l, keyed(batch.Plain(0, 0), 20, kv{"a", ""}))
	compact(t, c, l, compacting(), 5000)
	wantRecords(t, l, "1 b=2", "2 a deleted")
	all, _ := readGaps(l, 0, 3)
	if b := all[1]; !b.HasHorizon() || b.BaseTimestamp() != 6000 || b.MaxTimestamp() != 20 {
		t.Errorf("horizon %v %d, largest timestamp %d", b.HasHorizon(), b.BaseTimestamp(), b.MaxTimestamp())
	}
	lead(t, l, keyed(batch.Plain(0, 0), 30, kv{"c", "3"}))
	compact(t, c, l, compacting(), 5999)
	wantRecords(t, l, "1 b=2", "2 a deleted", "3 c=3")
	lead(t, l, keyed(batch.Plain(0, 0), 40, kv{"d", "4"}))
	compact(t, c, l, compacting(), 6000)
	wantRecords(t, l, "1 b=2", "3 c=3", "4 d=4")
}

// KAFKA.md 5: aborted data goes at once; markers go when all data of the transaction
// is gone and the horizon has passed.
func TestTransactionsAreCompactedAway(t *testing.T) {
	_, _, l, c := cleanFixture(t)
	lead(t, l, keyed(idempotent(1, 0, true), 10, kv{"a", "1"}))
	lead(t, l, keyed(idempotent(2, 0, true), 10, kv{"a", "2"}))
	lead(t, l, batch.EndTxnMarker(model.Producer{ID: 1}, true, 0, 11))
	lead(t, l, batch.EndTxnMarker(model.Producer{ID: 2}, false, 0, 12))
	lead(t, l, keyed(idempotent(1, 1, false), 13, kv{"b", "3"}))
	lead(t, l, keyed(idempotent(2, 1, false), 13, kv{"c", "4"}))
	compact(t, c, l, compacting(), 5000)
	wantRecords(t, l, "0 a=1", "2 marker", "3 marker", "4 b=3", "5 c=4")
	if txns, err := l.Aborted(0, 6); err != nil || len(txns) != 1 || txns[0].Producer != 2 {
		t.Errorf("aborted: %v, %v", txns, err)
	}
	lead(t, l, keyed(batch.Plain(0, 0), 30, kv{"a", "5"}))
	compact(t, c, l, compacting(), 6000) // now nothing of either is left: horizons are written
	wantRecords(t, l, "2 marker", "3 marker", "4 b=3", "5 c=4", "6 a=5")
	if txns, err := l.Aborted(0, 6); err != nil || len(txns) != 0 {
		t.Errorf("aborted: %v, %v", txns, err)
	}
	lead(t, l, keyed(batch.Plain(0, 0), 40, kv{"a", "6"}))
	compact(t, c, l, compacting(), 6500) // of 3 it was written first
	lead(t, l, keyed(batch.Plain(0, 0), 40, kv{"a", "7"}))
	compact(t, c, l, compacting(), 7500)
	wantRecords(t, l, "4 b=3", "5 c=4", "8 a=7")
}

// KAFKA.md 5: the last batch of an active producer is kept as an empty one.
func TestTheLastBatchOfAProducerStaysAsAnEmptyOne(t *testing.T) {
	mem, _, l, c := cleanFixture(t)
	lead(t, l, keyed(idempotent(1, 0, false), 10, kv{"a", "1"}, kv{"b", "2"}))
	lead(t, l, keyed(idempotent(1, 2, false), 20, kv{"a", "3"}, kv{"b", "4"}))
	lead(t, l, keyed(batch.Plain(0, 0), 30, kv{"a", "5"}, kv{"b", "6"}))
	compact(t, c, l, compacting(), 100)
	wantRecords(t, l, "2-3 empty", "4 a=5", "5 b=6")
	// The producer is known from the log alone.
	crashed := mem.CrashClone(nil)
	for _, n := range fileNames(t, crashed, partDir()) {
		if len(n) > 20 && n[20:] == snapshotSuffix {
			if err := crashed.Remove(partDir() + "/" + n); err != nil {
				t.Fatal(err)
			}
		}
	}
	l = openPart(t, openFolder(t, crashed), LogConfig{Compact: true})
	if a := put(l, &Append{Batch: keyed(idempotent(1, 4, false), 40, kv{"c", "7"})}); a.Err != nil {
		t.Errorf("the producer's next batch: %v", a.Err)
	}
	if a := put(l, &Append{Batch: keyed(idempotent(1, 9, false), 40, kv{"c", "8"})}); a.Err == nil {
		t.Error("a gap in the sequence was taken")
	}
}
