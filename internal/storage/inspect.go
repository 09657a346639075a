package storage

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"path/filepath"
	"strings"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// Inspecting: reading a log folder's files from outside, without opening the
// folder, to show them or to find damage. Nothing is locked, changed or kept, so
// it works on a running node, on Apache Kafka's files and on what is left of a
// disk. Files are read as streams: memory does not grow with a file's size, nor
// with a number that stands in it.

// FileKind is what a file is, as its name says.
type FileKind int8

// The kinds of files that Inspect functions read.
const (
	OtherFile     FileKind = iota
	SegmentFile            // NNN.log: InspectBatches
	SnapshotFile           // NNN-EEE.checkpoint: batches too, of the metadata's image
	IndexFile              // NNN.index: InspectIndex
	TimeIndexFile          // NNN.timeindex: InspectTimes
	TxnIndexFile           // NNN.txnindex: InspectTxns
	ProducerFile           // NNN.snapshot: InspectProducers
	EpochFile              // leader-epoch-checkpoint: InspectEpochs
	OffsetFile             // …-offset-checkpoint: InspectOffsets
	TopicIDFile            // partition.metadata: InspectTopicID
	MetaFile               // meta.properties: InspectMeta
	CleanFile              // .kafka_cleanshutdown: InspectClean
)

// KindOf tells what a file is by its name. Files that are on their way out or in
// (.deleted, .cleaned, .swap, .part) are of the kind that they were or will be.
func KindOf(path string) FileKind {
	name := filepath.Base(path)
	for _, s := range []string{deletedSuffix, cleanedSuffix, swapSuffix, ".part"} {
		name = strings.TrimSuffix(name, s)
	}
	switch name {
	case epochFile:
		return EpochFile
	case recoveryFile, highFile, startFile, "cleaner-offset-checkpoint":
		return OffsetFile
	case topicFile:
		return TopicIDFile
	case metaFile:
		return MetaFile
	case cleanFile:
		return CleanFile
	}
	switch filepath.Ext(name) {
	case logSuffix:
		return SegmentFile
	case ".checkpoint":
		return SnapshotFile
	case indexSuffix:
		return IndexFile
	case timeSuffix:
		return TimeIndexFile
	case txnSuffix:
		return TxnIndexFile
	case snapshotSuffix:
		return ProducerFile
	}
	return OtherFile
}

// BaseOf is the offset that a segment's file is named by. False if it has no such
// name.
func BaseOf(path string) (model.Offset, bool) {
	base, _, ok := parseName(filepath.Base(path))
	return base, ok
}

// Damage is a place in a file where something is that cannot be.
type Damage struct {
	Pos    int64        // position in the file, -1 if it is the whole file
	Offset model.Offset // offset of the record or batch, NoOffset if unknown
	What   string       // what is wrong
	Means  string       // what follows from it; may be empty
}

func (d *Damage) Error() string {
	var b strings.Builder
	if d.Pos >= 0 {
		fmt.Fprintf(&b, "position %d", d.Pos)
		if d.Offset >= 0 {
			fmt.Fprintf(&b, ", offset %d", d.Offset)
		}
		b.WriteString(": ")
	}
	b.WriteString(d.What)
	if d.Means != "" {
		b.WriteString("; " + d.Means)
	}
	return b.String()
}

// Is makes every Damage the same as a file that does not parse.
func (d *Damage) Is(target error) bool { return target == errCorrupt }

func damaged(pos int64, offset model.Offset, means, format string, args ...any) *Damage {
	return &Damage{Pos: pos, Offset: offset, What: fmt.Sprintf(format, args...), Means: means}
}

// BatchAt is a batch in a file.
type BatchAt struct {
	Pos     int64
	Size    int64       // header included
	Header  batch.Batch // the header only; valid until the next one
	GoodCRC bool

	f vfs.File
}

// Load reads the whole batch, at most max bytes. It may be called until the next
// batch is asked for.
func (b *BatchAt) Load(max int64) (batch.Batch, error) {
	if b.Size > max {
		return nil, fmt.Errorf("%w: the batch at position %d has %d bytes, %d are read at most", batch.ErrTooLarge, b.Pos, b.Size, max)
	}
	whole := make(batch.Batch, b.Size)
	if n, err := b.f.ReadAt(whole, b.Pos); n < len(whole) {
		return nil, fmt.Errorf("reading the batch at position %d: %w", b.Pos, err)
	}
	return whole, nil
}

// What damage to a segment means.
const (
	meansRefused = "consumers refuse it, and a recovery after an unclean stop cuts the log here"
	meansCut     = "nothing after it can be found, and a recovery after an unclean stop cuts the log here"
	meansTail    = "a running node may be writing it, or a crash or a full disk cut it off; a recovery cuts the log here"
	meansOrder   = "the log was put together from files that do not belong together, or written to by two nodes"
)

