package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// syncState is what a log knows of its durability. Guarded by Log.mu.
type syncState struct {
	// synced: everything below is on disk, by D1. INV: synced <= end.
	synced model.Offset

	// rolled is the base of the oldest segment that is complete but whose indexes
	// and snapshot are not on disk (D2); NoOffset if there is none.
	rolled model.Offset

	// asked counts requests; served is how many of them are done. A job serves all
	// requests that came before it began.
	asked, served uint64

	sealed bool // the log was closed in order; all of it is on disk

	queued  bool // a job is in the Syncer's queue or running; at most one
	running bool // it has begun, so it does not cover what comes now
	again   bool // another one is needed after it
	full    bool // the next job also syncs aux files

	epochs bool // the epochs are not all in the checkpoint
	dir    bool // the log's folder has names that are not on disk
	fresh  bool // the log's folder itself and partition.metadata are not on disk

	waiters chan struct{} // closed when the job under way ends; nil if nobody waits
}

// syncJob is what one sync covers.
type syncJob struct {
	gen    uint32
	end    model.Offset
	active model.Offset // base of the active segment
	ticket uint64
	files  []syncFile
	aux    []auxFile

	full, dir, fresh bool
	epochs           []epochStart // to be written if not nil
}

// syncFile is a segment's file and how much of it is written.
type syncFile struct {
	s    *segment
	h    *handle
	size int64
}

// wantSync asks for everything written so far to be made durable; full includes
// indexes and snapshots. It returns a ticket for await.
func (l *Log) wantSync(full bool) uint64 {
	l.mu.Lock()
	l.sync.asked++
	ticket := l.sync.asked
	l.sync.full = l.sync.full || full
	start := !l.sync.queued
	l.sync.queued = true
	l.sync.again = l.sync.running
	l.mu.Unlock()
	if start {
		l.disk.enqueue(l)
	}
	return ticket
}

// await waits until the request is served.
func (l *Log) await(ctx context.Context, ticket uint64) error {
	for {
		l.mu.Lock()
		if l.sync.served >= ticket {
			l.mu.Unlock()
			return l.disk.Failed()
		}
		if l.sync.waiters == nil {
			l.sync.waiters = make(chan struct{})
		}
		wait := l.sync.waiters
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("sync of %s: %w", l.dir, ctx.Err())
		}
	}
}

// Sync makes everything that was appended before the call durable, whatever the
// log's flush policy. An error other than ctx's is final for the folder.
func (l *Log) Sync(ctx context.Context) error {
	if err := l.usable(); err != nil {
		return err
	}
	return l.await(ctx, l.wantSync(false))
}

// wakeWaiters ends all waits: the folder has failed.
func (l *Log) wakeWaiters() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sync.served = l.sync.asked
	l.wakeLocked()
}

func (l *Log) wakeLocked() {
	if l.sync.waiters != nil {
		close(l.sync.waiters)
		l.sync.waiters = nil
	}
}

// runSync is one job, on a worker of the Syncer. At most one runs per log: two
// fdatasyncs of one descriptor could hide an error from each other.
func (l *Log) runSync() {
	job := l.disk.spare.Get().(*syncJob)
	defer l.disk.spare.Put(job)
	l.jobs.Lock()
	l.takeJob(job)
	start := time.Now()
	err := l.disk.Failed()
	if err == nil {
		if err = l.runJob(job); err != nil {
			err = l.disk.fail(err)
		}
		l.disk.syncSeconds.Observe(time.Since(start).Seconds())
	}
	raised := l.settle(job, err)
	l.jobs.Unlock()
	if raised && l.notify != nil {
		l.notify.Flushed(l, job.end)
	}
	if err == nil && job.full {
		err = l.syncAux(job.aux)
	}
	l.endJob(job, err)
}

