package batch

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/gzip"
)

// readStep is how much a source that decodes into any buffer reads at a time.
const readStep = 32 << 10

// gzipSource decompresses RFC 1952 members, one after another.
type gzipSource struct {
	in bytes.Reader
	zr gzip.Reader
}

func (g *gzipSource) reset(body []byte) error {
	g.in.Reset(body)
	err := g.zr.Reset(&g.in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // no member at all
	}
	return err
}

func (g *gzipSource) fill(dst []byte, _ int64) ([]byte, error) { return readInto(dst, &g.zr) }

func (g *gzipSource) release() { g.in.Reset(nil) }

// readInto appends what one successful read gives.
func readInto(dst []byte, r io.Reader) ([]byte, error) {
	dst = reserve(dst, readStep)
	for range 100 {
		n, err := r.Read(dst[len(dst):cap(dst)])
		if n > 0 {
			// An error will come again with the next read.
			return dst[:len(dst)+n], nil
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, io.ErrNoProgress
}

// reserve makes sure that n bytes can be appended in place.
func reserve(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	grown := make([]byte, len(dst), max(2*cap(dst), len(dst)+n))
	copy(grown, dst)
	return grown
}
