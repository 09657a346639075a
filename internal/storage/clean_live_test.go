package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// Readers, searches by time and appends go on beside compaction, retention and
// restarts of the cleaner; nobody sees an error, a record at a wrong offset or an
// aborted record that is not listed.
func TestReadersDoNotNoticeACompaction(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{SegmentBytes: 2000, IndexInterval: 200, Compact: true, DeleteDelayMs: -1, FlushMessages: Never})
	var stop atomic.Bool
	var cleanings atomic.Int64
	var wg sync.WaitGroup
	fail := func(format string, args ...any) {
		stop.Store(true)
		t.Errorf(format, args...)
	}
	wg.Go(func() { // appends: key = offset mod 13, value = offset
		seq := int32(0)
		for i := 0; !stop.Load() && cleanings.Load() < 15; i++ {
			o := batch.Plain(0, 0)
			txn := i%5 == 0
			if txn {
				o = idempotent(3, seq, true)
				seq++
			}
			if a := put(l, &Append{Batch: keyed(o, int64(i+1), kv{fmt.Sprint("k", i%13), fmt.Sprint(txn)})}); a.Err != nil {
				fail("append: %v", a.Err)
			}
			if txn {
				put(l, &Append{Batch: batch.EndTxnMarker(model.Producer{ID: 3}, false, 0, int64(i+1))})
			}
		}
		stop.Store(true)
	})
	wg.Go(func() {
		c := f.NewCleaner(CleanerConfig{IOBuffer: 4096})
		for now := int64(1000); !stop.Load(); now += 700 {
			p := compacting()
			p.Delete, p.RetentionBytes = true, 20_000
			more, err := c.Round(t.Context(), slices.Values([]Candidate{{Log: l, Cleanup: p, Stable: l.LastStable(l.EndOffset())}}))
			err = errors.Join(err, l.Expire(p, time.UnixMilli(now), l.EndOffset()), f.Trim())
			if err != nil {
				fail("housekeeping: %v", err)
			}
			if more {
				cleanings.Add(1)
			}
		}
	})
	for r := range 3 {
		wg.Go(func() { readBeside(l, uint64(r), &stop, fail) })
	}
	wg.Wait()
}

func readBeside(l *Log, seed uint64, stop *atomic.Bool, fail func(string, ...any)) {
	rng := rand.New(rand.NewPCG(seed, 9))
	for !stop.Load() {
		start, end := l.StartOffset(), l.LastStable(l.EndOffset())
		if end <= start {
			continue
		}
		from := start + model.Offset(rng.Int64N(int64(end-start)))
		all, err := readGaps(l, from, end)
		var gone *RangeError
		if errors.As(err, &gone) { // retention was there first
			continue
		}
		if err != nil {
			fail("read from %d: %v", from, err)
			return
		}
		aborted, err := l.Aborted(from, end)
		if err != nil {
			fail("aborted: %v", err)
			return
		}
		for _, b := range all {
			if !b.Transactional() || b.Control() || b.Count() == 0 || b.BaseOffset() < l.StartOffset() {
				continue
			}
			if !slices.ContainsFunc(aborted, func(t AbortedTxn) bool { return t.First <= b.BaseOffset() && t.Last > b.LastOffset() }) {
				// Another compaction may have taken it meanwhile, with its entry.
				if again, _ := readGaps(l, b.BaseOffset(), b.NextOffset()); len(again) > 0 && again[0].BaseOffset() == b.BaseOffset() && again[0].Count() > 0 {
					fail("batch %d is aborted and not listed", b.BaseOffset())
					return
				}
			}
		}
		ts := int64(rng.IntN(4000))
		if at, ok, err := l.OffsetForTime(ts, end); err != nil || ok && at.Timestamp < ts {
			fail("offset for time %d: %v, %v", ts, at, err)
			return
		}
		if _, _, err := l.MaxTimestamp(end); err != nil {
			fail("largest timestamp: %v", err)
			return
		}
	}
}

