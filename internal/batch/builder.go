package batch

import (
	"encoding/binary"
	"fmt"
	"math"

	"ottla.dev/ottla/internal/model"
)

// BuilderOptions are what a new batch says about itself.
type BuilderOptions struct {
	Codec Codec
	Level int // as in Rules

	Base     model.Offset
	Epoch    model.Epoch
	Producer model.Producer // the zero value is producer 0: start from Plain or Like
	Sequence int32          // of the first record; -1 for plain batches and for control records

	Transactional, Control, LogAppendTime bool

	// HasHorizon marks a compacted batch: Horizon takes the place of the base
	// timestamp, and the records' timestamps are relative to it.
	HasHorizon bool
	Horizon    int64
}

// Plain are the options of a batch without a producer, at offset base.
func Plain(base model.Offset, epoch model.Epoch) BuilderOptions {
	return BuilderOptions{Base: base, Epoch: epoch, Producer: model.NoProducer, Sequence: -1}
}

// Like are options that repeat everything that b's header says; compaction
// rebuilds a batch with them and Builder.AddAt.
func Like(b Batch) BuilderOptions {
	o := BuilderOptions{
		Codec: b.Codec(), Base: b.BaseOffset(), Epoch: b.LeaderEpoch(), Producer: b.Producer(), Sequence: b.BaseSequence(),
		Transactional: b.Transactional(), Control: b.Control(), LogAppendTime: b.LogAppendTime(), HasHorizon: b.HasHorizon(),
	}
	if o.HasHorizon {
		o.Horizon = b.BaseTimestamp()
	}
	return o
}

// Builder makes one batch after another. It is for one goroutine and keeps its
// memory. A zero Builder must be Reset and cannot compress; see [Codecs.NewBuilder].
type Builder struct {
	codecs *Codecs // nil: uncompressed only
	opts   BuilderOptions

	buf []byte // room for the header, then the records
	out []byte // the compressed batch, reused

	count        int32
	base         int64 // base timestamp; of the first record unless there is a horizon
	maxTimestamp int64
	last         model.Offset // of the last record or as set by SetLastOffset; Base-1 = none
	err          error        // what made the batch impossible; Build reports it
}

// NewBuilder returns a builder for batches that c can compress.
func (c *Codecs) NewBuilder(opts BuilderOptions) *Builder {
	b := &Builder{codecs: c}
	b.Reset(opts)
	return b
}

// Reset starts a new batch. Batches built before lose their bytes.
func (b *Builder) Reset(opts BuilderOptions) {
	if cap(b.buf) < HeaderSize {
		b.buf = make([]byte, HeaderSize, 1024)
	}
	*b = Builder{
		codecs: b.codecs, opts: opts, buf: b.buf[:HeaderSize], out: b.out[:0],
		base: NoTimestamp, maxTimestamp: NoTimestamp, last: opts.Base - 1,
	}
	if opts.HasHorizon {
		b.base = opts.Horizon
	}
}

// Add appends a record at the next offset. ts is in milliseconds; a nil key or
// value is null. The slices are copied.
func (b *Builder) Add(ts int64, key, value []byte, headers ...Header) {
	b.AddAt(b.last+1, ts, key, value, headers...)
}

// AddAt is Add at an offset of its own, which must be above the last one: a
// compacted batch has gaps.
func (b *Builder) AddAt(off model.Offset, ts int64, key, value []byte, headers ...Header) {
	delta := int64(off - b.opts.Base)
	if off <= b.last || delta > math.MaxInt32 {
		b.fail(fmt.Errorf("%w: offset %d cannot follow %d in a batch that begins at %d", ErrInvalid, off, b.last, b.opts.Base))
		return
	}
	if b.count == 0 && !b.opts.HasHorizon {
		b.base = ts
	}
	tsDelta := ts - b.base
	size := bodySize(tsDelta, int32(delta), key, value, headers)
	if len(b.buf)+size > MaxSize-5 {
		b.fail(fmt.Errorf("%w: record of %d bytes does not fit beside %d others", ErrTooLarge, size, b.count))
		return
	}
	b.buf = appendRecord(b.buf, size, tsDelta, int32(delta), key, value, headers)
	b.last = off
	b.count++
	b.maxTimestamp = max(b.maxTimestamp, ts)
}

func (b *Builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// SetLastOffset makes the batch reach to off, which must not be below the last
// record: a compacted batch keeps the range it had. It also makes a batch without
// records legal.
func (b *Builder) SetLastOffset(off model.Offset) {
	if off < b.last || off < b.opts.Base || int64(off-b.opts.Base) > math.MaxInt32 {
		b.fail(fmt.Errorf("%w: last offset %d in a batch that begins at %d and has records to %d", ErrInvalid, off, b.opts.Base, b.last))
		return
	}
	b.last = off
}

// SetMaxTimestamp replaces the largest timestamp, for a LogAppendTime batch and
// for one without records.
func (b *Builder) SetMaxTimestamp(ts int64) { b.maxTimestamp = ts }

// Len is the number of records added.
func (b *Builder) Len() int { return int(b.count) }

// Size is the size in bytes that the batch has so far, uncompressed.
func (b *Builder) Size() int { return len(b.buf) }

// Build completes the batch. Its bytes are valid until the next Build or Reset.
// Errors: ErrInvalid for a batch without records (but see SetLastOffset) or with
// offsets that cannot be, ErrTooLarge, ErrCodec.
func (b *Builder) Build() (Batch, error) {
	if b.err == nil && b.last < b.opts.Base {
		b.fail(fmt.Errorf("%w: a batch must have at least one record", ErrInvalid))
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.opts.Codec == None || b.count == 0 {
		return b.plain(), nil
	}
	if b.codecs == nil {
		return nil, fmt.Errorf("%w: this builder has no codecs", ErrCodec)
	}
	b.out = append(b.out[:0], b.buf[:HeaderSize]...)
	out, err := b.codecs.compress(b.out, b.buf[HeaderSize:], b.opts.Codec, b.opts.Level)
	if err != nil {
		return nil, err
	}
	b.out = out
	b.header(out, b.opts.Codec)
	return out, nil
}

// plain completes an uncompressed batch where it lies.
func (b *Builder) plain() Batch {
	b.header(b.buf, None)
	return b.buf
}

// header fills the header of dst, whose body is complete.
func (b *Builder) header(dst Batch, codec Codec) {
	be := binary.BigEndian
	attributes := uint16(codec)
	for _, f := range [...]struct {
		set bool
		bit uint16
	}{
		{b.opts.LogAppendTime, bitLogAppendTime},
		{b.opts.Transactional, bitTransactional},
		{b.opts.Control, bitControl},
		{b.opts.HasHorizon, bitHorizon},
	} {
		if f.set {
			attributes |= f.bit
		}
	}
	dst.SetBaseOffset(b.opts.Base)
	dst.SetLeaderEpoch(b.opts.Epoch)
	dst[atMagic] = magic2
	be.PutUint16(dst[atAttributes:], attributes)
	be.PutUint32(dst[atLastDelta:], uint32(b.last-b.opts.Base))
	be.PutUint64(dst[atBaseTimestamp:], uint64(b.base))
	be.PutUint64(dst[atMaxTimestamp:], uint64(b.maxTimestamp))
	be.PutUint64(dst[atProducerID:], uint64(b.opts.Producer.ID))
	be.PutUint16(dst[atProducerEpoch:], uint16(b.opts.Producer.Epoch))
	be.PutUint32(dst[atBaseSequence:], uint32(b.opts.Sequence))
	be.PutUint32(dst[atCount:], uint32(b.count))
	dst.seal()
}
