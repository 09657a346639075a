package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// The benchmarks of appends have two forms: the log, and the floor, which is the
// work that cannot be left out (CRC-32C, pwrite, with fsync an fdatasync), done
// with the same concurrency. The log's figure includes the CRC that a produce
// checks before. Depth is the number of appends in flight.
const benchDepth = 8

var benchSizes = []struct {
	name string
	size int
}{{"1K", 1 << 10}, {"16K", 16 << 10}, {"1M", 1 << 20}}

func sized(size int) batch.Batch {
	var b batch.Builder
	b.Reset(batch.Plain(0, 0))
	b.Add(1, nil, make([]byte, size-80))
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return append(batch.Batch(nil), out...)
}

// waiters wakes appends by offset, as the broker does for acks.
type waiters struct {
	mu   sync.Mutex
	list []*waiter
}

type waiter struct {
	Append
	wake chan struct{}
}

func (w *waiters) Appended(*Log, model.Offset) {}
func (w *waiters) Failed(*Log, error)          {}
func (w *waiters) Flushed(_ *Log, to model.Offset) {
	w.mu.Lock()
	keep := w.list[:0]
	for _, x := range w.list {
		if x.End <= to {
			x.wake <- struct{}{}
		} else {
			keep = append(keep, x)
		}
	}
	w.list = keep
	w.mu.Unlock()
}

func benchFolder(b *testing.B, dir string) *Folder {
	c := folderConfig(vfs.OS())
	c.Path = filepath.Join(dir, "data")
	f, err := OpenFolder(c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close(-1) })
	return f
}

func BenchmarkAppend(b *testing.B) {
	for _, mode := range []struct {
		name  string
		flush int64
	}{{"pagecache", Never}, {"fsync", 1}} {
		for _, size := range benchSizes {
			for _, parts := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/%s/partitions=%d", mode.name, size.name, parts), func(b *testing.B) {
					benchAppend(b, mode.flush, size.size, parts)
				})
			}
		}
	}
}

func benchAppend(b *testing.B, flush int64, size, parts int) {
	f := benchFolder(b, b.TempDir())
	logs, wait := make([]*Log, parts), make([]*waiters, parts)
	for i := range logs {
		wait[i] = &waiters{}
		l, err := f.Open(model.TopicPartition{Topic: "t", Partition: int32(i)}, testTopic,
			LogOptions{Notify: wait[i], Config: LogConfig{FlushMessages: flush, SegmentBytes: 256 << 20}})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.SetLeaderEpoch(0); err != nil {
			b.Fatal(err)
		}
		logs[i] = l
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range benchDepth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			l, ws := logs[i%parts], wait[i%parts]
			w := &waiter{wake: make(chan struct{}, 1)}
			w.Batch = sized(size)
			w.Done = func(*Append) {
				if w.Err != nil {
					b.Error(w.Err)
				}
				ws.mu.Lock()
				if l.FlushedOffset() >= w.End {
					w.wake <- struct{}{}
				} else {
					ws.list = append(ws.list, w)
				}
				ws.mu.Unlock()
			}
			for left.Add(-1) >= 0 {
				if err := w.Batch.Check(); err != nil {
					b.Error(err)
				}
				l.Append(&w.Append)
				<-w.wake
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkAppendFloor(b *testing.B) {
	for _, mode := range []string{"pagecache", "fsync"} {
		for _, size := range benchSizes {
			for _, parts := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/%s/partitions=%d", mode, size.name, parts), func(b *testing.B) {
					benchFloor(b, mode == "fsync", size.size, parts)
				})
			}
		}
	}
}

// floorFile grows like a log: a new file after 256 MiB, so that the floor pays for
// new pages and blocks as well.
type floorFile struct {
	mu   sync.Mutex
	path string
	n    int
	f    vfs.File
	end  int64
}

func (x *floorFile) place(b *testing.B, n int64) (vfs.File, int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.f == nil || x.end+n > 256<<20 {
		f, err := vfs.OS().OpenFile(fmt.Sprint(x.path, x.n), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = f.Close() })
		x.f, x.end, x.n = f, 0, x.n+1
	}
	x.end += n
	return x.f, x.end - n
}

