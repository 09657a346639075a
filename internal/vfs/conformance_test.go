package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// systems are the file systems that one suite holds to one behaviour; each
// makes an empty folder to work in.
var systems = map[string]func(t *testing.T) (FS, string){
	"os":     func(t *testing.T) (FS, string) { return OS(), t.TempDir() },
	"mem":    func(t *testing.T) (FS, string) { return memAt(t, NewMem()) },
	"inject": func(t *testing.T) (FS, string) { m, dir := memAt(t, NewMem()); return Inject(m), dir },
	"injectos": func(t *testing.T) (FS, string) {
		return Inject(OS(), Rule{Path: "no-such-file", Err: syscall.EIO}), t.TempDir()
	},
	"clone": func(t *testing.T) (FS, string) { return memAt(t, NewMem().CrashClone(nil)) },
}

func memAt(t *testing.T, m *Mem) (FS, string) {
	dir := filepath.Join(string(filepath.Separator), "a", "b")
	must(t, m.MkdirAll(dir, 0o755))
	return m, dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustFail(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// open opens a file, which the test closes at its end.
func open(t testing.TB, fsys FS, name string, flag int) File {
	t.Helper()
	f, err := fsys.OpenFile(name, flag, 0o644)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// put makes a file with these bytes, synced, its name not.
func put(t testing.TB, fsys FS, name, data string) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	must(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// contents is what a file holds, or "<error>".
func contents(fsys FS, name string) string {
	data, err := ReadFile(fsys, name, 1<<30)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "<missing>"
	case err != nil:
		return "<" + err.Error() + ">"
	}
	return string(data)
}

func mustHold(t testing.TB, fsys FS, name, want string) {
	t.Helper()
	if got := contents(fsys, name); got != want {
		t.Fatalf("%s holds %.80q, want %.80q", name, got, want)
	}
}

func TestConformance(t *testing.T) {
	behaviours := []struct {
		name string
		f    func(t *testing.T, fsys FS, dir string)
	}{
		{"WriteThenRead", conformWriteThenRead},
		{"WriteVecWritesInOrder", conformWriteVec},
		{"Truncate", conformTruncate},
		{"AllocateKeepsSize", conformAllocate},
		{"OpenFlags", conformOpenFlags},
		{"ClosedFilesRefuse", conformClosed},
		{"MissingParent", conformMissingParent},
		{"Folders", conformFolders},
		{"RemovedFileLivesForItsHolder", conformRemoved},
		{"RenameReplaces", conformRename},
		{"RenameRefuses", conformRenameRefuses},
		{"RenameMovesFolders", conformRenameFolder},
		{"LockExcludes", conformLock},
		{"WholeFiles", conformWholeFiles},
		{"SpaceAndMode", conformSpace},
		{"ConcurrentWriters", conformConcurrent},
		{"AnyWritesReadBack", conformAnyWrites},
	}
	for name, make := range systems {
		for _, b := range behaviours {
			t.Run(name+"/"+b.name, func(t *testing.T) {
				fsys, dir := make(t)
				b.f(t, fsys, dir)
			})
		}
	}
}

func conformWriteThenRead(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	if f.Name() != filepath.Join(dir, "f") {
		t.Fatalf("name %q", f.Name())
	}
	n, err := f.WriteAt([]byte("hello"), 5000)
	if n != 5 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if size, err := f.Size(); size != 5005 || err != nil {
		t.Fatalf("size %d, %v; want 5005", size, err)
	}
	buf := bytes.Repeat([]byte{'x'}, 8)
	n, err = f.ReadAt(buf, 4997)
	if n != 8 || err != nil && err != io.EOF || string(buf) != "\x00\x00\x00hello" {
		t.Fatalf("read %d %q, %v: a hole reads as zeros", n, buf, err)
	}
	if n, err = f.ReadAt(buf, 5003); n != 2 || err != io.EOF || string(buf[:n]) != "lo" {
		t.Fatalf("read across the end: %d %q, %v; want EOF", n, buf[:n], err)
	}
	if n, err = f.ReadAt(buf, 9000); n != 0 || err != io.EOF {
		t.Fatalf("read beyond the end: %d, %v; want EOF", n, err)
	}
	if _, err = f.ReadAt(buf, -1); err == nil || err == io.EOF {
		t.Fatalf("read at -1: %v", err)
	}
	if _, err = f.WriteAt(buf, -1); err == nil {
		t.Fatal("write at -1 succeeded")
	}
	must(t, f.Sync())
	info, err := fsys.Stat(f.Name())
	must(t, err)
	if info.Size() != 5005 || info.Name() != "f" || info.IsDir() || info.ModTime().IsZero() {
		t.Fatalf("stat: %v", info)
	}
}

func conformWriteVec(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	for _, count := range []int{0, 1, 2, 7, 1024, 1025, 3000} {
		var bufs [][]byte
		var want strings.Builder
		for i := range count {
			b := fmt.Appendf(nil, "<%d>", i)
			if i%5 == 3 && count < 1000 {
				b = nil
			}
			bufs = append(bufs, b)
			want.Write(b)
		}
		must(t, f.Truncate(0))
		n, err := f.WriteVec(bufs, 3)
		if n != int64(want.Len()) || err != nil {
			t.Fatalf("%d buffers: wrote %d of %d, %v", count, n, want.Len(), err)
		}
		got := contents(fsys, f.Name())
		if count > 0 && got != "\x00\x00\x00"+want.String() {
			t.Fatalf("%d buffers: read %.60q", count, got)
		}
	}
	if _, err := f.WriteVec([][]byte{{1}, {2}}, -1); err == nil {
		t.Fatal("write at -1 succeeded")
	}
	var empty [2][]byte
	if n, err := f.WriteVec(empty[:], 0); n != 0 || err != nil {
		t.Fatalf("empty buffers: %d, %v", n, err)
	}
}

func conformTruncate(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "f")
	put(t, fsys, name, strings.Repeat("x", 10000))
	f := open(t, fsys, name, os.O_RDWR)
	must(t, f.Truncate(5000))
	must(t, f.Truncate(9000))
	mustHold(t, fsys, name, strings.Repeat("x", 5000)+strings.Repeat("\x00", 4000))
	must(t, f.Truncate(0))
	mustHold(t, fsys, name, "")
	if err := f.Truncate(-1); err == nil {
		t.Fatal("size -1 accepted")
	}
}

func conformAllocate(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	must(t, f.Allocate(0, 1<<20))
	if size, _ := f.Size(); size != 0 {
		t.Fatalf("size %d after Allocate, want 0", size)
	}
	_, err := f.WriteAt([]byte("abc"), 0)
	must(t, err)
	must(t, f.Allocate(1<<20, 1<<20))
	mustHold(t, fsys, f.Name(), "abc")
	must(t, f.Truncate(3))
	mustHold(t, fsys, f.Name(), "abc")
}

func conformOpenFlags(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "f")
	_, err := fsys.Open(name)
	mustFail(t, err, fs.ErrNotExist)
	_, err = fsys.OpenFile(name, os.O_RDWR, 0)
	mustFail(t, err, fs.ErrNotExist)
	put(t, fsys, name, "abc")
	_, err = fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	mustFail(t, err, fs.ErrExist)
	_, err = fsys.OpenFile(name, os.O_RDWR|os.O_APPEND, 0o644)
	mustFail(t, err, errors.ErrUnsupported)
	open(t, fsys, name, os.O_RDWR|os.O_CREATE)
	mustHold(t, fsys, name, "abc")
	r := open(t, fsys, name, os.O_RDONLY)
	_, err = r.WriteAt([]byte("x"), 0)
	mustFail(t, err, syscall.EBADF)
	w := open(t, fsys, name, os.O_WRONLY)
	_, err = w.ReadAt(make([]byte, 1), 0)
	mustFail(t, err, syscall.EBADF)
	open(t, fsys, name, os.O_WRONLY|os.O_TRUNC)
	mustHold(t, fsys, name, "")
	_, err = fsys.OpenFile(dir, os.O_RDWR, 0)
	mustFail(t, err, syscall.EISDIR)
}

func conformClosed(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	must(t, f.Close())
	_, rerr := f.ReadAt(make([]byte, 1), 0)
	_, werr := f.WriteAt([]byte("x"), 0)
	_, verr := f.WriteVec([][]byte{{1}, {2}}, 0)
	_, serr := f.Size()
	for i, err := range []error{rerr, werr, verr, serr, f.Truncate(1), f.Sync(), f.Allocate(0, 1), f.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("operation %d on a closed file: %v", i, err)
		}
	}
}

