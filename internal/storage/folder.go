package storage

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// FolderConfig says how to open a folder. FS, Path, ClusterID, NodeID and NewID
// must be set.
type FolderConfig struct {
	FS        vfs.FS
	Path      string // made if it is not there
	ClusterID model.UUID
	NodeID    model.NodeID
	NewID     func() model.UUID // draws ids that are not reserved

	// Adopt takes a folder that Apache Kafka closed or left: it gets our marker.
	Adopt bool

	Syncs   int              // fdatasyncs in flight; 0 = 8
	Open    int              // files kept open; 0 = 4096
	Reserve int64            // ottla.log.dir.reserve.bytes: appends leave so much free
	Codecs  *batch.Codecs    // nil = its own
	Metrics *metric.Registry // may be nil
	Log     *slog.Logger     // nil = discard
	Now     func() time.Time // nil = time.Now
}

// Folder is one entry of log.dirs: the partitions' folders in it, its identity,
// its lock and its checkpoints.
type Folder struct {
	disk  *Syncer
	path  string
	meta  Meta
	newID func() model.UUID
	lock  io.Closer

	clean bool              // closed in order before it was opened
	epoch model.BrokerEpoch // of the broker that closed it, -1 = unknown
	highs map[model.TopicPartition]model.Offset

	// mu guards the rest.
	mu     sync.Mutex
	dirs   map[model.TopicPartition]*PartitionDir // strays are not in it
	strays []PartitionDir
	logs   map[model.TopicPartition]*Log // open; nil while being opened
	points checkpoints
	closed bool

	compacted bool // some log ever was: there is, or must be, a checkpoint of it

	// writing makes one writer of the checkpoint files; held across their I/O,
	// because that is what it orders.
	writing sync.Mutex
	written map[string][sha256.Size]byte // what the checkpoint files have, by name; guarded by writing
}

// checkpoints is what the folder's files say, of open logs and others.
type checkpoints struct {
	recovery, start map[model.TopicPartition]model.Offset
	cleaned         map[model.TopicPartition]model.Offset // where compaction goes on
}

// PartitionDir is a partition's folder found in a Folder.
type PartitionDir struct {
	TopicPartition model.TopicPartition
	TopicID        model.UUID // zero if it has no readable partition.metadata
	Path           string
	Stray          bool // set aside: metadata did not place it here
}

