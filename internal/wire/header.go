package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A frame, as Kafka draws it (KAFKA.md 3.1). All integers are big endian.
//
//	request   │ length int32 │ key int16 │ version int16 │ correlation int32 │ client id nullable string │ [tags] │ body │
//	response  │ length int32 │ correlation int32 │ [tags] │ body │
//
// length counts the bytes after itself. [tags] is there when the request's
// version is flexible (request header v2, response header v1); the client id
// keeps its old int16 length even then. The answer to ApiVersions never has
// tags, so that a client of any age can read it.
const (
	lengthSize   = 4
	prefixSize   = lengthSize + 4 // what admission needs: length, key, version
	minPayload   = 2 + 2 + 4 + 2  // a request header v1 with a null client id
	maxTags      = 10_000         // Kafka's own limit on tagged fields
	keyProduce   = 0
	keyFetch     = 1
	keyVersions  = 18
	neverFlex    = int16(1<<15 - 1)
	maxRespHead  = 9  // length, correlation id, empty tags
	headroom     = 16 // bytes kept free before a reply's body for its header
	rawFrameKey  = int16(-1)
	rawFrameHead = lengthSize
)

// ErrMalformed is wrapped by the error that closes a connection whose peer does
// not speak Kafka's protocol: a length out of range, a header cut short.
var ErrMalformed = errors.New("wire: malformed frame")

// flexibleFrom has, by API key, the first version whose headers carry tagged
// fields. It is a literal, compared with kmsg by a test.
var flexibleFrom = [...]int16{
	0: 9, 1: 12, 2: 6, 3: 9, 4: 4, 5: 2, 6: 6, 7: 3, 8: 8, 9: 6,
	10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: neverFlex, 18: 3, 19: 5,
	20: 4, 21: 2, 22: 2, 23: 4, 24: 3, 25: 3, 26: 3, 27: 1, 28: 3, 29: 2,
	30: 2, 31: 2, 32: 4, 33: 2, 34: 2, 35: 2, 36: 2, 37: 2, 38: 2, 39: 2,
	40: 2, 41: 2, 42: 2, 43: 2, 44: 1, 45: 0, 46: 0, 47: neverFlex, 48: 1, 49: 1,
	50: 0, 51: 0, 52: 0, 53: 1, 54: 1, 55: 0,
}

// Flexible reports whether the headers of a request and of its answer carry
// tagged fields. Keys above the table, Ottla's private ones included, are
// flexible from version 0, as all of Kafka's newer ones are.
func Flexible(key, version int16) bool {
	if key < 0 {
		return false
	}
	return int(key) >= len(flexibleFrom) || version >= flexibleFrom[key]
}

// header is a decoded request header.
type header struct {
	key, version int16
	correlation  int32
	clientID     []byte // aliases the frame; nil is null
}

// parseHeader decodes the header at the front of a frame's payload and returns
// what follows it.
func parseHeader(p []byte) (h header, body []byte, err error) {
	if len(p) < minPayload {
		return h, nil, fmt.Errorf("%w: %d bytes are too few for a request header", ErrMalformed, len(p))
	}
	h.key = int16(binary.BigEndian.Uint16(p))
	h.version = int16(binary.BigEndian.Uint16(p[2:]))
	h.correlation = int32(binary.BigEndian.Uint32(p[4:]))
	if h.key < 0 || h.version < 0 {
		return h, nil, fmt.Errorf("%w: api key %d version %d", ErrMalformed, h.key, h.version)
	}
	n := int(int16(binary.BigEndian.Uint16(p[8:])))
	p = p[minPayload:]
	switch {
	case n > len(p):
		return h, nil, fmt.Errorf("%w: client id of %d bytes in a frame with %d left", ErrMalformed, n, len(p))
	case n < -1:
		return h, nil, fmt.Errorf("%w: client id of %d bytes", ErrMalformed, n)
	case n >= 0:
		h.clientID, p = p[:n:n], p[n:]
	}
	if Flexible(h.key, h.version) {
		if p, err = skipTags(p); err != nil {
			return h, nil, err
		}
	}
	return h, p, nil
}

// skipTags steps over a section of tagged fields: none is defined for headers,
// and unknown ones are allowed.
func skipTags(p []byte) ([]byte, error) {
	count, w := binary.Uvarint(p)
	if w <= 0 || count > maxTags {
		return nil, fmt.Errorf("%w: bad count of tagged fields in a header", ErrMalformed)
	}
	p = p[w:]
	for range count {
		_, w := binary.Uvarint(p)
		if w <= 0 {
			return nil, fmt.Errorf("%w: tagged field cut short in a header", ErrMalformed)
		}
		p = p[w:]
		size, w := binary.Uvarint(p)
		if w <= 0 || size > uint64(len(p)-w) {
			return nil, fmt.Errorf("%w: tagged field larger than its header", ErrMalformed)
		}
		p = p[w+int(size):]
	}
	return p, nil
}

// appendRequestHeader appends a frame's length (to be set when the body is
// known) and request header.
func appendRequestHeader(dst []byte, key, version int16, correlation int32, clientID string) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlation))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(clientID)))
	dst = append(dst, clientID...)
	if Flexible(key, version) {
		dst = append(dst, 0)
	}
	return dst
}

// responseHead tells how many bytes stand before the body of an answer.
func responseHead(key, version int16) int {
	switch {
	case key == rawFrameKey:
		return rawFrameHead
	case key != keyVersions && Flexible(key, version):
		return maxRespHead
	}
	return maxRespHead - 1
}

// putResponseHead writes the header of an answer whose body has n bytes into
// dst, which has exactly the length responseHead told.
func putResponseHead(dst []byte, correlation int32, n int64) {
	binary.BigEndian.PutUint32(dst, uint32(n+int64(len(dst)-lengthSize)))
	if len(dst) > lengthSize {
		binary.BigEndian.PutUint32(dst[lengthSize:], uint32(correlation))
	}
	if len(dst) == maxRespHead {
		dst[maxRespHead-1] = 0
	}
}
