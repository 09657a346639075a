package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

func TestAppendedBatchesAreReadBackAndSurviveACleanRestart(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{SegmentBytes: 2000, IndexInterval: 300})
	var want []batch.Batch
	for i := range 100 {
		b := plain(1+i%3, int64(1000+i), fmt.Sprintf("value %d", i))
		a := lead(t, l, b)
		if a.Base != a.End-model.Offset(1+i%3) {
			t.Fatalf("base %d, end %d", a.Base, a.End)
		}
		want = append(want, b)
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l.FlushedOffset() != l.EndOffset() {
		t.Fatalf("flushed %d, end %d", l.FlushedOffset(), l.EndOffset())
	}
	check := func() {
		t.Helper()
		for _, most := range []int64{1, 100, 500, 1 << 20} {
			if err := equalBatches(contents(t, l, 0, most), want); err != nil {
				t.Fatalf("chunks of %d: %v", most, err)
			}
		}
		for from := l.StartOffset(); from < l.EndOffset(); from++ {
			c, err := l.Read(from, l.EndOffset(), 61, true)
			if err != nil {
				t.Fatal(err)
			}
			b := make(batch.Batch, c.Len())
			_, _ = c.ReadAt(b, 0)
			c.Close()
			if b.BaseOffset() > from || b.LastOffset() < from {
				t.Fatalf("read at %d begins with %d to %d", from, b.BaseOffset(), b.LastOffset())
			}
		}
	}
	check()
	end := l.EndOffset()
	closeFolder(t, f)

	f = openFolder(t, mem)
	if clean, epoch := f.Clean(); !clean || epoch != 14 {
		t.Fatalf("clean %v, epoch %d", clean, epoch)
	}
	l = openPart(t, f, LogConfig{SegmentBytes: 2000, IndexInterval: 300})
	if l.EndOffset() != end || l.FlushedOffset() != end {
		t.Fatalf("end %d, flushed %d, want %d", l.EndOffset(), l.FlushedOffset(), end)
	}
	check()
	b := plain(2, 5000, "after")
	if a := lead(t, l, b); a.Base != end {
		t.Fatalf("base %d, want %d", a.Base, end)
	}
	want = append(want, b)
	check()
}

func TestReadLimits(t *testing.T) {
	f := openFolder(t, vfs.NewMem())
	l := openPart(t, f, LogConfig{})
	sizes := []int64{}
	for range 4 {
		b := plain(5, 1, "x") // offsets 0-4, 5-9, 10-14, 15-19
		lead(t, l, b)
		sizes = append(sizes, int64(len(b)))
	}
	one := sizes[0]
	for _, c := range []struct {
		from, limit model.Offset
		most        int64
		minOne      bool
		want        int64
	}{
		{0, 20, 1 << 20, false, 4 * one},
		{0, 10, 1 << 20, false, 2 * one},
		{0, 12, 1 << 20, false, 2 * one}, // limit inside of a batch
		{7, 20, 1 << 20, false, 3 * one}, // from inside of a batch
		{7, 8, 1 << 20, true, 0},
		{20, 20, 1 << 20, true, 0},
		{5, 5, 1 << 20, true, 0},
		{9, 2, 1 << 20, true, 0},
		{0, 20, 10, false, 10},
		{0, 20, 10, true, one},
		{0, 20, 0, true, one},
		{0, 20, 0, false, 0},
		{0, 20, one + 7, true, one + 7},
		{0, 99, 1 << 20, false, 4 * one},
	} {
		got, err := l.Read(c.from, c.limit, c.most, c.minOne)
		if err != nil || got.Len() != c.want {
			t.Errorf("Read(%d, %d, %d, %v): %d bytes, %v; want %d", c.from, c.limit, c.most, c.minOne, got.Len(), err, c.want)
		}
		got.Close()
	}
	for _, from := range []model.Offset{-1, 21} {
		_, err := l.Read(from, 20, 100, true)
		var re *RangeError
		if !errors.As(err, &re) || !errors.Is(err, ErrOutOfRange) || re.Start != 0 || re.End != 20 {
			t.Errorf("Read(%d): %v", from, err)
		}
	}
}

