package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/snappy"
)

// xerialHeader begins the framing that snappy-java made and Kafka's clients use:
//
//	82 'SNAPPY' 00 | version int32 = 1 | oldest compatible version int32 = 1 | { length int32 | block } …
//
// Framed bodies may follow one another, header included. A body that does not
// begin so is one bare block (librdkafka writes those).
const xerialHeader = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"

const xerialMagicSize = 8

// xerialBlock is the block size that Kafka's Java client writes.
const xerialBlock = 32 << 10

var errSnappy = errors.New("malformed snappy block")

type snappySource struct {
	in     []byte // what is left of the compressed body
	framed bool
}

func (s *snappySource) reset(body []byte) error {
	s.in = body
	s.framed = bytes.HasPrefix(body, []byte(xerialHeader[:xerialMagicSize]))
	if s.framed {
		return s.skipHeader()
	}
	return nil
}

func (s *snappySource) skipHeader() error {
	if len(s.in) < len(xerialHeader) {
		return io.ErrUnexpectedEOF
	}
	s.in = s.in[len(xerialHeader):]
	return nil
}

func (s *snappySource) fill(dst []byte, limit int64) ([]byte, error) {
	for {
		block, err := s.block()
		if err != nil {
			return dst, err
		}
		n, err := snappy.DecodedLen(block)
		if err != nil {
			return dst, errSnappy
		}
		// A block of snappy cannot expand more than 64 bytes per 3 (a copy), so a
		// length above that is a lie, told before it costs memory.
		if n > 64*len(block)/3+64 {
			return dst, errSnappy
		}
		if int64(n) > limit {
			return dst, ErrTooLarge
		}
		if n == 0 {
			continue
		}
		dst = reserve(dst, n)
		if _, err := snappy.DecodeStrict(dst[len(dst):len(dst)+n], block); err != nil {
			return dst, errSnappy
		}
		return dst[:len(dst)+n], nil
	}
}

// block takes the next block from the input.
func (s *snappySource) block() ([]byte, error) {
	if len(s.in) == 0 {
		return nil, io.EOF
	}
	if !s.framed {
		block := s.in
		s.in = nil
		return block, nil
	}
	for bytes.HasPrefix(s.in, []byte(xerialHeader[:xerialMagicSize])) {
		if err := s.skipHeader(); err != nil {
			return nil, err
		}
		if len(s.in) == 0 {
			return nil, io.EOF
		}
	}
	if len(s.in) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	n := binary.BigEndian.Uint32(s.in)
	if uint64(n) > uint64(len(s.in)-4) {
		return nil, io.ErrUnexpectedEOF
	}
	block := s.in[4 : 4+n]
	s.in = s.in[4+n:]
	return block, nil
}

func (s *snappySource) release() { s.in = nil }

// appendSnappy appends src in the xerial framing. first says that the framing
// begins here.
func appendSnappy(dst, src []byte, first bool) []byte {
	if first {
		dst = append(dst, xerialHeader...)
	}
	for len(src) > 0 {
		chunk := src[:min(len(src), xerialBlock)]
		src = src[len(chunk):]
		most := snappy.MaxEncodedLen(len(chunk))
		dst = reserve(dst, 4+most)
		at := len(dst)
		block := snappy.Encode(dst[at+4:at+4+most], chunk)
		dst = dst[:at+4+len(block)]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(block)))
	}
	return dst
}
