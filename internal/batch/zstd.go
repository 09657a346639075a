package batch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdWindow is the largest window that is decompressed as a stream. It is
	// what level 19 needs, the highest without --ultra.
	zstdWindow = 8 << 20

	// zstdWhole bounds frames with a larger window (levels 20 to 22, or one large
	// segment): they are decompressed whole, which costs only as much memory as
	// their contents have, and their contents may not be larger than this.
	zstdWhole = 32 << 20

	// zstdMaxWindow is the largest window that Kafka's clients accept.
	zstdMaxWindow = 128 << 20
)

// zstdSource decompresses frames, one after another.
type zstdSource struct {
	in  bytes.Reader
	dec *zstd.Decoder // synchronous: no goroutines, so it may be left to the collector

	whole []byte // the contents of a frame with a large window, not given out yet
	mode  zstdMode
}

type zstdMode int8

const (
	zstdStream zstdMode = iota
	zstdInMemory
)

func (z *zstdSource) reset(body []byte) error {
	z.whole, z.mode = nil, zstdStream
	if z.dec == nil {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			panic(fmt.Sprintf("BUG: zstd decoder options: %v", err))
		}
		z.dec = dec
	}
	if len(body) == 0 {
		return io.ErrUnexpectedEOF
	}
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if !h.SingleSegment && h.WindowSize > zstdMaxWindow {
		return fmt.Errorf("frame has a window of %d bytes, at most %d are supported", h.WindowSize, zstdMaxWindow)
	}
	if !h.Skippable && (h.WindowSize > zstdWindow || h.SingleSegment && h.FrameContentSize > zstdWindow) {
		return z.decodeWhole(body, h.SingleSegment)
	}
	z.in.Reset(body)
	return z.dec.Reset(&z.in)
}

// decodeWhole decompresses a frame whose window is too large to set aside. Contents
// of at most zstdWhole need no larger window than that, so the frame's window
// descriptor (its sixth byte, unless it is a single segment) is lowered in a copy.
func (z *zstdSource) decodeWhole(body []byte, singleSegment bool) error {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(zstdWhole))
	if err != nil {
		panic(fmt.Sprintf("BUG: zstd decoder options: %v", err))
	}
	defer dec.Close()
	if !singleSegment {
		body = bytes.Clone(body)
		body[5] = byte(bits.Len(zstdWhole)-1-10) << 3
	}
	z.mode = zstdInMemory
	z.whole, err = dec.DecodeAll(body, nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return fmt.Errorf("%w: a zstd frame with a window above %d bytes may hold at most %d; compress with a level of 19 or less", ErrTooLarge, zstdWindow, zstdWhole)
	}
	return err
}

func (z *zstdSource) fill(dst []byte, _ int64) ([]byte, error) {
	if z.mode == zstdStream {
		return readInto(dst, z.dec)
	}
	if len(z.whole) == 0 {
		return dst, io.EOF
	}
	n := min(len(z.whole), readStep)
	dst = append(reserve(dst, n), z.whole[:n]...)
	z.whole = z.whole[n:]
	return dst, nil
}

func (z *zstdSource) release() {
	z.in.Reset(nil)
	z.whole = nil
	if z.dec != nil {
		_ = z.dec.Reset(nil) // drops its reference to z.in; fails only after Close
	}
}
