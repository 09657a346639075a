package storage

import (
	"errors"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"ottla.dev/ottla/internal/model"
)

// Never is the flush.messages or flush.ms that leaves flushing to the operating
// system, Kafka's default.
const Never = math.MaxInt64

// LogConfig is what a log takes from its topic's configuration. A zero field
// means the default: Kafka's, but 1 for FlushMessages. Where 0 is a setting of its
// own (IndexInterval, FlushMs, DeleteDelayMs) write -1 for it.
type LogConfig struct {
	SegmentBytes  int32 // segment.bytes
	SegmentMs     int64 // segment.ms
	JitterMs      int64 // segment.jitter.ms
	IndexBytes    int32 // segment.index.bytes
	IndexInterval int32 // index.interval.bytes

	// FlushMessages 1 means that the flushed offset is what is on disk. With any
	// other value it is the end offset at once and syncs only bound what a power
	// failure can take, as in Kafka: one after that many records, or FlushMs.
	FlushMessages int64
	FlushMs       int64

	MaxMessageBytes  int32 // max.message.bytes; 0 = no limit here
	ProducerExpireMs int64 // producer.id.expiration.ms
	DeleteDelayMs    int64 // file.delete.delay.ms
	Compact          bool  // cleanup.policy has compact: offsets may have gaps between segments
}

func (c LogConfig) withDefaults() LogConfig {
	set := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	set32 := func(v *int32, d int32) {
		if *v == 0 {
			*v = d
		}
	}
	set32(&c.SegmentBytes, 1<<30)
	set(&c.SegmentMs, 7*24*3600*1000)
	set32(&c.IndexBytes, 10<<20)
	set32(&c.IndexInterval, 4096)
	set(&c.FlushMessages, 1)
	set(&c.FlushMs, Never)
	set(&c.ProducerExpireMs, 24*3600*1000)
	set(&c.DeleteDelayMs, 60*1000)
	c.IndexInterval, c.FlushMs, c.DeleteDelayMs = max(c.IndexInterval, 0), max(c.FlushMs, 0), max(c.DeleteDelayMs, 0)
	return c
}

// LogOptions says how to open a log.
type LogOptions struct {
	Config LogConfig
	Notify Notify // may be nil

	// NoProducers leaves out producer state and its snapshots: for logs that only
	// take replica appends of plain batches.
	NoProducers bool

	// The rest is for OpenLog; a Folder knows it.

	// TopicID goes to partition.metadata if it is not zero.
	TopicID model.UUID

	// Clean says that the log was closed in order: nothing is scanned.
	Clean bool

	// RecoveryPoint is an offset below which all segments are known to be whole.
	RecoveryPoint model.Offset

	// Start is the log's start, if above the first segment's base.
	Start model.Offset
}

// Notify hears of a log. The methods run without locks, on whatever goroutine
// made it so, and must not block or call operations of the log other than Append
// and accessors. Calls for one log may overlap and arrive out of order: EndOffset
// and FlushedOffset are the truth.
type Notify interface {
	// Appended: records up to end can be read.
	Appended(l *Log, end model.Offset)
	// Flushed: records below flushed survive a power failure.
	Flushed(l *Log, flushed model.Offset)
	// Failed: the folder has failed; nothing is appended any more.
	Failed(l *Log, err error)
}

// Log is the log of one partition, or another log in the same format.
type Log struct {
	disk        *Syncer
	folder      *Folder // nil for logs of OpenLog
	dir         string
	tp          model.TopicPartition // of logs in folders
	id          model.UUID           // of the topic; zero = none
	notify      Notify
	noProducers bool

	// queue holds appends and operations until the writer takes them.
	queue queue

	// start <= flushed <= end, except that a truncation lowers end first.
	// unstable is where the oldest open transaction began, -1 if none.
	start, end, flushed, unstable atomic.Int64

	touched atomic.Bool // appended to since the last sweep
	alive   atomic.Bool // not closed

	// syncNext links the log in its Syncer's queue; guarded by Syncer.mu.
	syncNext *Log

	// jobs is held by sync jobs (shared) or by a truncation for all of their I/O: it
	// is what keeps them apart. A job must not see, and make durable, half a
	// truncation (epochs that are cut for a log that is not). Taken before mu.
	jobs sync.RWMutex

	// mu is never held across I/O.
	mu sync.Mutex
	guarded

	owned
}

