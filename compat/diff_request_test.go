package compat_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill sets the fields of a kmsg struct from the notation.
func (s *side) fill(v reflect.Value, fields []member) error {
	for _, m := range fields {
		if m.name == "On" { // a topic by whatever the version calls it
			name := s.expand(m.value.text)
			topic := v.FieldByName("Topic")
			if topic.Kind() == reflect.Pointer {
				topic.Set(reflect.ValueOf(&name))
			} else {
				topic.SetString(name)
			}
			if id := v.FieldByName("TopicID"); id.IsValid() {
				id.Set(reflect.ValueOf(s.ids[name]))
			}
			continue
		}
		f := v.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, m.name) })
		if !f.IsValid() {
			return fmt.Errorf("%s has no field %s", v.Type(), m.name)
		}
		if err := s.set(f, m.value); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (s *side) set(f reflect.Value, n node) error {
	if n.kind == 'w' && n.text == "null" {
		f.SetZero()
		return nil
	}
	switch f.Kind() {
	case reflect.Pointer:
		p := reflect.New(f.Type().Elem())
		defaults(p)
		f.Set(p)
		return s.set(p.Elem(), n)
	case reflect.Struct:
		if n.kind != '{' {
			return fmt.Errorf("want {fields}, got %q", n.text)
		}
		return s.fill(f, n.fields)
	case reflect.Slice:
		if f.Type().Elem().Kind() == reflect.Uint8 {
			b, err := s.bytes(n)
			f.SetBytes(b)
			return err
		}
		if n.kind != '[' {
			return fmt.Errorf("want [a list], got %q", n.text)
		}
		out := reflect.MakeSlice(f.Type(), 0, len(n.list))
		for _, of := range n.list {
			e := reflect.New(f.Type().Elem())
			defaults(e)
			if err := s.set(e.Elem(), of); err != nil {
				return err
			}
			out = reflect.Append(out, e.Elem())
		}
		f.Set(out)
		return nil
	case reflect.Array: // an id
		id, err := s.uuid(n)
		f.Set(reflect.ValueOf(id))
		return err
	case reflect.String:
		f.SetString(s.expand(n.text))
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(n.text)
		f.SetBool(b)
		return err
	}
	i, err := s.int(n.text)
	if err == nil && f.OverflowInt(i) {
		err = fmt.Errorf("%d does not fit", i)
	}
	f.SetInt(i)
	return err
}

// defaults gives a new kmsg struct the protocol's defaults.
func defaults(p reflect.Value) {
	if d, ok := p.Interface().(interface{ Default() }); ok {
		d.Default()
	}
}

// int reads a number: 12, now, now+3600000, $name.
func (s *side) int(text string) (int64, error) {
	if v, ok := s.vars[strings.TrimPrefix(text, "$")]; ok && strings.HasPrefix(text, "$") {
		return reflect.ValueOf(v).Int(), nil
	}
	switch {
	case text == "now":
		return time.Now().UnixMilli(), nil
	case strings.HasPrefix(text, "now"):
		d, err := strconv.ParseInt(text[3:], 10, 64)
		return time.Now().UnixMilli() + d, err
	case text == "max":
		return math.MaxInt64, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

func (s *side) uuid(n node) (id [16]byte, err error) {
	switch {
	case n.kind == '(' && n.text == "id":
		name := s.expand(n.list[0].text)
		id, ok := s.ids[name]
		if !ok {
			return id, fmt.Errorf("the id of %s was never seen", name)
		}
		return id, nil
	case n.kind == '(' && n.text == "uuid":
		b, err := hex.DecodeString(strings.ReplaceAll(n.list[0].text, "-", ""))
		copy(id[:], b)
		return id, err
	case strings.HasPrefix(n.text, "$"):
		if id, ok := s.vars[n.text[1:]].([16]byte); ok {
			return id, nil
		}
	}
	return id, fmt.Errorf("want id($topic), uuid(hex) or $name, got %q", n.text)
}

func (s *side) bytes(n node) ([]byte, error) {
	if n.kind != '(' {
		return []byte(s.expand(n.text)), nil
	}
	switch n.text {
	case "hex":
		if len(n.list) == 0 {
			return []byte{}, nil
		}
		return hex.DecodeString(n.list[0].text)
	case "cat":
		b := []byte{}
		for _, part := range n.list {
			p, err := s.bytes(part)
			if err != nil {
				return nil, err
			}
			b = append(b, p...)
		}
		return b, nil
	case "batch":
		return s.batch(n)
	case "message":
		return s.message(n)
	}
	return nil, fmt.Errorf("there is no call %s", n.text)
}

var variable = regexp.MustCompile(`\$[a-z][a-z0-9]*`)

// expand replaces $name in a text. Names are unique to a telling of a case, so
// that tellings do not see each other's topics.
func (s *side) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		if is, ok := s.vars[v[1:]]; ok {
			if p, ok := is.(*string); ok {
				return *p
			}
			return fmt.Sprint(is)
		}
		return s.prefix + v[1:]
	})
}

