package batch

import (
	"errors"
	"fmt"
)

// What can be wrong with a batch. Callers map them to Kafka's codes.
var (
	// ErrShort: the bytes end before the batch's size can be known.
	ErrShort = errors.New("record batch is cut short")

	// ErrCorrupt: the bytes are not what was written (CORRUPT_MESSAGE).
	ErrCorrupt = errors.New("corrupt record batch")

	// ErrInvalid: the batch came over intact but breaks a rule (INVALID_RECORD).
	ErrInvalid = errors.New("invalid record batch")

	// ErrTimestamp: a timestamp is outside the topic's bounds (INVALID_TIMESTAMP).
	ErrTimestamp = errors.New("record timestamp out of range")

	// ErrCodec: the compression codec is unknown (UNSUPPORTED_COMPRESSION_TYPE).
	ErrCodec = errors.New("unsupported compression codec")

	// ErrTooLarge: a rewritten batch exceeds Rules.MaxSize (MESSAGE_TOO_LARGE), or
	// decompressed records exceed the bound of an iteration or what is handled at
	// all: 1,100 times the compressed size (but 64 MiB always), 2 GiB, and 32 MiB
	// behind a zstd window above 8 MiB.
	ErrTooLarge = errors.New("record batch too large")
)

// maxRecordErrors bounds the memory that a batch of nothing but bad records costs.
const maxRecordErrors = 1000

// RecordError says what is wrong with one record.
type RecordError struct {
	Index   int32 // position in the batch, from 0
	Message string
}

// RecordErrors lists the records for which a batch was refused, in order, the
// first 1,000 of them. It is [ErrTimestamp] if a timestamp is among the reasons,
// else [ErrInvalid].
type RecordErrors struct {
	Errors []RecordError
	Total  int // all bad records, listed or not

	timestamp bool
}

// Error is the message for the whole batch.
func (e *RecordErrors) Error() string {
	if len(e.Errors) == 0 {
		return "no record was rejected"
	}
	return fmt.Sprintf("%d records were rejected, the first of them record %d: %s", e.Total, e.Errors[0].Index, e.Errors[0].Message)
}

// Is places the error among the package's sentinels.
func (e *RecordErrors) Is(target error) bool {
	if e.timestamp {
		return target == ErrTimestamp
	}
	return target == ErrInvalid
}

// add notes one bad record. format is only used while there is room.
func (e *RecordErrors) add(index int32, format string, args ...any) {
	e.Total++
	if len(e.Errors) < maxRecordErrors {
		e.Errors = append(e.Errors, RecordError{Index: index, Message: fmt.Sprintf(format, args...)})
	}
}
