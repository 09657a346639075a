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

	queued bool // a job is in the Syncer's queue; it will cover what comes now
	again  bool // another one is needed when one that runs has ended
	full   bool // the next job also syncs aux files

	// running is the number of jobs that have begun. Jobs that only sync the active
	// segment's data run beside each other, because the journal commits them
	// together; one that does more runs alone (heavy).
	running int
	heavy   bool

	// primary: a job uses the descriptor that writes. Others use spare ones of the
	// same file: a descriptor reports an error of the disk once, so two syncs of
	// one could hide it from each other. Spares are of the active segment.
	primary bool
	spares  []vfs.File

	epochs bool // the epochs are not all in the checkpoint
	dir    bool // the log's folder has names that are not on disk
	fresh  bool // the log's folder itself and partition.metadata are not on disk

	waiters chan struct{} // closed when the job under way ends; nil if nobody waits

	// stuck is ErrFull while there is no room for the epoch checkpoint, without
	// which nothing may count as flushed; it is tried again every retryEvery.
	stuck error
}

const retryEvery = 200 * time.Millisecond

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
	s     *segment
	h     *handle
	size  int64
	spare vfs.File // to be synced instead of h
	own   bool     // not h: spare, or one to be opened
}

// maxFlight is how many jobs of one log run at the same time.
const maxFlight = 4

// wantSync asks for everything written so far to be made durable; full includes
// indexes and snapshots. It returns a ticket for await.
func (l *Log) wantSync(full bool) uint64 {
	l.mu.Lock()
	l.sync.asked++
	ticket := l.sync.asked
	l.sync.full = l.sync.full || full
	start := l.startLocked()
	l.mu.Unlock()
	if start {
		l.disk.enqueue(l)
	}
	return ticket
}

// startLocked decides whether a job is to be queued for a request; if none can be
// now, one will be when a running one ends.
func (l *Log) startLocked() bool {
	y := &l.sync
	if y.queued {
		return false
	}
	if y.running > 0 && (y.heavy || y.running >= maxFlight || l.heavyLocked()) {
		y.again = true
		return false
	}
	y.queued, y.again = true, false
	return true
}

// heavyLocked reports whether the next job does more than sync the active
// segment's data.
func (l *Log) heavyLocked() bool {
	y := &l.sync
	if y.epochs || y.dir || y.fresh || y.full {
		return true
	}
	n := len(l.segments)
	return n > 1 && l.segments[n-2].dirty != nil
}

