package batch

import (
	"fmt"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// levelCount is the number of level slots a codec may have.
const levelCount = 18

// zstdSpan is the largest window that is written: batches are seldom larger, and
// it bounds what readers must set aside.
const zstdSpan = 1 << 20

// levelSlot maps a level of Kafka's compression.*.level configs to a slot of the
// pools; levels outside a codec's range are taken as the nearest. 0 is the codec's
// default. The slots are, for gzip and lz4, the level; for zstd, the library's
// four strengths.
func levelSlot(codec Codec, level int) int {
	switch codec {
	case Gzip: // 1 to 9, -1 = default
		return min(max(level, 0), gzip.BestCompression)
	case LZ4: // 1 to 17; 9, the default, means the fast compressor, as in Kafka's client
		if level == 9 {
			return 0
		}
		return min(max(level, 0), 17)
	case Zstd: // -131072 to 22
		if level == 0 {
			level = 3
		}
		return int(zstd.EncoderLevelFromZstd(level))
	}
	return 0
}

// sink is a compressor that appends to a slice it is lent. It belongs to one
// goroutine between openSink and close.
type sink struct {
	codecs *Codecs
	codec  Codec
	slot   int

	gz  *gzip.Writer
	zs  *zstd.Encoder
	lz  *lz4Compressor
	raw []byte // snappy, lz4: input that does not fill a block yet; its capacity is the block

	out     []byte
	limit   int // of len(out); beyond it is ErrTooLarge
	started bool
}

// openSink starts a compressed body behind what dst holds already. The result may
// not be longer than limit, dst included.
func (c *Codecs) openSink(dst []byte, codec Codec, level, limit int) (*sink, error) {
	if codec < None || codec >= codecCount {
		return nil, fmt.Errorf("%w: %s", ErrCodec, codec)
	}
	slot := levelSlot(codec, level)
	s, _ := c.sinks[codec][slot].Get().(*sink)
	if s == nil {
		s = newSink(codec, slot)
	}
	s.codecs, s.out, s.limit, s.started = c, dst, limit, false
	switch codec {
	case Gzip:
		s.gz.Reset((*sinkOutput)(s))
	case Zstd:
		s.zs.Reset((*sinkOutput)(s))
	case LZ4:
		s.out = s.lz.begin(s.out)
	}
	return s, nil
}

func newSink(codec Codec, slot int) *sink {
	s := &sink{codec: codec, slot: slot}
	var err error
	switch codec {
	case Gzip:
		level := slot
		if slot == 0 {
			level = gzip.DefaultCompression
		}
		s.gz, err = gzip.NewWriterLevel(nil, level)
	case Zstd:
		s.zs, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(slot)), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(zstdSpan), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	case Snappy:
		s.raw = make([]byte, 0, xerialBlock)
	case LZ4:
		s.lz, s.raw = new(lz4Compressor), make([]byte, 0, lz4Block)
		if slot > 0 {
			s.lz.high = &lz4.CompressorHC{Level: lz4.CompressionLevel(1) << (slot - 1)}
		}
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: %s compressor, level slot %d: %v", codec, slot, err))
	}
	return s
}

// sinkOutput is where a library's compressor writes.
type sinkOutput sink

func (o *sinkOutput) Write(p []byte) (int, error) {
	if len(o.out)+len(p) > o.limit {
		return 0, (*sink)(o).tooLarge()
	}
	o.out = append(o.out, p...)
	return len(p), nil
}

func (s *sink) tooLarge() error {
	return fmt.Errorf("%w: more than %d bytes when compressed as %s", ErrTooLarge, s.limit, s.codec)
}

// write compresses p. p may be used again after the call.
func (s *sink) write(p []byte) error {
	switch s.codec {
	case None:
		_, err := (*sinkOutput)(s).Write(p)
		return err
	case Gzip:
		_, err := s.gz.Write(p)
		return err
	case Zstd:
		_, err := s.zs.Write(p)
		return err
	}
	for len(p) > 0 {
		if len(s.raw) == 0 && len(p) >= cap(s.raw) {
			if err := s.block(p[:cap(s.raw)]); err != nil {
				return err
			}
			p = p[cap(s.raw):]
			continue
		}
		n := min(len(p), cap(s.raw)-len(s.raw))
		s.raw = append(s.raw, p[:n]...)
		p = p[n:]
		if len(s.raw) == cap(s.raw) {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush compresses what is waiting for a full block.
func (s *sink) flush() error {
	raw := s.raw
	s.raw = s.raw[:0]
	if len(raw) == 0 && (s.codec == LZ4 || s.started) {
		return nil
	}
	return s.block(raw)
}

func (s *sink) block(p []byte) error {
	var err error
	if s.codec == LZ4 {
		s.out, err = s.lz.append(s.out, p)
	} else {
		s.out = appendSnappy(s.out, p, !s.started)
		s.started = true
	}
	if err == nil && len(s.out) > s.limit {
		err = s.tooLarge()
	}
	return err
}

// finish ends the body and returns the slice it was appended to.
func (s *sink) finish() ([]byte, error) {
	var err error
	switch s.codec {
	case Gzip:
		err = s.gz.Close()
	case Zstd:
		err = s.zs.Close()
	case Snappy:
		err = s.flush()
	case LZ4:
		if err = s.flush(); err == nil {
			s.out = s.lz.end(s.out)
		}
	}
	if err == nil && len(s.out) > s.limit {
		err = s.tooLarge()
	}
	return s.out, err
}

// close gives the sink back to its pool.
func (s *sink) close() {
	s.out, s.raw = nil, s.raw[:0]
	s.codecs.sinks[s.codec][s.slot].Put(s)
}

// compress appends the compressed form of body to dst.
func (c *Codecs) compress(dst, body []byte, codec Codec, level int) ([]byte, error) {
	s, err := c.openSink(dst, codec, level, MaxSize)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.write(body); err != nil {
		return nil, err
	}
	return s.finish()
}
