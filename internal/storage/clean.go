package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
)

// Compaction (KAFKA.md 5) keeps the newest record of each key. It works on segments
// that are complete, decided and old enough:
//
//	start ──── clean ────┬──── dirty ────┬── not yet ──┬─ active ─▶
//	                 firstDirty      uncleanable
//
// Pass one reads the dirty part into a keyMap, until that is full. Pass two writes
// the segments up to there anew (cleanrule.go has the rules), a few neighbours
// becoming one (cleanswap.go). Then firstDirty moves up, in the folder's checkpoint.
//
// What crashes and faults may do (D9): before pass two the recovery point is durable above
// all of it, so that recovery never takes the gaps for losses. A pass that is cut
// short has compacted the older groups and not the younger ones, never the other way
// round, so a tombstone never goes before what it deletes; and it is done again,
// because firstDirty is where it was.

// CleanerConfig says what a Cleaner may use. The zero value has Kafka's defaults.
type CleanerConfig struct {
	Memory   int64            // bytes of the map of keys; 0 = 128 MiB
	Load     float64          // part of it that may be used; 0 = 0.9
	IOBuffer int              // bytes for reading and writing; 0 = 512 KiB
	Pace     *Pace            // nil = as fast as it goes
	Metrics  *metric.Registry // may be nil
}

// Cleaner compacts the logs of a folder, one at a time. It is for one goroutine.
type Cleaner struct {
	f   *Folder
	cfg CleanerConfig
	bad map[*Log]error // logs that cannot be compacted, until the next start

	runs                    *prometheus.CounterVec
	readBytes, writtenBytes prometheus.Counter
	seconds                 prometheus.Observer
	uncleanable, dirtiest   prometheus.Gauge
}

// NewCleaner makes the folder's cleaner.
func (f *Folder) NewCleaner(c CleanerConfig) *Cleaner {
	if c.Memory <= 0 {
		c.Memory = 128 << 20
	}
	if c.IOBuffer <= 0 {
		c.IOBuffer = 512 << 10
	}
	r := c.Metrics
	runs := r.Counter("ottla_log_compactions_total", "Compactions of a log, by result: done, put_off, failed.", "folder", "result")
	for _, result := range []string{"done", "put_off", "failed"} {
		runs.WithLabelValues(f.path, result) // 0 is worth knowing
	}
	return &Cleaner{
		f: f, cfg: c, bad: make(map[*Log]error),
		runs:         runs,
		readBytes:    r.Counter("ottla_log_compaction_read_bytes_total", "Bytes of segments that compaction read.", "folder").WithLabelValues(f.path),
		writtenBytes: r.Counter("ottla_log_compaction_written_bytes_total", "Bytes of segments that compaction wrote.", "folder").WithLabelValues(f.path),
		seconds:      r.Histogram("ottla_log_compaction_seconds", "Time of one compaction of a log.", []float64{.01, .1, 1, 10, 60, 600, 3600}, "folder").WithLabelValues(f.path),
		uncleanable:  r.Gauge("ottla_log_uncleanable_partitions", "Partitions whose log cannot be compacted; the node's log says why.", "folder").WithLabelValues(f.path),
		dirtiest:     r.Gauge("ottla_log_max_dirty_ratio", "The largest part of a log that is not compacted yet, of all that compaction may touch.", "folder").WithLabelValues(f.path),
	}
}

// Candidate is a log that may be compacted.
type Candidate struct {
	Log     *Log
	Cleanup Cleanup
	Stable  model.Offset // the last stable offset
}

// Round looks at these logs and compacts those that are due, the dirtiest first. It
// reports whether any of them got further: then another round may find more to do.
func (c *Cleaner) Round(ctx context.Context, logs iter.Seq[Candidate]) (more bool, err error) {
	type job struct {
		Candidate
		dirt Dirt
	}
	var due []job
	dirtiest := 0.0
	for x := range logs {
		d, err2 := c.Look(x.Log, x.Cleanup, x.Stable, c.f.disk.now())
		err = errors.Join(err, err2)
		dirtiest = max(dirtiest, d.Ratio)
		if d.Due {
			due = append(due, job{x, d})
		}
	}
	c.dirtiest.Set(dirtiest)
	slices.SortStableFunc(due, func(a, b job) int { return cmp.Compare(b.dirt.Ratio, a.dirt.Ratio) })
	for _, j := range due {
		done, err2 := c.Clean(ctx, j.Log, j.Cleanup, j.dirt, c.f.disk.now())
		more, err = more || done, errors.Join(err, err2)
		if ctx.Err() != nil {
			return false, nil
		}
	}
	return more, err
}

// Dirt is how much a log needs compaction.
type Dirt struct {
	Ratio float64 // dirty bytes by all that would be read
	Due   bool    // it is to be compacted now

	first, uncleanable model.Offset
}

