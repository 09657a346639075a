package batch

import (
	"fmt"
	"iter"
	"math"

	"ottla.dev/ottla/internal/model"
)

// maxBody is the largest uncompressed body that anything in Kafka can handle. It
// leaves room for the few bytes by which a rewritten record may grow.
const maxBody = math.MaxInt32 - 64

// A produced body may decompress to bodyFloor bytes, or to bodyRatio times its
// compressed size if that is more. No codec but zstd can exceed that, and no real
// data: it keeps a few KiB of zstd from costing seconds, without a limit that a
// client could meet.
const (
	bodyFloor = 64 << 20
	bodyRatio = 1100
)

// bodyLimit is what the body of a produced batch may decompress to.
func bodyLimit(b Batch) int64 {
	return min(maxBody, max(bodyFloor, bodyRatio*int64(len(b))))
}

// Records iterates over the records of a batch, control records included. The
// slices of a record are valid until the next iteration (for an uncompressed
// batch: as long as b); the strings are the caller's.
//
// maxBytes bounds what a compressed batch may decompress to; 0 means 2 GiB. Memory
// grows with the largest record that is really there, never with a number in the
// bytes. After an error (ErrInvalid, ErrCodec, ErrTooLarge), which comes with a zero
// Record, the iteration ends. The CRC is not verified: see Check.
func (c *Codecs) Records(b Batch, maxBytes int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		it := iteration{b: b, yield: yield}
		var err error
		if b.Codec() == None || b.Count() == 0 {
			err = it.plain(b.Body())
		} else {
			if maxBytes <= 0 {
				maxBytes = maxBody
			}
			err = it.compressed(c, maxBytes)
		}
		if err != nil && !it.stopped {
			yield(Record{}, err)
		}
	}
}

// iteration is one walk of Records.
type iteration struct {
	b       Batch
	yield   func(Record, error) bool
	headers []Header // reused by each record
	stopped bool
}

func (it *iteration) plain(body []byte) error {
	var f fields
	for i := range it.b.Count() {
		n, at := varint(body, 0)
		if at < 0 || n < 0 || int(n) > len(body)-at {
			return badLength(i, it.b.Count(), n)
		}
		if err := f.parse(body[at : at+int(n)]); err != nil {
			return fmt.Errorf("record %d of %d: %w", i, it.b.Count(), err)
		}
		body = body[at+int(n):]
		if !it.emit(&f) {
			return nil
		}
	}
	if len(body) > 0 {
		return fmt.Errorf("%w: %d bytes follow the last record", ErrInvalid, len(body))
	}
	return nil
}

func (it *iteration) compressed(c *Codecs, limit int64) error {
	s, err := c.open(it.b.Codec(), it.b.Body(), limit)
	if err != nil {
		return err
	}
	defer s.close()
	var f fields
	for i := range it.b.Count() {
		n, err := s.length()
		if err == nil {
			err = s.record(n, &f)
		}
		if err != nil {
			return fmt.Errorf("record %d of %d: %w", i, it.b.Count(), err)
		}
		if !it.emit(&f) {
			return nil
		}
	}
	return s.end()
}

func (it *iteration) emit(f *fields) bool {
	r := Record{
		Offset: it.b.BaseOffset() + model.Offset(f.offsetDelta), Timestamp: it.b.BaseTimestamp() + f.timestampDelta,
		Key: f.key, Value: f.value,
	}
	if it.b.LogAppendTime() {
		r.Timestamp = it.b.MaxTimestamp()
	}
	if f.headerCount > 0 {
		it.headers = f.appendHeaders(it.headers[:0])
		r.Headers = it.headers
	}
	it.stopped = !it.yield(r, nil)
	return !it.stopped
}

// badLength names a record whose length cannot be; a count that is too high shows
// in the same way.
func badLength(index, count, length int32) error {
	return fmt.Errorf("%w: record %d of %d is missing or has a bad length (%d)", ErrInvalid, index, count, length)
}