func benchFloor(b *testing.B, fsync bool, size, parts int) {
	dir := b.TempDir()
	files := make([]floorFile, parts)
	for i := range files {
		files[i].path = filepath.Join(dir, fmt.Sprint(i, "-"))
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range benchDepth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			one := sized(size)
			for left.Add(-1) >= 0 {
				if err := one.Check(); err != nil {
					b.Error(err)
				}
				f, at := files[i%parts].place(b, int64(len(one)))
				if _, err := f.WriteAt(one, at); err != nil {
					b.Error(err)
				}
				if fsync {
					if err := f.Sync(); err != nil {
						b.Error(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkRead(b *testing.B) {
	for _, most := range []int64{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dK", most>>10), func(b *testing.B) {
			f := benchFolder(b, b.TempDir())
			l, err := f.Open(testPart, testTopic, LogOptions{Config: LogConfig{FlushMessages: Never, SegmentBytes: 64 << 20}})
			if err != nil {
				b.Fatal(err)
			}
			if err := l.SetLeaderEpoch(0); err != nil {
				b.Fatal(err)
			}
			for l.Size() < 200<<20 {
				lead(b, l, sized(4<<10))
			}
			buf := make([]byte, max(most, 8<<10))
			from := model.Offset(0)
			b.SetBytes(most)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				c, err := l.Read(from, l.EndOffset(), most, true)
				if err != nil {
					b.Fatal(err)
				}
				n, _ := c.ReadAt(buf, 0)
				c.Close()
				got := buf[:n]
				if n == 0 {
					from = 0
					continue
				}
				for size, err := batch.Peek(got); err == nil && size <= len(got); size, err = batch.Peek(got) {
					from = batch.Batch(got[:size]).NextOffset()
					got = got[size:]
				}
				from = max(from, 1) % l.EndOffset()
			}
		})
	}
}

// The append path must not feed the garbage collector.
func TestSteadyAppendsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, flush := range map[string]int64{"page cache": Never, "fsync": 1} {
		t.Run(name, func(t *testing.T) {
			c := folderConfig(vfs.OS())
			c.Path = filepath.Join(t.TempDir(), "data")
			f, err := OpenFolder(c)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close(-1)
			w := &waiters{}
			l, err := f.Open(testPart, testTopic, LogOptions{Notify: w, Config: LogConfig{FlushMessages: flush}})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.SetLeaderEpoch(0); err != nil {
				t.Fatal(err)
			}
			a := &waiter{wake: make(chan struct{}, 1)}
			a.Batch = produced(1, 0, 0, 1, 1)
			a.Done = func(*Append) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if a.Err != nil {
					t.Error(a.Err)
				}
				if l.FlushedOffset() >= a.End {
					a.wake <- struct{}{}
				} else {
					w.list = append(w.list, a)
				}
			}
			seq := int32(0)
			one := func() {
				a.Batch = produced3(a.Batch, seq)
				seq++
				l.Append(&a.Append)
				<-a.wake
			}
			for range 3000 {
				one()
			}
			if n := testing.AllocsPerRun(2000, one); n >= 1 {
				t.Errorf("%v allocations per append", n)
			}
		})
	}
}

// produced3 makes the batch the producer's next one, in place.
func produced3(b batch.Batch, seq int32) batch.Batch {
	b[53], b[54], b[55], b[56] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
	return b
}

// A fetch must not feed the garbage collector either, whether it goes on where the
// last one stopped or begins anywhere.
func TestReadsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := folderConfig(vfs.OS())
	c.Path = filepath.Join(t.TempDir(), "data")
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(-1)
	l := openPart(t, f, LogConfig{FlushMessages: Never, SegmentBytes: 1 << 20})
	for range 4000 {
		lead(t, l, plain(10, 1, "value"))
	}
	from, buf := model.Offset(0), make([]byte, 4<<10)
	n := testing.AllocsPerRun(1000, func() {
		from = (from + 7919) % l.EndOffset()
		c, err := l.Read(from, l.EndOffset()-3, int64(len(buf)), true)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.ReadAt(buf, 0)
		c.Close()
	})
	if n >= 1 {
		t.Errorf("%v allocations per read", n)
	}
}
