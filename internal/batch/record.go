package batch

import (
	"fmt"

	"ottla.dev/ottla/internal/model"
)

// NoTimestamp is the timestamp of a record that has none.
const NoTimestamp int64 = -1

// Record is one record of a batch.
type Record struct {
	Offset     model.Offset
	Timestamp  int64  // milliseconds; or NoTimestamp
	Key, Value []byte // nil = null
	Headers    []Header
}

// Header is a named value that travels with a record.
type Header struct {
	Key   string
	Value []byte // nil = null
}

// fields are a record's parts where they lie. A record is, with all numbers
// zigzag varints:
//
//	length | attributes 1 byte | timestampDelta | offsetDelta |
//	keyLength (-1 null) key | valueLength (-1 null) value |
//	headerCount { keyLength key | valueLength (-1 null) value }
//
// It is valid if the parts fill the length exactly and no length is below -1;
// header names are never null. Attributes have no meaning yet and any value passes.
type fields struct {
	timestampDelta int64
	offsetDelta    int32
	nullKey        bool
	key, value     []byte // nil = null
	headerCount    int32
	headers        []byte // what follows headerCount
}

// parse reads a record's body, which follows its length. The headers are checked
// too, so that a walk over them needs no error. Most numbers have one byte; those
// are read without a call, which halves the time that small records take.
func (f *fields) parse(b []byte) error {
	at := 1
	if at < len(b) && b[at] < 0x80 {
		f.timestampDelta, at = int64(zigzag(b[at])), at+1
	} else {
		f.timestampDelta, at = varlong(b, at)
	}
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		f.offsetDelta, at = zigzag(b[at]), at+1
	} else {
		f.offsetDelta, at = varint(b, at)
	}
	var n int32
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		n, at = zigzag(b[at]), at+1
	} else {
		n, at = varint(b, at)
	}
	if at < 0 || n < -1 || int(n) > len(b)-at {
		return badField("key", n, len(b))
	}
	f.nullKey, f.key = n < 0, nil
	if n >= 0 {
		f.key = b[at : at+int(n) : at+int(n)]
		at += int(n)
	}
	n, at = varint(b, at)
	if at < 0 || n < -1 || int(n) > len(b)-at {
		return badField("value", n, len(b))
	}
	f.value = nil
	if n >= 0 {
		f.value = b[at : at+int(n) : at+int(n)]
		at += int(n)
	}
	if at == len(b)-1 && b[at] == 0 {
		f.headerCount, f.headers = 0, nil
		return nil
	}
	return f.parseHeaders(b, at)
}

func (f *fields) parseHeaders(b []byte, at int) error {
	var err error
	f.headerCount, at = varint(b, at)
	if at < 0 || f.headerCount < 0 || int(f.headerCount) > (len(b)-at)/2 {
		return badField("header count", f.headerCount, len(b))
	}
	f.headers = b[at:]
	if at, err = skipHeaders(b, at, f.headerCount); err != nil {
		return err
	}
	if at != len(b) {
		return fmt.Errorf("%w: record has %d bytes but its fields take %d", ErrInvalid, len(b), at)
	}
	return nil
}

// skipHeaders checks count headers of b from at on and returns where they end.
func skipHeaders(b []byte, at int, count int32) (int, error) {
	for range count {
		var n int32
		if n, at = varint(b, at); at < 0 || n < 0 || int(n) > len(b)-at {
			return 0, badField("header name", n, len(b))
		}
		if n, at = varint(b, at+int(n)); at < 0 || n < -1 || int(n) > len(b)-at {
			return 0, badField("header value", n, len(b))
		}
		at += int(max(n, 0))
	}
	return at, nil
}

func badField(name string, length int32, size int) error {
	return fmt.Errorf("%w: record of %d bytes has a bad %s (length %d)", ErrInvalid, size, name, length)
}

// appendHeaders decodes headers that parse has accepted.
func (f *fields) appendHeaders(dst []Header) []Header {
	b, at := f.headers, 0
	for range f.headerCount {
		var n int32
		n, at = varint(b, at)
		h := Header{Key: string(b[at : at+int(n)])}
		n, at = varint(b, at+int(n))
		if n >= 0 {
			h.Value = b[at : at+int(n) : at+int(n)]
			at += int(n)
		}
		dst = append(dst, h)
	}
	return dst
}

// bodySize is the length that a record's length field states.
func bodySize(timestampDelta int64, offsetDelta int32, key, value []byte, headers []Header) int {
	n := 1 + varintSize(timestampDelta) + varintSize(int64(offsetDelta)) + bytesSize(key) + bytesSize(value)
	n += varintSize(int64(len(headers)))
	for i := range headers {
		h := &headers[i]
		n += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

// appendRecord appends a record, its length first.
func appendRecord(dst []byte, size int, timestampDelta int64, offsetDelta int32, key, value []byte, headers []Header) []byte {
	dst = appendVarint(dst, int64(size))
	dst = append(dst, 0)
	dst = appendVarint(dst, timestampDelta)
	dst = appendVarint(dst, int64(offsetDelta))
	dst = appendBytes(dst, key)
	dst = appendBytes(dst, value)
	dst = appendVarint(dst, int64(len(headers)))
	for i := range headers {
		h := &headers[i]
		dst = appendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 1) // -1, null
	}
	return append(appendVarint(dst, int64(len(b))), b...)
}
