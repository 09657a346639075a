// Package batch reads, checks, builds and rewrites record batches, the unit in
// which Kafka's records travel and lie on disk (message format v2, KAFKA.md 4.2).
//
// The one idea: a batch is never decoded into objects. [Batch] is a view of its
// bytes with accessors; validation and iteration walk the bytes where they lie,
// and a batch that needs no change is stored as it came. Compressed bodies are
// decompressed as a stream through a small window, so a hostile batch costs
// the memory of a block, never of its whole contents.
//
//	 0  baseOffset           int64
//	 8  batchLength          int32   bytes after this field
//	12  partitionLeaderEpoch int32
//	16  magic                int8    2
//	17  crc                  uint32  CRC-32C of all that follows
//	21  attributes           int16   0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
//	23  lastOffsetDelta      int32
//	27  baseTimestamp        int64   or the delete horizon
//	35  maxTimestamp         int64
//	43  producerId           int64   -1 = none
//	51  producerEpoch        int16
//	53  baseSequence         int32
//	57  records              int32
//	61  records, compressed as one block if a codec is set
//
// The package is pure: no clock, no randomness, no files. A Batch is as safe for
// concurrent use as the slice it is; [Codecs] holds pools and is safe for
// concurrent use, one per node. storage, replication, the coordinators and api
// call it.
package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"ottla.dev/ottla/internal/model"
)

const (
	// HeaderSize is the size of a batch without records.
	HeaderSize = 61

	// LengthEnd is where batchLength ends: a batch is LengthEnd+batchLength bytes.
	LengthEnd = 12

	// MaxSize is the largest batch the length field can express.
	MaxSize = LengthEnd + math.MaxInt32

	magic2 = 2
)

// Positions of the header's fields.
const (
	atLength        = 8
	atLeaderEpoch   = 12
	atMagic         = 16
	atCRC           = 17
	atAttributes    = 21
	atLastDelta     = 23
	atBaseTimestamp = 27
	atMaxTimestamp  = 35
	atProducerID    = 43
	atProducerEpoch = 51
	atBaseSequence  = 53
	atCount         = 57
)

// Bits of the attributes.
const (
	codecMask        = 0x07
	bitLogAppendTime = 1 << 3
	bitTransactional = 1 << 4
	bitControl       = 1 << 5
	bitHorizon       = 1 << 6
	knownBits        = 1<<7 - 1
)

// castagnoli is CRC-32C's table; read-only, and the key by which hash/crc32 finds
// the processor's instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is a view of exactly one batch, header included. Its accessors check no
// bounds: a Batch must have at least HeaderSize bytes, which Peek and Check see to.
type Batch []byte

// Peek returns the total size of the batch that b begins with. b may end before
// the batch does, or go on after it; 17 bytes are enough.
//
// Errors: [ErrShort] if b has fewer, [ErrInvalid] if the magic is not 2,
// [ErrCorrupt] if the length field is impossible.
func Peek(b []byte) (size int, err error) {
	if len(b) <= atMagic {
		return 0, ErrShort
	}
	length := int32(binary.BigEndian.Uint32(b[atLength:]))
	if m := int8(b[atMagic]); m != magic2 {
		return 0, fmt.Errorf("%w: record batch has magic %d, only 2 is supported", ErrInvalid, m)
	}
	if length < HeaderSize-LengthEnd {
		return 0, fmt.Errorf("%w: record batch has length %d, at least %d is needed", ErrCorrupt, length, HeaderSize-LengthEnd)
	}
	return LengthEnd + int(length), nil
}

// Check verifies what can be known without looking at records: length, magic and
// CRC. It is what recovery and followers need. All its errors are [ErrCorrupt].
func (b Batch) Check() error {
	if len(b) < HeaderSize {
		return fmt.Errorf("%w: %d bytes are too few for a record batch, at least %d are needed", ErrCorrupt, len(b), HeaderSize)
	}
	if n := int64(b.Length()) + LengthEnd; n != int64(len(b)) {
		return fmt.Errorf("%w: record batch says it has %d bytes but has %d", ErrCorrupt, n, len(b))
	}
	if b.Magic() != magic2 {
		return fmt.Errorf("%w: record batch has magic %d, only 2 is supported", ErrCorrupt, b.Magic())
	}
	if got := b.ComputeCRC(); got != b.CRC() {
		return fmt.Errorf("%w: record batch has CRC %08x but its bytes give %08x", ErrCorrupt, b.CRC(), got)
	}
	return nil
}

