package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"ottla.dev/ottla/internal/model"
)

// MaxString is the longest string, in bytes, that Kafka reads. Whoever builds a
// record from a user's words must refuse longer ones.
const MaxString = math.MaxInt16

// Why bytes are not a record.
var (
	// ErrCorrupt means that the bytes break the encoding.
	ErrCorrupt = errors.New("record: corrupt")
	// ErrUnsupported means a frame, type or version that this build does not know.
	ErrUnsupported = errors.New("record: unsupported")
)

// mustVersion guards Append: the version is always ours to choose.
func mustVersion(name string, version, lo, hi int16) {
	if version < lo || version > hi {
		panic(fmt.Sprintf("BUG: record: %s has versions %d to %d, not %d", name, lo, hi, version))
	}
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendInt8(dst []byte, v int8) []byte       { return append(dst, byte(v)) }
func appendInt16(dst []byte, v int16) []byte     { return binary.BigEndian.AppendUint16(dst, uint16(v)) }
func appendUint16(dst []byte, v uint16) []byte   { return binary.BigEndian.AppendUint16(dst, v) }
func appendUuid(dst []byte, v model.UUID) []byte { return append(dst, v[:]...) }

func appendInt32(dst []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(v))
}

func appendInt64(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v))
}

func appendFloat64(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
}

// appendArrayLen writes an array's or a byte string's length: as uvarint n+1
// where flexible (0 is null), else as int32 (-1 is null).
func appendArrayLen(dst []byte, n int, null, flexible bool) []byte {
	switch {
	case flexible && null:
		return append(dst, 0)
	case flexible:
		return binary.AppendUvarint(dst, uint64(n)+1)
	case null:
		return appendInt32(dst, -1)
	}
	return appendInt32(dst, int32(n))
}

// appendArray writes an array whose elements one append function encodes.
func appendArray[T any](dst []byte, list []T, null, flexible bool, elem func([]byte, T) []byte) []byte {
	dst = appendArrayLen(dst, len(list), null, flexible)
	for _, v := range list {
		dst = elem(dst, v)
	}
	return dst
}

func appendBytes(dst, b []byte, null, flexible bool) []byte {
	return append(appendArrayLen(dst, len(b), null, flexible), b...)
}

// appendString writes the length as uvarint n+1 where flexible, else as int16.
func appendString(dst []byte, s string, flexible bool) []byte {
	if flexible {
		dst = binary.AppendUvarint(dst, uint64(len(s))+1)
	} else {
		dst = appendInt16(dst, int16(len(s)))
	}
	return append(dst, s...)
}

// appendNullString writes null as length 0 where flexible, else as -1; a nil
// string in a version that may not be null is written as "".
func appendNullString(dst []byte, s *string, nullable, flexible bool) []byte {
	switch {
	case s != nil:
		return appendString(dst, *s, flexible)
	case !nullable:
		return appendString(dst, "", flexible)
	case flexible:
		return append(dst, 0)
	}
	return appendInt16(dst, -1)
}