func conformMissingParent(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "none", "f")
	_, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	mustFail(t, err, fs.ErrNotExist)
	mustFail(t, fsys.Mkdir(name, 0o755), fs.ErrNotExist)
	mustFail(t, fsys.Remove(name), fs.ErrNotExist)
	mustFail(t, fsys.SyncDir(name), fs.ErrNotExist)
	mustFail(t, fsys.Chmod(name, 0o400), fs.ErrNotExist)
	mustFail(t, fsys.Chtimes(name, time.UnixMilli(1)), fs.ErrNotExist)
	_, err = fsys.Stat(name)
	mustFail(t, err, fs.ErrNotExist)
	_, err = fsys.ReadDir(name)
	mustFail(t, err, fs.ErrNotExist)
	_, err = fsys.Lock(name)
	mustFail(t, err, fs.ErrNotExist)
	_, _, err = fsys.Space(name)
	mustFail(t, err, fs.ErrNotExist)
	put(t, fsys, filepath.Join(dir, "f"), "")
	mustFail(t, fsys.Rename(filepath.Join(dir, "f"), name), fs.ErrNotExist)
	mustFail(t, fsys.Rename(name, filepath.Join(dir, "g")), fs.ErrNotExist)
	must(t, fsys.RemoveAll(name))
	under := filepath.Join(dir, "f", "g")
	_, err = fsys.OpenFile(under, os.O_RDWR|os.O_CREATE, 0o644)
	mustFail(t, err, syscall.ENOTDIR)
	mustFail(t, fsys.MkdirAll(under, 0o755), syscall.ENOTDIR)
}

