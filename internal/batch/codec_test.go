package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/twmb/franz-go/pkg/kgo"
)

// bodies are contents of various compressibility and size.
func bodies() map[string][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	out := map[string][]byte{"one byte": {7}, "zeros": make([]byte, 500_000), "random": random, "mixed": append(bytes.Repeat([]byte("abcdefgh"), 20_000), random[:70_000]...)}
	for _, n := range []int{xerialBlock - 1, xerialBlock, xerialBlock + 1, lz4Block - 1, lz4Block, lz4Block + 1} {
		out[fmt.Sprint(n, " bytes")] = random[:n]
	}
	return out
}

// inflate decompresses through a stream, as batches are.
func inflate(c *Codecs, codec Codec, compressed []byte, limit int64) ([]byte, error) {
	s, err := c.open(codec, compressed, limit)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var out []byte
	for {
		err := s.want(1)
		if err != nil {
			if s.end() == nil {
				err = nil
			}
			return out, err
		}
		out = append(out, s.window()...)
		s.pos = len(s.buf)
	}
}

func TestEveryLevelRoundTrips(t *testing.T) {
	levels := map[Codec][]int{None: {0}, Gzip: {-1, 0, 1, 6, 9}, Snappy: {0}, LZ4: {0, 1, 5, 9, 17}, Zstd: {-131072, -1, 0, 1, 3, 9, 22}}
	c := NewCodecs()
	for name, body := range bodies() {
		for codec := Gzip; codec < codecCount; codec++ {
			for _, level := range levels[codec] {
				z, err := c.compress([]byte("before"), body, codec, level)
				if err != nil {
					t.Fatal(name, codec, level, err)
				}
				got, err := inflate(c, codec, z[len("before"):], maxBody)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s, %s level %d: %d bytes came back as %d (%v)", name, codec, level, len(body), len(got), err)
				}
			}
		}
	}
}

// TestCodecsAgreeWithFranz exchanges bodies with kgo, whose LZ4 frames have blocks
// of 4 MiB and a content checksum, and whose zstd frames state their size.
func TestCodecsAgreeWithFranz(t *testing.T) {
	c, theirs := NewCodecs(), kgo.DefaultDecompressor()
	kinds := map[Codec]kgo.CompressionCodec{Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression()}
	for codec, kind := range kinds {
		compressor, err := kgo.DefaultCompressor(kind)
		if err != nil {
			t.Fatal(err)
		}
		for name, body := range bodies() {
			z, used := compressor.Compress(new(bytes.Buffer), body)
			if Codec(used) != codec {
				continue // kgo sends what does not shrink uncompressed
			}
			if got, err := inflate(c, codec, z, maxBody); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s, %s: kgo's bytes are misread: %v", codec, name, err)
			}
			z, err := c.compress(nil, body, codec, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := theirs.Decompress(z, kgo.CompressionCodecType(codec)); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s, %s: kgo misreads our bytes: %v", codec, name, err)
			}
		}
	}
}

func TestSnappyFraming(t *testing.T) {
	c := NewCodecs()
	framed := appendSnappy(nil, []byte("one"), true)
	bare := snappy.Encode(nil, []byte("bare"))
	for name, x := range map[string]struct {
		in   []byte
		want string
	}{
		"bare block, as librdkafka writes it": {bare, "bare"},
		"framed twice":                        {append(bytes.Clone(framed), appendSnappy(nil, []byte(" two"), true)...), "one two"},
		"framed without blocks":               {[]byte(xerialHeader), ""},
		"framed with an empty block":          {append(bytes.Clone(framed), 0, 0, 0, 1, 0), "one"},
	} {
		if got, err := inflate(c, Snappy, x.in, 1000); err != nil || string(got) != x.want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, x.want)
		}
	}
}

