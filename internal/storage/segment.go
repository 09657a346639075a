package storage

import (
	"fmt"
	"math"
	"sync/atomic"

	"ottla.dev/ottla/internal/model"
)

// Suffixes of a segment's files; their name is the base offset in 20 digits.
const (
	logSuffix      = ".log"
	indexSuffix    = ".index"
	timeSuffix     = ".timeindex"
	txnSuffix      = ".txnindex"
	snapshotSuffix = ".snapshot"

	deletedSuffix = ".deleted" // to be unlinked
	cleanedSuffix = ".cleaned" // compaction's output, not finished
	swapSuffix    = ".swap"    // compaction's output, finished, on its way to its name
	tmpSuffix     = ".tmp"
)

// noTime is the largest timestamp of a segment without records.
const noTime = -1

// segment is a run of a log's batches in one file, with its indexes. Fields are
// guarded by Log.mu unless they say otherwise; only the log's writer changes them.
type segment struct {
	base model.Offset // INV: every offset in it is >= base and < the next segment's base

	// size is the bytes of whole, published batches; the file may have more
	// while a write is under way. synced is how many of them are on disk.
	size, synced int64

	// file is found and pinned without Log.mu.
	file atomic.Pointer[handle]

	// dirty is file's handle with one pin, while synced < size (D5).
	dirty *handle

	// writing: the file has a write that size does not have yet. A sync that ends in
	// between covers all of size and yet not the file: dirty must stay.
	writing bool

	index table // batches' last offsets and positions
	times table // largest timestamps so far
	txns  table // aborted transactions; unlike the others it has no tail

	// maxTime is the largest timestamp and maxOffset the last offset of the first
	// batch that has it. firstTime is the first batch's. Valid if known; noTime if
	// the segment has no batch.
	maxTime, firstTime int64
	maxOffset          model.Offset
	known              bool

	// since is how many bytes came after the batch that the index has last.
	since int64

	// lastTime is the timestamp of the last entry of times, noTime if none.
	// Valid on the active segment.
	lastTime int64

	// created is when the segment began in this process, milliseconds. For logs
	// whose records have no timestamps.
	created int64
}

func newSegment(base model.Offset, now int64) *segment {
	return &segment{
		base: base, maxTime: noTime, firstTime: noTime, lastTime: noTime, maxOffset: base, created: now,
		index: table{count: -1}, times: table{count: -1}, txns: table{count: -1},
	}
}

// name is the path of one of the segment's files.
func (l *Log) name(base model.Offset, suffix string) string {
	return fmt.Sprintf("%s/%020d%s", l.dir, int64(base), suffix)
}

// acquire pins one of the segment's files; it is opened, and its name made, only
// if it is not open.
func (l *Log) acquire(slot *atomic.Pointer[handle], base model.Offset, suffix string, flag int) (*handle, error) {
	if h := slot.Load(); h != nil && h.pin() {
		return h, nil
	}
	return l.disk.files.acquire(slot, l.name(base, suffix), flag)
}

// relative is an offset as indexes have it.
func (s *segment) relative(o model.Offset) (int32, bool) {
	d := int64(o - s.base)
	return int32(d), d >= 0 && d <= math.MaxInt32
}

// doom closes all files of the segment as soon as nobody uses them.
func (s *segment) doom() {
	drop(&s.file)
	drop(&s.index.slot)
	drop(&s.times.slot)
	drop(&s.txns.slot)
}
