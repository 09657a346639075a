package storage

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// cleanUp finishes or drops what a crash left half done, and returns the names
// that are left (KAFKA.md 4.5, point 3):
//
//   - .deleted, .tmp: removed.
//   - .cleaned: compaction had not finished; removed, with the .swap files from
//     the smallest .cleaned on, which belong to the same compaction.
//   - .swap: compaction had finished. The segments that it replaces are removed,
//     then it gets its name. Both can be repeated.
//   - indexes and snapshots' segments without a .log: removed.
func (l *Log) cleanUp(names map[string]bool) (map[string]bool, error) {
	changed := false
	remove := func(name string) error {
		delete(names, name)
		changed = true
		return removeFile(l.disk.fs, filepath.Join(l.dir, name))
	}
	minCleaned := model.Offset(math.MaxInt64)
	var swaps []string
	for name := range names {
		base, _, isSegment := parseName(name)
		switch {
		case strings.HasSuffix(name, cleanedSuffix):
			if isSegment {
				minCleaned = min(minCleaned, base)
			}
			if err := remove(name); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, deletedSuffix), strings.HasSuffix(name, tmpSuffix):
			if err := remove(name); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, swapSuffix) && isSegment:
			swaps = append(swaps, name)
		}
	}
	swaps = slices.DeleteFunc(swaps, func(name string) bool {
		base, _, _ := parseName(name)
		return base >= minCleaned && remove(name) == nil
	})
	if len(swaps) > 0 {
		if err := l.swap(names, swaps, remove); err != nil {
			return nil, err
		}
	}
	for name := range names {
		base, suffix, ok := parseName(name)
		if !ok || suffix != indexSuffix && suffix != timeSuffix && suffix != txnSuffix {
			continue
		}
		if !names[fmt.Sprintf("%020d%s", int64(base), logSuffix)] {
			if err := remove(name); err != nil {
				return nil, err
			}
		}
	}
	if changed {
		return names, l.disk.fs.SyncDir(l.dir)
	}
	return names, nil
}

// swap puts compaction's output in the place of the segments it was made from.
func (l *Log) swap(names map[string]bool, swaps []string, remove func(string) error) error {
	from, to := model.Offset(math.MaxInt64), model.Offset(0)
	for _, name := range swaps {
		base, suffix, _ := parseName(name)
		if suffix != logSuffix+swapSuffix {
			continue
		}
		next, err := l.endOfFile(filepath.Join(l.dir, name), base)
		if err != nil {
			return err
		}
		from, to = min(from, base), max(to, next, base+1) // nothing may be left of the first one
	}
	for name := range names {
		base, suffix, ok := parseName(name)
		if !ok || base < from || base >= to || strings.HasSuffix(suffix, swapSuffix) || suffix == snapshotSuffix {
			continue
		}
		if err := remove(name); err != nil {
			return err
		}
	}
	if err := l.disk.fs.SyncDir(l.dir); err != nil {
		return err
	}
	// The log first, durably: indexes that have their names beside a .log.swap would
	// pass for old ones and be removed, should this be cut short too.
	isLog := func(name string) bool { return strings.HasSuffix(name, logSuffix+swapSuffix) }
	for _, logs := range []bool{true, false} {
		for _, name := range swaps {
			if isLog(name) != logs {
				continue
			}
			plain := strings.TrimSuffix(name, swapSuffix)
			if err := l.disk.fs.Rename(filepath.Join(l.dir, name), filepath.Join(l.dir, plain)); err != nil {
				return err
			}
			delete(names, name)
			names[plain] = true
		}
		if err := l.disk.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	return nil
}

// endOfFile finds the offset after the last batch of a file.
func (l *Log) endOfFile(name string, base model.Offset) (model.Offset, error) {
	f, err := l.disk.fs.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	h := &handle{f: f}
	end := base
	err = l.scan(h, 0, size, func(b batch.Batch, _ int64) bool {
		end = b.NextOffset()
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return end, nil
}