// guarded is what Log.mu guards. Only the writer changes it, except for sync, aux
// and hints.
type guarded struct {
	cfg      LogConfig
	segments []*segment // ascending, never empty; the last is the active one
	epochs   epochs
	done     []doneTxn // ascending by first; until their markers are replicated
	hints    *hints    // nil until the log is read or written
	gen      uint32    // changes when segments or ends of them are taken away
	hasTxns  bool      // some segment may have a transaction index
	dropping int       // removals from the front that are not durable: a crash may bring segments back
	sync     syncState
	aux      []auxFile // files to sync before the recovery point moves on (D2)
}

// owned is what belongs to the log's writer, and to who opens the log.
type owned struct {
	writer    *writer // nil while the log rests
	producers producers
	leader    model.Epoch  // in which this node may append; -1 = none
	snapshot  model.Offset // of the newest producer snapshot, -1 = none
	wasCut    bool         // recovery removed bytes
}

// auxFile is a file that is not a segment's data but belongs to what lies below
// the recovery point.
type auxFile struct {
	h *handle
	t *table // nil for producer snapshots
}

// Dir is the log's folder on disk.
func (l *Log) Dir() string { return l.dir }

// Folder is the log folder that has the log, nil for one of OpenLog.
func (l *Log) Folder() *Folder { return l.folder }

// TopicPartition is the partition's name; zero for logs of OpenLog.
func (l *Log) TopicPartition() model.TopicPartition { return l.tp }

// TopicID is the topic's id, zero if the log has none.
func (l *Log) TopicID() model.UUID { return l.id }

// StartOffset is the first offset that can be read, unless the log is empty.
func (l *Log) StartOffset() model.Offset { return model.Offset(l.start.Load()) }

// EndOffset is the offset that the next record gets.
func (l *Log) EndOffset() model.Offset { return model.Offset(l.end.Load()) }

// FlushedOffset: records below it are as durable as the log's flush policy says.
// With FlushMessages 1 they are on disk (D1); else it is the end offset.
func (l *Log) FlushedOffset() model.Offset { return model.Offset(l.flushed.Load()) }

// RecoveryPoint is the offset below which no segment need be scanned after a
// crash (D2).
func (l *Log) RecoveryPoint() model.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recoveryLocked()
}

// recoveryLocked is at most the active segment's base, because the indexes of that
// segment are not on disk. Were it the log's end, it would be the base of the
// segment that is rolled next.
func (l *Log) recoveryLocked() model.Offset {
	switch {
	case l.sync.sealed:
		return l.sync.synced
	case l.sync.rolled != model.NoOffset:
		return min(l.sync.rolled, l.sync.synced)
	}
	return min(l.active().base, l.sync.synced)
}

// Size is the bytes of all segments.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// SetConfig changes the configuration for what is appended from now on.
func (l *Log) SetConfig(c LogConfig) {
	_ = l.do(func() error {
		end := l.EndOffset()
		l.mu.Lock()
		l.cfg = c.withDefaults()
		strict := l.cfg.FlushMessages == 1
		raised := !strict && l.raiseLocked(end)
		behind := strict && l.sync.synced < end
		l.mu.Unlock()
		if raised && l.notify != nil {
			l.notify.Flushed(l, end)
		}
		if behind {
			l.wantSync(false)
		}
		return nil
	})
}