// batchCodecs are the numbers that attributes have for codecs.
var batchCodecs = map[string]int16{"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

// batch builds a record batch as told; what is not told is as it should be:
//
//	n=1 ts=1000 step=1 key=k value=v size=   records; their times are ts, ts+step, …; size pads each value
//	codec=none attr=0 pid=-1 epoch=-1 seq=-1 base=0 leader=-1 magic=2
//	count= last= max= first= delta=     header fields that differ from what the records say; delta between offsets
//	crc=bad  len=+1  junk=hex           damage: after the records, inside the batch
//	headers=a=b                         one header on every record
func (s *side) batch(n node) ([]byte, error) {
	get := func(name string, otherwise string) int64 {
		i, err := s.int(n.arg(name, otherwise))
		if err != nil {
			panic(fmt.Sprintf("batch(%s=…): %v", name, err)) // a script is wrong
		}
		return i
	}
	count, ts, step, delta := get("n", "1"), get("ts", "1000"), get("step", "1"), get("delta", "1")
	var records []byte
	first, top := ts, ts
	for i := range count {
		at := ts + i*step
		top = max(top, at)
		records = appendRecord(records, n, i, at-first, int32(i*delta))
	}
	junk, err := hex.DecodeString(n.arg("junk", ""))
	if err != nil {
		return nil, err
	}
	records = append(records, junk...)
	codec := n.arg("codec", "none")
	if records, err = compress(codec, records); err != nil {
		return nil, err
	}
	b := kmsg.RecordBatch{
		FirstOffset:          get("base", "0"),
		Length:               int32(49 + len(records)),
		PartitionLeaderEpoch: int32(get("leader", "-1")),
		Magic:                int8(get("magic", "2")),
		Attributes:           int16(get("attr", "0")) | batchCodecs[codec],
		LastOffsetDelta:      int32(get("last", fmt.Sprint((count-1)*delta))),
		FirstTimestamp:       get("first", fmt.Sprint(first)),
		MaxTimestamp:         get("max", fmt.Sprint(top)),
		ProducerID:           get("pid", "-1"),
		ProducerEpoch:        int16(get("epoch", "-1")),
		FirstSequence:        int32(get("seq", "-1")),
		NumRecords:           int32(get("count", fmt.Sprint(count))),
		Records:              records,
	}
	b.Length += int32(get("len", "0"))
	raw := b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	if n.arg("crc", "") == "bad" {
		b.CRC++
	}
	return b.AppendTo(nil), nil
}

func appendRecord(dst []byte, n node, i, tsDelta int64, offset int32) []byte {
	r := kmsg.Record{TimestampDelta64: tsDelta, OffsetDelta: offset}
	if key := n.arg("key", fmt.Sprintf("k%d", i)); key != "null" {
		r.Key = []byte(key)
	}
	if value := n.arg("value", fmt.Sprintf("v%d", i)); value != "null" {
		r.Value = []byte(value)
	}
	if size, err := strconv.Atoi(n.arg("size", "")); err == nil {
		r.Value = append(r.Value, bytes.Repeat([]byte{'x'}, max(0, size-len(r.Value)))...)
	}
	if h := n.arg("headers", ""); h != "" {
		r.Headers = []kmsg.Header{{Key: h, Value: []byte(h)}}
	}
	body := r.AppendTo(nil) // with a length of 0, one byte
	r.Length = int32(len(body) - 1)
	return r.AppendTo(dst)
}

func compress(codec string, b []byte) ([]byte, error) {
	if codec == "none" {
		return b, nil
	}
	c, err := kgo.DefaultCompressor(goCodec(codec))
	if err != nil {
		return nil, err
	}
	out, _ := c.Compress(&bytes.Buffer{}, b)
	return bytes.Clone(out), nil
}

// message builds a message of magic 0 or 1, as before Kafka 0.11.
func (s *side) message(n node) ([]byte, error) {
	var body []byte
	if n.arg("magic", "1") == "0" {
		m := kmsg.MessageV0{Key: []byte("k"), Value: []byte("v")}
		body = m.AppendTo(nil)
	} else {
		m := kmsg.MessageV1{Magic: 1, Timestamp: 1000, Key: []byte("k"), Value: []byte("v")}
		body = m.AppendTo(nil)
	}
	be(body[8:], len(body)-12)
	be(body[12:], int(crc32.ChecksumIEEE(body[16:])))
	return body, nil
}

func be(b []byte, v int) { b[0], b[1], b[2], b[3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v) }