// takeJob collects what there is to sync. Everything it takes is pinned.
func (l *Log) takeJob(j *syncJob) {
	clear(j.files)
	*j = syncJob{files: j.files[:0]}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sync.running = true
	j.gen, j.end, j.ticket = l.gen, model.Offset(l.end.Load()), l.sync.asked
	j.active = l.active().base
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		if s.dirty != nil {
			j.files = append(j.files, syncFile{s, s.dirty.share(), s.size})
		} else if i < len(l.segments)-1 {
			break // segments before it are on disk
		}
	}
	if l.sync.epochs {
		j.epochs = append(make([]epochStart, 0, len(l.epochs)), l.epochs...)
	}
	j.dir, j.fresh, j.full = l.sync.dir || l.sync.fresh, l.sync.fresh, l.sync.full
	l.sync.epochs, l.sync.dir, l.sync.fresh, l.sync.full = false, false, false, false
	if j.full {
		j.aux, l.aux = l.aux, nil
		for _, a := range j.aux {
			if a.t != nil {
				a.t.stale = false
			}
		}
	}
}

// runJob makes data durable, and all that data needs to be found again (D1).
func (l *Log) runJob(j *syncJob) error {
	if j.epochs != nil {
		if err := l.writeEpochs(j.epochs); err != nil {
			return err
		}
		j.dir = true
	}
	if j.fresh && l.id != model.ZeroUUID {
		if err := syncFileByName(l.disk.fs, filepath.Join(l.dir, topicFile)); err != nil {
			return err
		}
	}
	for i := len(j.files) - 1; i >= 0; i-- { // oldest first
		if err := j.files[i].h.f.Sync(); err != nil {
			return err
		}
	}
	if j.dir {
		if err := l.disk.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	if j.fresh {
		return l.disk.fs.SyncDir(filepath.Dir(l.dir))
	}
	return nil
}

// syncAux makes files durable that the recovery point waits for (D2). Their names
// are durable by runJob.
func (l *Log) syncAux(aux []auxFile) error {
	for _, a := range aux {
		if err := a.h.f.Sync(); err != nil {
			return l.disk.fail(err)
		}
	}
	return nil
}

// settle notes what the job's first part achieved, and reports whether the
// flushed offset was raised. After a truncation it achieved nothing: what it
// synced may be gone.
func (l *Log) settle(j *syncJob, err error) (raised bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range j.files {
		f.h.unpin()
	}
	if err != nil || l.disk.failure.Load() != nil || j.gen != l.gen {
		return false
	}
	for _, f := range j.files {
		f.s.synced = max(f.s.synced, f.size)
		if f.s.dirty != nil && f.s.synced == f.s.size {
			f.s.dirty.unpin()
			f.s.dirty = nil
		}
	}
	l.sync.synced = max(l.sync.synced, j.end)
	return l.cfg.FlushMessages == 1 && l.raiseLocked(j.end)
}

// endJob ends the job and starts the next one if it is wanted.
func (l *Log) endJob(j *syncJob, err error) {
	for _, a := range j.aux {
		a.h.unpin()
	}
	l.mu.Lock()
	if j.full && err == nil && j.gen == l.gen {
		l.sync.rolled = model.NoOffset
		if now := l.active().base; now != j.active {
			l.sync.rolled = j.active // rolled meanwhile
		}
	}
	if j.gen != l.gen && err == nil {
		l.sync.again = true
	} else {
		l.sync.served = max(l.sync.served, j.ticket)
	}
	again := l.sync.again
	l.sync.again, l.sync.running, l.sync.queued = false, false, again
	l.wakeLocked()
	l.mu.Unlock()
	if again {
		l.disk.enqueue(l)
	}
}

// writeEpochs replaces the epoch checkpoint; the caller syncs the folder.
func (l *Log) writeEpochs(e []epochStart) error {
	name := filepath.Join(l.dir, epochFile)
	if err := writeSynced(l.disk.fs, name+tmpSuffix, appendEpochs(nil, e)); err != nil {
		return err
	}
	return l.disk.fs.Rename(name+tmpSuffix, name)
}

// writeSynced makes a file with this content and syncs the content.
func writeSynced(fsys vfs.FS, name string, data []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncFileByName syncs a file that was written through another descriptor. One
// that is not there has nothing to lose.
func syncFileByName(fsys vfs.FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
