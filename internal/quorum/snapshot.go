package quorum

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/vfs"
)

// A snapshot is Kafka's: the file %020d-%010d.checkpoint in the metadata log's
// folder, named by the offset behind the last record it covers and that record's
// epoch (KAFKA.md 7.4).
//
//	control batch  SnapshotHeader, KRaftVersion, KRaftVoters
//	data batches   the image's records, base offsets counted from the file's begin
//	control batch  SnapshotFooter
//
// It is written as name.part, synced, renamed and the folder synced: a file under
// its final name is whole. It counts from when the state file names it.

// SnapshotID names a snapshot.
type SnapshotID struct {
	End   model.Offset // offset behind the last record covered
	Epoch model.Epoch  // epoch of that record
}

// String is the name of the snapshot's file without its suffix.
func (id SnapshotID) String() string { return fmt.Sprintf("%020d-%010d", id.End, id.Epoch) }

const (
	checkpointSuffix = ".checkpoint"
	partSuffix       = ".part"

	// maxSnapshotBatch bounds a batch of a snapshot or the metadata log, decompressed
	// or not: Kafka's internal.metadata.max.batch.size.in.bytes is 8 MiB.
	maxSnapshotBatch = 32 << 20
	// snapshotBuffer is how much is written at a time.
	snapshotBuffer = 1 << 20
)

func snapshotName(dir string, id SnapshotID) string {
	return join(dir, id.String()+checkpointSuffix)
}

// parseSnapshotName is the inverse of the name that a snapshot's file has.
func parseSnapshotName(name string) (id SnapshotID, ok bool) {
	base, ok := strings.CutSuffix(name, checkpointSuffix)
	if !ok || len(base) != 31 {
		return id, false
	}
	var end, epoch int64
	if n, err := fmt.Sscanf(base, "%020d-%010d", &end, &epoch); n != 2 || err != nil || end < 0 || epoch < 0 || epoch > 1<<31-1 {
		return id, false
	}
	id = SnapshotID{model.Offset(end), model.Epoch(epoch)}
	return id, id.String() == base
}

// snapshotJob is all that writing a snapshot needs; nothing of it changes.
type snapshotJob struct {
	id     SnapshotID
	at     position
	img    *image.Image
	voters []Voter
	last   int64 // timestamp of the last batch covered
	now    int64
}

// writeSnapshot writes a snapshot's file in one durable step and gives its size.
func writeSnapshot(fsys vfs.FS, dir string, codecs *batch.Codecs, job *snapshotJob) (int64, error) {
	name := snapshotName(dir, job.id)
	if err := removeIfThere(fsys, name+partSuffix); err != nil {
		return 0, err
	}
	f, err := fsys.OpenFile(name+partSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("snapshot %s: %w", job.id, err)
	}
	size, err := writeImage(f, codecs, job)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = publish(fsys, dir, name)
	}
	if err != nil {
		return 0, fmt.Errorf("snapshot %s: %w", job.id, err)
	}
	return size, nil
}