// TestLZ4IsAsStrictAsKafka refuses frames that Kafka's consumers could not read.
func TestLZ4IsAsStrictAsKafka(t *testing.T) {
	c := NewCodecs()
	good, err := c.compress(nil, []byte("hello hello hello hello hello hello"), LZ4, 0)
	if err != nil {
		t.Fatal(err)
	}
	describe := func(flags, bd byte) []byte {
		b := append(bytes.Clone(good[:4]), flags, bd)
		b = append(b, byte(xxhash32(b[4:6])>>8))
		return append(b, good[7:]...)
	}
	if _, err := inflate(c, LZ4, describe(0x60, 0x70), 1000); err != nil {
		t.Errorf("a frame with blocks of 4 MiB: %v", err)
	}
	bad := map[string][]byte{
		"dependent blocks":   describe(0x40, 0x40),
		"version 2":          describe(0xa0, 0x40),
		"dictionary":         describe(0x61, 0x40),
		"reserved flag":      describe(0x62, 0x40),
		"block size 3":       describe(0x60, 0x30),
		"reserved BD bit":    describe(0x60, 0x41),
		"header checksum":    append(append(bytes.Clone(good[:6]), good[6]+1), good[7:]...),
		"bytes behind it":    append(bytes.Clone(good), 0),
		"no end mark":        good[:len(good)-4],
		"half a block":       good[:15],
		"stored block large": append(append(describe(0x60, 0x40)[:7], 1, 0, 1, 0x80), make([]byte, 65537+4)...),
		"no block checksum":  append(describe(0x70, 0x40)[:7], 2, 0, 0, 0x80, 'a', 'b'),
		"legacy frame":       append([]byte{0x02, 0x21, 0x4c, 0x18}, good[4:]...),
		"block checksum bad": append(describe(0x70, 0x40)[:len(good)-4], 1, 2, 3, 4, 0, 0, 0, 0),
	}
	for name, b := range bad {
		if _, err := inflate(c, LZ4, b, 1000); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestXXHash32(t *testing.T) {
	// From the reference implementation's self test: seed 0.
	for in, want := range map[string]uint32{"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff, "Nobody inspects the spammish repetition": 0xe2293b2f} {
		if got := xxhash32([]byte(in)); got != want {
			t.Errorf("xxhash32(%q) = %08x, want %08x", in, got, want)
		}
	}
}

// allocated is how much f allocates, in bytes, once pools are warm. It is 0 under
// the race detector, which makes pools forget what they hold.
func allocated(f func()) uint64 {
	f()
	if raceDetector {
		return 0
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// bomb is a batch of one record of size zeros.
func bomb(t *testing.T, codec Codec, size int) Batch {
	t.Helper()
	o := Plain(0, 0)
	o.Codec = codec
	b := NewCodecs().NewBuilder(o)
	b.Add(2000, []byte("k"), make([]byte, size))
	x, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestBombsCostNoMemory(t *testing.T) {
	const size, most = 24 << 20, 6 << 20
	for codec := Gzip; codec < codecCount; codec++ {
		x, c := bomb(t, codec, size), NewCodecs()
		if len(x) > size/15 {
			t.Fatalf("%s: %d bytes are no bomb", codec, len(x))
		}
		if n := allocated(func() {
			if _, err := c.Validate(x, liberal); err != nil {
				t.Errorf("%s: a large record is valid, got %v", codec, err)
			}
		}); n > most {
			t.Errorf("%s: validation allocates %d bytes", codec, n)
		}
		small := liberal
		small.MaxDecompressed = 1 << 20
		if _, err := c.Validate(x, small); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: max.decompressed.message.bytes: got %v, want ErrInvalid", codec, err)
		}
		rewrite := liberal
		rewrite.KeepCodec, rewrite.Compression, rewrite.MaxSize = false, None, 1<<20
		if n := allocated(func() {
			if _, err := c.Validate(x, rewrite); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: rewriting to uncompressed: got %v, want ErrTooLarge", codec, err)
			}
		}); n > most {
			t.Errorf("%s: rewriting allocates %d bytes", codec, n)
		}
		if n := allocated(func() {
			for _, err := range c.Records(x, 1<<20) {
				if !errors.Is(err, ErrTooLarge) {
					t.Errorf("%s: iterating: got %v, want ErrTooLarge", codec, err)
				}
			}
		}); n > most {
			t.Errorf("%s: iterating allocates %d bytes", codec, n)
		}
	}
}

// TestSmallBatchCannotCostSeconds: 15 KB of zstd may not stand for 20 million records.
func TestSmallBatchCannotCostSeconds(t *testing.T) {
	c, count := NewCodecs(), int32(20_000_000)
	z, err := c.compress(nil, bytes.Repeat(rec(0, 0, nil, nil), int(count)), Zstd, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := newDraft()
	d.count, d.last, d.attributes, d.after = &count, ptr(count-1), int16(Zstd), z
	if _, err := c.Validate(d.bytes(t), liberal); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes with %d records: got %v, want ErrTooLarge", len(z), count, err)
	}
}

// TestRewriteStopsAtMaxSize while it compresses, not after.
func TestRewriteStopsAtMaxSize(t *testing.T) {
	random := make([]byte, 8<<20)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	b := newDraft(rec(0, 0, nil, random)).bytes(t)
	for codec := Gzip; codec < codecCount; codec++ {
		c, rules := NewCodecs(), liberal
		rules.KeepCodec, rules.Compression, rules.MaxSize = false, codec, 1<<20
		if n := allocated(func() {
			if _, err := c.Validate(b, rules); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: got %v, want ErrTooLarge", codec, err)
			}
		}); n > 4<<20 {
			t.Errorf("%s: %d bytes were allocated", codec, n)
		}
	}
}

// TestLiesAboutSizesCostNoMemory has sizes in codecs' headers that the data does
// not bear out.
func TestLiesAboutSizesCostNoMemory(t *testing.T) {
	zstdFrame := func(header ...byte) []byte {
		f := append([]byte{0x28, 0xb5, 0x2f, 0xfd}, header...)
		return append(f, 0x19, 0, 0, 'a', 'b', 'c') // last block, raw, 3 bytes
	}
	lies := map[string]struct {
		codec Codec
		in    []byte
		ok    bool
	}{
		"snappy: 4 GiB":             {Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0x00}, false},
		"snappy: 1 GiB":             {Snappy, []byte{0x80, 0x80, 0x80, 0x80, 0x04, 0x00}, false},
		"snappy: block of 2 GiB":    {Snappy, append([]byte(xerialHeader), 0x7f, 0xff, 0xff, 0xff, 1, 2), false},
		"lz4: content of 2^62":      {LZ4, lz4Lie(), true},
		"zstd: window of 128 MiB":   {Zstd, zstdFrame(0x00, (27-10)<<3), true},
		"zstd: window of 1 GiB":     {Zstd, zstdFrame(0x00, (30-10)<<3), false},
		"zstd: segment of 1 GiB":    {Zstd, zstdFrame(0xa0, 0, 0, 0, 0x40), false},
		"zstd: content of 2^62":     {Zstd, zstdFrame(0xc0, 0x38, 0, 0, 0, 0, 0, 0, 0, 0x40), false},
		"zstd: dictionary wanted":   {Zstd, zstdFrame(0x01, 0x38, 9), false},
		"gzip: extra field of 64 K": {Gzip, []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1}, false},
	}
	for name, l := range lies {
		c := NewCodecs()
		var err error
		n := allocated(func() { _, err = inflate(c, l.codec, l.in, maxBody) })
		if (err == nil) != l.ok {
			t.Errorf("%s: got %v", name, err)
		}
		if n > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}

// TestSnappyBlockAboveTheLimit costs no memory though its size is true.
func TestSnappyBlockAboveTheLimit(t *testing.T) {
	block := snappy.Encode(nil, make([]byte, 4<<20))
	if n := allocated(func() {
		if _, err := inflate(NewCodecs(), Snappy, block, 1000); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	}); n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func lz4Lie() []byte {
	b := binary.LittleEndian.AppendUint32(nil, lz4Magic)
	b = append(b, 0x68, 0x40)
	b = binary.LittleEndian.AppendUint64(b, 1<<62)
	b = append(b, byte(xxhash32(b[4:])>>8))
	return append(b, 3, 0, 0, 0x80, 'a', 'b', 'c', 0, 0, 0, 0)
}

// TestZstdLargeWindows has frames whose window is not set aside.
func TestZstdLargeWindows(t *testing.T) {
	c := NewCodecs()
	frame := func(window byte, blocks int) []byte {
		f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, window}
		for i := range blocks { // 128 KiB of 'x' each, run length coded
			h := uint32(128<<10)<<3 | 1<<1
			if i == blocks-1 {
				h |= 1
			}
			f = append(f, byte(h), byte(h>>8), byte(h>>16), 'x')
		}
		return f
	}
	got, err := inflate(c, Zstd, frame((27-10)<<3, 200), maxBody)
	if err != nil || len(got) != 200*128<<10 {
		t.Errorf("25 MiB behind a window of 128 MiB: %d bytes, %v", len(got), err)
	}
	if _, err = inflate(c, Zstd, frame((27-10)<<3, 300), maxBody); !errors.Is(err, ErrTooLarge) {
		t.Errorf("37.5 MiB behind a window of 128 MiB: got %v, want ErrTooLarge", err)
	}
	segment := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 160, 0}, frame(0, 80)[6:]...)
	got, err = inflate(c, Zstd, segment, maxBody)
	if err != nil || len(got) != 10<<20 {
		t.Errorf("10 MiB in one segment: %d bytes, %v", len(got), err)
	}
	got, err = inflate(c, Zstd, frame((23-10)<<3, 300), maxBody)
	if err != nil || len(got) != 300*128<<10 {
		t.Errorf("37.5 MiB behind a window of 8 MiB: %d bytes, %v", len(got), err)
	}
}