// InspectBatches walks over the batches of a file: their headers, checksums and
// order. Every error that is a *Damage comes for a place in the file; the walk
// goes on after it where the next batch can be found. Other errors end it.
//
// Zeros up to the end of the file are no damage: they are reserved space, or a
// write that a crash kept from the disk. The walk ends where they begin.
func InspectBatches(fsys vfs.FS, path string) iter.Seq2[BatchAt, error] {
	return func(yield func(BatchAt, error) bool) {
		err := withFile(fsys, path, func(f vfs.File, size int64) error {
			w := batchWalk{f: f, size: size, crc: true, yield: yield}
			return w.run()
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(BatchAt{}, err)
		}
	}
}

// errEnough ends a walk whose caller wants no more.
var errEnough = errors.New("enough")

// withFile opens a file for f and closes it.
func withFile(fsys vfs.FS, path string, f func(vfs.File, int64) error) error {
	file, err := fsys.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	return f(file, size)
}

// inspectBuffer is how much is read at a time.
const inspectBuffer = 128 << 10

// batchWalk is one walk of InspectBatches.
type batchWalk struct {
	f     vfs.File
	size  int64
	crc   bool // compute checksums, for which every byte must be read
	yield func(BatchAt, error) bool

	in    *bufio.Reader
	pos   int64
	epoch model.Epoch  // of the batch before
	next  model.Offset // the least offset that may come
	head  [batch.HeaderSize]byte
}

func (w *batchWalk) run() error {
	w.in = bufio.NewReaderSize(io.NewSectionReader(w.f, 0, w.size), inspectBuffer)
	w.epoch = model.NoEpoch
	for w.pos < w.size {
		left := w.size - w.pos
		head, err := w.in.Peek(int(min(left, batch.HeaderSize)))
		if err != nil {
			return fmt.Errorf("reading at position %d: %w", w.pos, err)
		}
		n, err := batch.Peek(head)
		if err == nil && len(head) < batch.HeaderSize || errors.Is(err, batch.ErrShort) {
			if zeros, err := w.zeros(); zeros || err != nil {
				return err
			}
			return damaged(w.pos, model.NoOffset, meansTail, "%d bytes are too few for a record batch, which has %d at least", left, batch.HeaderSize)
		}
		if err != nil {
			if zeros, err := w.zeros(); zeros || err != nil {
				return err
			}
			return damaged(w.pos, model.NoOffset, meansCut, "no record batch begins here: %s", strip(err))
		}
		if int64(n) > left {
			return damaged(w.pos, batch.Batch(head).BaseOffset(), meansTail, "the file ends after %d of the batch's %d bytes", left, n)
		}
		if err := w.batch(head, int64(n)); err != nil {
			return err
		}
	}
	return nil
}

// batch hands out the batch that begins here and goes on behind it.
func (w *batchWalk) batch(head []byte, size int64) error {
	b := BatchAt{Pos: w.pos, Size: size, Header: append(batch.Batch(w.head[:0]), head...), GoodCRC: true, f: w.f}
	h := b.Header
	var sum uint32
	if w.crc {
		var err error
		if sum, err = w.sum(size); err != nil {
			return fmt.Errorf("reading the batch at position %d: %w", w.pos, err)
		}
		b.GoodCRC = sum == h.CRC()
	} else if _, err := io.CopyN(io.Discard, w.in, size); err != nil {
		return fmt.Errorf("reading the batch at position %d: %w", w.pos, err)
	}
	w.pos += size
	if !w.yield(b, nil) {
		return errEnough
	}
	if !b.GoodCRC {
		return w.report(damaged(b.Pos, h.BaseOffset(), meansRefused, "the batch has CRC %08x, its bytes give %08x", h.CRC(), sum))
	}
	return w.order(&b)
}

// order checks a batch against those before it.
func (w *batchWalk) order(b *BatchAt) error {
	h := b.Header
	if h.BaseOffset() < 0 || h.LastOffsetDelta() < 0 || h.LastOffset() < h.BaseOffset() || h.Count() < 0 {
		return w.report(damaged(b.Pos, h.BaseOffset(), meansCut, "the batch has %d records at offsets %d to %d, which cannot be", h.Count(), h.BaseOffset(), h.LastOffset()))
	}
	if h.BaseOffset() < w.next {
		err := w.report(damaged(b.Pos, h.BaseOffset(), meansOrder, "the batch begins at offset %d, at least %d must come", h.BaseOffset(), w.next))
		if err != nil {
			return err
		}
	}
	if h.LeaderEpoch() < w.epoch {
		err := w.report(damaged(b.Pos, h.BaseOffset(), meansOrder, "the batch is of leader epoch %d and follows one of epoch %d", h.LeaderEpoch(), w.epoch))
		if err != nil {
			return err
		}
	}
	w.next, w.epoch = h.NextOffset(), max(w.epoch, h.LeaderEpoch())
	return nil
}

func (w *batchWalk) report(d *Damage) error {
	if !w.yield(BatchAt{}, d) {
		return errEnough
	}
	return nil
}

// sum reads a batch to its end and gives the checksum of what it covers.
func (w *batchWalk) sum(size int64) (uint32, error) {
	const covered = batch.LengthEnd + 4 + 1 + 4 // behind leader epoch, magic and the checksum
	if _, err := w.in.Discard(covered); err != nil {
		return 0, err
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	_, err := io.CopyN(sum, w.in, size-covered)
	return sum.Sum32(), err
}

// zeros reports whether nothing but zeros is left, and reads up to what is not.
func (w *batchWalk) zeros() (bool, error) {
	for {
		b, err := w.in.ReadByte()
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, fmt.Errorf("reading behind position %d: %w", w.pos, err)
		case b != 0:
			return false, nil
		}
	}
}

// strip takes a sentinel's words from the front of an error.
func strip(err error) string {
	text := err.Error()
	for _, s := range []error{batch.ErrInvalid, batch.ErrCorrupt, errCorrupt} {
		text = strings.TrimPrefix(text, s.Error()+": ")
	}
	return text
}
