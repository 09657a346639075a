package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

func TestAWriteThatFailsLeavesNothingBehind(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.Inject(mem)
	l := openPart(t, openFolder(t, in), LogConfig{})
	lead(t, l, produced(1, 0, 0, 1, 1))
	size := l.Size()
	rule := in.Add(vfs.Rule{Kind: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC, Short: true})
	var list []*Append
	var wg sync.WaitGroup
	for seq := range int32(3) {
		wg.Add(1)
		list = append(list, &Append{Batch: produced(1, 0, 1+seq, 1, 1), Done: func(*Append) { wg.Done() }})
	}
	wg.Add(1) // a copy of one that fails must fail as well
	list = append(list, &Append{Batch: produced(1, 0, 2, 1, 1), Done: func(*Append) { wg.Done() }})
	l.AppendAll(list...)
	wg.Wait()
	for i, a := range list {
		if !errors.Is(a.Err, ErrFull) || a.Duplicate || a.Base != model.NoOffset {
			t.Errorf("append %d: %v, duplicate %v at %d", i, a.Err, a.Duplicate, a.Base)
		}
	}
	if l.EndOffset() != 1 || l.Size() != size || int64(len(readFile(t, mem, l.name(0, logSuffix)))) != size {
		t.Errorf("end %d, size %d", l.EndOffset(), l.Size())
	}
	if a := put(l, &Append{Batch: produced(1, 0, 1, 1, 1)}); !errors.Is(a.Err, ErrFull) {
		t.Errorf("still full: %v", a.Err)
	}
	if got := contents(t, l, 0, 100); len(got) != 1 {
		t.Errorf("%d batches can be read on a full disk", len(got))
	}
	rule.Remove()
	for seq := range int32(3) { // resumes by itself, from where the producer was
		if a := lead(t, l, produced(1, 0, 1+seq, 1, 1)); a.Base != model.Offset(1+seq) || a.Duplicate {
			t.Errorf("base %d, duplicate %v", a.Base, a.Duplicate)
		}
	}
}

func TestAFailedSyncIsFinal(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.Inject(mem)
	f := openFolder(t, in)
	rec := &recorder{}
	l, err := f.Open(testPart, testTopic, LogOptions{Notify: rec})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetLeaderEpoch(0); err != nil {
		t.Fatal(err)
	}
	lead(t, l, plain(1, 1, "x"))
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	in.Add(vfs.Rule{Kind: vfs.OpSync, Path: "*.log", Err: syscall.EIO, Times: 1})
	lead(t, l, plain(1, 1, "y"))
	if err := l.Sync(context.Background()); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	if err := l.Sync(context.Background()); !errors.Is(err, ErrFailed) {
		t.Errorf("second sync: %v", err)
	}
	if l.FlushedOffset() != 1 {
		t.Errorf("flushed %d", l.FlushedOffset())
	}
	if a := put(l, &Append{Batch: plain(1, 1, "z")}); !errors.Is(a.Err, ErrFailed) {
		t.Errorf("append: %v", a.Err)
	}
	if !errors.Is(f.Failed(), ErrFailed) || !errors.Is(rec.failed, ErrFailed) {
		t.Errorf("folder %v, notified %v", f.Failed(), rec.failed)
	}
	if got := contents(t, l, 0, 100); len(got) != 2 {
		t.Errorf("%d batches", len(got))
	}
	if err := f.Close(1); err == nil {
		t.Error("a failed folder was closed in order")
	}
	if clean, _, _ := readClean(mem, testRoot); clean {
		t.Error("a failed folder has the mark of a clean stop")
	}
}

func TestNoRoomForTheEpochCheckpointHoldsTheFlushedOffsetBack(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.Inject(mem)
	f := openFolder(t, in)
	rule := in.Add(vfs.Rule{Kind: vfs.OpCreate, Path: "leader-epoch-checkpoint.tmp", Err: syscall.ENOSPC})
	l := openPart(t, f, LogConfig{})
	lead(t, l, plain(1, 1, "x"))
	if err := l.Sync(context.Background()); !errors.Is(err, ErrFull) {
		t.Errorf("sync: %v", err)
	}
	if l.FlushedOffset() != 0 || f.Failed() != nil {
		t.Errorf("flushed %d, folder %v", l.FlushedOffset(), f.Failed())
	}
	rule.Remove()
	deadline := time.Now().Add(time.Minute)
	for l.FlushedOffset() != 1 {
		if time.Now().After(deadline) {
			t.Fatal("it is not tried again")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAppendsLeaveTheReserveAlone(t *testing.T) {
	mem := vfs.NewMem()
	mem.SetSpace(1 << 20)
	c := folderConfig(mem)
	c.Reserve = 1 << 19
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(-1)
	l := openPart(t, f, LogConfig{})
	var full error
	for range 100 {
		a := put(l, &Append{Batch: sized(10 << 10)})
		if full = a.Err; full != nil {
			break
		}
	}
	if !errors.Is(full, ErrFull) || l.Size() < 300<<10 || l.Size() > 1<<19 {
		t.Errorf("%v after %d bytes", full, l.Size())
	}
	mem.SetSpace(8 << 20)
	lead(t, l, sized(10<<10))
}

// Every operation fails once, with each error: nothing flushed is lost, nothing is
// altered, and what is left opens.
func TestAnyOperationMayFail(t *testing.T) {
	for _, cause := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		for _, short := range []bool{false, true} {
			for n := 0; ; n++ {
				hit := failAt(t, n, cause, short)
				if !hit {
					if n < 60 {
						t.Fatalf("the workload has only %d operations", n)
					}
					break
				}
			}
		}
	}
}

func failAt(t *testing.T, n int, cause error, short bool) bool {
	mem := vfs.NewMem()
	in := vfs.Inject(mem)
	c := folderConfig(in)
	cfg := LogConfig{SegmentBytes: 700, IndexInterval: 100, DeleteDelayMs: -1}
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.Open(testPart, testTopic, LogOptions{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	var rules []*vfs.Handle
	for _, kind := range []vfs.OpKind{vfs.OpWrite, vfs.OpCreate, vfs.OpSync, vfs.OpTruncate, vfs.OpRename, vfs.OpSyncDir, vfs.OpRemove} {
		after := n - 40*int(kind)
		if after >= 0 && after < 40 {
			rules = append(rules, in.Add(vfs.Rule{Kind: kind, After: after, Times: 1, Err: cause, Short: short && kind == vfs.OpWrite}))
		}
	}
	var want []batch.Batch
	seq := int32(0)
	epoch := model.Epoch(0)
	step := func(text string) {
		b := produced(1, 0, seq, 1, int64(seq))
		a := put(l, &Append{Batch: b, Epoch: epoch})
		if a.Err == nil {
			want = append(want, b)
			seq++
		} else if !errors.Is(a.Err, ErrFull) && !errors.Is(a.Err, ErrFailed) && !errors.Is(a.Err, ErrFenced) {
			t.Fatalf("%d, %v: %s: %v", n, cause, text, a.Err)
		}
	}
	for epoch = range model.Epoch(3) {
		_ = l.SetLeaderEpoch(epoch)
		for i := range 12 {
			step(fmt.Sprint(epoch, i))
		}
		_ = l.Sync(context.Background())
		_ = f.Checkpoint()
		if epoch == 1 {
			if l.TruncateTo(l.EndOffset()-2) == nil && f.Failed() == nil {
				want = want[:l.EndOffset()]
				seq = int32(l.EndOffset())
			}
		}
	}
	flushed, failed := l.FlushedOffset(), f.Failed()
	_ = f.Close(1)
	hits := 0
	for _, r := range rules {
		hits += r.Hits()
		r.Remove()
	}
	// The same disk after a power failure, and as it is.
	for name, disk := range map[string]*vfs.Mem{"power failure": mem.CrashClone(nil), "restart": mem} {
		g, err := OpenFolder(folderConfig(disk))
		if err != nil {
			t.Fatalf("%d, %v: %s: %v", n, cause, name, err)
		}
		again, err := g.Open(testPart, testTopic, LogOptions{Config: cfg})
		if err != nil {
			t.Fatalf("%d, %v: %s: %v", n, cause, name, err)
		}
		if again.EndOffset() < flushed {
			t.Fatalf("%d, %v, %v: %s: end %d, flushed were %d", n, cause, failed, name, again.EndOffset(), flushed)
		}
		got, err := readAll(again, 0, again.EndOffset(), 1<<20)
		if err != nil {
			t.Fatalf("%d, %v: %s: %v", n, cause, name, err)
		}
		if failed == nil {
			err = equalBatches(got, want[:min(len(got), len(want))])
			if name == "restart" {
				err = equalBatches(got, want)
			}
		}
		if err != nil {
			t.Fatalf("%d, %v: %s: %v", n, cause, name, err)
		}
		_ = g.Close(1)
	}
	return hits > 0 || n < 7*40
}