// KAFKA.md 5, Idempotence: the table, row by row.
func TestIdempotence(t *testing.T) {
	const maxSeq = 1<<31 - 1
	type step struct {
		b    batch.Batch
		want error
		dup  bool
		base model.Offset
	}
	for name, steps := range map[string][]step{
		"any first sequence": {{b: produced(1, 0, 44, 1, 1)}, {b: produced(1, 0, 45, 3, 1), base: 1}, {b: produced(1, 0, 48, 1, 1), base: 4}},
		"gap":                {{b: produced(1, 0, 0, 1, 1)}, {b: produced(1, 0, 2, 1, 1), want: ErrSequence}},
		"lower":              {{b: produced(1, 0, 5, 1, 1)}, {b: produced(1, 0, 4, 1, 1), want: ErrSequence}},
		"partial overlap":    {{b: produced(1, 0, 0, 3, 1)}, {b: produced(1, 0, 2, 3, 1), want: ErrSequence}},
		"wrap": {
			{b: produced(1, 0, maxSeq-1, 2, 1)},
			{b: produced(1, 0, 0, 1, 1), base: 2},
		},
		"wrap inside of a batch": {
			{b: produced(1, 0, maxSeq-1, 4, 7)},
			{b: produced(1, 0, 2, 1, 1), base: 4},
			{b: produced(1, 0, maxSeq-1, 4, 7), dup: true},
		},
		"copies of the last five": {
			{b: produced(1, 0, 0, 1, 1)},
			{b: produced(1, 0, 1, 1, 1), base: 1},
			{b: produced(1, 0, 2, 1, 1), base: 2},
			{b: produced(1, 0, 3, 1, 1), base: 3},
			{b: produced(1, 0, 4, 1, 1), base: 4},
			{b: produced(1, 0, 5, 1, 1), base: 5},
			{b: produced(1, 0, 1, 1, 1), dup: true, base: 1},
			{b: produced(1, 0, 5, 1, 1), dup: true, base: 5},
			{b: produced(1, 0, 0, 1, 1), want: ErrSequence},
		},
		"new epoch not from 0": {{b: produced(1, 0, 0, 1, 1)}, {b: produced(1, 1, 1, 1, 1), want: ErrSequence}, {b: produced(1, 1, 0, 1, 1), base: 1}},
		"older epoch":          {{b: produced(1, 4, 0, 1, 1)}, {b: produced(1, 3, 1, 1, 1), want: ErrProducerEpoch}},
		"plain batch inside of a transaction": {
			{b: transacted(1, 0, 0, 1, 1)}, {b: produced(1, 0, 1, 1, 1), want: ErrTxnState}, {b: transacted(1, 0, 1, 1, 1), base: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := openPart(t, openFolder(t, vfs.NewMem()), LogConfig{})
			for i, s := range steps {
				ts := s.b.MaxTimestamp()
				a := put(l, &Append{Batch: s.b})
				if !errors.Is(a.Err, s.want) || s.want == nil && a.Err != nil {
					t.Fatalf("step %d: error %v, want %v", i, a.Err, s.want)
				}
				if s.want != nil {
					continue
				}
				if a.Duplicate != s.dup || a.Base != s.base {
					t.Fatalf("step %d: duplicate %v at %d, want %v at %d", i, a.Duplicate, a.Base, s.dup, s.base)
				}
				if s.dup && a.AppendTime != ts || !s.dup && a.AppendTime != -1 {
					t.Fatalf("step %d: append time %d", i, a.AppendTime)
				}
			}
		})
	}
}

func TestOnlyTheLastBatchOfAProducerIsKnownAfterARestart(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{})
	for seq := range int32(3) {
		lead(t, l, produced(1, 0, seq, 1, 1))
	}
	closeFolder(t, f)
	l = openPart(t, openFolder(t, mem), LogConfig{})
	if a := put(l, &Append{Batch: produced(1, 0, 2, 1, 1)}); a.Err != nil || !a.Duplicate || a.Base != 2 {
		t.Fatalf("last: %v, duplicate %v at %d", a.Err, a.Duplicate, a.Base)
	}
	if a := put(l, &Append{Batch: produced(1, 0, 1, 1, 1)}); !errors.Is(a.Err, ErrSequence) {
		t.Fatalf("older: %v", a.Err)
	}
}

