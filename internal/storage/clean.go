package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"sync"
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
// What crashes and faults may do: before pass two the recovery point is durable above
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
	if !p.Compact || c.bad[l] != nil {
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

// cleaning is one compaction of one log.
type cleaning struct {
	c        *Cleaner
	l        *Log
	p        Cleanup
	now      time.Time
	from, to model.Offset

	rules
	builder *batch.Builder
	reader  batches

	gen  uint32       // of the log's segments, as they were last seen
	mark model.Offset // the new firstDirty

	read, written, unpaid int64 // bytes
}

func (r *cleaning) do(ctx context.Context) error {
	l := r.l
	// All of it on disk, and known to be.
	if err := l.await(ctx, l.wantSync(true)); err != nil {
		return err
	}
	l.mu.Lock()
	r.gen = l.gen
	settled := l.recoveryLocked() >= r.to
	l.mu.Unlock()
	if !settled {
		return errMoved
	}
	if err := r.c.f.write(recoveryFile); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return fmt.Errorf("first pass: %w", err)
	}
	groups, err := r.groups()
	if err != nil {
		return err
	}
	aborted, err := l.Aborted(0, r.to) // the last segment may reach beyond upper
	if err != nil {
		return err
	}
	r.txns = newTxnRules(aborted)
	for _, g := range groups {
		if err := r.rewrite(ctx, g); err != nil {
			return fmt.Errorf("second pass, at %d: %w", g[0].base, err)
		}
	}
	return r.c.f.setCleaned(l, r.mark)
}

// prepare readies the rules.
func (r *cleaning) prepare() error {
	codecs := r.l.disk.codecs
	r.rules = rules{
		codecs: codecs, keys: newKeyMap(r.c.cfg.Memory, r.c.cfg.Load), now: r.now.UnixMilli(),
		delay: r.p.DeleteRetentionMs, last: make(map[int64]lastOf),
	}
	r.builder = codecs.NewBuilder(batch.Plain(0, 0))
	r.reader.window = r.c.cfg.IOBuffer / 2
	aborted, err := r.l.Aborted(r.from, r.to)
	r.txns = newTxnRules(aborted)
	if err != nil {
		return err
	}
	return r.l.do(func() error {
		for id, p := range r.l.producers.byID {
			last := lastOf{data: model.NoOffset, epoch: p.epoch}
			if s := p.lastSpan(); s != nil {
				last.data = s.last
			}
			r.last[id] = last
		}
		return nil
	})
}

// within lists the log's segments that have offsets in [from, to).
func (r *cleaning) within(from, to model.Offset) []*segment {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*segment
	for _, s := range l.segments[l.findLocked(from) : len(l.segments)-1] {
		if s.base < to {
			list = append(list, s)
		}
	}
	return list
}

// fill is pass one. It finds out how far the map reaches.
func (r *cleaning) fill(ctx context.Context) error {
	end := r.from
	r.mark = r.to
	for _, s := range r.within(r.from, r.to) {
		full := false
		err := r.each(ctx, s, func(b batch.Batch) error {
			if b.LastOffset() < r.from {
				return nil
			}
			idle := r.txns.observe(r.codecs, b)
			if !idle && !b.Control() {
				for rec, err := range r.codecs.Records(b, 0) {
					if err != nil {
						return err
					}
					if rec.Key == nil || rec.Offset < r.from {
						continue
					}
					if full = !r.keys.put(rec.Key, rec.Offset); full {
						end = rec.Offset
						return errStop
					}
				}
			}
			end = b.NextOffset()
			return nil
		})
		if err != nil {
			return err
		}
		if full {
			r.mark = end
			break
		}
	}
	r.upper = end
	return nil
}

