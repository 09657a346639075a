package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
)

// Retention (KAFKA.md 5) has two halves. Expire, by age and size, and RaiseStart, by
// request, move a log's start; Trim removes the segments that lie below the starts of
// a folder's logs, whatever moved them.
//
// Crash safety (D8): the start is in the folder's checkpoint before the first segment below
// it goes, so a crash that brings some of the segments back, or leaves a hole among
// them, does not bring their records back. The checkpoint keeps the start until the
// folder of the log is synced without them (dropping). One checkpoint serves all logs
// of a Trim.

// Cleanup is what becomes of a log's old records. The zero value keeps all of them.
type Cleanup struct {
	Delete, Compact bool // cleanup.policy

	RetentionMs    int64 // retention.ms; negative = no limit
	RetentionBytes int64 // retention.bytes; negative = no limit

	DeleteRetentionMs int64   // delete.retention.ms
	MinLagMs          int64   // min.compaction.lag.ms
	MaxLagMs          int64   // max.compaction.lag.ms
	MinDirtyRatio     float64 // min.cleanable.dirty.ratio
}

// removed counts what retention and compaction took away.
type removed struct {
	removedSegments, removedBytes prometheus.Counter
}

func newRemoved(r *metric.Registry, folder string) removed {
	return removed{
		removedSegments: r.Counter("ottla_log_removed_segments_total", "Segments below their logs' starts that were removed.", "folder").WithLabelValues(folder),
		removedBytes:    r.Counter("ottla_log_removed_bytes_total", "Bytes of these segments.", "folder").WithLabelValues(folder),
	}
}

// RaiseStart moves the log's start up to off, at most to its end. The records below
// it can no longer be read; they are removed by Trim. A start at off or above stays.
//
// Errors: *RangeError if off is above the end.
func (l *Log) RaiseStart(off model.Offset) error {
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		if off > l.EndOffset() {
			return &RangeError{Offset: off, Start: l.StartOffset(), End: l.EndOffset()}
		}
		l.raiseStart(off)
		return nil
	})
}

// raiseStart is RaiseStart on the writer.
func (l *Log) raiseStart(off model.Offset) {
	if off <= l.StartOffset() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start.Store(int64(off))
	if l.epochs.cutStart(off) {
		l.sync.epochs = true
	}
}

// AdvanceStart is RaiseStart and the removal of the whole segments below, except for
// the active one. If the log is a folder's, the new start is durable on return.
func (l *Log) AdvanceStart(off model.Offset) error {
	if off <= l.StartOffset() {
		return l.usable()
	}
	if err := l.RaiseStart(off); err != nil {
		return err
	}
	if l.folder != nil {
		if err := l.folder.SaveStarts(); err != nil {
			return err
		}
	}
	return l.dropBelowStart()
}

// Expire raises the log's start to the first segment that is neither too old nor too
// much (KAFKA.md 5, Retention). Nothing at high, the high watermark, or above is
// touched. If everything is to go, the active segment is rolled so that it can.
func (l *Log) Expire(c Cleanup, now time.Time, high model.Offset) error {
	if !c.Delete || c.RetentionMs < 0 && c.RetentionBytes < 0 {
		return nil
	}
	if err := l.usable(); err != nil {
		return err
	}
	p, err := l.expired(c, now, high)
	if err != nil || p.to == model.NoOffset {
		return err
	}
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		l.mu.Lock()
		moved, base := l.gen != p.gen, l.active().base
		l.mu.Unlock()
		if moved {
			return nil // the next look will tell
		}
		if p.to > base {
			if l.EndOffset() != p.to { // there is news in the segment
				p.to = base
			} else if err := l.roll(p.to, p.to); err != nil {
				if err = l.disk.writeError(err); !errors.Is(err, ErrFull) {
					return err
				}
				p.to = base // what needs no room goes all the same
			}
		}
		l.raiseStart(p.to)
		return nil
	})
}

// plan is what Expire found.
type plan struct {
	gen uint32
	to  model.Offset // the new start; NoOffset = it stays. Above the active segment's base: the end
}