func TestAppendsOfAnotherEpochAreFenced(t *testing.T) {
	l := openPart(t, openFolder(t, vfs.NewMem()), LogConfig{})
	lead(t, l, plain(1, 1, "x"))
	if err := l.SetLeaderEpoch(3); err != nil {
		t.Fatal(err)
	}
	for _, e := range []model.Epoch{0, 2, 4} {
		if a := put(l, &Append{Batch: plain(1, 1, "x"), Epoch: e}); !errors.Is(a.Err, ErrFenced) {
			t.Errorf("epoch %d: %v", e, a.Err)
		}
	}
	if a := put(l, &Append{Batch: plain(1, 1, "x"), Epoch: 3}); a.Err != nil || a.Batch.LeaderEpoch() != 3 || a.Base != 1 {
		t.Errorf("epoch 3: %v", a.Err)
	}
	if err := l.SetLeaderEpoch(2); !errors.Is(err, ErrFenced) {
		t.Errorf("going back: %v", err)
	}
	for _, c := range []struct {
		asked, epoch model.Epoch
		end          model.Offset
	}{{0, 0, 1}, {1, 0, 1}, {2, 0, 1}, {3, 3, 2}, {4, -1, -1}, {-1, -1, -1}} {
		if e, end := l.EpochEnd(c.asked); e != c.epoch || end != c.end {
			t.Errorf("EpochEnd(%d) = %d, %d; want %d, %d", c.asked, e, end, c.epoch, c.end)
		}
	}
}

func TestReplicaAppendsKeepOffsetsAndEpochs(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l, err := f.Open(testPart, testTopic, LogOptions{Config: LogConfig{Compact: true}})
	if err != nil {
		t.Fatal(err)
	}
	replica := func(base model.Offset, epoch model.Epoch) error {
		b := plain(2, 1, "r")
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(epoch)
		return put(l, &Append{Batch: b, Replica: true}).Err
	}
	for _, s := range []struct {
		base  model.Offset
		epoch model.Epoch
		want  error
	}{{0, 1, nil}, {2, 1, nil}, {9, 4, nil}, {10, 4, ErrOffset}, {3, 4, ErrOffset}, {11, 5, nil}} {
		if err := replica(s.base, s.epoch); !errors.Is(err, s.want) {
			t.Fatalf("append at %d: %v", s.base, err)
		}
	}
	if e, end := l.EpochEnd(2); e != 1 || end != 9 {
		t.Errorf("EpochEnd(2) = %d, %d", e, end)
	}
	if err := l.TruncateTo(11); err != nil || l.EndOffset() != 11 {
		t.Fatalf("truncate: %v, end %d", err, l.EndOffset())
	}
	if e := latest(l); e != 4 {
		t.Errorf("latest epoch %d after the truncation", e)
	}
	closeFolder(t, f)
	f = openFolder(t, mem)
	if l, err = f.Open(testPart, testTopic, LogOptions{}); err != nil || l.EndOffset() != 11 || latest(l) != 4 {
		t.Fatalf("reopened: %v, end %d, epoch %d", err, l.EndOffset(), latest(l))
	}
}

func TestManyAppendersShareWritesAndKeepTheirOrder(t *testing.T) {
	rec := &recorder{}
	f := openFolder(t, vfs.NewMem())
	l, err := f.Open(testPart, testTopic, LogOptions{Notify: rec, Config: LogConfig{SegmentBytes: 20_000}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetLeaderEpoch(0); err != nil {
		t.Fatal(err)
	}
	const appenders, each = 8, 200
	var wg sync.WaitGroup
	bases := make([][]model.Offset, appenders)
	for i := range appenders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var done sync.WaitGroup
			for j := range each {
				done.Add(1)
				l.Append(&Append{Batch: produced(int64(i), 0, int32(j), 1, 1), Done: func(a *Append) {
					if a.Err != nil {
						t.Error(a.Err)
					}
					bases[i] = append(bases[i], a.Base)
					done.Done()
				}})
			}
			done.Wait()
		}()
	}
	wg.Wait()
	for i, b := range bases {
		if !slices.IsSorted(b) || len(b) != each {
			t.Fatalf("appender %d: %d results, sorted %v", i, len(b), slices.IsSorted(b))
		}
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := len(contents(t, l, 0, 1<<20)); got != appenders*each {
		t.Fatalf("%d batches", got)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.flushed) == 0 || slices.Max(rec.flushed) != l.EndOffset() || slices.Max(rec.appended) != l.EndOffset() {
		t.Fatalf("notifications end at %d and %d, the log at %d", slices.Max(rec.appended), slices.Max(rec.flushed), l.EndOffset())
	}
}
