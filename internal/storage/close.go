package storage

import (
	"context"
	"errors"
)

// Close writes out everything that makes the next start quick, makes it durable
// and closes the log's files. Appends that come later get ErrClosed. Logs of a
// Folder are closed by Folder.Close.
func (l *Log) Close() error {
	err := l.do(func() error {
		if !l.alive.Load() {
			return nil
		}
		err := l.disk.Failed()
		if err == nil {
			err = l.writeOut(true)
		}
		l.mu.Lock()
		l.sync.sealed = err == nil
		l.mu.Unlock()
		l.alive.Store(false)
		return err
	})
	l.retire()
	return err
}

// rest lets go of what only a busy log needs: buffers and open files. Nothing of
// the log changes.
func (l *Log) rest() error {
	return l.do(func() error {
		if err := l.usable(); err != nil {
			return err
		}
		if err := l.writeOut(false); err != nil {
			return l.disk.writeError(err)
		}
		l.writer = nil
		l.mu.Lock()
		l.hints = nil
		for _, s := range l.segments {
			s.index.tail, s.times.tail = nil, nil
		}
		spares := l.dropSparesLocked()
		l.mu.Unlock()
		closeAll(spares)
		l.active().doom()
		return nil
	})
}

// writeOut writes index entries and, at the end, the last time entry and the
// producers' state, gives back reserved blocks, and syncs all of it.
func (l *Log) writeOut(final bool) error {
	s := l.active()
	l.mu.Lock()
	busy := l.writer != nil || s.dirty != nil || l.sync.synced < l.EndOffset() || l.sync.epochs || len(l.aux) > 0 ||
		l.sync.served < l.sync.asked || // a job may not have begun, and would find the log closed
		final && s.maxTime > s.lastTime // recovery leaves the last time entry out
	l.mu.Unlock()
	if !busy && (!final || l.noProducers || l.snapshot >= l.EndOffset() || s.size == 0) {
		return nil
	}
	if final {
		if err := l.seal(s, l.EndOffset()); err != nil {
			return err
		}
	} else {
		if s.size > 0 {
			if err := l.spill(s, &s.index, indexSuffix, indexEntry); err != nil {
				return err
			}
			if err := l.spill(s, &s.times, timeSuffix, timeEntry); err != nil {
				return err
			}
		}
		if err := l.release(s); err != nil {
			return err
		}
	}
	return l.await(context.Background(), l.wantSync(true))
}

// retire closes the log's files and forgets the log. No job of the pool touches
// it afterwards.
func (l *Log) retire() {
	l.alive.Store(false)
	l.jobs.Lock()   // jobs that run end; later ones see that the log is closed
	l.jobs.Unlock() //nolint:staticcheck // SA2001: there is nothing to do but to wait
	l.disk.unregister(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sync.served = l.sync.asked
	l.wakeLocked()
	closeAll(l.dropSparesLocked())
	for _, a := range l.aux {
		a.h.unpin()
	}
	l.aux = nil
	for _, s := range l.segments {
		if s.dirty != nil { // the folder failed, or the log is deleted
			s.dirty.unpin()
			s.dirty = nil
		}
		s.doom()
	}
}

// abort closes the log without writing anything: it is to be deleted, or its
// folder is lost.
func (l *Log) abort() error {
	return l.do(func() error {
		if !l.alive.Load() {
			return errors.Join(ErrClosed)
		}
		l.alive.Store(false)
		if w := l.writer; w != nil {
			l.disk.reserved.Add(-w.step)
			l.writer = nil
		}
		return nil
	})
}