func conformFolders(t *testing.T, fsys FS, dir string) {
	must(t, fsys.MkdirAll(filepath.Join(dir, "x", "y"), 0o755))
	must(t, fsys.MkdirAll(filepath.Join(dir, "x", "y"), 0o755))
	mustFail(t, fsys.Mkdir(filepath.Join(dir, "x"), 0o755), fs.ErrExist)
	for _, base := range []string{"b", "a", "c"} {
		put(t, fsys, filepath.Join(dir, base), base)
	}
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	got := ""
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		got += fmt.Sprintf("%s %v %d;", e.Name(), e.IsDir(), info.Size()*int64(b2i(!e.IsDir())))
	}
	if want := "a false 1;b false 1;c false 1;x true 0;"; got != want {
		t.Fatalf("entries %q, want %q", got, want)
	}
	mustFail(t, fsys.Remove(filepath.Join(dir, "x")), syscall.ENOTEMPTY)
	must(t, fsys.SyncDir(dir))
	must(t, fsys.Remove(filepath.Join(dir, "x", "y")))
	must(t, fsys.Remove(filepath.Join(dir, "x")))
	must(t, fsys.RemoveAll(dir))
	_, err = fsys.Stat(dir)
	mustFail(t, err, fs.ErrNotExist)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func conformRemoved(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "f")
	put(t, fsys, name, "old")
	f := open(t, fsys, name, os.O_RDWR)
	must(t, fsys.Remove(name))
	put(t, fsys, name, "new")
	_, err := f.WriteAt([]byte("er"), 3)
	must(t, err)
	must(t, f.Sync())
	buf := make([]byte, 5)
	if n, err := f.ReadAt(buf, 0); string(buf[:n]) != "older" {
		t.Fatalf("the removed file reads %q, %v", buf[:n], err)
	}
	mustHold(t, fsys, name, "new")
}

func conformRename(t *testing.T, fsys FS, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, fsys, a, "of a")
	put(t, fsys, b, "of b")
	held := open(t, fsys, b, os.O_RDONLY)
	moved := open(t, fsys, a, os.O_RDWR)
	must(t, fsys.Rename(a, b))
	mustHold(t, fsys, a, "<missing>")
	mustHold(t, fsys, b, "of a")
	buf := make([]byte, 4)
	if _, err := held.ReadAt(buf, 0); string(buf) != "of b" {
		t.Fatalf("the holder of the replaced file reads %q, %v", buf, err)
	}
	_, err := moved.WriteAt([]byte("OF"), 0)
	must(t, err)
	mustHold(t, fsys, b, "OF a")
	must(t, fsys.Rename(b, b))
	mustHold(t, fsys, b, "OF a")
}

func conformRenameRefuses(t *testing.T, fsys FS, dir string) {
	f, d, e := filepath.Join(dir, "f"), filepath.Join(dir, "d"), filepath.Join(dir, "e")
	put(t, fsys, f, "f")
	must(t, fsys.Mkdir(d, 0o755))
	must(t, fsys.Mkdir(e, 0o755))
	mustFail(t, fsys.Rename(f, d), fs.ErrExist)
	mustFail(t, fsys.Rename(d, e), fs.ErrExist)
	mustFail(t, fsys.Rename(d, f), syscall.ENOTDIR)
	mustFail(t, fsys.Rename(d, filepath.Join(d, "sub")), syscall.EINVAL)
	mustFail(t, fsys.Rename(filepath.Join(dir, "none"), f), fs.ErrNotExist)
	mustHold(t, fsys, f, "f")
}

func conformRenameFolder(t *testing.T, fsys FS, dir string) {
	d, e := filepath.Join(dir, "d"), filepath.Join(dir, "e")
	must(t, fsys.Mkdir(d, 0o755))
	put(t, fsys, filepath.Join(d, "f"), "f")
	f := open(t, fsys, filepath.Join(d, "f"), os.O_RDWR)
	must(t, fsys.Rename(d, e))
	_, err := f.WriteAt([]byte("F"), 0)
	must(t, err)
	mustHold(t, fsys, filepath.Join(e, "f"), "F")
	mustHold(t, fsys, filepath.Join(d, "f"), "<missing>")
}

func conformLock(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, ".lock")
	l, err := fsys.Lock(name)
	must(t, err)
	_, err = fsys.Lock(name)
	mustFail(t, err, ErrLocked)
	if !strings.Contains(err.Error(), name) {
		t.Fatalf("error %q does not name the file", err)
	}
	must(t, l.Close())
	l, err = fsys.Lock(name)
	must(t, err)
	must(t, l.Close())
	mustHold(t, fsys, name, "")
}

func conformWholeFiles(t *testing.T, fsys FS, dir string) {
	name := filepath.Join(dir, "f")
	must(t, WriteFileSync(fsys, name, []byte("one"), 0o644))
	must(t, WriteFileSync(fsys, name, []byte("two"), 0o400))
	must(t, WriteFileSync(fsys, name, []byte("three"), 0o400))
	mustHold(t, fsys, name, "three")
	if _, err := ReadFile(fsys, name, 4); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("5 bytes of at most 4: %v", err)
	}
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("left behind: %v", entries)
	}
	must(t, WriteFileSync(fsys, name, nil, 0o644))
	mustHold(t, fsys, name, "")
	put(t, fsys, name+".tmp", "of a crash")
	must(t, fsys.Chmod(name+".tmp", 0o400))
	must(t, WriteFileSync(fsys, name, []byte("four"), 0o644))
	mustHold(t, fsys, name, "four")
	mustFail(t, WriteFileSync(fsys, filepath.Join(dir, "no", "f"), nil, 0o644), fs.ErrNotExist)
}

func conformSpace(t *testing.T, fsys FS, dir string) {
	total, usable, err := fsys.Space(dir)
	if err != nil || usable <= 0 || total < usable {
		t.Fatalf("space %d of %d, %v", usable, total, err)
	}
	name := filepath.Join(dir, "f")
	put(t, fsys, name, "x")
	must(t, fsys.Chmod(name, 0o400))
	mod := time.UnixMilli(1_700_000_000_123)
	must(t, fsys.Chtimes(name, mod))
	info, err := fsys.Stat(name)
	must(t, err)
	if !info.ModTime().Equal(mod) {
		t.Fatalf("modified at %v, want %v", info.ModTime(), mod)
	}
	if info.Mode() != 0o400 {
		t.Fatalf("mode %v, want 0400", info.Mode())
	}
	if _, mem := base(fsys).(*Mem); mem || os.Getuid() != 0 {
		_, err = fsys.OpenFile(name, os.O_RDWR, 0)
		mustFail(t, err, fs.ErrPermission)
	}
	must(t, fsys.Remove(name))
}

func conformConcurrent(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	const workers, each, size = 8, 20, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			b := bytes.Repeat([]byte{byte('a' + w)}, size/2)
			for i := range each {
				off := int64(i*workers+w) * size
				if n, err := f.WriteVec([][]byte{b, b}, off); n != size || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
				if i%5 == 0 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
				got := make([]byte, size)
				if _, err := f.ReadAt(got, off); err != nil && err != io.EOF || got[0] != b[0] || got[size-1] != b[0] {
					t.Errorf("read %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
	for i, c := range []byte(contents(fsys, f.Name())) {
		if want := byte('a' + i/size%workers); c != want {
			t.Fatalf("byte %d is %q, want %q", i, c, want)
		}
	}
}

// conformAnyWrites compares a file with a slice of bytes under any writes. A
// disk is not asked to sync them: that takes long and tells reads nothing.
func conformAnyWrites(t *testing.T, fsys FS, dir string) {
	ops := []string{"write", "append", "vec", "truncate", "allocate"}
	if _, disk := base(fsys).(*osFS); !disk {
		ops = append(ops, "sync")
	}
	rapid.Check(t, func(t *rapid.T) {
		f, err := fsys.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var model []byte
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			step(t, f, &model, ops, 1<<20, func() {})
			got, err := readAll(f, 1<<30)
			if err != nil || !bytes.Equal(got, model) {
				t.Fatalf("file has %d bytes, model %d, first difference at %d, %v", len(got), len(model), differ(got, model), err)
			}
		}
	})
}

// base is the FS below the rules.
func base(fsys FS) FS {
	if in, ok := fsys.(*Injected); ok {
		return in.fsys
	}
	return fsys
}

// step does one of the operations to a file, at far or nearer, and to the slice
// that models it, and calls between after the first of the two buffers of a
// WriteVec. It returns the operation's name.
func step(t *rapid.T, f File, model *[]byte, ops []string, far int, between func()) string {
	off := rapid.SampledFrom([]int{0, 1, 511, 4095, 4096, 9000, far}).Draw(t, "base") + rapid.IntRange(0, 600).Draw(t, "off")
	size := rapid.SampledFrom([]int{0, 1, 100, 512, 5000}).Draw(t, "len")
	b := bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(t, "fill"))}, size)
	var err error
	op := rapid.SampledFrom(ops).Draw(t, "op")
	switch op {
	case "append", "write", "vec":
		if op == "append" {
			off = len(*model)
		}
		if op == "vec" {
			_, err = f.WriteVec([][]byte{b[:size/3], b[size/3:]}, int64(off))
		} else {
			_, err = f.WriteAt(b, int64(off))
		}
		if op == "vec" {
			store(model, b[:size/3], off)
			between()
		}
		store(model, b, off)
	case "truncate":
		err = f.Truncate(int64(off))
		*model = append((*model)[:min(off, len(*model))], make([]byte, max(0, off-len(*model)))...)
	case "sync":
		err = f.Sync()
	case "allocate":
		err = f.Allocate(int64(off), int64(size+1))
	}
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// store is WriteAt for a slice.
func store(model *[]byte, b []byte, off int) {
	if len(b) == 0 {
		return
	}
	*model = append(*model, make([]byte, max(0, off+len(b)-len(*model)))...)
	copy((*model)[off:], b)
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
