package vfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// outcomes collects what many crashes leave, and how often.
func outcomes(m *Mem, n int, look func(c *Mem) string) map[string]int {
	got := map[string]int{}
	for seed := range n {
		got[look(m.CrashClone(rand.New(rand.NewPCG(1, uint64(seed)))))]++
	}
	return got
}

func mustSee(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("no crash left %.60q", w)
		}
	}
}

func mustSeeOnly(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	mustSee(t, got, want...)
	for g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("a crash left %.60q", g)
		}
	}
}

func newMem(t testing.TB, dirs ...string) *Mem {
	m := NewMem()
	for _, d := range dirs {
		must(t, m.MkdirAll(d, 0o755))
	}
	must(t, syncTree(m, "/"))
	return m
}

// syncTree makes all names durable.
func syncTree(m *Mem, dir string) error {
	entries, err := m.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := syncTree(m, filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return m.SyncDir(dir)
}

func TestSyncedDataAndNamesSurvive(t *testing.T) {
	m := newMem(t, "/d")
	put(t, m, "/d/f", "hello")
	must(t, m.SyncDir("/d"))
	mustSeeOnly(t, outcomes(m, 50, func(c *Mem) string { return contents(c, "/d/f") }), "hello")
	mustHold(t, m.CrashClone(nil), "/d/f", "hello")
}

func TestUnsyncedWriteMayBeKeptLostOrTorn(t *testing.T) {
	m := newMem(t, "/d")
	old, new := strings.Repeat("o", 4*sector), strings.Repeat("n", 4*sector)
	put(t, m, "/d/f", old)
	must(t, m.SyncDir("/d"))
	f := open(t, m, "/d/f", os.O_RDWR)
	_, err := f.WriteAt([]byte(new), 0)
	must(t, err)
	mustHold(t, m.CrashClone(nil), "/d/f", old)
	got := outcomes(m, 400, func(c *Mem) string { return contents(c, "/d/f") })
	mustSee(t, got, old, new, old[:sector]+new[:3*sector], new[:sector]+old[:3*sector])
	for g := range got {
		for s := range 4 {
			if part := g[s*sector : (s+1)*sector]; part != old[:sector] && part != new[:sector] {
				t.Fatalf("a sector is torn: %q", part)
			}
		}
	}
	mustHold(t, m, "/d/f", new)
}

func TestSizeAndDataAreIndependent(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", "old")
	must(t, m.SyncDir("/"))
	f := open(t, m, "/f", os.O_RDWR)
	_, err := f.WriteAt([]byte("new"), 3)
	must(t, err)
	got := outcomes(m, 300, func(c *Mem) string { return contents(c, "/f") })
	mustSeeOnly(t, got, "old", "oldnew", "old\x00\x00\x00")
}

func TestLaterWriteMaySurviveWithoutEarlierOne(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", strings.Repeat("-", 2*pageSize))
	must(t, m.SyncDir("/"))
	f := open(t, m, "/f", os.O_RDWR)
	for i, at := range []int64{0, pageSize} {
		_, err := f.WriteAt([]byte{byte('0' + i)}, at)
		must(t, err)
	}
	got := outcomes(m, 300, func(c *Mem) string { s := contents(c, "/f"); return s[:1] + s[pageSize:pageSize+1] })
	mustSeeOnly(t, got, "--", "0-", "-1", "01")
}

func TestTruncateIsDurableAfterSync(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", "abcdef")
	must(t, m.SyncDir("/"))
	f := open(t, m, "/f", os.O_RDWR)
	must(t, f.Truncate(2))
	mustSeeOnly(t, outcomes(m, 200, func(c *Mem) string { return contents(c, "/f") }),
		"abcdef", "ab", "ab\x00\x00\x00\x00")
	must(t, f.Sync())
	mustSeeOnly(t, outcomes(m, 50, func(c *Mem) string { return contents(c, "/f") }), "ab")
}

func TestNameWithoutSyncDirMayVanish(t *testing.T) {
	m := newMem(t, "/d")
	put(t, m, "/d/f", "synced") // its bytes are, its name is not
	got := outcomes(m, 100, func(c *Mem) string { return contents(c, "/d/f") })
	mustSeeOnly(t, got, "synced", "<missing>")
	mustHold(t, m.CrashClone(nil), "/d/f", "<missing>")
	must(t, m.SyncDir("/d"))
	mustHold(t, m.CrashClone(nil), "/d/f", "synced")
}

func TestSyncedNameOfUnsyncedFileHoldsAnything(t *testing.T) {
	m := newMem(t)
	f := open(t, m, "/f", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt([]byte("data"), 0)
	must(t, err)
	must(t, m.SyncDir("/"))
	mustSeeOnly(t, outcomes(m, 200, func(c *Mem) string { return contents(c, "/f") }),
		"", "data", "\x00\x00\x00\x00")
}

func TestFolderVanishesWithAllThatIsInIt(t *testing.T) {
	m := newMem(t)
	must(t, m.Mkdir("/d", 0o755))
	put(t, m, "/d/f", "x")
	must(t, m.SyncDir("/d"))
	mustSeeOnly(t, outcomes(m, 50, func(c *Mem) string { return contents(c, "/d/f") }), "x", "<missing>")
	_, err := m.CrashClone(nil).Stat("/d")
	mustFail(t, err, fs.ErrNotExist)
}

func TestRenameIsAtomic(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", "old")
	must(t, m.SyncDir("/"))
	put(t, m, "/f.tmp", "new")
	must(t, m.Rename("/f.tmp", "/f"))
	look := func(c *Mem) string { return contents(c, "/f") + " " + contents(c, "/f.tmp") }
	mustSeeOnly(t, outcomes(m, 100, look), "old <missing>", "old new", "new <missing>")
	must(t, m.SyncDir("/"))
	mustSeeOnly(t, outcomes(m, 20, look), "new <missing>")
}

func TestRenameBetweenFoldersIsAtomic(t *testing.T) {
	for _, synced := range []string{"", "/a", "/b"} {
		m := newMem(t, "/a", "/b")
		put(t, m, "/a/f", "x")
		must(t, m.SyncDir("/a"))
		put(t, m, "/b/before", "1")
		must(t, m.Rename("/a/f", "/b/f"))
		put(t, m, "/a/after", "2")
		look := func(c *Mem) string { return contents(c, "/a/f") + " " + contents(c, "/b/f") }
		if synced == "" {
			mustSeeOnly(t, outcomes(m, 100, look), "x <missing>", "<missing> x")
			continue
		}
		must(t, m.SyncDir(synced))
		mustSeeOnly(t, outcomes(m, 50, look), "<missing> x")
		mustHold(t, m.CrashClone(nil), "/b/before", "1") // what precedes in that folder
	}
}

func TestRemovedNameMayComeBack(t *testing.T) {
	m := newMem(t, "/d")
	put(t, m, "/d/f", "x")
	must(t, m.SyncDir("/d"))
	must(t, m.RemoveAll("/d"))
	got := outcomes(m, 200, func(c *Mem) string {
		if _, err := c.Stat("/d"); err != nil {
			return "no folder"
		}
		return contents(c, "/d/f")
	})
	mustSeeOnly(t, got, "x", "<missing>", "no folder")
	must(t, m.SyncDir("/"))
	mustSeeOnly(t, outcomes(m, 20, func(c *Mem) string { return contents(c, "/d/f") }), "<missing>")
}

func TestNamesOfOneFolderSurviveInOrder(t *testing.T) {
	m := newMem(t)
	for i := range 4 {
		put(t, m, fmt.Sprintf("/%d", i), "")
	}
	got := outcomes(m, 300, func(c *Mem) string { return strings.Join(list(t, c, "/"), "") })
	mustSeeOnly(t, got, "", "0", "01", "012", "0123")
}

func list(t testing.TB, m *Mem, dir string) []string {
	entries, err := m.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteFileSyncNeverLeavesAMixture(t *testing.T) {
	m := newMem(t)
	old, new := strings.Repeat("o", 3000), strings.Repeat("n", 2000)
	must(t, WriteFileSync(m, "/f", []byte(old), 0o644))
	steps := 0
	m.OnOp(func(op Op) {
		steps++
		for seed := range 40 {
			c := m.CrashClone(rand.New(rand.NewPCG(uint64(steps), uint64(seed))))
			if got := contents(c, "/f"); got != old && got != new {
				t.Errorf("a crash before %v leaves %.40q", op, got)
			}
		}
	})
	must(t, WriteFileSync(m, "/f", []byte(new), 0o644))
	m.OnOp(nil)
	if steps < 5 {
		t.Fatalf("%d steps seen", steps)
	}
	mustHold(t, m.CrashClone(nil), "/f", new)
}

// TestForgottenSyncIsFound shows that the crash clone catches the classic
// fault: a rename of a file whose bytes were not synced.
func TestForgottenSyncIsFound(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", "old")
	must(t, m.SyncDir("/"))
	f := open(t, m, "/f.tmp", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	must(t, m.Rename("/f.tmp", "/f"))
	must(t, m.SyncDir("/"))
	mustSee(t, outcomes(m, 100, func(c *Mem) string { return contents(c, "/f") }), "", "new")
}

func TestLockAndOpenFilesEndWithTheCrash(t *testing.T) {
	m := newMem(t)
	_, err := m.Lock("/.lock")
	must(t, err)
	must(t, m.SyncDir("/"))
	l, err := m.CrashClone(nil).Lock("/.lock")
	must(t, err)
	must(t, l.Close())
}

func TestClonesDoNotTouchEachOther(t *testing.T) {
	m := newMem(t)
	put(t, m, "/f", strings.Repeat("a", 10000))
	must(t, m.SyncDir("/"))
	c := m.CrashClone(nil)
	d := c.CrashClone(nil)
	for _, x := range []struct {
		m *Mem
		b string
	}{{m, "M"}, {c, "C"}, {d, "D"}} {
		f := open(t, x.m, "/f", os.O_RDWR)
		_, err := f.WriteAt([]byte(x.b), 5000)
		must(t, err)
		must(t, f.Truncate(6000))
		must(t, f.Truncate(10000))
	}
	for _, x := range []struct {
		m *Mem
		b string
	}{{m, "M"}, {c, "C"}, {d, "D"}} {
		mustHold(t, x.m, "/f", strings.Repeat("a", 5000)+x.b+strings.Repeat("a", 999)+strings.Repeat("\x00", 4000))
	}
}

func TestSameSeedSameClone(t *testing.T) {
	m := newMem(t, "/a", "/b")
	for i := range 20 {
		put(t, m, fmt.Sprintf("/a/%d", i), "x")
		f := open(t, m, fmt.Sprintf("/b/%d", i), os.O_RDWR|os.O_CREATE)
		_, err := f.WriteAt(bytes.Repeat([]byte{1}, 5000), 0)
		must(t, err)
	}
	look := func() string { return dump(t, m.CrashClone(rand.New(rand.NewPCG(3, 4))), "/") }
	for range 5 {
		if one, other := look(), look(); one != other {
			t.Fatal("two clones with one seed differ")
		}
	}
}

// dump is all that a file system holds.
func dump(t testing.TB, m *Mem, dir string) string {
	s := ""
	for _, name := range list(t, m, dir) {
		path := filepath.Join(dir, name)
		if info, _ := m.Stat(path); info.IsDir() {
			s += path + "/\n" + dump(t, m, path)
			continue
		}
		s += fmt.Sprintf("%s %q\n", path, contents(m, path))
	}
	return s
}

// TestAnyHistoryKeepsItsPromises writes and syncs at random beside a model that
// keeps, for every sector and for the size, all that a crash may leave.
func TestAnyHistoryKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMem()
		f, err := m.OpenFile("/f", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		var bytesNow []byte
		history := [][]byte{nil} // of the whole file, from the last Sync on
		ops := []string{"write", "append", "vec", "truncate", "sync", "allocate"}
		many := rapid.Bool().Draw(t, "many")
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			repeat := 1
			if many && rapid.IntRange(0, 9).Draw(t, "burst") == 0 {
				repeat = logChanges + 1 // and so into mid
			}
			remember := func() { history = append(history, slices.Clone(bytesNow)) }
			if step(t, f, &bytesNow, ops, 20000, remember) == "sync" {
				history = nil
			}
			remember()
			for range repeat - 1 {
				if _, err := f.WriteAt([]byte{7}, 300); err != nil {
					t.Fatal(err)
				}
				store(&bytesNow, []byte{7}, 300)
			}
			remember()
		}
		for seed := range 10 {
			c := m.CrashClone(rand.New(rand.NewPCG(uint64(seed), 0)))
			checkSurvivor(t, []byte(contents(c, "/f")), history)
		}
		if got := contents(m.CrashClone(nil), "/f"); got != string(history[0]) {
			t.Fatalf("the synced bytes did not survive alone: %d bytes, want %d", len(got), len(history[0]))
		}
	})
}

// checkSurvivor tells whether each sector of got, as far as got reaches, is
// that of some moment of the history (beyond a moment's end: zeros).
func checkSurvivor(t *rapid.T, got []byte, history [][]byte) {
	if !slices.ContainsFunc(history, func(h []byte) bool { return len(h) == len(got) }) {
		t.Fatalf("size %d, which the file never had", len(got))
	}
	for at := 0; at < len(got); at += sector {
		part := got[at:min(len(got), at+sector)]
		if !slices.ContainsFunc(history, func(h []byte) bool { return bytes.Equal(part, sectorAt(h, at, len(part))) }) {
			t.Fatalf("the sector at %d is of no moment: %.20q…", at, part)
		}
	}
}

func sectorAt(b []byte, at, n int) []byte {
	out := make([]byte, n)
	if at < len(b) {
		copy(out, b[at:])
	}
	return out
}

func TestCloneSeesAllFilesAtOneMoment(t *testing.T) {
	m := newMem(t)
	put(t, m, "/a", "\x00")
	for i := range 200 {
		put(t, m, fmt.Sprintf("/between%d", i), "x")
	}
	put(t, m, "/z", "\x00")
	must(t, m.SyncDir("/"))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // z follows a, each synced
		a, z := open(t, m, "/a", os.O_RDWR), open(t, m, "/z", os.O_RDWR)
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, f := range []File{a, z} {
				if _, err := f.WriteAt([]byte{i}, 0); err != nil {
					t.Error(err)
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 500 {
		c := m.CrashClone(nil)
		if a, z := contents(c, "/a")[0], contents(c, "/z")[0]; a-z > 1 {
			t.Fatalf("z has %d before a, which has %d", z, a)
		}
	}
	close(stop)
	wg.Wait()
}

// BenchmarkCrashClone clones a log folder of ten partitions with 100 MB.
func BenchmarkCrashClone(b *testing.B) {
	m := NewMem()
	for p := range 10 {
		dir := fmt.Sprintf("/logs/t-%d", p)
		must(b, m.MkdirAll(dir, 0o755))
		for _, base := range []string{"0.log", "0.index", "0.timeindex", "meta"} {
			f, err := m.OpenFile(filepath.Join(dir, base), os.O_RDWR|os.O_CREATE, 0o644)
			must(b, err)
			if base == "0.log" {
				_, err = f.WriteAt(make([]byte, 10<<20), 0)
				must(b, err)
			}
			must(b, f.Sync())
			_, err = f.WriteAt(make([]byte, 3000), 10<<20)
			must(b, err)
		}
	}
	must(b, syncTree(m, "/"))
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		m.CrashClone(r)
	}
}
