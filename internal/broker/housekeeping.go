package broker

import (
	"context"
	"errors"
	"time"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// Housekeep does for one folder what time brings, until ctx ends or the folder
// fails: it removes expired records, forgets silent producers and writes the
// checkpoints. One goroutine per folder, however many partitions that has.
func (b *Broker) Housekeep(ctx context.Context, f *storage.Folder) error {
	s := b.cfg.Settings
	ms := func(n int64) time.Duration {
		return time.Duration(min(n, int64(1<<62/time.Millisecond))) * time.Millisecond
	}
	chores := []*chore{
		{every: ms(s.Long(config.LogRetentionCheckIntervalMs)), do: func(now time.Time) error { return b.retain(f, now) }},
		{every: ms(int64(s.Int(config.LogFlushOffsetCheckpointIntervalMs))), do: func(time.Time) error { return f.Checkpoint() }},
		{every: ms(int64(s.Int(config.LogFlushStartOffsetCheckpointIntervalMs))), do: func(time.Time) error { return f.SaveStarts() }},
		{every: ms(s.Long(config.ReplicaHighWatermarkCheckpointIntervalMs)), do: func(time.Time) error { return f.CheckpointHighWatermarks(b.highs(f)) }},
		{every: ms(int64(s.Int(config.ProducerIDExpirationCheckIntervalMs))), do: func(now time.Time) error { b.expireProducers(f, now); return nil }},
	}
	start := time.Now().Add(ms(s.Long(config.LogInitialTaskDelayMs)))
	for _, c := range chores {
		c.next = start
	}
	for {
		next := chores[0]
		for _, c := range chores[1:] {
			if c.next.Before(next.next) {
				next = c
			}
		}
		if !sleepUntil(ctx, next.next) || f.Failed() != nil {
			return nil
		}
		now := time.Now()
		if err := next.do(now); err != nil && f.Failed() == nil {
			b.cfg.Log.Warn("housekeeping of a log folder", "folder", f.Path(), "error", err)
		}
		next.next = now.Add(max(next.every, minChore))
	}
}

// minChore is how often a chore is done at most, whatever the configuration says.
const minChore = 10 * time.Millisecond

// chore is something to do again and again.
type chore struct {
	every time.Duration
	next  time.Time
	do    func(now time.Time) error
}

// sleepUntil is false if ctx ended first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// retain is one look at all logs of a folder for what has expired.
func (b *Broker) retain(f *storage.Folder, now time.Time) error {
	var errs error
	for p := range b.hosted(f) {
		err := p.log.Expire(p.Topic.Settings().cleanup, now, p.High())
		if err != nil && !errors.Is(err, storage.ErrClosed) {
			errs = errors.Join(errs, err)
		}
	}
	return errors.Join(errs, f.Trim())
}

func (b *Broker) expireProducers(f *storage.Folder, now time.Time) {
	for p := range b.hosted(f) {
		p.log.ExpireProducers(now)
	}
}

// CleanLogs compacts the logs of one folder, until ctx ends or the folder fails. It
// has a goroutine of its own, so that a long compaction does not keep what has expired.
func (b *Broker) CleanLogs(ctx context.Context, f *storage.Folder) error {
	s := b.cfg.Settings
	threads := int64(s.Int(config.LogCleanerThreads))
	if !s.Bool(config.LogCleanerEnable) || threads <= 0 {
		return nil
	}
	c := f.NewCleaner(storage.CleanerConfig{
		Memory:   max(s.Long(config.LogCleanerDedupeBufferSize)/threads, 1),
		Load:     s.Float(config.LogCleanerIOBufferLoadFactor),
		IOBuffer: int(int64(s.Int(config.LogCleanerIOBufferSize)) / threads),
		Pace:     b.pace,
		Metrics:  b.cfg.Metrics,
	})
	pause := max(time.Duration(min(s.Long(config.LogCleanerBackoffMs), 1<<40))*time.Millisecond, minChore)
	for sleepUntil(ctx, time.Now().Add(pause)) && f.Failed() == nil {
		for more := true; more; {
			var err error
			if more, err = b.cleanRound(ctx, f, c); err != nil && f.Failed() == nil {
				b.cfg.Log.Error("compaction", "folder", f.Path(), "error", err)
			}
		}
	}
	return nil
}

// cleanRound is one round of the folder's cleaner, in its turn: log.cleaner.threads
// bounds how many folders are at it.
func (b *Broker) cleanRound(ctx context.Context, f *storage.Folder, c *storage.Cleaner) (more bool, err error) {
	select {
	case b.cleaning <- struct{}{}:
	case <-ctx.Done():
		return false, nil
	}
	defer func() { <-b.cleaning }()
	return c.Round(ctx, func(yield func(storage.Candidate) bool) {
		for p := range b.hosted(f) {
			if s := p.Topic.Settings(); s.Compact && !yield(storage.Candidate{Log: p.log, Cleanup: s.cleanup, Stable: p.Stable()}) {
				return
			}
		}
	})
}

// Deletion is one partition's part of a DeleteRecords request.
type Deletion struct {
	Partition *Partition
	To        model.Offset // the records below it go; -1 = up to the high watermark

	// Results.
	Low model.Offset // the log's start, -1 on an error
	Err error
}

// DeleteRecords moves the starts of logs up (KAFKA.md 3.13). On return the starts are
// durable and whole segments below them on their way out.
func (b *Broker) DeleteRecords(list []*Deletion) {
	logs := make(map[*storage.Folder][]*storage.Log)
	for _, d := range list {
		if d.Low, d.Err = d.Partition.raiseStart(d.To); d.Err != nil {
			d.Low = model.NoOffset
			continue
		}
		f := d.Partition.log.Folder()
		logs[f] = append(logs[f], d.Partition.log)
	}
	for f, ls := range logs {
		err := f.Trim(ls...)
		if err == nil {
			continue
		}
		for _, d := range list {
			if d.Err == nil && d.Partition.log.Folder() == f {
				d.Low, d.Err = model.NoOffset, err
			}
		}
	}
}

func (p *Partition) raiseStart(to model.Offset) (low model.Offset, err error) {
	if _, err := p.Lead(model.NoEpoch); err != nil {
		return 0, err
	}
	if s := p.Topic.Settings(); s.Compact && !s.Delete {
		return 0, ErrPolicy
	}
	high := p.High()
	if to == model.NoOffset {
		to = high
	}
	if to < 0 || to > high {
		return 0, &storage.RangeError{Offset: to, Start: p.log.StartOffset(), End: high}
	}
	if to > p.log.StartOffset() {
		if err := p.log.RaiseStart(to); err != nil {
			return 0, err
		}
	}
	return p.log.StartOffset(), nil
}
