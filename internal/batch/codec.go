package batch

import (
	"fmt"
	"sync"
)

// Codec is a batch's compression, as its attributes number it.
type Codec int8

// The codecs of Kafka. Gzip is RFC 1952; Snappy is the framing of snappy-java or
// one bare block; LZ4 is the LZ4 frame format; Zstd is plain frames.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd

	codecCount
)

// String gives the name that compression.type uses.
func (c Codec) String() string {
	switch c {
	case None:
		return "uncompressed"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", int8(c))
}

// ParseCodec reads a name as in compression.type; "none" and "uncompressed" are
// the same. "producer" is not a codec: see Rules.KeepCodec.
func ParseCodec(name string) (Codec, error) {
	if name == "none" {
		return None, nil
	}
	for c := None; c < codecCount; c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return None, fmt.Errorf("%w: %q; known are uncompressed, gzip, snappy, lz4 and zstd", ErrCodec, name)
}

// Codecs compresses and decompresses. It keeps the state that the codecs need (up
// to some MiB each) in pools that the garbage collector empties. There is one per
// node; it is safe for concurrent use.
type Codecs struct {
	whole   int                               // records up to this size are parsed whole; smaller in tests
	streams [codecCount]sync.Pool             // of *stream, by codec; None unused
	sinks   [codecCount][levelCount]sync.Pool // of *sink, by codec and level slot
}

// NewCodecs returns codecs with empty pools.
func NewCodecs() *Codecs { return &Codecs{whole: wholeRecord} }

// open starts decompressing the body of a batch, at most limit bytes of it. The
// stream must be closed.
func (c *Codecs) open(codec Codec, body []byte, limit int64) (*stream, error) {
	if codec <= None || codec >= codecCount {
		return nil, fmt.Errorf("%w: %s", ErrCodec, codec)
	}
	s, _ := c.streams[codec].Get().(*stream)
	if s == nil {
		s = newStream(codec)
	}
	s.codecs, s.whole = c, c.whole
	if err := s.reset(body, limit); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
