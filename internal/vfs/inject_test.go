package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestRuleFailsAfterAndSoManyTimes(t *testing.T) {
	in := Inject(newMem(t, "/d"))
	f := open(t, in, "/d/1.log", os.O_RDWR|os.O_CREATE)
	h := in.Add(Rule{Kind: OpWrite, Path: "*.log", After: 2, Times: 1, Err: syscall.EIO})
	for i := range 5 {
		_, err := f.WriteAt([]byte("x"), int64(i))
		if failed := err != nil; failed != (i == 2) {
			t.Fatalf("write %d: %v", i, err)
		}
		if i == 2 {
			mustFail(t, err, syscall.EIO)
			if !strings.Contains(err.Error(), "/d/1.log") {
				t.Fatalf("%q does not name the file", err)
			}
		}
	}
	if h.Hits() != 1 {
		t.Fatalf("%d hits, want 1", h.Hits())
	}
	mustHold(t, in, "/d/1.log", "xx\x00xx")
}

func TestRuleEndsWithRemove(t *testing.T) {
	in := Inject(newMem(t))
	h := in.Add(Rule{Kind: OpMkdir, Err: syscall.ENOSPC})
	mustFail(t, in.Mkdir("/d", 0o755), syscall.ENOSPC)
	mustFail(t, in.Mkdir("/d", 0o755), syscall.ENOSPC)
	h.Remove()
	h.Remove()
	must(t, in.Mkdir("/d", 0o755))
}

func TestRulePatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		op      Op
		want    bool
	}{
		{"", Op{Path: "/a/b"}, true},
		{"b", Op{Path: "/a/b"}, true},
		{"a", Op{Path: "/a/b"}, false},
		{"*.log", Op{Path: "/a/0.log"}, true},
		{"/a/*.log", Op{Path: "/a/0.log"}, true},
		{"/b/*.log", Op{Path: "/a/0.log"}, false},
		{"*.tmp", Op{Kind: OpRename, Path: "/a/f", To: "/a/f.tmp"}, true},
		{"f", Op{Kind: OpRename, Path: "/a/f", To: "/a/f.tmp"}, true},
		{"g", Op{Kind: OpRename, Path: "/a/f", To: "/a/f.tmp"}, false},
	} {
		if got := (Rule{Path: c.pattern}).matches(c.op); got != c.want {
			t.Errorf("%q matches %v: %v", c.pattern, c.op, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a malformed pattern is accepted")
		}
	}()
	Inject(NewMem(), Rule{Path: "[", Err: syscall.EIO})
}

func TestEveryOperationCanFail(t *testing.T) {
	base := newMem(t, "/d")
	put(t, base, "/d/f", "data")
	in := Inject(base)
	f := open(t, in, "/d/f", os.O_RDWR)
	openIt := func(name string, flag int) error {
		f, err := in.OpenFile(name, flag, 0o644)
		if err == nil {
			f.Close()
		}
		return err
	}
	for kind, do := range map[OpKind]func() error{
		OpCreate:   func() error { return openIt("/d/new", os.O_RDWR|os.O_CREATE) },
		OpMkdir:    func() error { return in.MkdirAll("/e/f", 0o755) },
		OpWrite:    func() error { _, err := f.WriteVec([][]byte{{1}, {2}}, 0); return err },
		OpTruncate: func() error { return openIt("/d/f", os.O_RDWR|os.O_TRUNC) },
		OpAllocate: func() error { return f.Allocate(0, 1) },
		OpSync:     func() error { return f.Sync() },
		OpRename:   func() error { return in.Rename("/d/f", "/d/f") },
		OpRemove:   func() error { return in.RemoveAll("/e") },
		OpSyncDir:  func() error { return in.SyncDir("/d") },
		OpChmod:    func() error { return in.Chmod("/d/f", 0o600) },
		OpChtimes:  func() error { return in.Chtimes("/d/f", time.UnixMilli(5)) },
		OpOpen:     func() error { return openIt("/d/f", os.O_RDONLY) },
		OpRead: func() error {
			if _, err := f.ReadAt(make([]byte, 1), 0); err != io.EOF {
				return err
			}
			return nil
		},
		OpReadDir: func() error { _, err := in.ReadDir("/d"); return err },
		OpStat:    func() error { _, err := f.Size(); return err },
		OpLock: func() error {
			l, err := in.Lock("/d/.lock")
			if err == nil {
				err = l.Close()
			}
			return err
		},
		OpSpace: func() error { _, _, err := in.Space("/"); return err },
		OpClose: func() error {
			g, err := in.Open("/d/f")
			if err != nil {
				return err
			}
			err = g.Close()
			if again := g.Close(); !errors.Is(again, fs.ErrClosed) && err != nil && !errors.Is(again, syscall.EIO) {
				t.Error("a failed Close leaves the file open")
			}
			return err
		},
	} {
		h := in.Add(Rule{Kind: kind, Err: syscall.EIO})
		if err := do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v under its rule: %v", kind, err)
		}
		if h.Hits() == 0 {
			t.Errorf("%v: no hit", kind)
		}
		h.Remove()
		if err := do(); err != nil {
			t.Errorf("%v without a rule: %v", kind, err)
		}
	}
	if OpClose != numOps-1 {
		t.Error("an operation is missing here")
	}
}

