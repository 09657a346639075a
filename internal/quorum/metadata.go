package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

// keepSteps is how many of the newest images a follower in this process can be
// behind and still be led from one to the next.
const keepSteps = 64

// MetadataLog is the committed metadata log: as bytes for those who fetch it, as
// images for those in this process. All methods are safe for concurrent use. Only
// the loop goroutine publishes.
type MetadataLog struct {
	log *storage.Log
	fs  vfs.FS
	dir string

	mu sync.Mutex
	// img is the image after all that is committed and applied; last is its end.
	img  *image.Image
	last model.Offset
	// known is set while the high watermark may be told (Q6): an entry of the
	// current term, as far as this node knows it, was committed.
	known bool
	// steps are the newest changes of img, oldest first.
	steps []step
	// changed is closed and replaced when something was published.
	changed  chan struct{}
	snapshot SnapshotID
}

// A step leads from one committed image to the next.
type step struct {
	from, to *image.Image
	delta    *image.Delta
}

// SnapshotError says that the log does not reach back to an offset; the reader
// must take the snapshot and go on at its end.
type SnapshotError struct {
	From model.Offset
	ID   SnapshotID
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("metadata log does not have offset %d any more; snapshot %s has", e.From, e.ID)
}

// HighWatermark is the offset behind the last committed record; -1 while no entry
// of the leader's own term is known to be committed (Q6).
func (m *MetadataLog) HighWatermark() model.Offset {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		return model.NoOffset
	}
	return m.last
}

// StartOffset is the first offset that Read can give.
func (m *MetadataLog) StartOffset() model.Offset { return m.log.StartOffset() }

// end is the offset behind what is applied, known or not.
func (m *MetadataLog) end() model.Offset {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// Image is the committed image.
func (m *MetadataLog) Image() *image.Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.img
}

// Wait returns when a record at from is committed, or with ctx's error.
func (m *MetadataLog) Wait(ctx context.Context, from model.Offset) error {
	for {
		m.mu.Lock()
		ok, changed := m.known && m.last > from, m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next gives an image behind img and what differs. Where img is too old to be
// led step by step the image is the newest and delta is nil: compare the two.
// Where nothing is committed behind img, img itself comes back. Image and delta
// are shared: they must not be changed. max is not needed here; it is what a
// follower over the network bounds its reads by.
func (m *MetadataLog) Next(img *image.Image, max int64) (next *image.Image, delta *image.Delta, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if img.Offset() >= m.img.Offset() {
		return img, &image.Delta{From: img, To: img}, nil
	}
	for _, s := range m.steps {
		if s.from.Offset() == img.Offset() {
			return s.to, s.delta, nil
		}
	}
	return m.img, nil, nil
}

// Read gives whole batches from the one that holds from on, about max bytes of
// them, at least one; none if from is the end. Only committed ones are in the log.
// The error is a *SnapshotError for an offset that was trimmed, or wraps
// storage.ErrOutOfRange for one behind the end.
func (m *MetadataLog) Read(from model.Offset, max int64) ([]byte, error) {
	end := m.end()
	if from == end {
		return nil, nil
	}
	data, err := readBytes(m.log, from, end, max)
	if errors.Is(err, storage.ErrOutOfRange) && from < m.log.StartOffset() {
		if id, ok := m.LatestSnapshot(); ok {
			return nil, &SnapshotError{From: from, ID: id}
		}
	}
	return data, err
}

// LatestSnapshot names the newest snapshot, if there is one.
func (m *MetadataLog) LatestSnapshot() (SnapshotID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot, m.snapshot.End > 0
}

// A Snapshot is an open snapshot file.
type Snapshot struct {
	ID   SnapshotID
	Size int64
	f    vfs.File
}

var _ io.ReaderAt = (*Snapshot)(nil)

// ReadAt reads bytes of the snapshot.
func (s *Snapshot) ReadAt(p []byte, off int64) (int, error) { return s.f.ReadAt(p, off) }

// Close gives the file back.
func (s *Snapshot) Close() error { return s.f.Close() }

// OpenSnapshot opens a snapshot by its id; fs.ErrNotExist if it is gone.
func (m *MetadataLog) OpenSnapshot(id SnapshotID) (*Snapshot, error) {
	f, err := m.fs.Open(snapshotName(m.dir, id))
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	size, err := f.Size()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return &Snapshot{ID: id, Size: size, f: f}, nil
}

func (m *MetadataLog) setSnapshot(id SnapshotID) {
	m.mu.Lock()
	m.snapshot = id
	m.mu.Unlock()
}

// publish makes a new end, with its image, visible. delta is nil where the image
// did not come from the one before.
func (m *MetadataLog) publish(img *image.Image, delta *image.Delta, end model.Offset) {
	m.mu.Lock()
	if delta == nil {
		m.steps = nil
	} else {
		if len(m.steps) >= keepSteps {
			m.steps = append(m.steps[:0], m.steps[keepSteps/2:]...)
		}
		m.steps = append(m.steps, step{m.img, img, delta})
	}
	m.img, m.last = img, end
	m.tellLocked()
	m.mu.Unlock()
}

// setKnown says whether the high watermark may be told.
func (m *MetadataLog) setKnown(known bool) {
	m.mu.Lock()
	if m.known != known {
		m.known = known
		m.tellLocked()
	}
	m.mu.Unlock()
}

func (m *MetadataLog) tellLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}
