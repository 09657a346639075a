package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/model"
)

func TestPeek(t *testing.T) {
	b := newDraft(rec(0, 0, nil, nil)).bytes(t)
	for n := range b {
		size, err := Peek(b[:n])
		if n < 17 && !errors.Is(err, ErrShort) || n >= 17 && (err != nil || size != len(b)) {
			t.Errorf("with %d bytes: %d, %v", n, size, err)
		}
	}
	if size, err := Peek(append(bytes.Clone(b), 1, 2, 3)); size != len(b) || err != nil {
		t.Errorf("with bytes of the next batch: %d, %v", size, err)
	}
	change := func(at int, v ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[at:], v)
		return c
	}
	for name, x := range map[string]struct {
		b    []byte
		want error
	}{
		"magic 1":         {change(atMagic, 1), ErrInvalid},
		"magic 3":         {change(atMagic, 3), ErrInvalid},
		"length 48":       {change(atLength, 0, 0, 0, 48), ErrCorrupt},
		"negative length": {change(atLength, 0xff), ErrCorrupt},
	} {
		if _, err := Peek(x.b); !errors.Is(err, x.want) {
			t.Errorf("%s: got %v, want %v", name, err, x.want)
		}
	}
	if size, err := Peek(change(atLength, 0x7f, 0xff, 0xff, 0xff)); err != nil || size != MaxSize {
		t.Errorf("largest length: %d, %v", size, err)
	}
}

