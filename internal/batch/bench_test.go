package batch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// filled is a batch of records of about size bytes of JSON-like text.
func filled(tb testing.TB, codec Codec, count, size int) Batch {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	o := Plain(0, 0)
	o.Codec = codec
	b := NewCodecs().NewBuilder(o)
	var value bytes.Buffer
	for i := range count {
		value.Reset()
		for value.Len() < size-20 {
			fmt.Fprintf(&value, `{"user":%d,"action":"view","page":"/item/%d"},`, r.IntN(1e6), r.IntN(1e4))
		}
		b.Add(int64(1000+i), fmt.Appendf(nil, "key-%06d", i), value.Bytes()[:size-20])
	}
	x, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Clone(x)
}

var liberal = Rules{Now: 2000, BeforeMax: 1 << 62, AfterMax: 1 << 62, KeepCodec: true}

// BenchmarkValidate measures what produce costs before the append. The bytes are
// the batch's own; "MB/s raw" counts the decompressed ones. The upper bound for
// uncompressed batches is BenchmarkCRC.
func BenchmarkValidate(b *testing.B) {
	for codec := None; codec < codecCount; codec++ {
		for _, size := range []int{100, 1024, 16 << 10} {
			count := max(1<<20/size, 1)
			b.Run(fmt.Sprintf("%s/%d", codec, size), func(b *testing.B) {
				c, x := NewCodecs(), filled(b, codec, count, size)
				b.SetBytes(int64(len(x)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Validate(x, liberal); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(count)*float64(size)*float64(b.N)/1e6/b.Elapsed().Seconds(), "MB/s-raw")
			})
		}
	}
}

// BenchmarkCRC is the floor of BenchmarkValidate.
func BenchmarkCRC(b *testing.B) {
	x := filled(b, None, 1024, 1024)
	b.SetBytes(int64(len(x)))
	for b.Loop() {
		if x.ComputeCRC() != x.CRC() {
			b.Fatal("wrong CRC")
		}
	}
}

// BenchmarkRecords measures a full iteration.
func BenchmarkRecords(b *testing.B) {
	for codec := None; codec < codecCount; codec++ {
		b.Run(codec.String(), func(b *testing.B) {
			c, x := NewCodecs(), filled(b, codec, 1024, 1024)
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range c.Records(x, 0) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkRecompress measures a topic with a codec of its own: lz4 in, the codec out.
func BenchmarkRecompress(b *testing.B) {
	for codec := None; codec < codecCount; codec++ {
		b.Run(codec.String(), func(b *testing.B) {
			x := filled(b, LZ4, 1024, 1024)
			if codec == LZ4 {
				x = filled(b, None, 1024, 1024)
			}
			c, r := NewCodecs(), liberal
			r.KeepCodec, r.Compression = false, codec
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			var n int
			for b.Loop() {
				res, err := c.Validate(x, r)
				if err != nil {
					b.Fatal(err)
				}
				n = len(res.Batch)
			}
			b.ReportMetric(float64(1<<20)/float64(n), "ratio")
		})
	}
}

// BenchmarkBuild measures the coordinators' side: many small records.
func BenchmarkBuild(b *testing.B) {
	builder := NewCodecs().NewBuilder(Plain(0, 0))
	key, value := []byte("group/topic/0"), bytes.Repeat([]byte{7}, 60)
	b.ReportAllocs()
	for b.Loop() {
		builder.Reset(Plain(0, 0))
		for i := range 100 {
			builder.Add(int64(1000+i), key, value)
		}
		if _, err := builder.Build(); err != nil {
			b.Fatal(err)
		}
	}
}