// closeTag puts the size in front of a tagged field whose value was written
// from start on.
func closeTag(dst []byte, start int) []byte {
	n := len(dst) - start
	var prefix [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(prefix[:], uint64(n))
	dst = append(dst, prefix[:k]...)
	copy(dst[start+k:], dst[start:start+n])
	copy(dst[start:], prefix[:k])
	return dst
}

// A reader takes values off the front of src. The first fault stays in err;
// from then on every read gives a zero value and arrays have length 0, so
// callers check err once at the end. Nothing is allocated for a length that
// the remaining bytes cannot hold.
type reader struct {
	src      []byte
	flexible bool
	err      error
}

// readWhole decodes src with read and demands that nothing is left over.
func readWhole(name string, src []byte, version, lo, hi int16, read func(*reader, int16)) error {
	if version < lo || version > hi {
		return fmt.Errorf("%w: %s version %d, known are %d to %d", ErrUnsupported, name, version, lo, hi)
	}
	d := reader{src: src}
	read(&d, version)
	if d.err == nil && len(d.src) > 0 {
		d.fail("%d bytes after the last field", len(d.src))
	}
	if d.err != nil {
		return fmt.Errorf("%w: %s version %d: near byte %d of %d: %w", ErrCorrupt, name, version, len(src)-len(d.src), len(src), d.err)
	}
	return nil
}

func (d *reader) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// zeros is what a failed reader gives for values of fixed size.
var zeros [16]byte

// take returns the next n bytes, n being small for callers that cannot fail on nil.
func (d *reader) take(n int) []byte {
	if d.err == nil && n <= len(d.src) {
		b := d.src[:n:n]
		d.src = d.src[n:]
		return b
	}
	d.fail("%d bytes wanted, %d remain", n, len(d.src))
	if n <= len(zeros) {
		return zeros[:n]
	}
	return nil
}

func (d *reader) bool() bool       { return d.take(1)[0] != 0 }
func (d *reader) int8() int8       { return int8(d.take(1)[0]) }
func (d *reader) int16() int16     { return int16(binary.BigEndian.Uint16(d.take(2))) }
func (d *reader) uint16() uint16   { return binary.BigEndian.Uint16(d.take(2)) }
func (d *reader) int32() int32     { return int32(binary.BigEndian.Uint32(d.take(4))) }
func (d *reader) int64() int64     { return int64(binary.BigEndian.Uint64(d.take(8))) }
func (d *reader) uuid() model.UUID { return model.UUID(d.take(16)) }
func (d *reader) float64() float64 {
	return math.Float64frombits(binary.BigEndian.Uint64(d.take(8)))
}

// uvarint reads an unsigned number of at most 32 bits, as Kafka does.
func (d *reader) uvarint() uint32 {
	v, n := binary.Uvarint(d.src)
	switch {
	case d.err != nil:
	case n == 0:
		d.fail("unfinished varint")
	case n < 0 || n > 5 || v > math.MaxUint32:
		d.fail("varint longer than 32 bits")
	default:
		d.src = d.src[n:]
		return uint32(v)
	}
	return 0
}

// length reads the length of a value whose units take at least size bytes
// each: -1 for null.
func (d *reader) length(n int64, what string, size int, nullable bool) int {
	switch {
	case d.err != nil:
	case n == -1 && nullable:
		return -1
	case n == -1:
		d.fail("%s is null but may not be", what)
	case n < 0:
		d.fail("%s has the length %d", what, n)
	case n*int64(size) > int64(len(d.src)):
		d.fail("%s of length %d needs %d bytes or more, %d remain", what, n, n*int64(size), len(d.src))
	default:
		return int(n)
	}
	return 0
}

// arrayLen reads the length of an array whose elements take at least size
// bytes each.
func (d *reader) arrayLen(size int, nullable bool) (n int, null bool) {
	raw := int64(0)
	if d.flexible {
		raw = int64(d.uvarint()) - 1
	} else {
		raw = int64(d.int32())
	}
	n = d.length(raw, "an array", size, nullable)
	return max(n, 0), n < 0
}

// stringLen reads a string's length, -1 for null.
func (d *reader) stringLen(nullable bool) int {
	raw := int64(0)
	if d.flexible {
		raw = int64(d.uvarint()) - 1
	} else {
		raw = int64(d.int16())
	}
	if raw > MaxString {
		d.fail("a string of %d bytes, at most %d are allowed", raw, MaxString)
	}
	return d.length(raw, "a string", 1, nullable)
}

func (d *reader) string() string { return string(d.take(d.stringLen(false))) }

func (d *reader) nullString(nullable bool) *string {
	n := d.stringLen(nullable)
	if n < 0 {
		return nil
	}
	s := string(d.take(n))
	return &s
}

// bytes gives nil for null, and nil for empty where null is not possible.
func (d *reader) bytes(nullable bool) []byte {
	n, null := d.arrayLen(1, nullable)
	if null || n == 0 && !nullable {
		return nil
	}
	return append(make([]byte, 0, n), d.take(n)...)
}

// present reads whether a struct that may be null is there.
func (d *reader) present(nullable bool) bool {
	if d.int8() >= 0 {
		return d.err == nil
	}
	if !nullable {
		d.fail("a struct is null but may not be")
	}
	return false
}

func (d *reader) tagCount() uint32 { return d.uvarint() }

// openTag reads a tagged field's number and narrows src to its value; closeTag
// takes the bytes behind it.
func (d *reader) openTag() (tag uint32, rest []byte) {
	tag = d.uvarint()
	n := d.length(int64(d.uvarint()), "a tagged field", 1, false)
	rest = d.src[n:]
	d.src = d.src[:n]
	return tag, rest
}

// closeTag demands that the value of a tagged field was used up.
func (d *reader) closeTag(rest []byte) {
	if len(d.src) > 0 {
		d.fail("%d bytes after the value of a tagged field", len(d.src))
	}
	d.src = rest
}

// skipTags skips all tagged fields.
func (d *reader) skipTags() {
	for n := d.tagCount(); n > 0 && d.err == nil; n-- {
		_, d.src = d.openTag()
	}
}

// makeArray reads an array's length and makes room for it. Null is nil, and so
// is an empty array where null is not possible.
func makeArray[T any](d *reader, size int, nullable bool) []T {
	n, null := d.arrayLen(size, nullable)
	if null || n == 0 && !nullable {
		return nil
	}
	return make([]T, n)
}

// readArray reads an array whose elements one reader method gives.
func readArray[T any](d *reader, size int, nullable bool, elem func(*reader) T) []T {
	list := makeArray[T](d, size, nullable)
	for i := range list {
		list[i] = elem(d)
	}
	return list
}