// await waits until the request is served.
func (l *Log) await(ctx context.Context, ticket uint64) error {
	for {
		l.mu.Lock()
		if l.sync.served >= ticket {
			l.mu.Unlock()
			return l.disk.Failed()
		}
		if err := l.sync.stuck; err != nil {
			l.mu.Unlock()
			return err
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
// log's flush policy. An error other than ctx's and ErrFull is final for the folder.
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

// runSync is one job, on a worker of the Syncer.
func (l *Log) runSync() {
	job := l.disk.spare.Get().(*syncJob)
	defer l.disk.spare.Put(job)
	l.jobs.RLock()
	if !l.takeJob(job) {
		l.jobs.RUnlock()
		return
	}
	start := time.Now()
	err := l.disk.Failed()
	if err == nil {
		if err = l.runJob(job); errors.Is(err, ErrFull) {
			l.postpone(job, err)
			l.jobs.RUnlock()
			return
		} else if err != nil {
			err = l.disk.fail(err)
		}
		l.disk.syncSeconds.Observe(time.Since(start).Seconds())
	}
	raised := l.settle(job, err)
	l.jobs.RUnlock()
	if raised && l.notify != nil {
		l.notify.Flushed(l, job.end)
	}
	if err == nil && job.full {
		err = l.syncAux(job.aux)
	}
	l.endJob(job, err)
	l.disk.files.trim() // what was pinned for being unsynced may be closed now
}

// takeJob collects what there is to sync. Everything it takes is pinned. It is
// false if the job must wait for others to end: they were there first, and since
// it was queued it has become more than they can run beside.
func (l *Log) takeJob(j *syncJob) bool {
	clear(j.files)
	*j = syncJob{files: j.files[:0]}
	l.mu.Lock()
	defer l.mu.Unlock()
	y := &l.sync
	y.queued = false
	if !l.alive.Load() { // its files may have another name by now
		y.served = y.asked
		l.wakeLocked()
		return false
	}
	heavy := l.heavyLocked()
	if heavy && y.running > 0 {
		y.again = true
		return false
	}
	y.running++
	y.heavy = heavy
	j.gen, j.end, j.ticket = l.gen, model.Offset(l.end.Load()), y.asked
	j.active = l.active().base
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		if s.dirty != nil {
			j.files = append(j.files, syncFile{s: s, h: s.dirty.share(), size: s.size})
		} else if i < len(l.segments)-1 {
			break // segments before it are on disk
		}
	}
	if !heavy && len(j.files) > 0 {
		l.pickLocked(&j.files[0])
	}
	if y.epochs {
		j.epochs = append(make([]epochStart, 0, len(l.epochs)), l.epochs...)
	}
	j.dir, j.fresh, j.full = y.dir || y.fresh, y.fresh, y.full
	y.epochs, y.dir, y.fresh, y.full = false, false, false, false
	if j.full {
		j.aux, l.aux = l.aux, nil
		for _, a := range j.aux {
			if a.t != nil {
				a.t.stale = false
			}
		}
	}
	return true
}

// pickLocked gives a job a descriptor of the active segment that no other uses.
func (l *Log) pickLocked(f *syncFile) {
	y := &l.sync
	if !y.primary {
		y.primary = true
		return
	}
	f.own = true
	if n := len(y.spares); n > 0 {
		f.spare = y.spares[n-1]
		y.spares[n-1] = nil
		y.spares = y.spares[:n-1]
	}
}

// putBackLocked ends a job's use of its descriptor. It returns one to be closed.
func (l *Log) putBackLocked(j *syncJob, f *syncFile) (stale vfs.File) {
	y := &l.sync
	switch {
	case y.heavy: // ran alone
	case !f.own:
		y.primary = false
	case f.spare == nil:
	case f.s == l.active() && l.alive.Load() && l.gen == j.gen:
		y.spares = append(y.spares, f.spare)
	default:
		stale = f.spare
	}
	return stale
}

// dropSparesLocked takes the spare descriptors away; the caller closes them. Jobs
// that use one close it themselves.
func (l *Log) dropSparesLocked() []vfs.File {
	spares := l.sync.spares
	l.sync.spares = nil
	return spares
}

func closeAll(files []vfs.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written through it
	}
}

// syncOne makes a segment's data durable.
func (l *Log) syncOne(f *syncFile) error {
	if !f.own {
		return f.h.f.Sync()
	}
	if f.spare == nil {
		var err error
		if f.spare, err = l.disk.fs.OpenFile(l.name(f.s.base, logSuffix), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	return f.spare.Sync()
}

// runJob makes data durable, and all that data needs to be found again (D1).
func (l *Log) runJob(j *syncJob) error {
	if j.epochs != nil {
		if err := l.writeEpochs(j.epochs); noRoom(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		} else if err != nil {
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
		if err := l.syncOne(&j.files[i]); err != nil {
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
// flushed offset was raised.
func (l *Log) settle(j *syncJob, err error) (raised bool) {
	var stale vfs.File
	l.mu.Lock()
	for i := range j.files {
		if f := l.putBackLocked(j, &j.files[i]); f != nil {
			stale = f
		}
		j.files[i].h.unpin()
	}
	if err == nil && l.disk.failure.Load() == nil {
		for _, f := range j.files {
			f.s.synced = max(f.s.synced, min(f.size, f.s.size))
			if f.s.dirty != nil && f.s.synced == f.s.size && !f.s.writing {
				f.s.dirty.unpin()
				f.s.dirty = nil
			}
		}
		l.sync.synced, l.sync.stuck = max(l.sync.synced, j.end), nil
		raised = l.cfg.FlushMessages == 1 && l.raiseLocked(j.end)
	}
	l.mu.Unlock()
	if stale != nil {
		closeAll([]vfs.File{stale})
	}
	return raised
}

// postpone undoes the taking of a job for which there was no room. Nothing of it
// counts; it is tried again soon.
func (l *Log) postpone(j *syncJob, err error) {
	l.mu.Lock()
	for i := range j.files {
		j.files[i].h.unpin() // a job that writes epochs runs alone, without spares
	}
	y := &l.sync
	y.epochs, y.dir, y.fresh, y.full = true, y.dir || j.dir, y.fresh || j.fresh, y.full || j.full
	for _, a := range j.aux {
		if a.t != nil && a.t.stale { // it came in again meanwhile
			a.h.unpin()
			continue
		}
		if a.t != nil {
			a.t.stale = true
		}
		l.aux = append(l.aux, a)
	}
	y.running--
	y.heavy, y.again, y.stuck = false, false, err
	l.wakeLocked()
	l.mu.Unlock()
	l.disk.keeper.after(retryEvery, func() { l.wantSync(false) })
}

// endJob ends the job and starts the next one if it is wanted.
func (l *Log) endJob(j *syncJob, err error) {
	for _, a := range j.aux {
		a.h.unpin()
	}
	l.mu.Lock()
	y := &l.sync
	if j.full && err == nil && j.gen == l.gen {
		y.rolled = model.NoOffset
		if now := l.active().base; now != j.active {
			y.rolled = j.active // rolled meanwhile
		}
	} else if j.full && err == nil {
		y.full, y.again = true, true // the segments changed meanwhile
	}
	y.served = max(y.served, j.ticket)
	y.running--
	y.heavy = false
	start := y.again && l.startLocked()
	l.wakeLocked()
	l.mu.Unlock()
	if start {
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