// expired looks for the new start, without the writer: the oldest segments first,
// until one must stay.
func (l *Log) expired(c Cleanup, now time.Time, high model.Offset) (plan, error) {
	l.mu.Lock()
	first := l.findLocked(l.StartOffset())
	p := plan{gen: l.gen, to: model.NoOffset}
	views := make([]view, 0, 8)
	excess := -c.RetentionBytes
	for i := first; i < len(l.segments); i++ {
		v := view{s: l.segments[i], size: l.segments[i].size, next: l.EndOffset()}
		if i+1 < len(l.segments) {
			v.next = l.segments[i+1].base
		}
		views = append(views, v)
		excess += v.size
	}
	l.mu.Unlock()
	for i, v := range views {
		if v.next > high || i == len(views)-1 && v.size == 0 {
			break
		}
		large := c.RetentionBytes >= 0 && excess-v.size >= 0
		old := false
		if !large && c.RetentionMs >= 0 {
			newest, err := l.newest(v.s)
			if errors.Is(err, fs.ErrNotExist) && l.moved(p.gen) {
				return plan{to: model.NoOffset}, nil
			}
			if err != nil {
				return p, l.disk.readError(fmt.Errorf("age of segment %d of %s: %w", v.s.base, l.dir, err))
			}
			old = now.UnixMilli()-newest > c.RetentionMs
		}
		if !large && !old {
			break
		}
		excess -= v.size
		p.to = v.next
	}
	return p, nil
}

// newest is a segment's largest timestamp, in milliseconds; if its records have none,
// the file's time of modification.
func (l *Log) newest(s *segment) (int64, error) {
	ts, _, err := l.times(s)
	if err != nil || ts >= 0 {
		return ts, err
	}
	info, err := l.disk.fs.Stat(l.name(s.base, logSuffix))
	if err != nil {
		return 0, err
	}
	return info.ModTime().UnixMilli(), nil
}

// dropBelowStart removes the whole segments below the log's start, never the active
// one, oldest first. The start is in the checkpoint.
func (l *Log) dropBelowStart() error {
	gone := 0
	err := l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		segments := l.takeBelowStart()
		for _, s := range segments { // what is left is a whole log at any time
			if err := l.discard(s); err != nil {
				return l.disk.fail(fmt.Errorf("removing a segment of %s: %w", l.dir, err))
			}
			l.disk.removedBytes.Add(float64(s.size))
		}
		if gone = len(segments); gone > 0 {
			first := l.segments[0].base
			if err := l.dropSnapshots(func(at model.Offset) bool { return at < first }); err != nil {
				l.disk.log.Warn("cannot remove old producer snapshots", "log", l.dir, "error", err)
			}
		}
		return nil
	})
	if err != nil || gone == 0 {
		return err
	}
	l.disk.removedSegments.Add(float64(gone))
	if err := l.disk.fs.SyncDir(l.dir); err != nil {
		if !l.alive.Load() { // deleted meanwhile
			return nil
		}
		return l.disk.fail(fmt.Errorf("removing segments of %s: %w", l.dir, err))
	}
	l.mu.Lock()
	l.dropping--
	l.mu.Unlock()
	l.wantSync(false)
	return nil
}

// takeBelowStart takes the segments below the start away from readers.
func (l *Log) takeBelowStart() []*segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.findLocked(l.StartOffset())
	if n == 0 {
		return nil
	}
	gone := slices.Clone(l.segments[:n])
	// Not in place: the backing array is readers' no longer, but long.
	l.segments = slices.Clone(l.segments[n:])
	l.gen++
	l.dropping++
	if l.sync.rolled != model.NoOffset {
		l.sync.rolled = max(l.sync.rolled, l.segments[0].base)
	}
	return gone
}

// SaveStarts makes the logs' starts durable. A full disk is no error: what is to be
// removed makes the room, and the start is written at the next occasion.
func (f *Folder) SaveStarts() error {
	if err := f.Failed(); err != nil {
		return err
	}
	err := f.write(startFile)
	if errors.Is(err, ErrFull) {
		f.disk.log.Warn("no room for the checkpoint of log starts; a crash may bring deleted records back", "folder", f.path, "error", err)
		return nil
	}
	return err
}

// Trim removes the whole segments that lie below the starts of these logs; without
// any named, of all logs of the folder. The starts of named logs are durable on return.
func (f *Folder) Trim(logs ...*Log) error {
	if len(logs) == 0 {
		if logs = f.below(); len(logs) == 0 {
			return f.Failed()
		}
	}
	if err := f.SaveStarts(); err != nil {
		return err
	}
	var errs error
	for _, l := range logs {
		if err := l.dropBelowStart(); err != nil && !errors.Is(err, ErrClosed) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// below lists the logs that have whole segments below their starts.
func (f *Folder) below() []*Log {
	f.mu.Lock()
	logs := maps.Clone(f.logs)
	f.mu.Unlock()
	var below []*Log
	for _, l := range logs {
		if l == nil || !l.alive.Load() {
			continue
		}
		l.mu.Lock()
		if l.findLocked(l.StartOffset()) > 0 {
			below = append(below, l)
		}
		l.mu.Unlock()
	}
	return below
}
