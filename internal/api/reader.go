package api

import (
	"encoding/binary"
	"unsafe"

	"ottla.dev/ottla/internal/model"
)

// reader takes primitive values off a request body in place (KAFKA.md 3.1). It
// never allocates: strings and bytes are views of the body. After the first
// value that does not fit, bad is set and everything reads as zero, so callers
// check once at the end.
type reader struct {
	b    []byte
	flex bool // compact lengths and tagged fields
	bad  bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) int8() int8 {
	if v := r.take(1); v != nil {
		return int8(v[0])
	}
	return 0
}

func (r *reader) int16() int16 {
	if v := r.take(2); v != nil {
		return int16(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *reader) int32() int32 {
	if v := r.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

func (r *reader) int64() int64 {
	if v := r.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

func (r *reader) uuid() (id model.UUID) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) uvarint() uint32 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<31-1 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return uint32(v)
}

// bytes reads nullable bytes; null is nil, empty is not.
func (r *reader) bytes() []byte {
	var n int
	if r.flex {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int32())
	}
	if n < -1 {
		r.bad, r.b = true, nil
	}
	return r.nullable(n)
}

// text reads a string that is not nullable.
func (r *reader) text() string {
	s, ok := r.string()
	if !ok {
		r.bad, r.b = true, nil
	}
	return s
}

// string reads a nullable string as a view of the body; ok is false for null.
func (r *reader) string() (s string, ok bool) {
	var n int
	if r.flex {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int16())
	}
	b := r.nullable(n)
	return unsafe.String(unsafe.SliceData(b), len(b)), b != nil
}

func (r *reader) nullable(n int) []byte {
	if n < 0 || r.bad { // any negative length, as Kafka reads it
		return nil
	}
	if n == 0 {
		return []byte{}
	}
	return r.take(n)
}

// maxElements is what Kafka 4.4 accepts in one array (KAFKA.md 3.1).
const maxElements = 1_000_000

// array reads a length, null as 0, and refuses one that the rest of the body
// cannot hold at min bytes an element.
func (r *reader) array(min int) int {
	var n int
	if r.flex {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int32())
	}
	if n <= 0 {
		return 0
	}
	if n > maxElements || n > len(r.b)/min {
		r.bad, r.b = true, nil
		return 0
	}
	return n
}

// maxTags is what Kafka 4.4 accepts in one tagged section.
const maxTags = 10_000

// tags walks a tagged section; f is called for each and may be nil.
func (r *reader) tags(f func(tag uint32, body *reader)) {
	if !r.flex {
		return
	}
	n := r.uvarint()
	if n > maxTags {
		r.bad = true
		return
	}
	for range n {
		tag := r.uvarint()
		body := reader{b: r.take(int(r.uvarint())), flex: true}
		if r.bad {
			return
		}
		if f != nil {
			f(tag, &body)
			r.bad = r.bad || body.bad
		}
	}
}
