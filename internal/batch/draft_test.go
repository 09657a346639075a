package batch

import (
	"encoding/binary"
	"testing"
)

// draft is a batch whose every field a test may set, wrong ones included.
type draft struct {
	base       int64
	magic      int8
	attributes int16 // without the codec
	codec      Codec
	last       *int32 // nil: records-1
	baseTS     int64
	maxTS      int64
	producer   int64
	epoch      int16
	sequence   int32
	count      *int32 // nil: as many as there are records
	records    [][]byte
	tail       []byte // follows the records, inside the compressed block
	after      []byte // follows the compressed block
}

// newDraft is a valid plain batch of the records given.
func newDraft(records ...[]byte) draft {
	return draft{magic: 2, baseTS: 1000, maxTS: 1000, producer: -1, epoch: -1, sequence: -1, records: records}
}

// bytes encodes the draft with right length and CRC.
func (d draft) bytes(t testing.TB) Batch {
	t.Helper()
	return draftBytes(t, d)
}

// fataler is what testing.TB and rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func draftBytes(t fataler, d draft) Batch {
	t.Helper()
	be := binary.BigEndian
	count := int32(len(d.records))
	last := count - 1
	if d.last != nil {
		last = *d.last
	}
	if d.count != nil {
		count = *d.count
	}
	b := make(Batch, HeaderSize)
	be.PutUint64(b, uint64(d.base))
	be.PutUint32(b[atLeaderEpoch:], 0xffffffff)
	b[atMagic] = byte(d.magic)
	be.PutUint16(b[atAttributes:], uint16(d.attributes)|uint16(d.codec))
	be.PutUint32(b[atLastDelta:], uint32(last))
	be.PutUint64(b[atBaseTimestamp:], uint64(d.baseTS))
	be.PutUint64(b[atMaxTimestamp:], uint64(d.maxTS))
	be.PutUint64(b[atProducerID:], uint64(d.producer))
	be.PutUint16(b[atProducerEpoch:], uint16(d.epoch))
	be.PutUint32(b[atBaseSequence:], uint32(d.sequence))
	be.PutUint32(b[atCount:], uint32(count))
	var body []byte
	for _, r := range d.records {
		body = append(body, r...)
	}
	body = append(body, d.tail...)
	if d.codec != None && d.codec < codecCount {
		out, err := NewCodecs().compress(b, body, d.codec, 0)
		if err != nil {
			t.Fatal(err)
		}
		b = out
	} else {
		b = append(b, body...)
	}
	b = append(b, d.after...)
	b.seal()
	return b
}

// rec encodes a valid record.
func rec(tsDelta int64, offsetDelta int32, key, value []byte, headers ...Header) []byte {
	return appendRecord(nil, bodySize(tsDelta, offsetDelta, key, value, headers), tsDelta, offsetDelta, key, value, headers)
}

// body encodes a record from the bytes after its length.
func body(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = appendVarint(b, int64(p))
		case byte:
			b = append(b, p)
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		default:
			panic("BUG: unknown part")
		}
	}
	return append(appendVarint(nil, int64(len(b))), b...)
}