// The same records are left whatever the size of segments.
func TestSegmentSizeDoesNotMatterToCompaction(t *testing.T) {
	run := func(size int32) (left []string) {
		f := openFolder(t, vfs.NewMem())
		l := openPart(t, f, LogConfig{SegmentBytes: size, IndexInterval: 200, Compact: true})
		c := f.NewCleaner(CleanerConfig{})
		rng := rand.New(rand.NewPCG(5, 5))
		seq := map[int64]int32{}
		for i := range 600 {
			id := int64(rng.IntN(3))
			txn := id == 2
			var records []kv
			for range 1 + rng.IntN(3) {
				records = append(records, kv{fmt.Sprint("k", rng.IntN(40)), []string{"", "value"}[rng.IntN(2)]})
			}
			lead(t, l, keyed(idempotent(id, seq[id], txn), int64(i), records...))
			seq[id] += int32(len(records))
			if txn {
				lead(t, l, batch.EndTxnMarker(model.Producer{ID: id}, rng.IntN(2) == 0, 0, int64(i)))
			}
			if i%50 == 49 {
				compact(t, c, l, compacting(), int64(10*i))
			}
		}
		all, err := readGaps(l, 0, l.EndOffset())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			s, err := describe(b)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, s)
		}
		return left
	}
	want := run(1 << 20)
	for _, size := range []int32{300, 1000, 5000, 20_000} {
		if got := run(size); !slices.Equal(got, want) {
			t.Errorf("segments of %d bytes leave\n%s\nwant\n%s", size, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A start that is durable stays so while the segments below it go: a checkpoint that
// is written after their removal and before that is durable must still have it.
func TestACheckpointDuringARemovalKeepsTheStart(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{SegmentBytes: 100, DeleteDelayMs: -1})
	for i := range 10 {
		lead(t, l, plain(1, int64(i), "text"))
	}
	if err := l.RaiseStart(5); err != nil {
		t.Fatal(err)
	}
	var removed atomic.Int64
	var clone *vfs.Mem
	var once sync.Once
	mem.OnOp(func(op vfs.Op) {
		if op.Kind == vfs.OpRename && strings.HasSuffix(op.To, logSuffix+deletedSuffix) {
			removed.Add(1)
		}
		if op.Kind == vfs.OpSyncDir && op.Path == partDir() && removed.Load() == 5 {
			once.Do(func() {
				if err := f.Checkpoint(); err != nil {
					t.Error(err)
				}
				clone = mem.CrashClone(nil)
			})
		}
	})
	if err := f.Trim(); err != nil {
		t.Fatal(err)
	}
	mem.OnOp(nil)
	if clone == nil {
		t.Fatal("the folder of the log was not synced")
	}
	if again := openPart(t, openFolder(t, clone), LogConfig{SegmentBytes: 100}); again.StartOffset() != 5 {
		t.Errorf("the log begins at %d, confirmed was 5", again.StartOffset())
	}
}

// log.cleaner.io.max.bytes.per.second is for all cleaners together.
func TestCompactionKeepsToItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(1000)
		began := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 10 {
					if err := p.take(t.Context(), 500); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10,000 bytes at 1,000 per second took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p.take(ctx, 1) == nil {
			t.Error("goes on although it is to stop")
		}
	})
}

// What a delete.retention.ms without end adds to the clock does not overflow.
func TestAHorizonWithoutEnd(t *testing.T) {
	_, _, l, c := cleanFixture(t)
	lead(t, l, keyed(batch.Plain(0, 0), 10, kv{"a", ""}))
	p := compacting()
	p.DeleteRetentionMs = 1<<63 - 1
	compact(t, c, l, p, 5000)
	lead(t, l, keyed(batch.Plain(0, 0), 20, kv{"b", "1"}))
	compact(t, c, l, p, 1<<50)
	wantRecords(t, l, "0 a deleted", "1 b=1")
	all, err := readGaps(l, 0, 1)
	if err != nil || all[0].MaxTimestamp() != 10 {
		t.Errorf("largest timestamp %d, %v", all[0].MaxTimestamp(), err)
	}
}

// The log may lose segments, be cut or be deleted while it is compacted: the work is
// given up and nothing of it stays.
func TestALogThatChangesDuringItsCompaction(t *testing.T) {
	for what, change := range map[string]func(f *Folder, l *Log) error{
		"records deleted": func(f *Folder, l *Log) error { return errors.Join(l.RaiseStart(3), f.Trim(l)) },
		"cut":             func(_ *Folder, l *Log) error { return l.TruncateTo(2) },
		"begun anew":      func(_ *Folder, l *Log) error { return l.TruncateAll(50) },
		"topic deleted":   func(f *Folder, l *Log) error { return f.Delete(l) },
		"closed":          func(_ *Folder, l *Log) error { return l.Close() },
	} {
		for _, moment := range []string{"00000000000000000000.log" + cleanedSuffix, "00000000000000000000.index" + cleanedSuffix} {
			t.Run(what, func(t *testing.T) {
				mem := vfs.NewMem()
				f := openFolder(t, mem)
				l := openPart(t, f, LogConfig{SegmentBytes: 200, Compact: true, DeleteDelayMs: -1})
				for i := range 8 {
					lead(t, l, keyed(batch.Plain(0, 0), int64(i), kv{"a", fmt.Sprint(i)}))
				}
				c := f.NewCleaner(CleanerConfig{})
				var once sync.Once
				mem.OnOp(func(op vfs.Op) {
					if op.Kind == vfs.OpCreate && strings.HasSuffix(op.Path, moment) {
						once.Do(func() {
							if err := change(f, l); err != nil {
								t.Error(err)
							}
						})
					}
				})
				d, err := c.Look(l, compacting(), 8, time.UnixMilli(100))
				if err != nil || !d.Due {
					t.Fatal(d, err)
				}
				more, err := c.Clean(t.Context(), l, compacting(), d, time.UnixMilli(100))
				if more || err != nil {
					t.Errorf("got further %v, error %v", more, err)
				}
				mem.OnOp(nil)
				if f.Failed() != nil {
					t.Error(f.Failed())
				}
				if f.Has(testPart) {
					for _, name := range fileNames(t, mem, partDir()) {
						if strings.HasSuffix(name, cleanedSuffix) || strings.HasSuffix(name, swapSuffix) {
							t.Errorf("%s is left", name)
						}
					}
				}
				if what == "records deleted" {
					if !cleanOnce(t, c, l, compacting(), 100) {
						t.Error("not compacted at the second try")
					}
					wantRecords(t, l, "5 a=5", "6 a=6", "7 a=7")
				}
			})
		}
	}
}
