package batch

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
)

// drawRecords draws records with offsets that grow from base.
func drawRecords(t *rapid.T, base model.Offset) []Record {
	blob := func(name string) []byte {
		if rapid.IntRange(0, 9).Draw(t, name+" null") == 0 {
			return nil
		}
		n := rapid.SampledFrom([]int{0, 1, 5, 63, 64, 200, 9000, 70000}).Draw(t, name+" size")
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, name)}, n)
	}
	var out []Record
	for range rapid.IntRange(1, 12).Draw(t, "records") {
		r := Record{Offset: base, Timestamp: rapid.Int64Range(-1, 1<<42).Draw(t, "timestamp"), Key: blob("key"), Value: blob("value")}
		for range rapid.IntRange(0, 2).Draw(t, "headers") {
			r.Headers = append(r.Headers, Header{rapid.StringN(0, 5, 20).Draw(t, "name"), blob("header")})
		}
		out = append(out, r)
		base += 1 + model.Offset(rapid.IntRange(0, 3).Draw(t, "gap"))
	}
	return out
}

func TestBuiltBatchesReadBack(t *testing.T) {
	c := NewCodecs()
	c.whole = 100 // most records are walked, not parsed
	b := c.NewBuilder(BuilderOptions{})
	rapid.Check(t, func(t *rapid.T) {
		o := BuilderOptions{
			Codec: Codec(rapid.IntRange(0, 4).Draw(t, "codec")), Level: rapid.IntRange(-3, 25).Draw(t, "level"),
			Base: model.Offset(rapid.Int64Range(0, 1<<50).Draw(t, "base")), Epoch: model.Epoch(rapid.Int32Range(-1, 100).Draw(t, "epoch")),
			Producer: model.Producer{ID: rapid.Int64Range(-1, 5).Draw(t, "producer"), Epoch: 3}, Sequence: rapid.Int32Range(-1, math.MaxInt32).Draw(t, "sequence"),
			Transactional: rapid.Bool().Draw(t, "transactional"), Control: rapid.Bool().Draw(t, "control"),
			HasHorizon: rapid.Bool().Draw(t, "horizon"),
		}
		if o.HasHorizon {
			o.Horizon = rapid.Int64Range(0, 1<<42).Draw(t, "horizon at")
		}
		records := drawRecords(t, o.Base)
		b.Reset(o)
		latest := NoTimestamp
		for _, r := range records {
			b.AddAt(r.Offset, r.Timestamp, r.Key, r.Value, r.Headers...)
			latest = max(latest, r.Timestamp)
		}
		x, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Check(); err != nil {
			t.Fatal(err)
		}
		if got := collect(t, c, x); !reflect.DeepEqual(got, records) {
			t.Fatalf("got %v, want %v", got, records)
		}
		if x.LastOffset() != records[len(records)-1].Offset || x.MaxTimestamp() != latest || int(x.Count()) != b.Len() || x.LeaderEpoch() != o.Epoch {
			t.Fatal("the header does not say what the records are")
		}
		if o.Codec == None && b.Size() != len(x) {
			t.Fatalf("Size is %d, the batch has %d bytes", b.Size(), len(x))
		}
		like := Like(x)
		like.Level = o.Level
		if like != o {
			t.Fatalf("Like gives %+v, want %+v", like, o)
		}
	})
}

// TestBothWalksAgree has records cut and damaged at random; whether they are
// parsed whole or walked through must make no difference.
func TestBothWalksAgree(t *testing.T) {
	parse, walk := NewCodecs(), NewCodecs()
	walk.whole = 0
	rapid.Check(t, func(t *rapid.T) {
		var body []byte
		for i, r := range drawRecords(t, 0) {
			if len(r.Value) < 1000 {
				body = append(body, rec(5, int32(i), r.Key, r.Value, r.Headers...)...)
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "damages") {
			if len(body) > 0 {
				body[rapid.IntRange(0, len(body)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		d := newDraft(body[:rapid.IntRange(len(body)/2, len(body)).Draw(t, "cut")])
		count := rapid.Int32Range(1, 12).Draw(t, "count")
		d.codec, d.count, d.last = LZ4, &count, ptr(count-1)
		x := Batch(bytes.Clone(draftBytes(t, d)))
		a, errA := parse.Validate(bytes.Clone(x), liberal)
		b, errB := walk.Validate(bytes.Clone(x), liberal)
		if (errA == nil) != (errB == nil) || !reflect.DeepEqual(a, b) {
			t.Fatalf("parsed: %v; walked: %v", errA, errB)
		}
		d.codec = None
		_, errC := parse.Validate(draftBytes(t, d), liberal)
		if (errA == nil) != (errC == nil) {
			t.Fatalf("compressed: %v; plain: %v", errA, errC)
		}
	})
}

func TestBuilderRefusesImpossibleBatches(t *testing.T) {
	b := NewCodecs().NewBuilder(Plain(10, 0))
	if _, err := b.Build(); !errors.Is(err, ErrInvalid) {
		t.Errorf("no records: got %v", err)
	}
	for name, f := range map[string]func(){
		"offset below base": func() { b.AddAt(9, 0, nil, nil) },
		"offset twice":      func() { b.AddAt(10, 0, nil, nil); b.AddAt(10, 0, nil, nil) },
		"delta above int32": func() { b.AddAt(10+1<<31, 0, nil, nil) },
		"last below records": func() {
			b.AddAt(15, 0, nil, nil)
			b.SetLastOffset(14)
		},
	} {
		b.Reset(Plain(10, 0))
		f()
		if _, err := b.Build(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	b.Reset(BuilderOptions{Codec: 6})
	b.Add(0, nil, nil)
	if _, err := b.Build(); !errors.Is(err, ErrCodec) {
		t.Errorf("codec 6: got %v, want ErrCodec", err)
	}
	b.Reset(Plain(10, 0))
	b.Add(0, nil, nil)
	if x, err := b.Build(); err != nil || x.BaseOffset() != 10 {
		t.Errorf("a builder must be good again after Reset: %v", err)
	}
}

func TestCompactedBatchKeepsItsRange(t *testing.T) {
	c := NewCodecs()
	b := c.NewBuilder(Plain(100, 3))
	b.AddAt(103, 50, []byte("k"), nil)
	b.SetLastOffset(109)
	x, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if x.BaseOffset() != 100 || x.LastOffset() != 109 || x.Count() != 1 || collect(t, c, x)[0].Offset != 103 {
		t.Errorf("batch has offsets %d to %d", x.BaseOffset(), x.LastOffset())
	}
}

func TestBuildAllocatesNothing(t *testing.T) {
	b := NewCodecs().NewBuilder(Plain(0, 0))
	key, value := []byte("key"), bytes.Repeat([]byte("v"), 500)
	if n := testing.AllocsPerRun(100, func() {
		b.Reset(Plain(0, 0))
		for range 100 {
			b.Add(5, key, value)
		}
		if _, err := b.Build(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
