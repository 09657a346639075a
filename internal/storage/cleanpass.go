package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

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
	if err := l.usable(); err != nil {
		return err
	}
	// All of it on disk, and known to be.
	if err := l.await(ctx, l.wantSync(true)); err != nil {
		return err
	}
	l.mu.Lock()
	r.gen = l.gen
	settled := l.recoveryLocked() >= r.to
	l.mu.Unlock()
	r.from = r.c.f.firstDirty(l) // as of gen, not as of Look
	if !settled || r.from >= r.to {
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
	return r.c.f.setCleaned(l, r.mark, r.gen)
}

// prepare readies the rules.
func (r *cleaning) prepare() error {
	codecs := r.l.disk.codecs
	r.rules = rules{
		codecs: codecs, end: r.to, keys: newKeyMap(r.c.cfg.Memory, r.c.cfg.Load), now: r.now.UnixMilli(),
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
	if err = l.replace(group, o, r.gen); err == nil {
		r.gen = o.gen
	}
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
