package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/vfs"
)

const (
	defaultSyncs = 8    // fdatasyncs in flight: the journal merges them
	defaultOpen  = 4096 // open files

	// sweepEvery is how long a file or a writer's buffers stay without being used.
	sweepEvery = 30 * time.Second

	// spaceStep is how much may be written before the free space is looked up again.
	spaceStep = 64 << 20

	// maxReserved bounds the blocks that are reserved ahead of all writers.
	maxReserved = 256 << 20
)

// SyncerConfig says where the logs of a Syncer lie. FS and Path must be set.
type SyncerConfig struct {
	FS      vfs.FS
	Path    string           // a folder of the file system whose free space counts
	Syncs   int              // fdatasyncs in flight at most; 0 = 8
	Open    int              // files kept open; 0 = 4096
	Reserve int64            // bytes of free space that appends leave alone
	Codecs  *batch.Codecs    // to look into compressed batches; nil = its own
	Metrics *metric.Registry // may be nil
	Log     *slog.Logger     // nil = discard
	Now     func() time.Time // nil = time.Now
}

// Syncer is the disk behind a set of logs: the pool that makes writes durable,
// the cache of open files, free space, and the verdict that the disk has failed.
// A Folder has one; logs outside of folders are given one.
type Syncer struct {
	fs     vfs.FS
	path   string
	codecs *batch.Codecs
	log    *slog.Logger
	now    func() time.Time
	files  files
	keeper keeper
	bufs   sync.Pool // *[]byte of scanBuffer bytes, for reading batch headers

	// failure is set once (D4).
	failure atomic.Pointer[error]

	pool
	members
	room
	removed

	syncSeconds prometheus.Observer
	bytesOut    prometheus.Counter
}

// pool is the goroutines that sync, and the logs that wait for one.
type pool struct {
	work  func()    // Syncer.run, bound once: a method value allocates
	syncs int       // goroutines at most
	spare sync.Pool // *syncJob

	// mu guards the queue. A log is in it at most once, linked by Log.syncNext. It
	// is taken once per sync, not per append.
	mu         sync.Mutex
	head, tail *Log
	running    int // goroutines
	workers    sync.WaitGroup
}

// members are the open logs of a Syncer.
type members struct {
	logsMu   sync.Mutex
	logs     map[*Log]struct{}
	active   map[*Log]struct{} // those that have a writer
	sweeping bool              // a sweep is scheduled
}

// room is the disk's free space.
type room struct {
	reserve  int64        // appends leave so much alone
	space    atomic.Int64 // bytes that may be written before free space is looked up
	reserved atomic.Int64 // blocks reserved ahead of writers
}

// NewSyncer makes a Syncer; Close ends it after its logs are closed.
func NewSyncer(c SyncerConfig) *Syncer {
	s := &Syncer{
		fs: c.FS, path: c.Path, codecs: c.Codecs, log: c.Log, now: c.Now,
		files: files{fs: c.FS, max: c.Open},
		pool:  pool{syncs: c.Syncs},
	}
	s.reserve = c.Reserve
	s.logs, s.active = make(map[*Log]struct{}), make(map[*Log]struct{})
	if s.codecs == nil {
		s.codecs = batch.NewCodecs()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.syncs <= 0 {
		s.syncs = defaultSyncs
	}
	if s.files.max <= 0 {
		s.files.max = defaultOpen
	}
	s.bufs.New = func() any { b := make([]byte, scanBuffer); return &b }
	s.spare.New = func() any { return &syncJob{} }
	s.work = s.run
	s.files.opened = s.sweepLater
	buckets := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	s.syncSeconds = c.Metrics.Histogram("ottla_log_sync_seconds", "Time of one sync of a log's unsynced data.", buckets, "folder").WithLabelValues(c.Path)
	s.bytesOut = c.Metrics.Counter("ottla_log_written_bytes_total", "Bytes of record batches written to logs.", "folder").WithLabelValues(c.Path)
	s.removed = newRemoved(c.Metrics, c.Path)
	return s
}

// Failed is nil, or why nothing can be written here any more; it then wraps
// ErrFailed. There is no way back (D4).
func (s *Syncer) Failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes the failure final and tells every log's owner.
func (s *Syncer) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if !s.failure.CompareAndSwap(nil, &err) {
		return s.Failed()
	}
	s.log.Error("log folder has failed; its partitions go offline", "folder", s.path, "error", cause)
	s.logsMu.Lock()
	logs := make([]*Log, 0, len(s.logs))
	for l := range s.logs {
		logs = append(logs, l)
	}
	s.logsMu.Unlock()
	for _, l := range logs {
		l.wakeWaiters()
		if l.notify != nil {
			l.notify.Failed(l, err)
		}
	}
	return err
}

// readError passes an error on; one that says that the medium is broken is final.
func (s *Syncer) readError(err error) error {
	if errors.Is(err, syscall.EIO) {
		return s.fail(err)
	}
	return err
}

// Close stops housekeeping and waits for syncs under way. Files that wait to be
// unlinked are unlinked when their folder is opened next.
func (s *Syncer) Close() {
	s.keeper.stop()
	s.workers.Wait()
}

