package batch

import (
	"bytes"
	"encoding/binary"
	"testing"

	"ottla.dev/ottla/internal/model"
)

// fuzzLimit bounds what the fuzzers let a batch decompress to.
const fuzzLimit = 1 << 20

// FuzzBatch takes any bytes for a batch that came over a socket.
func FuzzBatch(f *testing.F) {
	for codec := None; codec < codecCount; codec++ {
		f.Add([]byte(filled(f, codec, 3, 100)))
		d := newDraft(rec(0, 0, nil, nil, Header{"h", nil}), rec(-7, 9, []byte("k"), []byte("v")))
		d.codec, d.attributes = codec, bitHorizon|bitLogAppendTime
		f.Add([]byte(d.bytes(f)))
	}
	f.Add([]byte(EndTxnMarker(model.Producer{ID: 1}, true, 2, 3)))
	c := NewCodecs()
	f.Fuzz(func(t *testing.T, data []byte) {
		size, err := Peek(data)
		if err == nil && (size < HeaderSize || size > MaxSize) {
			t.Fatalf("Peek gives %d", size)
		}
		if len(data) < HeaderSize {
			if Batch(data).Check() == nil {
				t.Fatal("a batch without a whole header passes")
			}
			return
		}
		_ = walkAll(c, data)
		b := Batch(bytes.Clone(data)) // as it is, then with what a fuzzer cannot guess put right
		_, _ = c.Validate(b, fuzzRules(data))
		b = bytes.Clone(data)
		b.SetBaseOffset(0)
		b[atMagic] = magic2
		b.seal()
		validateAndReread(t, c, b, fuzzRules(data))
	})
}

// FuzzBody takes any bytes for the compressed or plain body of a batch.
func FuzzBody(f *testing.F) {
	for codec := None; codec < codecCount; codec++ {
		for _, b := range []Batch{filled(f, codec, 3, 100), filled(f, codec, 2, 70_000)} {
			f.Add(uint8(codec), uint16(b.Count()), []byte(b.Body()))
		}
	}
	f.Add(uint8(Snappy), uint16(1), []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05\xff\xff\xff\xff\x0f"))
	f.Add(uint8(Zstd), uint16(1), []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 3, 0, 0x10, 'x'})
	c := NewCodecs()
	f.Fuzz(func(t *testing.T, codec uint8, count uint16, data []byte) {
		b := append(make(Batch, HeaderSize), data...)
		b[atMagic] = magic2
		binary.BigEndian.PutUint16(b[atAttributes:], uint16(codec)&codecMask)
		binary.BigEndian.PutUint32(b[atCount:], uint32(count))
		binary.BigEndian.PutUint32(b[atLastDelta:], uint32(count)-1)
		binary.BigEndian.PutUint64(b[atProducerID:], 1<<64-1)
		b.seal()
		validateAndReread(t, c, b, fuzzRules(data))
	})
}

func fuzzRules(data []byte) Rules {
	var seed byte
	for _, c := range data {
		seed = seed*31 + c
	}
	return Rules{
		Now: 5000, BeforeMax: 1 << 62, AfterMax: 1 << 62, MaxDecompressed: fuzzLimit, MaxSize: fuzzLimit,
		Compacted: seed&1 != 0, LogAppendTime: seed&2 != 0, KeepCodec: seed&4 != 0, AllowControl: seed&8 != 0, Compression: Codec(seed >> 4 % 5),
	}
}

// walkAll iterates to the end or the first error.
func walkAll(c *Codecs, b Batch) error {
	for _, err := range c.Records(b, fuzzLimit) {
		if err != nil {
			return err
		}
	}
	return nil
}

// validateAndReread demands of a batch that passes that it is what the log may store.
func validateAndReread(t *testing.T, c *Codecs, b Batch, rules Rules) {
	res, err := c.Validate(b, rules)
	if err != nil {
		return
	}
	if err := res.Batch.Check(); err != nil {
		t.Fatalf("a validated batch is corrupt: %v", err)
	}
	if res.Batch.LogAppendTime() != rules.LogAppendTime || res.Batch.HasHorizon() || !rules.KeepCodec && res.Batch.Codec() != rules.Compression {
		t.Fatalf("attributes %04x do not follow the rules %+v", res.Batch.Attributes(), rules)
	}
	var next model.Offset
	latest := NoTimestamp
	for r, err := range c.Records(res.Batch, 0) {
		if err != nil {
			t.Fatalf("a validated batch cannot be read: %v", err)
		}
		if r.Offset != next || r.Key == nil && rules.Compacted {
			t.Fatalf("record %d has offset %d and key %v", next, r.Offset, r.Key)
		}
		next++
		latest = max(latest, r.Timestamp)
	}
	if next != res.Batch.NextOffset() || latest != res.Batch.MaxTimestamp() || latest != res.MaxTimestamp {
		t.Fatalf("batch to %d with timestamps to %d holds records to %d and %d", res.Batch.NextOffset(), res.Batch.MaxTimestamp(), next, latest)
	}
	if rules.LogAppendTime { // a producer may not claim it
		res.Batch.patch(res.Batch.Attributes()&^bitLogAppendTime, res.MaxTimestamp)
	}
	again, err := c.Validate(res.Batch, rules)
	if err != nil || again.Recompressed || again.MaxTimestamp != res.MaxTimestamp {
		t.Fatalf("a validated batch is not valid: %v", err)
	}
}