// publish gives a synced .part file its final name.
func publish(fsys vfs.FS, dir, name string) error {
	if err := fsys.Chmod(name+partSuffix, 0o400); err != nil {
		return err
	}
	if err := fsys.Rename(name+partSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func removeIfThere(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func writeImage(f vfs.File, codecs *batch.Codecs, job *snapshotJob) (int64, error) {
	w := newBatcher(codecs, 0, job.id.Epoch, job.now)
	var at int64
	spill := func(least int) error {
		if len(w.out) < least {
			return nil
		}
		n, err := f.WriteAt(w.out, at)
		at += int64(n)
		w.out = w.out[:0]
		return err
	}
	header := record.NewSnapshotHeaderRecord()
	header.LastContainedLogTimestamp = job.last
	head := append([]controlRecord{{batch.SnapshotHeader, header.Append(nil, 0)}}, votersRecords(job.voters)...)
	if err := w.controls(head...); err != nil {
		return 0, err
	}
	level := job.img.Feature(feature.MetadataVersion)
	one := make([]record.Metadata, 1)
	for r := range job.img.Records() {
		one[0] = r
		if err := w.add(one, level); err != nil {
			return 0, err
		}
		if err := spill(snapshotBuffer); err != nil {
			return 0, err
		}
	}
	if err := w.controls(controlRecord{batch.SnapshotFooter, record.NewSnapshotFooterRecord().Append(nil, 0)}); err != nil {
		return 0, err
	}
	if err := spill(0); err != nil {
		return 0, err
	}
	return at, nil
}

// loadSnapshot reads a snapshot's file back into an image.
func loadSnapshot(fsys vfs.FS, name string, codecs *batch.Codecs, id SnapshotID) (img *image.Image, size int64, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("snapshot %s: %w", id, err)
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return nil, 0, fmt.Errorf("snapshot %s: %w", id, err)
	}
	var readErr error
	img, err = image.Load(id.End-1, id.Epoch, snapshotRecords(f, size, codecs, &readErr))
	if err = errors.Join(readErr, err); err != nil {
		return nil, 0, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return img, size, nil
}

// snapshotRecords yields the metadata records of a snapshot of size bytes. What
// stops it before a whole footer goes to fail.
func snapshotRecords(f io.ReaderAt, size int64, codecs *batch.Codecs, fail *error) iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		var at int64
		var buf []byte
		header, footer := false, false
		for at < size && !footer {
			b, err := readBatch(f, at, size, &buf)
			if err != nil {
				*fail = err
				return
			}
			at += int64(len(b))
			if b.Control() {
				h, e, err := snapshotControls(codecs, b)
				if err != nil {
					*fail = err
					return
				}
				header, footer = header || h, e
				continue
			}
			recs, err := decodeBatch(codecs, b)
			if err != nil {
				*fail = err
				return
			}
			for _, r := range recs {
				if !yield(r) {
					return
				}
			}
		}
		if !header || !footer || at != size {
			*fail = fmt.Errorf("%w: header %t, footer %t, %d of %d bytes used", ErrCorrupt, header, footer, at, size)
		}
	}
}

// readBatch reads and checks the batch at a position; it reuses buf.
func readBatch(f io.ReaderAt, at, size int64, buf *[]byte) (batch.Batch, error) {
	var head [batch.HeaderSize]byte
	if size-at < int64(len(head)) {
		return nil, fmt.Errorf("%w: %d bytes at position %d are no batch", ErrCorrupt, size-at, at)
	}
	if _, err := f.ReadAt(head[:], at); err != nil {
		return nil, err
	}
	n, err := batch.Peek(head[:])
	if err != nil {
		return nil, fmt.Errorf("batch at position %d: %w", at, err)
	}
	if int64(n) > size-at || n > maxSnapshotBatch {
		return nil, fmt.Errorf("%w: batch of %d bytes at position %d of %d", ErrCorrupt, n, at, size)
	}
	*buf = slices.Grow((*buf)[:0], n)[:n]
	if m, err := f.ReadAt(*buf, at); m < n {
		return nil, err
	}
	b := batch.Batch(*buf)
	return b, b.Check()
}

// snapshotControls says which of the framing records a control batch has.
func snapshotControls(codecs *batch.Codecs, b batch.Batch) (header, footer bool, err error) {
	for r, err := range codecs.Records(b, maxSnapshotBatch) {
		if err != nil {
			return false, false, err
		}
		t, err := batch.ParseControlKey(r.Key)
		if err != nil {
			return false, false, err
		}
		header = header || t == batch.SnapshotHeader
		footer = footer || t == batch.SnapshotFooter
	}
	return header, footer, nil
}

// cleanSnapshots removes leftovers: .part files, and snapshots other than those
// to keep. It is called when no snapshot is being written.
func cleanSnapshots(fsys vfs.FS, dir string, keep ...SnapshotID) error {
	list, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		id, ok := parseSnapshotName(e.Name())
		if !ok && !strings.HasSuffix(e.Name(), checkpointSuffix+partSuffix) || slices.Contains(keep, id) {
			continue
		}
		if err := removeIfThere(fsys, filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("removing snapshot %s: %w", e.Name(), err)
		}
	}
	return nil
}

func join(dir, name string) string { return filepath.Join(dir, name) }