// each gives f the batches of a segment, whole and checked, until errStop.
func (r *cleaning) each(ctx context.Context, s *segment, f func(b batch.Batch) error) error {
	l := r.l
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return r.readError(err)
	}
	defer h.unpin()
	r.reader = batches{f: h.f, size: s.size, window: r.reader.window, buf: r.reader.buf[:0], from: -1}
	for {
		b, err := r.reader.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.readError(fmt.Errorf("segment %d: %w", s.base, err))
		}
		r.read += int64(len(b))
		if err := r.pay(ctx, int64(len(b))); err != nil {
			return err
		}
		if err := f(b); errors.Is(err, errStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// readError is what a failed read means, if it is not that the log or its segments
// went away.
func (r *cleaning) readError(err error) error {
	if !r.l.alive.Load() {
		return ErrClosed
	}
	if r.l.moved(r.gen) {
		return errMoved
	}
	return r.l.disk.readError(err)
}

// pay keeps to the pace and notices that the work is to stop.
func (r *cleaning) pay(ctx context.Context, n int64) error {
	const step = 64 << 10
	if r.unpaid += n; r.unpaid < step {
		return nil
	}
	n, r.unpaid = r.unpaid, 0
	return r.c.cfg.Pace.take(ctx, n)
}

// groups joins neighbours, as far as a segment's limits allow, so that what shrinks
// does not leave ever more files.
func (r *cleaning) groups() ([][]*segment, error) {
	l := r.l
	l.mu.Lock()
	cfg := l.cfg
	l.mu.Unlock()
	var groups [][]*segment
	var bytes, index, times int64
	list := r.within(0, r.upper)
	for k, s := range list {
		end := r.upper
		if k+1 < len(list) {
			end = list[k+1].base
		}
		i, err := l.fileSize(s.base, indexSuffix)
		if err != nil {
			return nil, err
		}
		t, err := l.fileSize(s.base, timeSuffix)
		if err != nil {
			return nil, err
		}
		n := len(groups)
		joins := n > 0 && bytes+s.size <= int64(cfg.SegmentBytes) && index+i <= int64(cfg.IndexBytes) &&
			times+t <= int64(cfg.IndexBytes) && int64(end-1-groups[n-1][0].base) <= math.MaxInt32
		if joins {
			groups[n-1] = append(groups[n-1], s)
			bytes, index, times = bytes+s.size, index+i, times+t
			continue
		}
		groups = append(groups, []*segment{s})
		bytes, index, times = s.size, i, t
	}
	return groups, nil
}

// rewrite is pass two for one group.
func (r *cleaning) rewrite(ctx context.Context, group []*segment) (err error) {
	l := r.l
	o, err := l.newOutput(group[0].base, r.c.cfg.IOBuffer/2)
	if err != nil {
		return r.writeError(err)
	}
	drop := true
	defer func() { o.close(drop) }()
	l.mu.Lock()
	interval := int64(l.cfg.IndexInterval)
	l.mu.Unlock()
	changed := len(group) > 1
	r.txns.index = func(t AbortedTxn) { o.txns = append(o.txns, t) }
	for _, s := range group {
		err := r.each(ctx, s, func(b batch.Batch) error {
			v, horizon, err := r.judge(b)
			if err != nil || v == dropBatch {
				changed = true
				return err
			}
			if v != keepBatch {
				changed = true
				if b, err = r.rebuild(r.builder, b, v, horizon); err != nil {
					return err
				}
			}
			if err := o.append(b, interval); err != nil {
				return r.writeError(err)
			}
			r.written += int64(len(b))
			return r.pay(ctx, int64(len(b)))
		})
		if err != nil {
			return err
		}
	}
	if !changed && len(o.txns) == r.entries(group[0]) { // it is what it was
		return nil
	}
	mod, err := l.modTime(group[len(group)-1])
	if err != nil {
		return r.readError(err)
	}
	if err := o.finish(mod); err != nil {
		return r.writeError(err)
	}
	err = l.replace(group, o)
	r.gen = o.gen
	drop = errors.Is(err, errMoved) || errors.Is(err, ErrClosed) || errors.Is(err, ErrFull)
	return err
}

// entries is how many aborted transactions a segment's index has.
func (r *cleaning) entries(s *segment) int {
	txns, err := r.l.readTxns(s)
	if err != nil {
		return -1
	}
	return len(txns)
}

// writeError is what a failed write means: no room is a matter of time.
func (r *cleaning) writeError(err error) error {
	switch {
	case !r.l.alive.Load():
		return ErrClosed
	case errors.Is(err, ErrFull), errors.Is(err, ErrFailed), errors.Is(err, ErrClosed), errors.Is(err, errLarge):
		return err
	}
	return r.l.disk.writeError(err)
}

// Pace bounds the bytes per second of all that share it.
type Pace struct {
	rate float64

	mu   sync.Mutex
	next time.Time // when the bytes taken so far are paid for
}

// NewPace makes a Pace of so many bytes per second; 0 or less is no bound.
func NewPace(bytesPerSecond float64) *Pace { return &Pace{rate: bytesPerSecond} }

// take waits until n bytes more are within the rate, or ctx ends.
func (p *Pace) take(ctx context.Context, n int64) error {
	if p == nil || p.rate <= 0 || p.rate >= math.MaxInt64 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// setCleaned notes that the log is compacted up to an offset. A log that is no longer
// the partition's, or was cut below it, is left alone.
func (f *Folder) setCleaned(l *Log, to model.Offset) error {
	f.mu.Lock()
	if f.logs[l.tp] != l || to > l.EndOffset() {
		f.mu.Unlock()
		return errMoved
	}
	f.points.cleaned[l.tp], f.compacted = to, true
	f.mu.Unlock()
	return f.write(cleanedFile)
}