func TestCheckSeesEveryFlippedBit(t *testing.T) {
	b := newDraft(rec(0, 0, []byte("k"), []byte("v"))).bytes(t)
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		free := i < atLength || i >= atLeaderEpoch && i < atMagic // patched by the log
		if err := Batch(c).Check(); free != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for n := range b {
		if err := b[:n].Check(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestAccessors(t *testing.T) {
	d := newDraft(rec(0, 0, nil, nil), rec(0, 1, nil, nil))
	d.base, d.attributes, d.codec, d.last = 1<<40, bitLogAppendTime|bitTransactional|bitControl|bitHorizon, Zstd, ptr(7)
	d.baseTS, d.maxTS, d.producer, d.epoch, d.sequence = -5, 1<<50, 1<<45, 12, math.MaxInt32-2
	b := d.bytes(t)
	if b.BaseOffset() != 1<<40 || b.LastOffsetDelta() != 7 || b.LastOffset() != 1<<40+7 || b.NextOffset() != 1<<40+8 {
		t.Error("offsets are misread")
	}
	if b.BaseTimestamp() != -5 || b.MaxTimestamp() != 1<<50 || b.Count() != 2 || b.Codec() != Zstd || b.Magic() != 2 {
		t.Error("timestamps, count, codec or magic are misread")
	}
	if !b.LogAppendTime() || !b.Transactional() || !b.Control() || !b.HasHorizon() {
		t.Error("attributes are misread")
	}
	if b.Producer() != (model.Producer{ID: 1 << 45, Epoch: 12}) || b.BaseSequence() != math.MaxInt32-2 || b.LastSequence() != 4 {
		t.Errorf("producer is misread: %+v, %d to %d", b.Producer(), b.BaseSequence(), b.LastSequence())
	}
	b.SetBaseOffset(99)
	b.SetLeaderEpoch(5)
	if b.BaseOffset() != 99 || b.LeaderEpoch() != 5 || b.Check() != nil {
		t.Error("offset and epoch must be free of the CRC")
	}
	plain := newDraft(rec(0, 0, nil, nil)).bytes(t)
	if plain.Producer() != model.NoProducer || plain.LastSequence() != -1 || plain.LogAppendTime() || plain.Transactional() || plain.Control() || plain.HasHorizon() {
		t.Error("a plain batch is misread")
	}
}

func TestValidateRenumbersOffsets(t *testing.T) {
	for codec := None; codec < codecCount; codec++ {
		d := newDraft(rec(-3, 5, []byte("a"), nil), rec(1<<40, 5, nil, []byte("b"), Header{"h", nil}), rec(0, -1, []byte("c"), []byte{}))
		d.codec, d.attributes, d.producer, d.epoch, d.sequence = codec, bitTransactional, 9, 1, 100
		c, b := NewCodecs(), d.bytes(t)
		res, err := c.Validate(bytes.Clone(b), liberal)
		if err != nil || !res.Recompressed {
			t.Fatal(codec, err)
		}
		if err := res.Batch.Check(); err != nil {
			t.Error(codec, err)
		}
		want := collect(t, c, b)
		for i := range want {
			want[i].Offset = model.Offset(i)
		}
		if got := collect(t, c, res.Batch); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", codec, got, want)
		}
		if res.Batch.Producer() != b.Producer() || res.Batch.BaseSequence() != 100 || !res.Batch.Transactional() || res.Batch.Codec() != codec {
			t.Errorf("%s: the header changed", codec)
		}
		if res.MaxTimestamp != 1000+1<<40 || res.OffsetOfMaxTimestamp != 1 {
			t.Errorf("%s: largest timestamp %d at %d", codec, res.MaxTimestamp, res.OffsetOfMaxTimestamp)
		}
	}
}

func TestValidateChangesTheCodecOnly(t *testing.T) {
	c := NewCodecs()
	for from := None; from < codecCount; from++ {
		for to := None; to < codecCount; to++ {
			b := filled(t, from, 50, 3000)
			rules := liberal
			rules.KeepCodec, rules.Compression = false, to
			res, err := c.Validate(bytes.Clone(b), rules)
			if err != nil || res.Recompressed != (from != to) || res.Batch.Codec() != to || res.Batch.Check() != nil {
				t.Fatalf("%s to %s: %v, recompressed %t", from, to, err, res.Recompressed)
			}
			if !reflect.DeepEqual(collect(t, c, res.Batch), collect(t, c, b)) {
				t.Errorf("%s to %s: the records changed", from, to)
			}
			if to == from && !bytes.Equal(res.Batch, b) {
				t.Errorf("%s: the bytes changed", from)
			}
		}
	}
}

func TestRewriteRespectsMaxSize(t *testing.T) {
	c := NewCodecs()
	for from := None; from < codecCount; from++ {
		for to := None; to < codecCount; to++ {
			if from == to {
				continue
			}
			b, rules := filled(t, from, 100, 3000), liberal
			rules.KeepCodec, rules.Compression = false, to
			res, err := c.Validate(b, rules)
			if err != nil {
				t.Fatal(err)
			}
			for size, ok := range map[int]bool{len(res.Batch): true, len(res.Batch) - 1: false, 70: false} {
				rules.MaxSize = size
				if _, err := c.Validate(b, rules); ok != (err == nil) || err != nil && !errors.Is(err, ErrTooLarge) {
					t.Errorf("%s to %s, %d bytes, limit %d: %v", from, to, len(res.Batch), size, err)
				}
			}
		}
	}
}

func TestOffsetOfMaxTimestampIsTheFirst(t *testing.T) {
	b := newDraft(rec(0, 0, nil, nil), rec(9, 1, nil, nil), rec(9, 2, nil, nil)).bytes(t)
	c := NewCodecs()
	if res, err := c.Validate(bytes.Clone(b), liberal); err != nil || res.MaxTimestamp != 1009 || res.OffsetOfMaxTimestamp != 1 {
		t.Errorf("CreateTime: %d at %d, %v; want 1009 at 1", res.MaxTimestamp, res.OffsetOfMaxTimestamp, err)
	}
	rules := liberal
	rules.LogAppendTime = true
	if res, err := c.Validate(bytes.Clone(b), rules); err != nil || res.MaxTimestamp != rules.Now || res.OffsetOfMaxTimestamp != 0 {
		t.Errorf("LogAppendTime: %d at %d, %v; want %d at 0", res.MaxTimestamp, res.OffsetOfMaxTimestamp, err, rules.Now)
	}
}

func TestProducersMayNotClaimLogAppendTimeWhereItIsUsed(t *testing.T) {
	d := newDraft(rec(0, 0, nil, nil), rec(1, 1, nil, nil))
	d.attributes = bitLogAppendTime
	c, rules := NewCodecs(), liberal
	if res, err := c.Validate(d.bytes(t), rules); err != nil || res.Batch.LogAppendTime() {
		t.Errorf("a topic with CreateTime: %v, want the bit cleared", err)
	}
	rules.LogAppendTime = true
	var bad *RecordErrors
	if _, err := c.Validate(d.bytes(t), rules); !errors.Is(err, ErrTimestamp) || !errors.As(err, &bad) || len(bad.Errors) != 2 {
		t.Errorf("a topic with LogAppendTime: %v, want both records refused", err)
	}
}

func TestAllowControl(t *testing.T) {
	m := EndTxnMarker(model.Producer{ID: 4, Epoch: 1}, true, 3, 2000)
	c, rules := NewCodecs(), liberal
	if _, err := c.Validate(m, rules); !errors.Is(err, ErrInvalid) {
		t.Errorf("a client's control batch: got %v, want ErrInvalid", err)
	}
	rules.AllowControl, rules.Compacted = true, true
	if _, err := c.Validate(m, rules); err != nil {
		t.Errorf("the broker's control batch: %v", err)
	}
	d := newDraft(rec(0, 0, []byte("group"), nil))
	d.producer, d.epoch, d.attributes = 4, 1, bitTransactional
	if _, err := c.Validate(d.bytes(t), rules); err != nil {
		t.Errorf("the broker's transactional batch without sequence: %v", err)
	}
}

func TestRecordErrorsAreBounded(t *testing.T) {
	var d draft
	for i := range int32(5000) {
		d = newDraft(append(d.records, rec(0, i, nil, nil))...)
	}
	rules := liberal
	rules.Compacted = true
	_, err := NewCodecs().Validate(d.bytes(t), rules)
	var re *RecordErrors
	if !errors.As(err, &re) || !errors.Is(err, ErrInvalid) || errors.Is(err, ErrTimestamp) {
		t.Fatalf("got %v, want RecordErrors that are ErrInvalid", err)
	}
	if re.Total != 5000 || len(re.Errors) != maxRecordErrors || re.Errors[999].Index != 999 {
		t.Errorf("%d errors, %d listed", re.Total, len(re.Errors))
	}
	if !strings.Contains(re.Error(), "5000 records") || !strings.Contains(re.Errors[0].Message, "key") {
		t.Errorf("the texts say nothing: %q, %q", re, re.Errors[0].Message)
	}
}

func TestTimestampErrorsSayTheBounds(t *testing.T) {
	rules := Rules{Now: 5000, BeforeMax: 3999, AfterMax: 10, KeepCodec: true}
	_, err := NewCodecs().Validate(newDraft(rec(1, 0, nil, nil), rec(0, 1, nil, nil)).bytes(t), rules)
	var re *RecordErrors
	if !errors.As(err, &re) || !errors.Is(err, ErrTimestamp) || errors.Is(err, ErrInvalid) || len(re.Errors) != 1 || re.Errors[0].Index != 1 {
		t.Fatalf("got %v, want one ErrTimestamp at record 1", err)
	}
	if m := re.Errors[0].Message; !strings.Contains(m, "1000") || !strings.Contains(m, "3999") {
		t.Errorf("the message %q names neither timestamp nor bound", m)
	}
}

func TestControlRecords(t *testing.T) {
	for typ := Abort; typ <= KRaftVoters; typ++ {
		if got, err := ParseControlKey(ControlKey(typ)); got != typ || err != nil {
			t.Errorf("%s comes back as %s, %v", typ, got, err)
		}
	}
	if got, err := ParseControlKey([]byte{0, 9, 0, 77, 1, 2}); got != 77 || err != nil {
		t.Errorf("a later version with an unknown type: %v, %v", got, err)
	}
	if got, err := ParseEndTxnValue(EndTxnValue(1 << 30)); got != 1<<30 || err != nil {
		t.Errorf("coordinator epoch comes back as %d, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {0, 0, 0}, {0x80, 0, 0, 0, 0, 0}} {
		if _, err := ParseControlKey(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("key %x: got %v", bad, err)
		}
		if _, err := ParseEndTxnValue(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("value %x: got %v", bad, err)
		}
	}
}

// TestValidateAllocatesNothingPerRecord: nothing at all where no decompressor is
// needed; else no more than a decompressor that the pool has lost costs now and
// then, which the race detector makes it do.
func TestValidateAllocatesNothingPerRecord(t *testing.T) {
	const records = 1000
	c := NewCodecs()
	for codec := None; codec < codecCount; codec++ {
		most := records / 20.0
		if codec == None {
			most = 0
		}
		b := filled(t, codec, records, 300)
		if n := testing.AllocsPerRun(50, func() {
			if _, err := c.Validate(b, liberal); err != nil {
				t.Fatal(err)
			}
		}); n > most {
			t.Errorf("%s: %v allocations for %d records", codec, n, records)
		}
	}
}

func TestVarintLimits(t *testing.T) {
	for _, v := range []int64{0, -1, 1, 63, -64, 64, 8191, -8192, 8192, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64} {
		b := appendVarint(nil, v)
		if len(b) != varintSize(v) {
			t.Errorf("%d takes %d bytes, varintSize says %d", v, len(b), varintSize(v))
		}
		if got, at := varlong(b, 0); got != v || at != len(b) {
			t.Errorf("varlong of %d: %d, %d", v, got, at)
		}
		got, at := varint(b, 0)
		if fits := int64(int32(v)) == v; fits != (at == len(b) && int64(got) == v) {
			t.Errorf("varint of %d: %d, %d", v, got, at)
		}
		if want := binary.AppendVarint(nil, v); !bytes.Equal(b, want) {
			t.Errorf("%d is encoded as %x, want %x", v, b, want)
		}
		for n := range b {
			if _, at := varlong(b[:n], 0); at != -1 {
				t.Errorf("%d cut to %d bytes is read", v, n)
			}
			if _, at := varint(b[:n], 0); at != -1 {
				t.Errorf("%d cut to %d bytes is read", v, n)
			}
		}
	}
	tooLong := append(bytes.Repeat([]byte{0x80}, 9), 2)
	if _, at := varlong(tooLong, 0); at != -1 {
		t.Error("a varlong of 65 bits is read")
	}
	if _, at := varint([]byte{0}, -1); at != -1 {
		t.Error("a failed position must stay so")
	}
}