// OpenFolder opens a log folder and formats it if it is empty.
//
// Errors: ErrLocked; ErrForeign if there are files but no sign that Ottla made
// them; ErrMismatch if it belongs to another cluster or node.
func OpenFolder(c FolderConfig) (*Folder, error) {
	if err := makeDirs(c.FS, c.Path); err != nil {
		return nil, fmt.Errorf("log folder %s: %w", c.Path, err)
	}
	lock, err := c.FS.Lock(filepath.Join(c.Path, lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("log folder %s: %w", c.Path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("log folder %s: %w", c.Path, err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	f := &Folder{
		path: c.Path, newID: c.NewID, lock: lock,
		dirs: make(map[model.TopicPartition]*PartitionDir), logs: make(map[model.TopicPartition]*Log),
		written: make(map[string][sha256.Size]byte),
	}
	if err := f.open(c); err != nil {
		return nil, errors.Join(fmt.Errorf("log folder %s: %w", c.Path, err), lock.Close())
	}
	f.disk = NewSyncer(SyncerConfig{
		FS: c.FS, Path: c.Path, Syncs: c.Syncs, Open: c.Open, Reserve: c.Reserve,
		Codecs: c.Codecs, Metrics: c.Metrics, Log: c.Log, Now: c.Now,
	})
	for _, name := range f.deleted() {
		f.disk.unlinkFolder(0, name)
	}
	return f, nil
}

func (f *Folder) open(c FolderConfig) error {
	entries, err := c.FS.ReadDir(c.Path)
	if err != nil {
		return err
	}
	if f.meta, err = identify(c, entries); err != nil {
		return err
	}
	if f.clean, f.epoch, err = readClean(c.FS, c.Path); err != nil {
		return err
	}
	if f.clean { // before anything changes: a crash from now on is an unclean stop
		if err := removeFile(c.FS, filepath.Join(c.Path, cleanFile)); err != nil {
			return err
		}
		if err := c.FS.SyncDir(c.Path); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if e.IsDir() {
			f.note(c.FS, e.Name())
		}
	}
	read := func(name string) map[model.TopicPartition]model.Offset {
		text, err := vfs.ReadFile(c.FS, filepath.Join(c.Path, name), maxCheckpoint)
		if err == nil {
			var offsets map[model.TopicPartition]model.Offset
			if offsets, err = parseOffsets(text); err == nil {
				return offsets
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			c.Log.Warn("a checkpoint cannot be read; it is taken as empty", "folder", c.Path, "file", name, "error", err)
		}
		return make(map[model.TopicPartition]model.Offset)
	}
	f.points = checkpoints{recovery: read(recoveryFile), start: read(startFile), cleaned: read(cleanedFile)}
	f.compacted = len(f.points.cleaned) > 0
	f.highs = read(highFile)
	return nil
}

// makeDirs makes a folder and those above it, and their names durable.
func makeDirs(fsys vfs.FS, path string) error {
	var made []string
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := fsys.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		made = append(made, dir)
	}
	if err := fsys.MkdirAll(path, 0o755); err != nil {
		return err
	}
	for _, dir := range slices.Backward(made) {
		if err := fsys.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// identify checks whose folder it is, and makes an empty one ours.
func identify(c FolderConfig, entries []fs.DirEntry) (Meta, error) {
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	delete(names, lockFile)
	delete(names, "lost+found") // of the file system
	for _, tmp := range []string{metaFile + tmpSuffix, markerFile + tmpSuffix} {
		if names[tmp] { // of a format that a crash cut short
			delete(names, tmp)
		}
	}
	ours := names[markerFile]
	delete(names, markerFile)
	switch {
	case names[metaFile] && (ours || c.Adopt):
	case names[metaFile]:
		return Meta{}, fmt.Errorf("%w: it belongs to Apache Kafka; copy it, or adopt it for good", ErrForeign)
	case len(names) > 0:
		var some []string
		for name := range names {
			some = append(some, name)
		}
		slices.Sort(some)
		return Meta{}, fmt.Errorf("%w: it has no %s but has %q; give an empty folder", ErrForeign, metaFile, some[:min(len(some), 3)])
	default:
		m := Meta{Version: 1, ClusterID: c.ClusterID, NodeID: c.NodeID, DirectoryID: c.NewID()}
		return m, writeIdentity(c, m)
	}
	m, err := PeekMeta(c.FS, c.Path)
	switch {
	case err != nil:
		return m, err
	case m.ClusterID != c.ClusterID:
		return m, fmt.Errorf("%w: it has cluster.id %s, this node's is %s", ErrMismatch, m.ClusterID, c.ClusterID)
	case m.NodeID != c.NodeID:
		return m, fmt.Errorf("%w: it has node.id %d, this node's is %d", ErrMismatch, m.NodeID, c.NodeID)
	}
	if !ours || m.DirectoryID == model.ZeroUUID {
		if m.DirectoryID == model.ZeroUUID {
			m.DirectoryID = c.NewID()
		}
		return m, writeIdentity(c, m)
	}
	return m, nil
}

// writeIdentity marks the folder as ours and writes meta.properties, the marker
// first: with it alone the folder still counts as empty.
func writeIdentity(c FolderConfig, m Meta) error {
	// An earlier start may have made the folder and died before it was durable.
	if err := c.FS.SyncDir(filepath.Dir(c.Path)); err != nil {
		return err
	}
	if err := vfs.WriteFileSync(c.FS, filepath.Join(c.Path, markerFile), []byte(markerText), 0o644); err != nil {
		return err
	}
	return vfs.WriteFileSync(c.FS, filepath.Join(c.Path, metaFile), appendMeta(nil, m, c.Now()), 0o644)
}

// note enters a subfolder if it is a partition's.
func (f *Folder) note(fsys vfs.FS, name string) {
	path := filepath.Join(f.path, name)
	stem, stray := name, false
	if i := strings.LastIndexByte(name, '.'); i >= 0 && strings.HasSuffix(name, straySuffix) {
		stem, stray = name[:i], true
	} else if strings.HasSuffix(name, deleteSuffix) && i >= 0 {
		return
	}
	tp, ok := parsePartition(stem)
	if !ok || tp.Topic == model.MetadataTopic {
		return
	}
	d := PartitionDir{TopicPartition: tp, Path: path, Stray: stray}
	if text, err := vfs.ReadFile(fsys, filepath.Join(path, topicFile), maxMeta); err == nil {
		d.TopicID, _ = parseTopicID(text)
	}
	if stray {
		f.strays = append(f.strays, d)
		return
	}
	f.dirs[tp] = &d
}

// parsePartition reads topic-partition.
func parsePartition(name string) (tp model.TopicPartition, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 {
		return tp, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	tp = model.TopicPartition{Topic: name[:i], Partition: int32(n)}
	return tp, err == nil && n >= 0 && model.CheckTopicName(tp.Topic) == nil && tp.String() == name
}

// ID is the folder's directory.id.
func (f *Folder) ID() model.UUID { return f.meta.DirectoryID }

// Path is the folder's path.
func (f *Folder) Path() string { return f.path }

// Syncer is the folder's disk, for logs in it that are no partitions.
func (f *Folder) Syncer() *Syncer { return f.disk }

// Failed is nil, or why nothing can be written here any more (D4). It wraps ErrFailed.
func (f *Folder) Failed() error { return f.disk.Failed() }

// Clean tells whether the folder was closed in order before this start, and the
// broker epoch that it was closed with, -1 if unknown.
func (f *Folder) Clean() (clean bool, epoch model.BrokerEpoch) { return f.clean, f.epoch }

// Partitions lists the partitions' folders, strays too, by name.
func (f *Folder) Partitions() []PartitionDir {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirs := slices.Clone(f.strays)
	for _, d := range f.dirs {
		dirs = append(dirs, *d)
	}
	slices.SortFunc(dirs, func(a, b PartitionDir) int { return strings.Compare(a.Path, b.Path) })
	return dirs
}

// Has tells whether the partition has a folder here that is not a stray.
func (f *Folder) Has(tp model.TopicPartition) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dirs[tp] != nil
}

// Count is the number of partitions here, strays not counted.
func (f *Folder) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dirs)
}

// Log is the partition's open log, nil if there is none.
func (f *Folder) Log(tp model.TopicPartition) *Log {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logs[tp]
}

// HighWatermark is what the checkpoint had for the partition when the folder was
// opened. It may exceed the log's end after a crash.
func (f *Folder) HighWatermark(tp model.TopicPartition) (model.Offset, bool) {
	high, ok := f.highs[tp]
	return high, ok
}

// Open opens the partition's log, which it makes if it is not there, without a
// sync: the metadata says that the partition is here. After an unclean stop the
// log is recovered; open several at once to use the disk well.
//
// Errors: ErrMismatch if the folder there is of another topic of this name.
func (f *Folder) Open(tp model.TopicPartition, id model.UUID, o LogOptions) (*Log, error) {
	f.mu.Lock()
	_, busy := f.logs[tp]
	if f.closed || busy {
		f.mu.Unlock()
		if busy {
			return nil, fmt.Errorf("opening log %s: it is open already", tp)
		}
		return nil, fmt.Errorf("opening log %s: %w", tp, ErrClosed)
	}
	f.logs[tp] = nil
	found := f.dirs[tp] != nil
	o.TopicID, o.Clean, o.RecoveryPoint, o.Start = id, f.clean, 0, 0
	stale := false
	if found {
		o.RecoveryPoint, o.Start = f.points.recovery[tp], f.points.start[tp]
	} else {
		// The checkpoints speak of an earlier log of this name (D7).
		stale = f.points.recovery[tp] > 0 || f.points.start[tp] > 0 || f.points.cleaned[tp] > 0
		delete(f.points.recovery, tp)
		delete(f.points.start, tp)
		delete(f.points.cleaned, tp)
	}
	f.mu.Unlock()

	var err error
	if stale {
		err = f.writePoints()
	}
	var l *Log
	if err == nil {
		l, err = openLog(f.disk, f, filepath.Join(f.path, tp.String()), tp, o)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		delete(f.logs, tp)
		return nil, err
	}
	f.logs[tp] = l
	f.dirs[tp] = &PartitionDir{TopicPartition: tp, TopicID: l.id, Path: l.dir}
	return l, nil
}

// Checkpoint writes the logs' recovery points and starts. To be called now and
// then, so that a start after a crash has little to look at.
func (f *Folder) Checkpoint() error {
	if err := f.Failed(); err != nil {
		return err
	}
	return f.writePoints()
}

// lower makes the checkpoints say no more of a log than is true (D7). Called by
// the log's writer after a truncation.
func (f *Folder) lower(l *Log) error {
	f.mu.Lock()
	recovery, start := f.points.recovery[l.tp], f.points.start[l.tp]
	dirty := f.points.cleaned[l.tp] > l.EndOffset()
	if dirty {
		f.points.cleaned[l.tp] = l.EndOffset()
	}
	f.mu.Unlock()
	if recovery <= l.RecoveryPoint() && start <= l.StartOffset() && !dirty {
		return nil
	}
	return f.writePoints()
}

// writePoints replaces the checkpoints. What the logs say is collected under
// writing, so a write that is waited for has all that came before it.
func (f *Folder) writePoints() error { return f.write(recoveryFile, startFile, cleanedFile) }

// write replaces those of the checkpoints that are named.
func (f *Folder) write(files ...string) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	points := checkpoints{recovery: maps.Clone(f.points.recovery), start: maps.Clone(f.points.start), cleaned: maps.Clone(f.points.cleaned)}
	logs, compacted := maps.Clone(f.logs), f.compacted
	f.mu.Unlock()
	for tp, l := range logs {
		if l == nil {
			continue
		}
		l.mu.Lock()
		recovery, start, first, dropping := l.recoveryLocked(), l.StartOffset(), l.segments[0].base, l.dropping
		l.mu.Unlock()
		points.recovery[tp] = recovery
		if start > first || dropping > 0 {
			points.start[tp] = start
		} else {
			delete(points.start, tp)
		}
	}
	for _, x := range []struct {
		name    string
		to, now map[model.TopicPartition]model.Offset
	}{{recoveryFile, f.points.recovery, points.recovery}, {startFile, f.points.start, points.start}, {cleanedFile, nil, points.cleaned}} {
		if !slices.Contains(files, x.name) || x.name == cleanedFile && !compacted {
			continue
		}
		if err := f.writeOffsets(x.name, x.now); err != nil {
			return err
		}
		if x.to == nil {
			continue
		}
		f.mu.Lock()
		for tp := range logs { // others may have been forgotten meanwhile
			if _, open := f.logs[tp]; open {
				set(x.to, x.now, tp)
			}
		}
		f.mu.Unlock()
	}
	return nil
}

func set(to, from map[model.TopicPartition]model.Offset, tp model.TopicPartition) {
	if o, ok := from[tp]; ok {
		to[tp] = o
		return
	}
	delete(to, tp)
}

// CheckpointHighWatermarks replaces the checkpoint of high watermarks by these.
func (f *Folder) CheckpointHighWatermarks(highs iter.Seq2[model.TopicPartition, model.Offset]) error {
	if err := f.Failed(); err != nil {
		return err
	}
	offsets := maps.Collect(highs)
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.writeOffsets(highFile, offsets)
}

func (f *Folder) writeOffsets(name string, offsets map[model.TopicPartition]model.Offset) error {
	keys := slices.SortedFunc(maps.Keys(offsets), func(a, b model.TopicPartition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	text := appendOffsets(nil, len(keys), func(yield func(model.TopicPartition, model.Offset) bool) {
		for _, tp := range keys {
			if !yield(tp, offsets[tp]) {
				return
			}
		}
	})
	sum := sha256.Sum256(text)
	if f.written[name] == sum { // an idle folder is left alone
		return nil
	}
	delete(f.written, name) // unknown if the write fails
	if err := vfs.WriteFileSync(f.disk.fs, filepath.Join(f.path, name), text, 0o644); err != nil {
		err = f.disk.writeError(err)
		return fmt.Errorf("checkpoint %s: %w", filepath.Join(f.path, name), err)
	}
	f.written[name] = sum
	return nil
}

// Close closes all logs, writes the checkpoints and then, if all of that worked,
// the mark of a clean stop with this broker epoch. Without the mark the next start
// recovers every log: so it does if this one was to, and some log was not opened.
func (f *Folder) Close(epoch model.BrokerEpoch) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	f.closed = true
	logs := make([]*Log, 0, len(f.logs))
	for _, l := range f.logs {
		if l != nil {
			logs = append(logs, l)
		}
	}
	sound := true
	for tp := range f.dirs {
		sound = sound && (f.clean || f.logs[tp] != nil)
	}
	f.mu.Unlock()
	err := f.closeLogs(logs)
	if err == nil {
		err = f.Failed()
	}
	if err == nil {
		err = f.writePoints()
	}
	f.disk.Close()
	if err == nil && sound {
		err = vfs.WriteFileSync(f.disk.fs, filepath.Join(f.path, cleanFile), appendClean(nil, epoch), 0o644)
	}
	lockName := filepath.Join(f.path, lockFile)
	if rerr := removeFile(f.disk.fs, lockName); err == nil {
		err = rerr
	}
	return errors.Join(err, f.lock.Close())
}

// closeLogs closes many logs, as many at a time as the pool syncs.
func (f *Folder) closeLogs(logs []*Log) error {
	var (
		mu   sync.Mutex
		errs error
		wg   sync.WaitGroup
		next = make(chan *Log)
	)
	for range min(f.disk.syncs, len(logs)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for l := range next {
				if err := l.Close(); err != nil {
					mu.Lock()
					errs = errors.Join(errs, fmt.Errorf("closing log %s: %w", l.dir, err))
					mu.Unlock()
				}
			}
		}()
	}
	for _, l := range logs {
		next <- l
	}
	close(next)
	wg.Wait()
	return errs
}
