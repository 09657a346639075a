package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// Chunk is a piece of a log's file: whole batches, the last of which may be cut.
// The file stays open until Close. The zero Chunk is empty.
//
// A truncation of the log may take the bytes away before they are read; reads
// then end early. It never happens below the high watermark.
type Chunk struct {
	h   *handle
	off int64
	n   int64
}

// Len is the number of bytes.
func (c *Chunk) Len() int64 { return c.n }

// ReadAt reads from position off of the chunk.
func (c *Chunk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.n {
		return 0, io.EOF
	}
	short := int64(len(p)) > c.n-off
	if short {
		p = p[:c.n-off]
	}
	n, err := c.h.f.ReadAt(p, c.off+off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// File is the descriptor and position for sendfile; nil if the file has none or
// the chunk is empty. The descriptor must not be used after Close.
func (c *Chunk) File() (f *os.File, off int64) {
	if c.h == nil {
		return nil, 0
	}
	return c.h.f.OSFile(), c.off
}

// Close lets go of the file. Closing twice, or the zero Chunk, does nothing.
func (c *Chunk) Close() {
	if c.h != nil {
		c.h.unpin()
		*c = Chunk{}
	}
}

// hint says that the batch with this offset, or the next one after it, begins at
// pos of the segment. Readers that go on where they stopped, and limits at the
// end of recent writes, are found in the hints without a look at any index.
type hint struct {
	offset model.Offset
	pos    int64
	s      *segment
}

// hints is a ring of the newest.
type hints struct {
	at   [16]hint
	next int
}

func (l *Log) hintLocked(h hint) {
	if l.hints == nil {
		l.hints = &hints{}
	}
	l.hints.at[l.hints.next] = h
	l.hints.next = (l.hints.next + 1) % len(l.hints.at)
}

func (l *Log) findHintLocked(s *segment, offset model.Offset) (int64, bool) {
	if l.hints == nil {
		return 0, false
	}
	for i := range l.hints.at {
		if h := &l.hints.at[i]; h.offset == offset && h.s == s {
			return h.pos, true
		}
	}
	return 0, false
}

// errMoved says that a truncation got in the way of a reader.
var errMoved = errors.New("log was truncated meanwhile")

// Read returns the batches from the one that holds from, up to a batch boundary
// at most limit, at most maxBytes of them: the last batch may be cut. With minOne
// the first batch is whole even if it is larger. A chunk is from one segment, so
// it may be shorter than what there is. It is empty if from >= limit, or limit is
// inside of the batch.
//
// Errors: *RangeError if from is outside of [start, end].
func (l *Log) Read(from, limit model.Offset, maxBytes int64, minOne bool) (Chunk, error) {
	for range maxRetries {
		c, err := l.read(from, limit, maxBytes, minOne)
		if !errors.Is(err, errMoved) && !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
		l.waitSettled()
	}
	return Chunk{}, fmt.Errorf("reading %s at %d: %w", l.dir, from, errMoved)
}

// maxRetries is how often a reader starts again because of truncations.
const maxRetries = 8

func (l *Log) read(from, limit model.Offset, maxBytes int64, minOne bool) (Chunk, error) {
	if !l.alive.Load() {
		return Chunk{}, ErrClosed
	}
	l.mu.Lock()
	gen, start, end := l.gen, model.Offset(l.start.Load()), model.Offset(l.end.Load())
	if from < start || from > end {
		l.mu.Unlock()
		return Chunk{}, &RangeError{Offset: from, Start: start, End: end}
	}
	limit = min(limit, end)
	i := l.findLocked(from)
	l.mu.Unlock()
	if maxBytes <= 0 && !minOne {
		return Chunk{}, nil
	}
	for from < limit {
		v, ok := l.viewAt(gen, i)
		if !ok {
			return Chunk{}, errMoved
		}
		c, err := l.readSegment(v, from, limit, maxBytes, minOne)
		if err != nil {
			l.waitSettled() // a truncation may be the cause
		}
		switch {
		case err != nil && l.moved(gen):
			return Chunk{}, errMoved
		case err != nil:
			return Chunk{}, l.disk.readError(fmt.Errorf("reading %s at %d: %w", l.dir, from, err))
		case l.moved(gen):
			c.Close()
			return Chunk{}, errMoved
		case c.n > 0 || v.next >= limit:
			return c, nil
		}
		i++ // compaction left nothing of this offset in the segment
	}
	return Chunk{}, nil
}

func (l *Log) moved(gen uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gen != gen
}

// view is a segment at a moment.
type view struct {
	s    *segment
	size int64
	next model.Offset // base of the next segment, or the log's end
	gen  uint32       // the log's at that moment
}

// viewAt looks at the i-th segment; ok is false if there is none, or the list
// changed since gen.
func (l *Log) viewAt(gen uint32, i int) (v view, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gen != gen || i >= len(l.segments) {
		return view{}, false
	}
	v = view{s: l.segments[i], size: l.segments[i].size, next: model.Offset(l.end.Load()), gen: gen}
	if i+1 < len(l.segments) {
		v.next = l.segments[i+1].base
	}
	return v, true
}

// readSegment is Read within one segment.
func (l *Log) readSegment(v view, from, limit model.Offset, maxBytes int64, minOne bool) (Chunk, error) {
	h, err := l.acquire(&v.s.file, v.s.base, logSuffix, 0)
	if err != nil {
		return Chunk{}, err
	}
	pos, err := l.locate(v, h, from)
	if err != nil {
		h.unpin()
		return Chunk{}, err
	}
	stop := v.size
	if limit < v.next {
		if stop, err = l.locate(v, h, limit); err != nil {
			h.unpin()
			return Chunk{}, err
		}
	}
	n, next := stop-pos, min(limit, v.next)
	if n > maxBytes {
		if n, next, err = l.cut(h, pos, n, maxBytes, minOne); err != nil {
			h.unpin()
			return Chunk{}, err
		}
	}
	if n <= 0 {
		h.unpin()
		return Chunk{}, nil
	}
	if next != model.NoOffset { // the reader will come back for what follows
		l.mu.Lock()
		if l.gen == v.gen { // else the hint may be of what was truncated
			l.hintLocked(hint{next, pos + n, v.s})
		}
		l.mu.Unlock()
	}
	return Chunk{h: h, off: pos, n: n}, nil
}

// cut shortens n bytes at pos to maxBytes, but with minOne not below the first
// batch. next is the offset after that batch if the result is just that.
func (l *Log) cut(h *handle, pos, n, maxBytes int64, minOne bool) (shorter int64, next model.Offset, err error) {
	if !minOne {
		return max(maxBytes, 0), model.NoOffset, nil
	}
	buf := l.disk.bufs.Get().(*[]byte)
	defer l.disk.bufs.Put(buf)
	head := (*buf)[:batch.HeaderSize]
	if _, err := h.f.ReadAt(head, pos); err != nil {
		return 0, 0, err
	}
	size, err := batch.Peek(head)
	if err != nil {
		return 0, 0, err
	}
	if int64(size) < maxBytes {
		return maxBytes, model.NoOffset, nil
	}
	return min(n, int64(size)), batch.Batch(head).NextOffset(), nil
}

// locate finds where the batch begins that holds offset, or the first one after
// it; the segment's size if there is none.
func (l *Log) locate(v view, h *handle, offset model.Offset) (int64, error) {
	if offset <= v.s.base {
		return 0, nil
	}
	l.mu.Lock()
	pos, ok := l.findHintLocked(v.s, offset)
	l.mu.Unlock()
	if ok && pos <= v.size {
		return pos, nil
	}
	pos, err := l.indexed(v, offset)
	if err != nil {
		return 0, err
	}
	at := v.size
	err = l.scan(h, pos, v.size, func(b batch.Batch, p int64) bool {
		if b.LastOffset() < offset {
			return true
		}
		at = p
		return false
	})
	return at, err
}

// indexed is a position from which to look for offset, by the index: that of a
// batch that ends at offset or before it.
func (l *Log) indexed(v view, offset model.Offset) (int64, error) {
	buf := l.disk.bufs.Get().(*[]byte)
	defer l.disk.bufs.Put(buf)
	e := (*buf)[:indexEntry]
	ok, err := l.lookup(v.s, &v.s.index, indexSuffix, indexEntry, indexOffset, int64(offset-v.s.base), e)
	if err != nil || !ok {
		return 0, err
	}
	pos := indexPos(e)
	if pos >= 0 && pos <= v.size {
		return pos, nil
	}
	l.mu.Lock()
	size := v.s.size
	l.mu.Unlock()
	if pos >= 0 && pos <= size { // the segment grew since the view was taken
		return v.size, nil
	}
	return 0, fmt.Errorf("%w: index of segment %d points to %d of %d bytes", errCorrupt, v.s.base, pos, size)
}

// scan walks over the headers of the batches in [pos, size) and stops when f
// says so. The Batch that f gets is a header only.
func (l *Log) scan(h *handle, pos, size int64, f func(b batch.Batch, pos int64) (more bool)) error {
	buf := l.disk.bufs.Get().(*[]byte)
	defer l.disk.bufs.Put(buf)
	r := sequential{f: h.f, buf: *buf}
	for pos < size {
		head, err := r.at(pos, batch.HeaderSize, size)
		if err != nil {
			return err
		}
		n, err := batch.Peek(head)
		if err != nil {
			return err
		}
		if int64(n) > size-pos {
			return fmt.Errorf("%w: batch of %d bytes at %d of %d", errCorrupt, n, pos, size)
		}
		if !f(batch.Batch(head), pos) {
			return nil
		}
		pos += int64(n)
	}
	return nil
}

// readBatch reads the whole batch at pos.
func (l *Log) readBatch(h *handle, pos, size int64) (batch.Batch, error) {
	var head [batch.LengthEnd]byte
	if _, err := h.f.ReadAt(head[:], pos); err != nil {
		return nil, err
	}
	n := int64(int32(binary.BigEndian.Uint32(head[8:]))) + batch.LengthEnd
	if n < batch.HeaderSize || n > size-pos {
		return nil, fmt.Errorf("%w: batch of %d bytes at %d of %d", errCorrupt, n, pos, size)
	}
	b := make([]byte, n)
	_, err := h.f.ReadAt(b, pos)
	return b, err
}
