package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// loadProducers makes the producers' state as of end: from the newest snapshot
// that is not after it, and the batches between. Called by the writer or while
// the log is being opened.
func (l *Log) loadProducers(end model.Offset) error {
	all, err := l.snapshots()
	if err != nil {
		return err
	}
	return l.loadProducersFrom(all, end)
}

// loadProducersFrom is loadProducers with the snapshots that there are, ascending.
func (l *Log) loadProducersFrom(all []model.Offset, end model.Offset) error {
	l.producers.clear()
	l.unstable.Store(int64(model.NoOffset))
	l.snapshot = model.NoOffset
	if l.noProducers {
		return nil
	}
	from := l.segments[0].base
	for _, at := range slices.Backward(all) {
		if at > end {
			continue
		}
		name := l.name(at, snapshotSuffix)
		data, err := vfs.ReadFile(l.disk.fs, name, maxSnapshot)
		var ps *producers
		if err == nil {
			ps, err = parseSnapshot(data)
		}
		if errors.Is(err, fs.ErrNotExist) { // found broken while the log was walked over
			continue
		}
		if errors.Is(err, errCorrupt) || errors.Is(err, vfs.ErrTooLarge) {
			l.disk.log.Warn("a producer snapshot is broken; an older one is used", "log", l.dir, "offset", int64(at), "error", err)
			if err := removeFile(l.disk.fs, name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		ps.stamp = l.producers.stamp
		l.producers, l.snapshot, from = *ps, at, max(from, at)
		break
	}
	if err := l.replay(from, end); err != nil {
		return fmt.Errorf("producer state: %w", err)
	}
	l.producers.begin()
	l.unstable.Store(int64(l.producers.unstable()))
	return nil
}

// snapshots lists the producer snapshots' offsets, ascending.
func (l *Log) snapshots() ([]model.Offset, error) {
	entries, err := l.disk.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return snapshotsIn(names), nil
}

func snapshotsIn(names map[string]bool) []model.Offset {
	var at []model.Offset
	for name := range names {
		if base, suffix, ok := parseName(name); ok && suffix == snapshotSuffix {
			at = append(at, base)
		}
	}
	slices.Sort(at)
	return at
}

// replay applies the batches in [from, end) to the producers' state. Data batches
// are known by their headers; markers are read.
func (l *Log) replay(from, end model.Offset) error {
	if from >= end {
		return nil
	}
	for i := l.findLocked(from); i < len(l.segments); i++ {
		s := l.segments[i]
		if s.base >= end {
			break
		}
		if err := l.replaySegment(s, from, end); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) replaySegment(s *segment, from, end model.Offset) error {
	h, err := l.acquire(&s.file, s.base, logSuffix, 0)
	if err != nil {
		return err
	}
	defer h.unpin()
	v := view{s: s, size: s.size}
	pos := int64(0)
	if from > s.base && s.index.count != 0 {
		if pos, err = l.indexed(v, from); err != nil {
			return err
		}
	}
	var failed error
	err = l.scan(h, pos, s.size, func(b batch.Batch, p int64) bool {
		if b.BaseOffset() >= end {
			return false
		}
		if b.BaseOffset() < from || b.Producer().ID < 0 {
			return true
		}
		l.producers.begin()
		if b.Control() {
			if b, failed = l.readBatch(h, p, s.size); failed != nil {
				return false
			}
		}
		l.applyProducer(b)
		return true
	})
	return errors.Join(failed, err)
}

// dropStraySnapshots removes snapshots that opening will never need: above the
// end, and those that are at no segment's base, except the newest one. It returns
// those that are left.
func (l *Log) dropStraySnapshots(all []model.Offset, end model.Offset) (left []model.Offset, err error) {
	newest := model.NoOffset
	for _, at := range all {
		if at <= end {
			newest = at
		}
	}
	for _, at := range all {
		if at == newest || at <= end && l.segments[l.findLocked(at)].base == at {
			left = append(left, at)
			continue
		}
		if err := removeFile(l.disk.fs, l.name(at, snapshotSuffix)); err != nil {
			return nil, err
		}
		l.sync.dir = true
	}
	return left, nil
}
