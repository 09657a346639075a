package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/vfs"
)

// BenchmarkCompaction measures one compaction of a log of 64 MiB, all of it dirty, in
// bytes of log per second; every byte is read twice. keys says how many different keys
// the log has: with few nearly all records go, with many nearly all stay. Files are
// real ones in b.TempDir, and what is left is synced.
func BenchmarkCompaction(b *testing.B) {
	for _, value := range []int{100, 1000} {
		for _, keys := range []int{1000, 1 << 30} {
			for _, codec := range []batch.Codec{batch.None, batch.LZ4, batch.Zstd} {
				b.Run(fmt.Sprintf("value=%d/keys=%d/%v", value, keys, codec), func(b *testing.B) {
					benchCompaction(b, value, keys, codec)
				})
			}
		}
	}
}

func benchCompaction(b *testing.B, value, keys int, codec batch.Codec) {
	const size = 64 << 20
	rng := rand.New(rand.NewPCG(1, 1))
	codecs := batch.NewCodecs()
	text := make([]byte, value)
	b.ReportAllocs()
	var total int64
	for b.Loop() {
		b.StopTimer()
		c := folderConfig(vfs.OS())
		c.Path = b.TempDir()
		f, err := OpenFolder(c)
		if err != nil {
			b.Fatal(err)
		}
		l := openPart(b, f, LogConfig{Compact: true, SegmentBytes: 16 << 20, FlushMessages: Never})
		o := batch.Plain(0, 0)
		o.Codec = codec
		w := codecs.NewBuilder(o)
		for raw := 0; raw < size; {
			w.Reset(o)
			for w.Size() < 16<<10 {
				for i := range text {
					text[i] = "abcdefghijklmnop"[rng.IntN(16)]
				}
				w.Add(1, fmt.Appendf(nil, "key-%010d", rng.IntN(keys)), text)
			}
			raw += w.Size()
			out, err := w.Build()
			if err != nil {
				b.Fatal(err)
			}
			lead(b, l, out)
		}
		if err := l.do(func() error { return l.roll(l.EndOffset(), l.EndOffset()) }); err != nil {
			b.Fatal(err)
		}
		if err := l.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
		total += l.Size()
		cl := f.NewCleaner(CleanerConfig{})
		d, err := cl.Look(l, compacting(), l.EndOffset(), time.UnixMilli(10))
		if err != nil || !d.Due {
			b.Fatal(d, err)
		}
		b.StartTimer()
		if _, err := cl.Clean(context.Background(), l, compacting(), d, time.UnixMilli(10)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		closeFolder(b, f)
		b.StartTimer()
	}
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
}

// BenchmarkKeyMap measures what each record costs pass one and pass two: its hash and
// a look into the map.
func BenchmarkKeyMap(b *testing.B) {
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%010d", i)
	}
	m := newKeyMap(128<<20, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if !m.put(keys[i%len(keys)], 7) {
			b.Fatal("full")
		}
	}
}
