package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhoseFolderItIs(t *testing.T) {
	write := func(mem *vfs.Mem, name, text string) {
		if err := mem.MkdirAll(testRoot, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFileSync(mem, filepath.Join(testRoot, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kafka := "#\n#Mon Nov 23 2026\ncluster.id=" + testCluster.String() + "\nversion=1\ndirectory.id=" + testTopic.String() + "\nnode.id=1\n"
	for name, c := range map[string]struct {
		setUp func(*vfs.Mem)
		adopt bool
		want  error
		says  string
	}{
		"empty":            {setUp: func(*vfs.Mem) {}},
		"lost+found only":  {setUp: func(m *vfs.Mem) { _ = m.MkdirAll(testRoot+"/lost+found", 0o755) }},
		"half formatted":   {setUp: func(m *vfs.Mem) { write(m, markerFile, markerText); write(m, "meta.properties.tmp", "x") }},
		"some file":        {setUp: func(m *vfs.Mem) { write(m, "notes.txt", "x") }, want: ErrForeign, says: "notes.txt"},
		"Kafka's":          {setUp: func(m *vfs.Mem) { write(m, metaFile, kafka) }, want: ErrForeign, says: "Apache Kafka"},
		"Kafka's, adopted": {setUp: func(m *vfs.Mem) { write(m, metaFile, kafka) }, adopt: true},
		"another node": {setUp: func(m *vfs.Mem) {
			write(m, markerFile, markerText)
			write(m, metaFile, strings.Replace(kafka, "node.id=1", "node.id=2", 1))
		}, want: ErrMismatch, says: "node.id 2"},
		"another cluster": {setUp: func(m *vfs.Mem) {
			write(m, markerFile, markerText)
			write(m, metaFile, strings.Replace(kafka, testCluster.String(), testTopic.String(), 1))
		}, want: ErrMismatch, says: "cluster.id"},
		"broken": {setUp: func(m *vfs.Mem) { write(m, markerFile, markerText); write(m, metaFile, "version=9\n") }, want: errCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			c.setUp(mem)
			cfg := folderConfig(mem)
			cfg.Adopt = c.adopt
			f, err := OpenFolder(cfg)
			if !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %v and %q", err, c.want, c.says)
			}
			if err != nil {
				if _, err := OpenFolder(cfg); errors.Is(err, ErrLocked) {
					t.Error("the lock was kept")
				}
				return
			}
			if _, err := OpenFolder(cfg); !errors.Is(err, ErrLocked) {
				t.Errorf("opened twice: %v", err)
			}
			id := f.ID()
			if c.adopt && id != testTopic {
				t.Errorf("id %s", id)
			}
			closeFolder(t, f)
			if m, err := PeekMeta(mem, testRoot); err != nil || m.DirectoryID != id || m.NodeID != 1 || m.ClusterID != testCluster {
				t.Errorf("%+v, %v", m, err)
			}
			cfg.Adopt = false
			if f, err = OpenFolder(cfg); err != nil || f.ID() != id {
				t.Fatal(err)
			}
			closeFolder(t, f)
		})
	}
	if _, err := PeekMeta(vfs.NewMem(), testRoot); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestDeletedLogsAreUnlinkedAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		f := openFolder(t, mem)
		l := openPart(t, f, LogConfig{DeleteDelayMs: 60_000})
		lead(t, l, plain(1, 1, "x"))
		c, err := l.Read(0, 1, 100, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Delete(l); err != nil {
			t.Fatal(err)
		}
		if n, err := c.ReadAt(make([]byte, 61), 0); n != 61 {
			t.Errorf("a reader lost its file: %v", err)
		}
		c.Close()
		if a := put(l, &Append{Batch: plain(1, 1, "y")}); !errors.Is(a.Err, ErrClosed) {
			t.Errorf("append: %v", a.Err)
		}
		if _, err := l.Read(0, 1, 100, true); !errors.Is(err, ErrClosed) {
			t.Errorf("read: %v", err)
		}
		gone := func() (names []string) {
			for _, n := range fileNames(t, mem, testRoot) {
				if strings.HasSuffix(n, "-delete") {
					names = append(names, n)
				}
			}
			return names
		}
		if n := gone(); len(n) != 1 || len(n[0]) != len("orders-3.")+32+len("-delete") {
			t.Errorf("set aside %q", n)
		}
		l = openPart(t, f, LogConfig{}) // the name is free at once
		if l.EndOffset() != 0 {
			t.Errorf("the new log ends at %d", l.EndOffset())
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n := gone(); len(n) != 0 {
			t.Errorf("still there: %q", n)
		}
		if err := f.Delete(l); err != nil {
			t.Fatal(err)
		}
		closeFolder(t, f)
		if n := gone(); len(n) != 1 {
			t.Errorf("set aside %q", n)
		}
		f = openFolder(t, mem) // what was left is unlinked at the next start
		synctest.Wait()
		if n := gone(); len(n) != 0 {
			t.Errorf("still there after a start: %q", n)
		}
		closeFolder(t, f)
	})
}

func TestStraysAreSetAsideAndKept(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	lead(t, openPart(t, f, LogConfig{}), plain(1, 1, "x"))
	if _, err := f.Open(testPart, testTopic, LogOptions{}); err == nil {
		t.Error("opened twice")
	}
	closeFolder(t, f)
	f = openFolder(t, mem)
	if _, err := f.Open(testPart, testCluster, LogOptions{}); !errors.Is(err, ErrMismatch) {
		t.Errorf("another topic's folder: %v", err)
	}
	dirs := f.Partitions()
	if len(dirs) != 1 || dirs[0].TopicPartition != testPart || dirs[0].TopicID != testTopic || dirs[0].Stray || !f.Has(testPart) || f.Count() != 1 {
		t.Fatalf("%+v", dirs)
	}
	if err := f.MarkStray(testPart); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		dirs = f.Partitions()
		if len(dirs) != 1 || !dirs[0].Stray || dirs[0].TopicPartition != testPart || dirs[0].TopicID != testTopic || f.Has(testPart) {
			t.Fatalf("%+v", dirs)
		}
		closeFolder(t, f)
		f = openFolder(t, mem)
	}
	l := openPart(t, f, LogConfig{})
	if l.EndOffset() != 0 {
		t.Errorf("end %d", l.EndOffset())
	}
}

func TestALongTopicNameCanBeDeleted(t *testing.T) {
	f := openFolder(t, vfs.NewMem())
	tp := model.TopicPartition{Topic: strings.Repeat("x", model.MaxTopicName)}
	l, err := f.Open(tp, testTopic, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(l); err != nil {
		t.Fatal(err)
	}
	for _, n := range fileNames(t, f.disk.fs, testRoot) {
		if len(n) > 255 {
			t.Errorf("name of %d bytes", len(n))
		}
	}
}

func TestIdleLogsCloseTheirFilesAndGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		f := openFolder(t, mem)
		l := openPart(t, f, LogConfig{IndexInterval: 100, FlushMessages: Never})
		var want []model.Offset
		for round := range 3 {
			for range 10 {
				want = append(want, lead(t, l, plain(1, int64(round), "some value")).Base)
			}
			if f.disk.files.open() == 0 {
				t.Fatal("no file is open although the log is busy")
			}
			time.Sleep(5 * sweepEvery)
			synctest.Wait()
			if n := f.disk.files.open(); n != 0 || l.writer != nil {
				t.Fatalf("%d files are open, writer %v", n, l.writer)
			}
			if l.sync.synced != l.EndOffset() {
				t.Fatal("files were closed before they were synced")
			}
			if got := contents(t, l, 0, 100); len(got) != len(want) {
				t.Fatalf("%d batches", len(got))
			}
		}
		closeFolder(t, f)
	})
}

