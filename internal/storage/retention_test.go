package storage

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// many opens a log with n segments of one record each; the i-th has the timestamp i.
func many(t *testing.T, fsys vfs.FS, n int) (*Folder, *Log) {
	f := openFolder(t, fsys)
	l := openPart(t, f, LogConfig{SegmentBytes: 100, DeleteDelayMs: -1})
	for i := range n {
		lead(t, l, plain(1, int64(i), "text"))
	}
	return f, l
}

// KAFKA.md 5: now - largest timestamp > retention.ms, oldest first, end <= high watermark.
func TestRetentionByTime(t *testing.T) {
	for _, c := range []struct {
		what            string
		now, retention  int64
		high, wantStart model.Offset
		policy          string
	}{
		{"nothing is old", 103, 103, 10, 0, "delete"},
		{"the first is a millisecond too old", 104, 103, 10, 1, "delete"},
		{"what is not replicated stays", 1000, 0, 4, 4, "delete"},
		{"all of it", 1000, 0, 10, 10, "delete"},
		{"no limit", 1 << 40, -1, 10, 0, "delete"},
		{"only compacted", 1000, 0, 10, 0, "compact"},
		{"neither", 1000, 0, 10, 0, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, l := many(t, vfs.NewMem(), 10)
			p := Cleanup{Delete: c.policy == "delete", Compact: c.policy == "compact", RetentionMs: c.retention, RetentionBytes: -1}
			if err := errors.Join(l.Expire(p, time.UnixMilli(c.now), c.high), f.Trim()); err != nil {
				t.Fatal(err)
			}
			if l.StartOffset() != c.wantStart || l.EndOffset() != 10 {
				t.Errorf("[%d, %d), want [%d, 10)", l.StartOffset(), l.EndOffset(), c.wantStart)
			}
			if want := max(1, int(10-c.wantStart)); len(l.segments) != want {
				t.Errorf("%d segments, want %d", len(l.segments), want)
			}
			if a := lead(t, l, plain(1, 5000, "next")); a.Base != 10 {
				t.Errorf("the next record is at %d", a.Base)
			}
		})
	}
}

// KAFKA.md 5: delete while total size - segment size >= retention.bytes.
func TestRetentionBySize(t *testing.T) {
	_, l := many(t, vfs.NewMem(), 10)
	one := l.segments[0].size
	for _, c := range []struct {
		bytes int64
		want  model.Offset
	}{{10 * one, 0}, {9*one + 1, 0}, {9 * one, 1}, {5*one - 1, 5}, {0, 10}} {
		p := Cleanup{Delete: true, RetentionMs: -1, RetentionBytes: c.bytes}
		if err := l.Expire(p, time.UnixMilli(1), 10); err != nil || l.StartOffset() != c.want {
			t.Errorf("retention.bytes=%d: start %d, want %d, %v", c.bytes, l.StartOffset(), c.want, err)
		}
	}
}

// KAFKA.md 5: without timestamps the file's time of modification counts.
func TestRetentionOfRecordsWithoutTimestamps(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{SegmentBytes: 100})
	for range 3 {
		lead(t, l, plain(1, batch.NoTimestamp, "text"))
	}
	for i, s := range l.segments {
		if err := mem.Chtimes(l.name(s.base, logSuffix), time.UnixMilli(int64(1000*i))); err != nil {
			t.Fatal(err)
		}
	}
	p := Cleanup{Delete: true, RetentionMs: 500, RetentionBytes: -1}
	if err := l.Expire(p, time.UnixMilli(1501), 3); err != nil || l.StartOffset() != 2 {
		t.Errorf("start %d, %v", l.StartOffset(), err)
	}
}

// DESIGN.md 5: on a full disk retention goes on, or it would stay full.
func TestRetentionOnAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.Inject(mem)
	f, l := many(t, in, 10)
	for _, kind := range []vfs.OpKind{vfs.OpCreate, vfs.OpWrite} {
		in.Add(vfs.Rule{Kind: kind, Err: syscall.ENOSPC})
	}
	p := Cleanup{Delete: true, RetentionMs: 0, RetentionBytes: -1}
	if err := errors.Join(l.Expire(p, time.UnixMilli(1000), 10), f.Trim()); err != nil {
		t.Fatal(err)
	}
	if l.StartOffset() != 9 || len(l.segments) != 1 {
		t.Errorf("start %d, %d segments", l.StartOffset(), len(l.segments))
	}
	for _, name := range fileNames(t, mem, partDir()) {
		if strings.HasSuffix(name, logSuffix) && !strings.HasPrefix(name, "00000000000000000009") {
			t.Errorf("%s is still there", name)
		}
	}
	if got := contents(t, l, 9, 100); len(got) != 1 {
		t.Errorf("%d batches can be read", len(got))
	}
}

// KAFKA.md 5, Compaction: what makes a log due, and what is out of its reach.
func TestWhatIsDueForCompaction(t *testing.T) {
	f, l := many(t, vfs.NewMem(), 10) // nine of the ten segments are complete
	c := f.NewCleaner(CleanerConfig{})
	for _, x := range []struct {
		what    string
		p       Cleanup
		stable  model.Offset
		now     int64
		due     bool
		reaches model.Offset
	}{
		{"all that is complete", Cleanup{Compact: true, MinDirtyRatio: 0.99}, 10, 100, true, 9},
		{"the ratio is exceeded, not reached", Cleanup{Compact: true, MinDirtyRatio: 1}, 10, 100, false, 9},
		{"not compacted", Cleanup{Delete: true}, 10, 100, false, 0},
		{"undecided from 4 on", Cleanup{Compact: true}, 4, 100, true, 4},
		{"nothing is decided", Cleanup{Compact: true}, 0, 100, false, 0},
		{"too young from 5 on", Cleanup{Compact: true, MinLagMs: 95}, 10, 100, true, 6},
		{"all too young", Cleanup{Compact: true, MinLagMs: 101}, 10, 100, false, 0},
		{"too old", Cleanup{Compact: true, MinDirtyRatio: 1, MaxLagMs: 98}, 10, 100, true, 9},
		{"not too old", Cleanup{Compact: true, MinDirtyRatio: 1, MaxLagMs: 99}, 10, 100, false, 9},
		{"no limit of age", Cleanup{Compact: true, MinDirtyRatio: 1, MaxLagMs: math.MaxInt64}, 10, 1 << 50, false, 9},
	} {
		d, err := c.Look(l, x.p, x.stable, time.UnixMilli(x.now))
		if err != nil || d.Due != x.due || d.uncleanable != x.reaches {
			t.Errorf("%s: %+v, %v; want due %v up to %d", x.what, d, err, x.due, x.reaches)
		}
	}
}
