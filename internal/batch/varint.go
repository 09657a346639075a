package batch

import "math/bits"

// Varints are Kafka's and Protocol Buffers': seven bits a byte, least significant
// first, the top bit says that more follow; signed ones are zigzag coded. The
// readers here take a position and return the next one. A position of -1 means
// that the bytes ended or the number does not fit its type; it is sticky, so a
// caller may read several numbers and look once.

// zigzag decodes a number of one byte.
func zigzag(b byte) int32 { return int32(b>>1) ^ -int32(b&1) }

// varint reads an int32 of at most 5 bytes.
func varint(b []byte, at int) (int32, int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return zigzag(b[at]), at + 1
	}
	if at >= 0 && at+1 < len(b) && b[at+1] < 0x80 {
		u := uint32(b[at]&0x7f) | uint32(b[at+1])<<7
		return int32(u>>1) ^ -int32(u&1), at + 2
	}
	return varintSlow(b, at)
}

func varintSlow(b []byte, at int) (int32, int) {
	u, at := uvarint(b, at, 5)
	if u > 1<<32-1 {
		return 0, -1
	}
	return int32(u>>1) ^ -int32(u&1), at
}

// varlong reads an int64 of at most 10 bytes.
func varlong(b []byte, at int) (int64, int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return int64(zigzag(b[at])), at + 1
	}
	u, at := uvarint(b, at, 10)
	return int64(u>>1) ^ -int64(u&1), at
}

func uvarint(b []byte, at, most int) (uint64, int) {
	if at < 0 {
		return 0, -1
	}
	var u uint64
	for i := 0; i < most && at+i < len(b); i++ {
		c := b[at+i]
		if i == 9 && c > 1 {
			break // more than 64 bits
		}
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return u, at + i + 1
		}
	}
	return 0, -1
}

// appendVarint appends a zigzag varint; an int32 and the int64 of the same value
// have the same bytes.
func appendVarint(dst []byte, v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		dst = append(dst, byte(u)|0x80)
		u >>= 7
	}
	return append(dst, byte(u))
}

// varintSize is the number of bytes that appendVarint appends.
func varintSize(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}