// Look tells how much the log needs compaction. stable is its last stable offset.
// What could not be compacted before is never due.
func (c *Cleaner) Look(l *Log, p Cleanup, stable model.Offset, now time.Time) (Dirt, error) {
	if !p.Compact || c.bad[l] != nil || l.usable() != nil {
		return Dirt{}, nil
	}
	d := Dirt{first: c.f.firstDirty(l)}
	gen, clean, dirty := l.parts(d.first)
	if len(dirty) == 0 {
		return Dirt{}, nil
	}
	late, dirty, err := c.lags(l, dirty, p, now)
	if err != nil && (l.moved(gen) || !l.alive.Load()) {
		return Dirt{}, nil
	}
	if err != nil {
		return Dirt{}, l.disk.readError(fmt.Errorf("looking at %s: %w", l.dir, err))
	}
	bytes := int64(0)
	for _, v := range dirty {
		if v.next > stable { // whole segments only
			break
		}
		bytes += v.size
		d.uncleanable = v.next
	}
	if bytes == 0 || d.first >= d.uncleanable {
		return Dirt{}, nil
	}
	d.Ratio = float64(bytes) / float64(clean+bytes)
	d.Due = late || d.Ratio > p.MinDirtyRatio
	return d, nil
}

// parts gives the bytes of the segments that begin below first, and the complete
// segments from the one that holds first on.
func (l *Log) parts(first model.Offset) (gen uint32, clean int64, dirty []view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.findLocked(first)
	for i, s := range l.segments[:len(l.segments)-1] {
		if s.base < first {
			clean += s.size
		}
		if next := l.segments[i+1].base; i >= at && next > first {
			dirty = append(dirty, view{s: s, size: s.size, next: next})
		}
	}
	return l.gen, clean, dirty
}

// lags brings the two lags of compaction into it: no record younger than the one is
// touched, and one older than the other makes the log due, whatever the ratio. It
// returns the segments that may be touched.
func (c *Cleaner) lags(l *Log, dirty []view, p Cleanup, now time.Time) (late bool, old []view, err error) {
	limited := p.MaxLagMs > 0 && p.MaxLagMs < math.MaxInt64
	if p.MinLagMs <= 0 && !limited {
		return false, dirty, nil
	}
	for i, v := range dirty {
		if p.MinLagMs > 0 {
			newest, err := l.newest(v.s)
			if err != nil {
				return false, nil, err
			}
			if newest > now.UnixMilli()-p.MinLagMs {
				return late, dirty[:i], nil
			}
		}
		if limited && v.size > 0 && !late {
			oldest, err := l.firstTimeOf(v.s)
			if err != nil {
				return false, nil, err
			}
			late = oldest > 0 && oldest < now.UnixMilli()-p.MaxLagMs
		}
	}
	return late, dirty, nil
}

// firstTimeOf is the largest timestamp of a segment's first batch.
func (l *Log) firstTimeOf(s *segment) (ts int64, err error) {
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return noTime, err
	}
	defer h.unpin()
	ts = noTime
	err = l.scan(h, 0, s.size, func(b batch.Batch, _ int64) bool {
		ts = b.MaxTimestamp()
		return false
	})
	return ts, err
}

// Clean compacts a log that Look found due, and reports whether it got further. Not
// everything that stops it is an error: the log may be closed, or change meanwhile;
// then it is found due again. A full disk is ErrFull, and for later. A log with
// damage is never tried again until the next start; the error says so.
func (c *Cleaner) Clean(ctx context.Context, l *Log, p Cleanup, d Dirt, now time.Time) (more bool, err error) {
	began := time.Now()
	run := &cleaning{c: c, l: l, p: p, now: now, from: d.first, to: d.uncleanable}
	err = run.do(ctx)
	c.readBytes.Add(float64(run.read))
	c.writtenBytes.Add(float64(run.written))
	c.seconds.Observe(time.Since(began).Seconds())
	log := l.disk.log.With("log", l.dir)
	if run.keyless > 0 {
		log.Warn("compaction dropped records without a key", "records", run.keyless)
	}
	result := "done"
	switch {
	case err == nil:
		log.Info("log compacted", "to", int64(run.to), "read", run.read, "written", run.written, "dropped", run.dropped, "took", time.Since(began))
	case errors.Is(err, errMoved), errors.Is(err, ErrClosed), ctx.Err() != nil:
		result, err = "put_off", nil
	case errors.Is(err, ErrFull), errors.Is(err, ErrFailed):
		result = "put_off"
	default:
		result = "failed"
		c.bad[l] = err
		err = fmt.Errorf("%s cannot be compacted and will not be tried again before the next start: %w", l.dir, err)
	}
	for x := range c.bad {
		if !x.alive.Load() {
			delete(c.bad, x)
		}
	}
	c.uncleanable.Set(float64(len(c.bad)))
	c.runs.WithLabelValues(c.f.path, result).Inc()
	return result == "done", err
}

// firstDirty is where the log's compaction goes on.
func (f *Folder) firstDirty(l *Log) model.Offset {
	f.mu.Lock()
	at := f.points.cleaned[l.tp]
	f.mu.Unlock()
	if start := l.StartOffset(); at < start || at > l.EndOffset() {
		return start
	}
	return at
}

// setCleaned notes that the log is compacted up to an offset, unless it is no longer the
// partition's or its segments changed since gen. A truncation changes gen first and
// lowers the offset then, so it comes before this or after it.
func (f *Folder) setCleaned(l *Log, to model.Offset, gen uint32) error {
	f.mu.Lock()
	if f.logs[l.tp] != l || l.moved(gen) {
		f.mu.Unlock()
		return errMoved
	}
	f.points.cleaned[l.tp], f.compacted = to, true
	f.mu.Unlock()
	return f.write(cleanedFile)
}