// BaseOffset is the offset of the batch's first record as it was written.
func (b Batch) BaseOffset() model.Offset { return model.Offset(binary.BigEndian.Uint64(b)) }

// SetBaseOffset moves the batch; the CRC does not cover the base offset.
func (b Batch) SetBaseOffset(o model.Offset) { binary.BigEndian.PutUint64(b, uint64(o)) }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() model.Epoch {
	return model.Epoch(binary.BigEndian.Uint32(b[atLeaderEpoch:]))
}

// SetLeaderEpoch stamps the epoch; the CRC does not cover it.
func (b Batch) SetLeaderEpoch(e model.Epoch) {
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], uint32(e))
}

// Length is the length field: the bytes after it.
func (b Batch) Length() int32 { return int32(binary.BigEndian.Uint32(b[atLength:])) }

// Magic is the format's version.
func (b Batch) Magic() int8 { return int8(b[atMagic]) }

// CRC is the stored checksum.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[atCRC:]) }

// ComputeCRC is the checksum that the bytes give.
func (b Batch) ComputeCRC() uint32 { return crc32.Checksum(b[atAttributes:], castagnoli) }

// Attributes are all 16 bits.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[atAttributes:])) }

// Codec is the compression of the body; values above Zstd are unknown to Kafka.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & codecMask) }

// LogAppendTime reports whether MaxTimestamp is the timestamp of every record.
func (b Batch) LogAppendTime() bool { return b.Attributes()&bitLogAppendTime != 0 }

// Transactional reports whether the batch is part of a transaction.
func (b Batch) Transactional() bool { return b.Attributes()&bitTransactional != 0 }

// Control reports whether the batch holds control records, which consumers never see.
func (b Batch) Control() bool { return b.Attributes()&bitControl != 0 }

// HasHorizon reports whether BaseTimestamp is the time at which compaction may
// drop the batch's tombstones or marker.
func (b Batch) HasHorizon() bool { return b.Attributes()&bitHorizon != 0 }

// LastOffsetDelta is LastOffset - BaseOffset.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[atLastDelta:])) }

// LastOffset is the offset of the batch's last record as it was written; after
// compaction that record may be gone.
func (b Batch) LastOffset() model.Offset {
	return b.BaseOffset() + model.Offset(b.LastOffsetDelta())
}

// NextOffset is the offset after the batch.
func (b Batch) NextOffset() model.Offset { return b.LastOffset() + 1 }

// BaseTimestamp is what the records' timestamps are relative to, in milliseconds.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the batch, in milliseconds.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atMaxTimestamp:])) }

// Producer is the idempotent producer's id and epoch, or [model.NoProducer].
func (b Batch) Producer() model.Producer {
	return model.Producer{
		ID:    int64(binary.BigEndian.Uint64(b[atProducerID:])),
		Epoch: int16(binary.BigEndian.Uint16(b[atProducerEpoch:])),
	}
}

// BaseSequence is the sequence number of the first record, -1 if there is none.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[atBaseSequence:])) }

// LastSequence is the sequence number of the last record. Sequence numbers go
// from 0 to the largest int32 and start again.
func (b Batch) LastSequence() int32 {
	base := b.BaseSequence()
	if base < 0 {
		return base
	}
	return int32((uint32(base) + uint32(b.LastOffsetDelta())) & math.MaxInt32)
}

// Count is the number of records that the batch has now.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[atCount:])) }

// Body is what follows the header: records, or one compressed block.
func (b Batch) Body() []byte { return b[HeaderSize:] }

// patch sets attributes and largest timestamp and, if that changes anything, the
// CRC. Bits without a meaning are kept with an untouched batch and cleared with
// others, as Kafka does.
func (b Batch) patch(attributes int16, maxTimestamp int64) {
	if b.Attributes() == attributes && b.MaxTimestamp() == maxTimestamp {
		return
	}
	binary.BigEndian.PutUint16(b[atAttributes:], uint16(attributes&knownBits))
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(maxTimestamp))
	b.seal()
}

// seal stores the length and the CRC of a batch whose other bytes are final.
func (b Batch) seal() {
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-LengthEnd))
	binary.BigEndian.PutUint32(b[atCRC:], b.ComputeCRC())
}
