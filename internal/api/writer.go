package api

import (
	"encoding/binary"

	"ottla.dev/ottla/internal/model"
)

// writer appends primitive values in Kafka's encodings (KAFKA.md 3.1).
type writer struct {
	b    []byte
	flex bool
}

func (w *writer) int16(v int16) { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *writer) int32(v int32) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) int64(v int64) { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }

func (w *writer) uvarint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) uuid(id model.UUID) {
	w.b = append(w.b, id[:]...)
}

func (w *writer) string(s string) {
	if w.flex {
		w.uvarint(uint64(len(s)) + 1)
	} else {
		w.int16(int16(len(s)))
	}
	w.b = append(w.b, s...)
}

// nullString writes a nullable string.
func (w *writer) nullString(s *string) {
	switch {
	case s != nil:
		w.string(*s)
	case w.flex:
		w.uvarint(0)
	default:
		w.int16(-1)
	}
}

func (w *writer) array(n int) {
	if w.flex {
		w.uvarint(uint64(n) + 1)
	} else {
		w.int32(int32(n))
	}
}

func (w *writer) nullArray() {
	if w.flex {
		w.uvarint(0)
	} else {
		w.int32(-1)
	}
}

// noTags writes an empty tagged section where there is one.
func (w *writer) noTags() {
	if w.flex {
		w.b = append(w.b, 0)
	}
}

// tag writes a tagged section with tag 0 alone.
func (w *writer) tag(body []byte) {
	w.uvarint(1)
	w.uvarint(0)
	w.uvarint(uint64(len(body)))
	w.b = append(w.b, body...)
}

// grow makes the buffer n bytes longer.
func (w *writer) grow(n int) {
	if cap(w.b)-len(w.b) < n {
		b := make([]byte, len(w.b), len(w.b)+n)
		copy(b, w.b)
		w.b = b
	}
	w.b = w.b[:len(w.b)+n]
}
