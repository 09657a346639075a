package batch

import (
	"errors"
	"fmt"
	"io"
)

const (
	// wholeRecord is the size up to which validation brings a record into the
	// window whole, to be parsed as a slice; larger ones are walked through.
	wholeRecord = 64 << 10

	// windowSize is what a window has to begin with: a record and a block of the
	// sizes that Kafka's clients write.
	windowSize = wholeRecord + 64<<10

	// windowKeep is the largest window that goes back into the pool: a whole
	// record and the largest LZ4 block.
	windowKeep = wholeRecord + 4<<20 + 64<<10
)

// source is a decompressor. It must not hold on to the compressed bytes after
// release.
type source interface {
	// reset starts on a new compressed body.
	reset(body []byte) error

	// fill appends decompressed bytes to dst, at least one, at most about a
	// block's worth. It returns io.EOF after the last byte. Where a block states
	// its size and that is above limit, it returns ErrTooLarge before it allocates.
	fill(dst []byte, limit int64) ([]byte, error)

	release()
}

// stream is a window on decompressed bytes. Memory is bounded by what the caller
// wants at once plus a block, whatever the compressed bytes claim. It belongs to
// one goroutine from open to close.
type stream struct {
	codecs *Codecs
	codec  Codec
	src    source
	whole  int // as in Codecs

	buf  []byte // decompressed; buf[pos:] is not consumed yet
	pos  int
	left int64 // bytes that may still be decompressed
	err  error // sticky; io.EOF after the last byte
}

func newStream(codec Codec) *stream {
	s := &stream{codec: codec, buf: make([]byte, 0, windowSize)}
	switch codec {
	case Gzip:
		s.src = new(gzipSource)
	case Snappy:
		s.src = new(snappySource)
	case LZ4:
		s.src = new(lz4Source)
	case Zstd:
		s.src = new(zstdSource)
	default:
		panic("BUG: no source for " + codec.String())
	}
	return s
}

func (s *stream) reset(body []byte, limit int64) error {
	s.buf, s.pos, s.left, s.err = s.buf[:0], 0, limit, nil
	return s.wrap(s.src.reset(body))
}

// wrap makes a decompressor's error one of ours.
func (s *stream) wrap(err error) error {
	if err == nil || err == io.EOF || errors.Is(err, ErrTooLarge) {
		return err
	}
	if err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %s data ends early", ErrInvalid, s.codec)
	}
	return fmt.Errorf("%w: %s data cannot be decompressed: %w", ErrInvalid, s.codec, err)
}

// close gives the stream back to its pool.
func (s *stream) close() {
	s.src.release()
	if cap(s.buf) > windowKeep {
		s.buf = make([]byte, 0, windowSize)
	}
	s.codecs.streams[s.codec].Put(s)
}

// window is what is decompressed and not consumed.
func (s *stream) window() []byte { return s.buf[s.pos:] }

// fill makes the window longer. It invalidates slices of the window.
func (s *stream) fill() error {
	if s.err != nil {
		return s.err
	}
	if s.pos > 0 {
		n := copy(s.buf, s.buf[s.pos:])
		s.buf, s.pos = s.buf[:n], 0
	}
	before := len(s.buf)
	buf, err := s.src.fill(s.buf, s.left)
	s.buf = buf
	s.left -= int64(len(buf) - before)
	switch {
	case s.left < 0:
		s.err = fmt.Errorf("%w: records decompress to more than allowed", ErrTooLarge)
	case err != nil:
		s.err = s.wrap(err)
	case len(buf) == before:
		s.err = fmt.Errorf("%w: %s data makes no progress", ErrInvalid, s.codec)
	}
	return s.err
}

// want fills until the window has n bytes; io.EOF if there are fewer left. The
// window grows with the bytes that come, not with what n claims.
func (s *stream) want(n int) error {
	for len(s.buf)-s.pos < n {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

// length reads the varint before a record.
func (s *stream) length() (int, error) {
	if err := s.want(5); err != nil && err != io.EOF {
		return 0, err
	}
	n, at := varint(s.window(), 0)
	if at < 0 || n < 0 {
		return 0, fmt.Errorf("%w: bad record length, or fewer records than the header counts", ErrInvalid)
	}
	s.pos += at
	return int(n), nil
}

// record brings the next n bytes, a record's body, into the window, consumes and
// parses them. f is valid until the next call that fills.
func (s *stream) record(n int, f *fields) error {
	if err := s.want(n); err != nil {
		return endsEarly(err)
	}
	body := s.buf[s.pos : s.pos+n]
	s.pos += n
	return f.parse(body)
}

// end checks that nothing follows the last record; codecs verify their checksums
// on the way.
func (s *stream) end() error {
	err := s.want(1)
	if err == nil {
		return fmt.Errorf("%w: bytes follow the last record", ErrInvalid)
	}
	if err != io.EOF {
		return err
	}
	return nil
}

func endsEarly(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%w: compressed data ends within a record", ErrInvalid)
	}
	return err
}

// walk is record for a body too long for the window: it checks the same grammar
// but drops key, value and headers on the way, so f.key and f.value stay nil.
func (s *stream) walk(n int, f *fields) error {
	w := walker{s: s, left: n}
	w.skip(1)
	f.timestampDelta = w.number(varlong)
	f.offsetDelta = int32(w.number(varint32))
	keyLen := w.number(varint32)
	f.nullKey, f.key, f.value = keyLen < 0, nil, nil
	w.nullable("key", keyLen)
	w.nullable("value", w.number(varint32))
	count := w.number(varint32)
	if w.err == nil && (count < 0 || count > int64(w.left/2)) {
		w.err = badField("header count", int32(count), n)
	}
	for i := int64(0); i < count && w.err == nil; i++ {
		name := w.number(varint32)
		if w.err == nil && name < 0 {
			w.err = badField("header name", int32(name), n)
		}
		w.nullable("header name", name)
		w.nullable("header value", w.number(varint32))
	}
	if w.err == nil && w.left != 0 {
		w.err = fmt.Errorf("%w: record has %d bytes but its fields leave %d", ErrInvalid, n, w.left)
	}
	return endsEarly(w.err)
}

// varint32 is varint in the shape of varlong.
func varint32(b []byte, at int) (int64, int) {
	v, at := varint(b, at)
	return int64(v), at
}

// walker consumes the body of one record from a stream. Its error is sticky.
type walker struct {
	s    *stream
	left int // bytes of the record not consumed yet
	err  error
}

func (w *walker) number(read func([]byte, int) (int64, int)) int64 {
	if w.err != nil {
		return 0
	}
	n := min(10, w.left)
	if err := w.s.want(n); err != nil {
		w.err = err
		return 0
	}
	v, at := read(w.s.window()[:n], 0)
	if at < 0 {
		w.err = fmt.Errorf("%w: record has a bad number", ErrInvalid)
		return 0
	}
	w.s.pos += at
	w.left -= at
	return v
}

func (w *walker) nullable(name string, length int64) {
	if w.err == nil && (length < -1 || length > int64(w.left)) {
		w.err = badField(name, int32(length), w.left)
	}
	w.skip(int(max(length, 0)))
}

func (w *walker) skip(n int) {
	if w.err == nil && n > w.left {
		w.err = fmt.Errorf("%w: record ends early", ErrInvalid)
	}
	for n > 0 && w.err == nil {
		if w.err = w.s.want(1); w.err != nil {
			return
		}
		k := min(n, len(w.s.buf)-w.s.pos)
		w.s.pos += k
		w.left -= k
		n -= k
	}
}
