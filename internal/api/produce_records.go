package api

import (
	"encoding/binary"
	"fmt"

	"ottla.dev/ottla/internal/batch"
)

// Produced records as Kafka cuts them into batches before it looks at any closer:
//
//	base offset 8 | length 4 | leader epoch 4 | magic 1 | …
//	               `-- of all that follows it, at least minLength
//
// What does not hold a whole batch is no batch; what follows the last one is
// left out, so a request may be padded.
const (
	lengthEnd = 12
	magicEnd  = 17
	minLength = 14 // of a message of magic 0 without key and value
)

// onlyBatch gives the size of the one batch that the records of a partition must
// be. Older formats and a second batch are refused with ErrInvalid, nonsense
// with ErrCorrupt.
func onlyBatch(records []byte) (size int, err error) {
	if size, err = nextBatch(records); err != nil {
		return 0, err
	}
	if size == 0 {
		return 0, fmt.Errorf("%w: no whole record batch in %d bytes", batch.ErrInvalid, len(records))
	}
	if magic := int8(records[magicEnd-1]); magic != 2 {
		return 0, fmt.Errorf("%w: magic %d; only batches of magic 2 can be produced", batch.ErrInvalid, magic)
	}
	more, err := nextBatch(records[size:])
	switch {
	case err != nil:
	case more > 0:
		err = fmt.Errorf("%w: a produce request must have exactly one batch per partition", batch.ErrInvalid)
	case size < batch.HeaderSize:
		err = fmt.Errorf("%w: a batch of %d bytes; its header alone has %d", batch.ErrCorrupt, size, batch.HeaderSize)
	}
	return size, err
}

// nextBatch gives the size of the batch that b begins with, 0 if there is none.
func nextBatch(b []byte) (int, error) {
	if len(b) < lengthEnd {
		return 0, nil
	}
	n := int32(binary.BigEndian.Uint32(b[lengthEnd-4:]))
	if n < minLength {
		return 0, fmt.Errorf("%w: batch length %d", batch.ErrCorrupt, n)
	}
	if len(b) < magicEnd {
		return 0, nil
	}
	if magic := int8(b[magicEnd-1]); magic < 0 || magic > 2 {
		return 0, fmt.Errorf("%w: magic %d", batch.ErrCorrupt, magic)
	}
	if int64(len(b)) < lengthEnd+int64(n) {
		return 0, nil
	}
	return lengthEnd + int(n), nil
}
