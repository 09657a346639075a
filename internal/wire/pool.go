package wire

import (
	"math/bits"
	"sync"
)

// Size classes: four steps to each doubling, so that at most a fifth of a
// buffer is unused, from minBuf to maxBuf. What is larger comes from the
// garbage collector and goes back to it.
const (
	minBuf     = 256
	maxBuf     = 16 << 20
	minShift   = 6 // of a class: (4..7)+1 << shift; minBuf = 4 << minShift
	numClasses = 4*(22-minShift) + 1
)

// buf is a buffer of one size class.
type buf struct {
	b     []byte // whole length; len(b) == cap(b)
	class int16  // -1: not pooled
}

// pool keeps buffers by size class. sync.Pool gives them back to the garbage
// collector when they lie unused, so a burst is not held for ever.
type pool struct {
	classes [numClasses]sync.Pool
}

// classOf is the smallest class with at least n bytes, and its size.
func classOf(n int) (class, size int) {
	if n <= minBuf {
		return 0, minBuf
	}
	shift := bits.Len(uint(n-1)) - 3
	step := (n-1)>>shift - 3 // 1..4
	return (shift-minShift)*4 + step, (step + 4) << shift
}

// get returns a buffer with at least n bytes; its contents are arbitrary.
func (p *pool) get(n int) *buf {
	if n > maxBuf {
		return &buf{b: make([]byte, n), class: -1}
	}
	class, size := classOf(n)
	if b, ok := p.classes[class].Get().(*buf); ok {
		return b
	}
	return &buf{b: make([]byte, size), class: int16(class)}
}

// put takes a buffer back; nobody may use it any more. nil is allowed.
func (p *pool) put(b *buf) {
	if b != nil && b.class >= 0 {
		p.classes[b.class].Put(b)
	}
}