func TestDescriptorsAreEvictedButNeverWithUnsyncedData(t *testing.T) {
	mem := vfs.NewMem()
	c := folderConfig(mem)
	c.Open = 4
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(-1)
	var logs []*Log
	for i := range 12 {
		l, err := f.Open(model.TopicPartition{Topic: "t", Partition: int32(i)}, testTopic, LogOptions{Config: LogConfig{FlushMessages: Never}})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.SetLeaderEpoch(0); err != nil {
			t.Fatal(err)
		}
		lead(t, l, plain(1, 1, fmt.Sprint("log ", i)))
		logs = append(logs, l)
	}
	for _, l := range logs {
		if l.segments[0].dirty == nil || l.segments[0].file.Load() != l.segments[0].dirty {
			t.Fatal("a file with unsynced data was closed")
		}
	}
	for _, l := range logs {
		if err := l.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for _, l := range logs {
			contents(t, l, 0, 100)
		}
	}
	if n := f.disk.files.open(); n > 5 {
		t.Errorf("%d files are open, allowed are 4", n)
	}
}

func TestAnIdlePartitionIsSmall(t *testing.T) {
	c := folderConfig(vfs.OS())
	c.Path = filepath.Join(t.TempDir(), "data")
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(-1)
	const n = 1000
	var before, after runtime.MemStats
	logs := make([]*Log, n)
	goroutines := runtime.NumGoroutine()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		if logs[i], err = f.Open(model.TopicPartition{Topic: "some-topic", Partition: int32(i)}, testTopic, LogOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d bytes a partition", each)
	if each > 1400 { // the log is under 1 KB; the folder's maps come on top
		t.Errorf("an idle partition takes %d bytes", each)
	}
	if f.disk.files.open() != 0 || runtime.NumGoroutine() > goroutines {
		t.Errorf("%d files, %d goroutines", f.disk.files.open(), runtime.NumGoroutine()-goroutines)
	}
	runtime.KeepAlive(logs)
}

func TestLogsOutsideOfFolders(t *testing.T) {
	mem := vfs.NewMem()
	s := NewSyncer(SyncerConfig{FS: mem, Path: "/"})
	defer s.Close()
	open := func() *Log {
		l, err := OpenLog("/raft", LogOptions{NoProducers: true, Config: LogConfig{SegmentBytes: 300, DeleteDelayMs: -1}}, s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	add := func(base model.Offset, epoch model.Epoch) {
		b := plain(1, 1, "entry")
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(epoch)
		if a := put(l, &Append{Batch: b, Replica: true}); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	for i := range model.Offset(20) {
		add(i, 1)
	}
	if err := l.TruncateTo(12); err != nil {
		t.Fatal(err)
	}
	add(12, 2)
	if err := l.AdvanceStart(7); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open() // unclean, from the first segment
	if l.EndOffset() != 13 || latest(l) != 2 || l.StartOffset() > 7 || l.StartOffset() == 0 {
		t.Errorf("[%d, %d), epoch %d", l.StartOffset(), l.EndOffset(), latest(l))
	}
	for _, n := range fileNames(t, mem, "/raft") {
		if strings.HasSuffix(n, snapshotSuffix) || n == topicFile {
			t.Errorf("has %s", n)
		}
	}
	if err := l.TruncateAll(50); err != nil {
		t.Fatal(err)
	}
	add(50, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open()
	if l.StartOffset() != 50 || l.EndOffset() != 51 || latest(l) != 3 {
		t.Errorf("[%d, %d), epoch %d", l.StartOffset(), l.EndOffset(), latest(l))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// KAFKA.md 4.5, point 3.
func TestLeftoversOfACompaction(t *testing.T) {
	make := func(t *testing.T) (*vfs.Mem, []model.Offset, int) {
		mem := vfs.NewMem()
		f := openFolder(t, mem)
		l := openPart(t, f, LogConfig{SegmentBytes: 400, DeleteDelayMs: -1})
		for range 30 {
			lead(t, l, plain(1, 1, "value"))
		}
		var bases []model.Offset
		for _, s := range l.segments {
			bases = append(bases, s.base)
		}
		n := len(contents(t, l, 0, 1<<20))
		closeFolder(t, f)
		return mem, bases, n
	}
	name := func(base model.Offset, suffix string) string {
		return fmt.Sprintf("%s/%020d%s", partDir(), int64(base), suffix)
	}
	open := func(t *testing.T, mem *vfs.Mem) (*Log, []string) {
		f := openFolder(t, mem)
		l := openPart(t, f, LogConfig{SegmentBytes: 400, Compact: true})
		return l, fileNames(t, mem, partDir())
	}
	t.Run("not finished", func(t *testing.T) {
		mem, bases, n := make(t)
		for _, x := range []string{name(0, ".log.cleaned"), name(0, ".index.cleaned"), name(bases[2], ".log.swap"), name(bases[1], ".log.deleted")} {
			if err := vfs.WriteFileSync(mem, x, []byte("anything"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l, names := open(t, mem)
		if got := len(contents(t, l, 0, 1<<20)); got != n {
			t.Errorf("%d batches, want %d", got, n)
		}
		for _, x := range names {
			if strings.HasSuffix(x, ".cleaned") || strings.HasSuffix(x, ".swap") || strings.HasSuffix(x, ".deleted") {
				t.Errorf("%s is left", x)
			}
		}
	})
	t.Run("to be swapped in", func(t *testing.T) {
		mem, bases, _ := make(t)
		// The first two segments became one that has the first and the last batch.
		first, second := readFile(t, mem, name(0, logSuffix)), readFile(t, mem, name(bases[1], logSuffix))
		size := be32(first[8:]) + 12
		swap := append(slices.Clone(first[:size]), second[int32(len(second))-size:]...)
		if err := vfs.WriteFileSync(mem, name(0, ".log.swap"), swap, 0o644); err != nil {
			t.Fatal(err)
		}
		l, names := open(t, mem)
		if slices.Contains(names, filepath.Base(name(bases[1], logSuffix))) {
			t.Error("a segment that was replaced is left")
		}
		got := contents(t, l, 0, 1<<20)
		if got[0].BaseOffset() != 0 || got[1].BaseOffset() != bases[2]-1 || got[2].BaseOffset() != bases[2] || l.EndOffset() != 30 {
			t.Errorf("offsets %d, %d, %d, end %d", got[0].BaseOffset(), got[1].BaseOffset(), got[2].BaseOffset(), l.EndOffset())
		}
		c, err := l.Read(3, 30, 10, true) // inside of the gap
		if err != nil || c.Len() == 0 {
			t.Errorf("read in the gap: %v", err)
		}
		c.Close()
	})
	t.Run("indexes without a log", func(t *testing.T) {
		mem, bases, n := make(t)
		last := bases[len(bases)-1]
		for _, x := range []string{name(last+100, indexSuffix), name(last+100, timeSuffix), name(last+100, txnSuffix)} {
			if err := vfs.WriteFileSync(mem, x, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := mem.Remove(name(bases[1], indexSuffix)); err != nil {
			t.Fatal(err)
		}
		l, names := open(t, mem)
		if slices.Contains(names, filepath.Base(name(last+100, indexSuffix))) {
			t.Error("an index without a log is left")
		}
		if got := len(contents(t, l, 0, 10)); got != n {
			t.Errorf("%d batches, want %d", got, n)
		}
	})
}

// A stop in order means nothing for a log that was never opened since a crash: it has
// still to be recovered.
func TestAFolderWithLogsThatWereNotRecoveredIsNotClean(t *testing.T) {
	mem := vfs.NewMem()
	l := openPart(t, openFolder(t, mem), LogConfig{})
	put(l, &Append{Batch: plain(3, 1, "x")})
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	crashed := mem.CrashClone(nil)
	reopen := func(want bool) *Folder {
		t.Helper()
		f := openFolder(t, crashed)
		if clean, _ := f.Clean(); clean != want {
			t.Fatalf("clean: %v, want %v", clean, want)
		}
		return f
	}
	closeFolder(t, reopen(false)) // a start that failed before it opened the log
	f := reopen(false)
	openPart(t, f, LogConfig{})
	closeFolder(t, f)
	closeFolder(t, reopen(true)) // what was clean stays so if it is not opened
	closeFolder(t, reopen(true))
}

// A reader without room for a byte gets nothing, and does not look for it in one
// segment after another.
func TestReadWithoutRoomOpensNoSegments(t *testing.T) {
	f := openFolder(t, vfs.NewMem())
	l := openPart(t, f, LogConfig{SegmentBytes: 200})
	for range 20 {
		put(l, &Append{Batch: plain(1, 1, strings.Repeat("x", 100))})
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	closeFolder(t, f)
	f = openFolder(t, f.disk.fs)
	l = openPart(t, f, LogConfig{SegmentBytes: 200})
	f.disk.files.sweep()
	f.disk.files.sweep()
	before := f.disk.files.open()
	c, err := l.Read(0, l.EndOffset(), 0, false)
	if err != nil || c.Len() != 0 {
		t.Fatalf("%d bytes, %v", c.Len(), err)
	}
	if n := f.disk.files.open() - before; n != 0 {
		t.Fatalf("%d files were opened", n)
	}
}