// LatestEpoch is the epoch of the last record, or the one set since. ok is false
// if the log knows none.
func (l *Log) LatestEpoch() (e model.Epoch, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.latest()
}

// EpochEnd answers where an epoch ends: the largest epoch not above e that the
// log has, and the offset after its last record. NoEpoch and NoOffset if e is
// newer than all, or none is known (OffsetForLeaderEpoch, KAFKA.md 3.8).
func (l *Log) EpochEnd(e model.Epoch) (model.Epoch, model.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.end(e, model.Offset(l.end.Load()))
}

// EpochOf is the epoch in which an offset was written. ok is false if it is older
// than what the log knows.
func (l *Log) EpochOf(offset model.Offset) (e model.Epoch, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs.at(offset)
}

// SetLeaderEpoch lets this node append in an epoch, which begins at the log's
// end. Appends of older epochs are refused from now on. The epoch is on disk
// before the first record of it counts as flushed (D1). ErrFenced if the log
// already has a newer one.
func (l *Log) SetLeaderEpoch(e model.Epoch) error {
	return l.do(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if last, ok := l.epochs.latest(); e < 0 || ok && e < last || e < l.leader {
			return ErrFenced
		}
		if l.epochs.assign(e, model.Offset(l.end.Load())) {
			l.sync.epochs = true
		}
		l.leader = e
		return nil
	})
}

// UnstableOffset is where the oldest open transaction began. ok is false if none
// is open. Readers need LastStable, which also minds markers that are not
// replicated yet.
func (l *Log) UnstableOffset() (o model.Offset, ok bool) {
	o = model.Offset(l.unstable.Load())
	return o, o != model.NoOffset
}

// LastStable is the offset below which every transaction has ended with a marker
// below the high watermark, at most high itself: what read_committed may see.
// high must not go back from call to call.
func (l *Log) LastStable(high model.Offset) model.Offset {
	stable := high
	if first, ok := l.UnstableOffset(); ok {
		stable = min(stable, first)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.done) > 0 {
		l.done = slices.DeleteFunc(l.done, func(t doneTxn) bool { return t.marker < high })
		for _, t := range l.done {
			stable = min(stable, t.first)
		}
	}
	return stable
}

// Producers lists the producers that the log knows, by id.
func (l *Log) Producers() []ProducerState {
	var states []ProducerState
	_ = l.do(func() error {
		states = l.producers.list()
		return nil
	})
	return states
}

// ExpireProducers forgets producers without an open transaction that wrote
// nothing for producer.id.expiration.ms.
func (l *Log) ExpireProducers(now time.Time) {
	_ = l.do(func() error {
		l.producers.expire(now.UnixMilli() - l.cfg.ProducerExpireMs)
		return nil
	})
}

// findLocked is the index of the segment that holds offset, or would.
func (l *Log) findLocked(offset model.Offset) int {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > offset })
	return max(i-1, 0)
}

// active is the segment that is appended to. Called by the writer, or with mu held.
func (l *Log) active() *segment { return l.segments[len(l.segments)-1] }

// raiseLocked raises the flushed offset and reports whether that changed it; the
// caller then tells Notify, without the lock. It is done under mu so that it
// cannot cross a truncation.
func (l *Log) raiseLocked(to model.Offset) bool {
	if l.flushed.Load() >= int64(to) {
		return false
	}
	l.flushed.Store(int64(to))
	return true
}

// usable says why nothing can be done to the log, if so.
func (l *Log) usable() error {
	if !l.alive.Load() {
		return ErrClosed
	}
	return l.disk.Failed()
}

// do runs f as the log's writer, after all appends that came before. It must not
// be called from Append.Done or Notify, which run on the writer.
func (l *Log) do(f func() error) error {
	err := errors.New("BUG: storage: an operation did not run")
	done := make(chan struct{})
	a := &Append{op: func() {
		err = f()
		close(done)
	}}
	if l.queue.push(a, a) {
		l.drain()
	}
	<-done
	return err
}
