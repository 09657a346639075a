package storage

import (
	"errors"
	"fmt"

	"ottla.dev/ottla/internal/model"
)

// Why an append or another operation is refused. internal/api maps them to
// Kafka's codes.
var (
	// ErrFenced: the append's leader epoch is not the one the log is led in.
	ErrFenced = errors.New("leader epoch is not the log's current one")

	// ErrOffset: a replica's batch does not come after the log's end.
	ErrOffset = errors.New("offset does not follow the end of the log")

	// ErrInvalid: the bytes handed over are not one whole batch of format v2.
	ErrInvalid = errors.New("not one whole record batch")

	// ErrSequence: the batch does not follow the producer's last one
	// (OUT_OF_ORDER_SEQUENCE_NUMBER).
	ErrSequence = errors.New("sequence number out of order")

	// ErrProducerEpoch: the producer was replaced by a newer life of itself
	// (INVALID_PRODUCER_EPOCH).
	ErrProducerEpoch = errors.New("producer epoch is old")

	// ErrTxnState: a batch outside of a transaction while the producer has one
	// open here (INVALID_TXN_STATE).
	ErrTxnState = errors.New("the producer has an open transaction on this partition")

	// ErrCoordinatorEpoch: a transaction marker of a deposed coordinator
	// (TRANSACTION_COORDINATOR_FENCED).
	ErrCoordinatorEpoch = errors.New("transaction coordinator epoch is old")

	// ErrTooLarge: the batch is larger than segment.bytes.
	ErrTooLarge = errors.New("batch is larger than a segment may be")

	// ErrMessageTooLarge: the batch is larger than max.message.bytes.
	ErrMessageTooLarge = errors.New("batch is larger than max.message.bytes")

	// ErrFull: the disk has no room, or only its reserve. Retriable: reads and
	// deletion go on and appends resume when there is room.
	ErrFull = errors.New("disk is full")

	// ErrFailed: the log folder failed for good (D4).
	ErrFailed = errors.New("log folder has failed")

	// ErrClosed: the log or folder was closed or deleted.
	ErrClosed = errors.New("log is closed")

	// ErrOutOfRange: see RangeError.
	ErrOutOfRange = errors.New("offset out of range")

	// ErrLocked: another process has the folder open.
	ErrLocked = errors.New("log folder is in use by another process")

	// ErrForeign: the folder has files that are not Ottla's.
	ErrForeign = errors.New("log folder is not Ottla's")

	// ErrMismatch: the folder belongs to another cluster or node.
	ErrMismatch = errors.New("log folder belongs to another cluster or node")

	// errCorrupt: a file that storage wrote does not parse.
	errCorrupt = errors.New("corrupt file")
)

// RangeError says that an offset is outside of the log. It is ErrOutOfRange.
type RangeError struct {
	Offset, Start, End model.Offset
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("offset %d is outside of the log, which has [%d, %d)", e.Offset, e.Start, e.End)
}

// Is makes every RangeError ErrOutOfRange.
func (e *RangeError) Is(target error) bool { return target == ErrOutOfRange }