func TestCodecNames(t *testing.T) {
	for codec := None; codec < codecCount; codec++ {
		if got, err := ParseCodec(codec.String()); got != codec || err != nil {
			t.Errorf("%s is parsed as %v, %v", codec, got, err)
		}
	}
	if got, err := ParseCodec("none"); got != None || err != nil {
		t.Errorf("none is parsed as %v, %v", got, err)
	}
	for _, bad := range []string{"", "producer", "codec 5", "GZIP"} {
		if _, err := ParseCodec(bad); !errors.Is(err, ErrCodec) {
			t.Errorf("%q: got %v, want ErrCodec", bad, err)
		}
	}
}

func TestCodecsAreForAllGoroutines(t *testing.T) {
	c := NewCodecs()
	var batches []Batch
	for codec := None; codec < codecCount; codec++ {
		batches = append(batches, filled(t, codec, 40, 2000))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				b, rules := batches[(g+i)%len(batches)], liberal
				rules.KeepCodec, rules.Compression = false, Codec((g*3+i)%int(codecCount))
				res, err := c.Validate(bytes.Clone(b), rules)
				if err != nil {
					t.Error(err)
					return
				}
				if got := collect(t, c, res.Batch); len(got) != 40 {
					t.Errorf("%d records", len(got))
				}
			}
		})
	}
	wg.Wait()
}

// TestIterationMayStopEarly and be nested: a stream goes back to its pool once.
func TestIterationMayStopEarly(t *testing.T) {
	c := NewCodecs()
	for codec := None; codec < codecCount; codec++ {
		b := filled(t, codec, 40, 2000)
		for outer, err := range c.Records(b, 0) {
			if err != nil {
				t.Fatal(err)
			}
			key := string(outer.Key)
			for inner, err := range c.Records(b, 0) {
				if err != nil || inner.Offset > 3 {
					break
				}
			}
			if string(outer.Key) != key {
				t.Errorf("%s: a nested iteration spoils the outer record", codec)
			}
			if outer.Offset == 5 {
				break
			}
		}
	}
}
