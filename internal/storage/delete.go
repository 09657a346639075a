package storage

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"ottla.dev/ottla/internal/model"
)

const (
	deleteSuffix = "-delete"
	straySuffix  = "-stray"

	maxName = 255
)

// Delete closes a log and takes its folder away: renamed at once, removed after
// file.delete.delay.ms. A crash may undo the rename; then the metadata has the
// folder deleted again.
func (f *Folder) Delete(l *Log) error {
	l.mu.Lock()
	delay := time.Duration(l.cfg.DeleteDelayMs) * time.Millisecond
	l.mu.Unlock()
	if err := f.withdraw(l); err != nil {
		return fmt.Errorf("deleting log %s: %w", l.dir, err)
	}
	to, err := f.setAside(l.tp, l.dir, deleteSuffix)
	if err != nil {
		return fmt.Errorf("deleting log %s: %w", l.dir, err)
	}
	f.disk.unlinkFolder(delay, to)
	return nil
}

// MarkStray sets the partition's folder aside under another name: metadata does
// not place it here. An open log is closed. Nothing is removed.
func (f *Folder) MarkStray(tp model.TopicPartition) error {
	f.mu.Lock()
	l, d := f.logs[tp], f.dirs[tp]
	f.mu.Unlock()
	if d == nil {
		return fmt.Errorf("marking %s as a stray: %s has no such partition", tp, f.path)
	}
	if l != nil {
		if err := f.withdraw(l); err != nil {
			return fmt.Errorf("marking %s as a stray: %w", tp, err)
		}
	}
	to, err := f.setAside(tp, d.Path, straySuffix)
	if err != nil {
		return fmt.Errorf("marking %s as a stray: %w", tp, err)
	}
	f.mu.Lock()
	f.strays = append(f.strays, PartitionDir{TopicPartition: tp, TopicID: d.TopicID, Path: to, Stray: true})
	f.mu.Unlock()
	return nil
}

// withdraw ends the use of a log that goes away. A log can be withdrawn once.
func (f *Folder) withdraw(l *Log) error {
	f.mu.Lock()
	mine := f.logs[l.tp] == l
	f.mu.Unlock()
	if !mine {
		return ErrClosed
	}
	err := l.abort()
	if err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	l.retire()
	return nil
}

// setAside renames a partition's folder to topic-partition.HEX-suffix; the topic
// is cut so that the name fits a file system.
func (f *Folder) setAside(tp model.TopicPartition, path, suffix string) (string, error) {
	id := f.newID()
	tail := fmt.Sprintf("-%d.%s%s", tp.Partition, hex.EncodeToString(id[:]), suffix)
	topic := tp.Topic[:min(len(tp.Topic), maxName-len(tail))]
	to := filepath.Join(f.path, topic+tail)
	if err := f.disk.fs.Rename(path, to); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.logs, tp)
	delete(f.dirs, tp)
	// The checkpoints keep their lines of it until they are written next; a new
	// log of this name has them rewritten first (D7).
	return to, nil
}

// deleted lists folders that were deleted and are still there.
func (f *Folder) deleted() []string {
	entries, err := f.disk.fs.ReadDir(f.path)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), deleteSuffix) && strings.Contains(e.Name(), ".") {
			names = append(names, filepath.Join(f.path, e.Name()))
		}
	}
	return names
}
