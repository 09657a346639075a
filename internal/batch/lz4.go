package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// An LZ4 frame, little endian:
//
//	magic 04 22 4d 18 | FLG | BD | [contentSize 8] | HC = second byte of XXH32 of FLG to contentSize
//	{ size int32, top bit = stored as is | data | [XXH32 of data] } …
//	size 0 | [XXH32 of contents]
//
// FLG: bits 7-6 version 1, 5 blocks are independent, 4 block checksums, 3 content
// size, 2 content checksum, 1 and 0 zero. BD: bits 6-4 the largest block, 4 = 64 KiB
// to 7 = 4 MiB, the others zero.
//
// Accepted is what Kafka's own clients can read: one frame, independent blocks, no
// dictionary. The checksums of the contents are not verified (nor does Kafka): the
// batch's CRC has covered the same bytes.
const (
	lz4Magic = 0x184d2204

	lz4Version         = 1 << 6
	lz4VersionMask     = 3 << 6
	lz4Independent     = 1 << 5
	lz4BlockChecksum   = 1 << 4
	lz4ContentSize     = 1 << 3
	lz4ContentChecksum = 1 << 2
	lz4Reserved        = 3

	lz4Stored   = 1 << 31
	lz4Block64K = 4

	// lz4Block is the block size written here; Kafka's Java client writes the same.
	lz4Block = 64 << 10
)

var errLZ4Block = errors.New("malformed block")

type lz4Source struct {
	in    []byte // what is left of the frame
	flags byte
	block int // largest block, decompressed
	done  bool
}

func (s *lz4Source) reset(body []byte) error {
	s.done = false
	if len(body) < 7 {
		return io.ErrUnexpectedEOF
	}
	if m := binary.LittleEndian.Uint32(body); m != lz4Magic {
		return fmt.Errorf("frame has magic %08x, expected %08x", m, lz4Magic)
	}
	flags, bd := body[4], body[5]
	switch {
	case flags&lz4VersionMask != lz4Version:
		return fmt.Errorf("frame has version %d, only 1 is supported", flags>>6)
	case flags&lz4Independent == 0:
		return errors.New("frame has dependent blocks, which Kafka does not support")
	case flags&lz4Reserved != 0 || bd&^(7<<4) != 0 || bd>>4 < lz4Block64K:
		return fmt.Errorf("frame descriptor %02x %02x is not supported", flags, bd)
	}
	n := 6
	if flags&lz4ContentSize != 0 {
		n += 8
	}
	if len(body) <= n {
		return io.ErrUnexpectedEOF
	}
	if want := byte(xxhash32(body[4:n]) >> 8); body[n] != want {
		return fmt.Errorf("frame descriptor has checksum %02x but gives %02x", body[n], want)
	}
	s.in, s.flags, s.block = body[n+1:], flags, 1<<(8+2*(bd>>4))
	return nil
}

func (s *lz4Source) fill(dst []byte, _ int64) ([]byte, error) {
	for {
		data, stored, err := s.next()
		if err != nil {
			return dst, err
		}
		if stored {
			if len(data) > s.block {
				return dst, errLZ4Block
			}
			if len(data) > 0 {
				return append(reserve(dst, len(data)), data...), nil
			}
			continue
		}
		// One byte of input gives at most 255 of output, so a small block needs no
		// more memory than it can fill.
		room := min(s.block, 255*len(data)+32)
		dst = reserve(dst, room)
		n, err := lz4.UncompressBlock(data, dst[len(dst):len(dst)+room])
		if err != nil {
			return dst, errLZ4Block
		}
		if n > 0 {
			return dst[:len(dst)+n], nil
		}
	}
}

// next takes a block from the frame.
func (s *lz4Source) next() (data []byte, stored bool, err error) {
	if s.done {
		return nil, false, io.EOF
	}
	if len(s.in) < 4 {
		return nil, false, io.ErrUnexpectedEOF
	}
	size := binary.LittleEndian.Uint32(s.in)
	s.in = s.in[4:]
	if size == 0 {
		return nil, false, s.end()
	}
	n := int(size &^ lz4Stored)
	sum := 0
	if s.flags&lz4BlockChecksum != 0 {
		sum = 4
	}
	if n > len(s.in)-sum {
		return nil, false, io.ErrUnexpectedEOF
	}
	data = s.in[:n]
	if sum > 0 && binary.LittleEndian.Uint32(s.in[n:]) != xxhash32(data) {
		return nil, false, errors.New("block has a wrong checksum")
	}
	s.in = s.in[n+sum:]
	return data, size&lz4Stored != 0, nil
}

// end reads what follows the last block.
func (s *lz4Source) end() error {
	s.done = true
	if s.flags&lz4ContentChecksum != 0 {
		if len(s.in) < 4 {
			return io.ErrUnexpectedEOF
		}
		s.in = s.in[4:]
	}
	if len(s.in) > 0 {
		return fmt.Errorf("%d bytes follow the frame", len(s.in))
	}
	return io.EOF
}

func (s *lz4Source) release() { s.in = nil }

// lz4Compressor writes frames of independent 64 KiB blocks without checksums.
type lz4Compressor struct {
	fast lz4.Compressor
	high *lz4.CompressorHC // nil: fast
}

func (c *lz4Compressor) begin(dst []byte) []byte {
	descriptor := [2]byte{lz4Version | lz4Independent, lz4Block64K << 4}
	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	return append(append(dst, descriptor[:]...), byte(xxhash32(descriptor[:])>>8))
}

// append appends one block of at most lz4Block bytes.
func (c *lz4Compressor) append(dst, src []byte) ([]byte, error) {
	room := lz4.CompressBlockBound(len(src))
	dst = reserve(dst, 4+room)
	at := len(dst)
	target := dst[at+4 : at+4+room]
	var n int
	var err error
	if c.high != nil {
		n, err = c.high.CompressBlock(src, target)
	} else {
		n, err = c.fast.CompressBlock(src, target)
	}
	if err != nil {
		return dst, fmt.Errorf("lz4: compress block of %d bytes: %w", len(src), err)
	}
	size := uint32(n)
	if n == 0 || n >= len(src) {
		n = copy(target, src)
		size = uint32(n) | lz4Stored
	}
	dst = dst[:at+4+n]
	binary.LittleEndian.PutUint32(dst[at:], size)
	return dst, nil
}

func (c *lz4Compressor) end(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }
