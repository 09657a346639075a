package batch

import (
	"fmt"
	"math"

	"ottla.dev/ottla/internal/model"
)

// Rules are a topic's demands on a batch that a client produces.
type Rules struct {
	Now int64 // milliseconds

	// LogAppendTime gives all records the timestamp Now. Else a record's own
	// timestamp may be at most BeforeMax ms before and AfterMax ms after Now.
	LogAppendTime       bool
	BeforeMax, AfterMax int64

	Compacted       bool  // records must have keys
	MaxDecompressed int64 // bytes of one record in a compressed batch; 0 = no limit
	MaxSize         int   // bytes of the batch if it must be rewritten; 0 = no limit

	// Compression is the codec that the batch is stored with; KeepCodec (Kafka's
	// "producer") stores it as it came. Level is Kafka's compression.*.level, 0 is
	// the codec's default.
	Compression Codec
	KeepCodec   bool
	Level       int

	// AllowControl says that the batch is the broker's own: it may hold control
	// records, and a producer id without a sequence number (offsets committed in a
	// transaction).
	AllowControl bool
}

// Result is a batch fit to be appended; only base offset and leader epoch, which
// the CRC does not cover, are still to be stamped.
type Result struct {
	Batch Batch // the bytes given, perhaps patched; new ones if Recompressed

	MaxTimestamp int64 // NoTimestamp if no record has one

	// OffsetOfMaxTimestamp is the offset delta of the first record that has
	// MaxTimestamp.
	OffsetOfMaxTimestamp model.Offset

	Recompressed bool
}

// Validate checks one produced batch by Kafka's rules (KAFKA.md 3.5) and makes it
// what the log stores. b must be exactly one batch, as Peek measures it; it may be
// changed in place. Where we are stricter than Kafka, or repair what it does not,
// the deviations in kafka_test.go say why.
//
//   - CRC, length and magic are right (ErrCorrupt); base offset 0, at least one
//     record, as many as the offset range says, no control bit, a producer id if
//     transactional, a sequence number if there is a producer id (ErrInvalid).
//   - Every record is looked at, compressed ones through a window of bounded size:
//     its fields fill it exactly, nothing is left over; it has a key if the topic
//     is compacted and a timestamp within bounds (*RecordErrors, the records'
//     indexes in it).
//   - Offset deltas are 0, 1, 2, …: if not, the batch is rewritten so that they
//     are, and also if the codec must change (ErrTooLarge beyond MaxSize).
//   - The LogAppendTime bit and the largest timestamp become what the topic says;
//     a delete horizon, which only compaction may set, is cleared.
func (c *Codecs) Validate(b Batch, r Rules) (Result, error) {
	if err := b.Check(); err != nil {
		return Result{}, err
	}
	if err := r.header(b); err != nil {
		return Result{}, err
	}
	k := check{rules: r, base: b.BaseTimestamp(), maxTimestamp: NoTimestamp, ordered: true, stamped: b.Attributes()&bitLogAppendTime != 0}
	var err error
	if b.Codec() == None {
		err = k.plain(b.Body(), b.Count())
	} else {
		err = k.compressed(c, b)
	}
	if err != nil {
		return Result{}, err
	}
	if k.errors != nil {
		return Result{}, k.errors
	}

	res := Result{Batch: b, MaxTimestamp: k.maxTimestamp, OffsetOfMaxTimestamp: model.Offset(k.maxIndex)}
	attributes := b.Attributes() &^ (bitLogAppendTime | bitHorizon)
	if r.LogAppendTime {
		attributes |= bitLogAppendTime
		res.MaxTimestamp, res.OffsetOfMaxTimestamp = r.Now, 0
	}
	codec := r.Compression
	if r.KeepCodec {
		codec = b.Codec()
	}
	if codec == b.Codec() && k.ordered {
		b.patch(attributes, res.MaxTimestamp)
		return res, nil
	}
	res.Batch, err = c.rewrite(b, codec, r.Level, r.MaxSize, k.size)
	if err != nil {
		return Result{}, err
	}
	res.Recompressed = true
	res.Batch.patch(attributes&^codecMask|int16(codec), res.MaxTimestamp)
	return res, nil
}

// header checks what the batch says about itself; the CRC is known to be right.
func (r *Rules) header(b Batch) error {
	p := b.Producer()
	switch {
	case b.BaseOffset() != 0:
		return fmt.Errorf("%w: a produced batch must have base offset 0, not %d", ErrInvalid, b.BaseOffset())
	case b.Count() <= 0:
		return fmt.Errorf("%w: a produced batch must have at least one record, not %d", ErrInvalid, b.Count())
	case int64(b.LastOffsetDelta())+1 != int64(b.Count()):
		return fmt.Errorf("%w: batch has %d records but its last offset delta is %d", ErrInvalid, b.Count(), b.LastOffsetDelta())
	case b.Control() && !r.AllowControl:
		return fmt.Errorf("%w: clients may not write control records", ErrInvalid)
	case b.Transactional() && p.ID < 0:
		return fmt.Errorf("%w: a transactional batch must have a producer id, not %d", ErrInvalid, p.ID)
	case p.ID >= 0 && b.BaseSequence() < 0 && !r.AllowControl:
		return fmt.Errorf("%w: a batch of producer %d must have a sequence number, not %d", ErrInvalid, p.ID, b.BaseSequence())
	case b.Codec() >= codecCount:
		return fmt.Errorf("%w: %s", ErrCodec, b.Codec())
	}
	return nil
}

// check collects what validation learns from the records of one batch.
type check struct {
	rules Rules // a copy: a pointer would put the caller's on the heap
	base  int64 // the batch's base timestamp

	index        int32 // of the next record
	maxTimestamp int64
	maxIndex     int32 // of the first record with maxTimestamp
	ordered      bool  // offset deltas were 0, 1, 2, … so far
	stamped      bool  // the producer claims that its times are the broker's
	size         int64 // of the uncompressed body

	errors *RecordErrors // nil: none
}

// plain walks uncompressed records.
func (k *check) plain(body []byte, count int32) error {
	k.size = int64(len(body))
	var f fields
	for i := range count {
		n, at := varint(body, 0)
		if at < 0 || n < 0 || int(n) > len(body)-at {
			return badLength(i, count, n)
		}
		if err := f.parse(body[at : at+int(n)]); err != nil {
			return fmt.Errorf("record %d of %d: %w", i, count, err)
		}
		body = body[at+int(n):]
		k.record(&f)
	}
	if len(body) > 0 {
		return fmt.Errorf("%w: %d bytes follow the last record", ErrInvalid, len(body))
	}
	return nil
}

// compressed walks records through a window; large ones are not gathered.
func (k *check) compressed(c *Codecs, b Batch) error {
	most := bodyLimit(b)
	s, err := c.open(b.Codec(), b.Body(), most)
	if err != nil {
		return err
	}
	defer s.close()
	limit := k.rules.MaxDecompressed
	if limit <= 0 {
		limit = math.MaxInt64
	}
	var f fields
	for i := range b.Count() {
		n, err := s.length()
		switch {
		case err != nil:
		case int64(n) > limit:
			err = fmt.Errorf("%w: it has %d bytes decompressed, at most %d are allowed (max.decompressed.message.bytes)", ErrInvalid, n, limit)
		case n <= s.whole:
			err = s.record(n, &f)
		default:
			err = s.walk(n, &f)
		}
		if err != nil {
			return fmt.Errorf("record %d of %d: %w", i, b.Count(), err)
		}
		k.record(&f)
	}
	err = s.end()
	k.size = most - s.left
	return err
}

// record applies the topic's rules to the next record.
func (k *check) record(f *fields) {
	i := k.index
	k.index++
	if f.offsetDelta != i {
		k.ordered = false
	}
	if f.nullKey && k.rules.Compacted {
		k.reject(i, "record has no key, which a compacted topic requires")
		return
	}
	if k.rules.LogAppendTime {
		if k.stamped { // Kafka minds it only here
			k.reject(i, "only the broker may say that the timestamp is LogAppendTime")
			k.errors.timestamp = true
		}
		return
	}
	ts := k.base + f.timestampDelta
	if ts != NoTimestamp {
		// The sums wrap around as Kafka's do, so that extreme values are judged alike.
		if age := k.rules.Now - ts; age > k.rules.BeforeMax || -age > k.rules.AfterMax {
			k.rejectTimestamp(i, ts)
			return
		}
	}
	if ts > k.maxTimestamp {
		k.maxTimestamp, k.maxIndex = ts, i
	}
}

func (k *check) reject(index int32, format string, args ...any) {
	if k.errors == nil {
		k.errors = new(RecordErrors)
	}
	k.errors.add(index, format, args...)
}

func (k *check) rejectTimestamp(index int32, ts int64) {
	k.reject(index, "timestamp %d is out of range: at most %d ms before and %d ms after %d are allowed", ts, k.rules.BeforeMax, k.rules.AfterMax, k.rules.Now)
	k.errors.timestamp = true
}
