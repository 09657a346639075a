package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func blocks(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestTruncateGivesReservedBlocksBack holds the promise of File.Truncate, which
// Linux' file systems keep but no standard asks for.
func TestTruncateGivesReservedBlocksBack(t *testing.T) {
	f := open(t, OS(), filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt([]byte("abc"), 0)
	must(t, err)
	must(t, f.Allocate(0, 1<<20))
	if got := blocks(t, f.Name()); got < 1<<20 {
		t.Skipf("this file system reserves nothing: %d bytes", got)
	}
	must(t, f.Truncate(3))
	if got := blocks(t, f.Name()); got >= 1<<20 {
		t.Fatalf("%d bytes in use after Truncate to the size", got)
	}
}

func TestWriteAndSyncDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("pools lose things under the race detector")
	}
	f := open(t, OS(), filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	bufs := make([][]byte, 100)
	for i := range bufs {
		bufs[i] = make([]byte, 10)
	}
	n := testing.AllocsPerRun(50, func() {
		if _, err := f.WriteVec(bufs, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 {
		t.Fatalf("%v allocations", n)
	}
}

func TestSyscallErrorsNameThePath(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f := open(t, OS(), name, os.O_RDWR|os.O_CREATE)
	err := f.Allocate(0, -1)
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Path != name || !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("Allocate of -1 bytes: %v", err)
	}
	r := open(t, OS(), name, os.O_RDONLY)
	if n, err := r.WriteVec([][]byte{{1}, {2}}, 0); n != 0 || !errors.Is(err, syscall.EBADF) {
		t.Fatalf("WriteVec to a read-only file: %d, %v", n, err)
	}
}

func TestFullDeviceIsReported(t *testing.T) {
	full, err := OS().OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	n, err := full.WriteVec([][]byte{{1}, {2}}, 0)
	if n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("wrote %d, %v; want ENOSPC", n, err)
	}
}

func TestAdvanceWalksOverBuffers(t *testing.T) {
	for n := range uint64(7) {
		vecs := vectors(nil, [][]byte{{1, 2}, nil, {3}, {4, 5, 6}})
		if len(vecs) != 3 {
			t.Fatalf("%d vectors", len(vecs))
		}
		var left uint64
		for _, v := range advance(vecs, n) {
			left += uint64(v.Len)
			if *v.Base == 0 {
				t.Fatal("wrong base")
			}
		}
		if left != 6-n {
			t.Fatalf("%d bytes left after %d of 6", left, n)
		}
	}
}

func TestCloseDuringWritesIsHarmless(t *testing.T) {
	dir := t.TempDir()
	fsys := OS()
	for i := range 20 {
		f := open(t, fsys, filepath.Join(dir, fmt.Sprint(i)), os.O_RDWR|os.O_CREATE)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					if _, err := f.WriteVec([][]byte{{1}, {2}}, 0); err != nil {
						if !errors.Is(err, fs.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		must(t, f.Close())
		wg.Wait()
	}
}

// BenchmarkAppendSync is one append and its fdatasync, on the disk of
// OTTLA_BENCH_DIR (or TMPDIR), in three ways in turn, so that all see the same
// disk: without reserved blocks, with blocks reserved 1 MB ahead of the writer,
// and 8 MB ahead. It reports the median and the 99th percentile of each in µs.
// Lower bound: what the disk takes for one flush.
func BenchmarkAppendSync(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			dir := os.Getenv("OTTLA_BENCH_DIR")
			if dir == "" {
				dir = b.TempDir()
			}
			ways := []*appender{{}, {ahead: 1 << 20}, {ahead: 8 << 20}}
			for i, a := range ways {
				name := filepath.Join(dir, fmt.Sprintf("append%d.bench", i))
				defer os.Remove(name)
				a.f = open(b, OS(), name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
			}
			buf := bytes.Repeat([]byte{1}, size)
			for b.Loop() {
				for _, a := range ways {
					a.append(b, buf)
				}
			}
			for _, a := range ways {
				slices.Sort(a.took)
				for _, q := range []int{50, 99} {
					at := a.took[len(a.took)*q/100]
					b.ReportMetric(float64(at.Microseconds()), fmt.Sprintf("%dMB-p%d-µs", a.ahead>>20, q))
				}
			}
			b.ReportMetric(0, "ns/op") // of all ways together: says nothing
		})
	}
}

// appender appends to a file for which it reserves blocks.
type appender struct {
	f             File
	ahead         int64 // 0: reserves nothing
	off, reserved int64
	took          []time.Duration
}

func (a *appender) append(b *testing.B, buf []byte) {
	start := time.Now()
	if end := a.off + int64(len(buf)); a.ahead > 0 && end > a.reserved {
		must(b, a.f.Allocate(a.off, a.ahead))
		a.reserved = a.off + a.ahead
	}
	_, err := a.f.WriteAt(buf, a.off)
	must(b, err)
	must(b, a.f.Sync())
	a.off += int64(len(buf))
	a.took = append(a.took, time.Since(start))
}

// BenchmarkWriteVec is one pwritev of 64 buffers to the page cache.
func BenchmarkWriteVec(b *testing.B) {
	f := open(b, OS(), filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	bufs := make([][]byte, 64)
	for i := range bufs {
		bufs[i] = make([]byte, 1024)
	}
	b.SetBytes(64 * 1024)
	b.ReportAllocs()
	for b.Loop() {
		_, err := f.WriteVec(bufs, 0)
		must(b, err)
	}
}
