package vfs

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestOnOpTellsEachChangeBeforeIt(t *testing.T) {
	m := newMem(t)
	var got []string
	m.OnOp(func(op Op) { got = append(got, op.String()) })
	must(t, m.MkdirAll("/d/e", 0o755))
	f := open(t, m, "/d/f", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteVec([][]byte{{1}, {2, 3}}, 7)
	must(t, err)
	must(t, f.Allocate(0, 100))
	must(t, f.Truncate(2))
	must(t, f.Sync())
	must(t, f.Close())
	open(t, m, "/d/f", os.O_RDWR|os.O_CREATE|os.O_TRUNC).Close()
	must(t, m.Rename("/d/f", "/d/e/g"))
	must(t, m.SyncDir("/d"))
	must(t, m.Chmod("/d/e/g", 0o400))
	must(t, m.RemoveAll("/d"))
	_, err = m.Stat("/")
	must(t, err)
	want := `mkdir /d
mkdir /d/e
create /d/f
write /d/f 7+3
allocate /d/f 0+100
truncate /d/f 2
sync /d/f
truncate /d/f 0
rename /d/f to /d/e/g
syncdir /d
chmod /d/e/g
remove /d/e/g
remove /d/e
remove /d`
	if s := strings.Join(got, "\n"); s != want {
		t.Fatalf("operations:\n%s\nwant:\n%s", s, want)
	}
}

func TestFullSystemWritesWhatFits(t *testing.T) {
	m := newMem(t)
	m.SetSpace(3 * pageSize)
	f := open(t, m, "/f", os.O_RDWR|os.O_CREATE)
	n, err := f.WriteAt(make([]byte, 4*pageSize), 0)
	if n != 3*pageSize {
		t.Fatalf("wrote %d", n)
	}
	mustFail(t, err, syscall.ENOSPC)
	_, err = f.WriteAt([]byte("overwriting needs no space"), 0)
	must(t, err)
	mustFail(t, f.Allocate(0, 4*pageSize), syscall.ENOSPC)
	must(t, f.Truncate(pageSize))
	if _, usable, _ := m.Space("/"); usable != 2*pageSize {
		t.Fatalf("%d usable, want two pages", usable)
	}
	must(t, f.Allocate(0, 3*pageSize))
	g := open(t, m, "/g", os.O_RDWR|os.O_CREATE)
	_, err = g.WriteAt([]byte("x"), 0)
	mustFail(t, err, syscall.ENOSPC) // what f reserved is not g's
	_, err = f.WriteAt(make([]byte, 3*pageSize), 0)
	must(t, err)
	must(t, m.Remove("/f"))
	if _, usable, _ := m.Space("/"); usable != 0 {
		t.Fatalf("%d usable while the removed file is open", usable)
	}
	must(t, f.Close())
	mustBeEmpty(t, m)
	put(t, m, "/f", "x")
	must(t, m.Rename("/g", "/f")) // g is empty, the old f is no more
	mustBeEmpty(t, m)
}

func TestTruncateFreesSpace(t *testing.T) {
	m := newMem(t)
	f := open(t, m, "/f", os.O_RDWR|os.O_CREATE)
	for _, size := range []int64{0, 1, pageSize, 1 << 20, 1<<20 + 1, 3 << 20} {
		_, err := f.WriteAt(make([]byte, 5<<20), 0)
		must(t, err)
		_, err = f.WriteAt([]byte("x"), 20<<20)
		must(t, err)
		must(t, f.Truncate(size))
		total, usable, err := m.Space("/")
		must(t, err)
		if pages := (size + pageSize - 1) / pageSize; total-usable != pages*pageSize {
			t.Fatalf("a file of %d bytes takes %d", size, total-usable)
		}
	}
}

func mustBeEmpty(t *testing.T, m *Mem) {
	t.Helper()
	if total, usable, _ := m.Space("/"); usable != total {
		t.Fatalf("%d of %d usable, want all", usable, total)
	}
}

func TestLargeUnsyncedFileStaysLean(t *testing.T) {
	m := newMem(t)
	f := open(t, m, "/f", os.O_RDWR|os.O_CREATE)
	b := make([]byte, 64<<10)
	for i := range 500 { // 32 MB never synced
		_, err := f.WriteAt(b, int64(i*len(b)))
		must(t, err)
	}
	n := f.(*memFile).n
	if n.logBytes > logBytes || len(n.log) > logChanges {
		t.Fatalf("remembers %d changes of %d bytes", len(n.log), n.logBytes)
	}
}

func TestOldUnsyncedNamesSettle(t *testing.T) {
	m := newMem(t)
	for range dirChanges {
		put(t, m, "/f", "x")
		must(t, m.Remove("/f"))
	}
	if n := len(m.root.log); n > dirChanges {
		t.Fatalf("the folder remembers %d changes", n)
	}
}

// BenchmarkMemAppendSync is an append of 4 KB and a Sync on a file of 64 MB.
func BenchmarkMemAppendSync(b *testing.B) {
	m := NewMem()
	f, err := m.OpenFile("/f", os.O_RDWR|os.O_CREATE, 0o644)
	must(b, err)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	off := int64(64 << 20)
	for b.Loop() {
		if off == 128<<20 {
			off = 64 << 20
			must(b, f.Truncate(off))
		}
		_, err := f.WriteAt(buf, off)
		must(b, err)
		must(b, f.Sync())
		off += int64(len(buf))
	}
}