func TestShortWritesAndReads(t *testing.T) {
	in := Inject(newMem(t))
	f := open(t, in, "/f", os.O_RDWR|os.O_CREATE)
	h := in.Add(Rule{Kind: OpWrite, Short: true, Err: syscall.ENOSPC})
	n, err := f.WriteVec([][]byte{[]byte("abc"), []byte("def")}, 0)
	if n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	k, err := f.WriteAt([]byte("xy"), 3)
	if k != 1 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("wrote %d, %v", k, err)
	}
	h.Remove()
	h = in.Add(Rule{Kind: OpWrite, Short: true})
	_, err = f.WriteAt([]byte("zz"), 4)
	mustFail(t, err, io.ErrShortWrite)
	h.Remove()
	mustHold(t, in, "/f", "abcxz")
	in.Add(Rule{Kind: OpRead, Short: true})
	buf := make([]byte, 4)
	if n, err := f.ReadAt(buf, 0); n != 2 || err != io.EOF || string(buf[:2]) != "ab" {
		t.Fatalf("read %d %q, %v", n, buf, err)
	}
}

func TestFailedSyncLosesDataForGood(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", "old")
	must(t, m.SyncDir("/"))
	in := Inject(m, Rule{Kind: OpSync, Times: 1, Err: syscall.EIO})
	f := open(t, in, "/f", os.O_RDWR)
	_, err := f.WriteAt([]byte("lost"), 3)
	must(t, err)
	mustFail(t, f.Sync(), syscall.EIO)
	mustHold(t, in, "/f", "oldlost") // the page cache shows it
	must(t, f.Sync())                // and a second Sync proves nothing
	look := func(c *Mem) string { return contents(c, "/f") }
	mustSeeOnly(t, outcomes(m, 50, look), "old")
	_, err = f.WriteAt([]byte("new"), 7)
	must(t, err)
	mustSeeOnly(t, outcomes(m, 200, look), "old", "old\x00\x00\x00\x00new", "old\x00\x00\x00\x00\x00\x00\x00")
	must(t, f.Sync())
	mustHold(t, m.CrashClone(nil), "/f", "old\x00\x00\x00\x00new")
	for i := range 2 * logChanges { // through fold, too
		_, err = f.WriteAt([]byte("n"), int64(10+i))
		must(t, err)
		if n := len(f.(*injectedFile).File.(*memFile).n.log); n > logChanges {
			t.Fatalf("the file remembers %d changes", n)
		}
	}
	must(t, f.Sync())
	mustHold(t, m.CrashClone(rand.New(rand.NewPCG(1, 1))), "/f",
		"old\x00\x00\x00\x00new"+strings.Repeat("n", 2*logChanges))
}

func TestDelayIsSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := Inject(NewMem(), Rule{Kind: OpSync, Delay: 3 * time.Second})
		f := open(t, in, "/f", os.O_RDWR|os.O_CREATE)
		_, err := f.WriteAt([]byte("x"), 0)
		must(t, err)
		start := time.Now()
		must(t, f.Sync())
		if took := time.Since(start); took != 3*time.Second {
			t.Fatalf("took %v", took)
		}
		mu := &in.fsys.(*Mem).mu
		if !mu.TryLock() {
			t.Fatal("a lock is still held")
		}
		mu.Unlock()
	})
}