// enqueue hands a log to the pool. The log must not be in it.
func (s *Syncer) enqueue(l *Log) {
	s.mu.Lock()
	l.syncNext = nil
	if s.tail == nil {
		s.head = l
	} else {
		s.tail.syncNext = l
	}
	s.tail = l
	start := s.running < s.syncs
	if start {
		s.running++
		s.workers.Add(1)
	}
	s.mu.Unlock()
	if start {
		go s.work()
	}
}

// run is a worker: it lives while there is something to sync.
func (s *Syncer) run() {
	defer s.workers.Done()
	for {
		s.mu.Lock()
		l := s.head
		if l == nil {
			s.running--
			s.mu.Unlock()
			return
		}
		if s.head = l.syncNext; s.head == nil {
			s.tail = nil
		}
		l.syncNext = nil
		s.mu.Unlock()
		l.runSync()
	}
}

// admit takes n bytes of the disk's free space, or says ErrFull.
func (s *Syncer) admit(n int64) error {
	if s.space.Add(-n) >= 0 {
		return nil
	}
	_, usable, err := s.fs.Space(s.path)
	if err != nil {
		return s.fail(err)
	}
	free := usable - s.reserve
	if free < n {
		s.space.Store(0)
		return fmt.Errorf("%w: %d bytes are usable in %s, of which %d are kept in reserve", ErrFull, usable, s.path, s.reserve)
	}
	// Half of what is left: others write to this disk too.
	s.space.Store(min(spaceStep, max(free/2, n)) - n)
	return nil
}

// writeError says what a failed write means: no room is the producer's matter,
// anything else the end of the folder.
func (s *Syncer) writeError(err error) error {
	if noRoom(err) {
		s.space.Store(0)
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return s.fail(err)
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// register enters an open log.
func (s *Syncer) register(l *Log) {
	s.logsMu.Lock()
	s.logs[l] = struct{}{}
	s.logsMu.Unlock()
}

func (s *Syncer) unregister(l *Log) {
	s.logsMu.Lock()
	delete(s.logs, l)
	delete(s.active, l)
	s.logsMu.Unlock()
}

// activate notes that a log has a writer, so that sweeps look at it.
func (s *Syncer) activate(l *Log) {
	s.logsMu.Lock()
	s.active[l] = struct{}{}
	s.logsMu.Unlock()
	s.sweepLater()
}

// sweepLater makes sure that a sweep comes while something is open.
func (s *Syncer) sweepLater() {
	s.logsMu.Lock()
	start := !s.sweeping
	s.sweeping = true
	s.logsMu.Unlock()
	if start {
		s.keeper.after(sweepEvery, s.sweep)
	}
}

// sweep puts logs to rest that got nothing since the last sweep, and closes
// files that nobody used.
func (s *Syncer) sweep() {
	s.logsMu.Lock()
	var idle []*Log
	for l := range s.active {
		if !l.touched.Swap(false) {
			idle = append(idle, l)
			delete(s.active, l)
		}
	}
	s.logsMu.Unlock()
	for _, l := range idle {
		if err := l.rest(); err != nil && !errors.Is(err, ErrClosed) {
			s.log.Warn("cannot write out an idle log", "log", l.dir, "error", err)
		}
	}
	more := s.files.sweep()
	s.logsMu.Lock()
	s.sweeping = more || len(s.active) > 0
	again := s.sweeping
	s.logsMu.Unlock()
	if again {
		s.keeper.after(sweepEvery, s.sweep)
	}
}

// unlinkLater removes files after delay. They are named so that opening their
// folder removes them if that comes first.
func (s *Syncer) unlinkLater(delay time.Duration, names []string) {
	if len(names) == 0 {
		return
	}
	s.keeper.after(delay, func() {
		for _, name := range names {
			if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.log.Warn("cannot remove a deleted file", "name", name, "error", err)
			}
		}
	})
}

// unlinkFolder removes a folder that was set aside, after delay. Its new name is
// made durable first: otherwise a crash could bring the old name back, with a part
// of the files.
func (s *Syncer) unlinkFolder(delay time.Duration, name string) {
	s.keeper.after(delay, func() {
		err := s.fs.SyncDir(filepath.Dir(name))
		if err == nil {
			err = s.fs.RemoveAll(name)
		}
		if err != nil {
			s.log.Warn("cannot remove a deleted log", "name", name, "error", err)
		}
	})
}

// sequential reads f from a position on with a window, for walking over batches.
type sequential struct {
	f    io.ReaderAt
	buf  []byte
	from int64 // position of buf[0]
	n    int   // bytes in buf
}

// scanBuffer is the size of a sequential's window.
const scanBuffer = 16 << 10

// at returns n bytes (at most the window) from pos; io.ErrUnexpectedEOF if the
// file has fewer. limit bounds how far it reads ahead.
func (r *sequential) at(pos int64, n int, limit int64) ([]byte, error) {
	if pos >= r.from && pos+int64(n) <= r.from+int64(r.n) {
		return r.buf[pos-r.from:][:n], nil
	}
	want := min(int64(len(r.buf)), limit-pos)
	if want < int64(n) {
		return nil, io.ErrUnexpectedEOF
	}
	got, err := r.f.ReadAt(r.buf[:want], pos)
	r.from, r.n = pos, got
	if got >= n {
		return r.buf[:n], nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}
