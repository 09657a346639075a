package compat_test

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An answer is a reply as a list of paths with values, in which two brokers that
// do the same are equal: ids are names or ordinals, addresses are roles, the
// present is "now". Elements of arrays are named by what identifies them, so the
// order of arrays does not count, but for those that orderly lists.
type answer struct {
	paths []string
	text  map[string]string
	value map[string]any // as received, for let
}

func newAnswer() *answer { return &answer{text: map[string]string{}, value: map[string]any{}} }

func (a *answer) add(path, text string, value any) {
	for n := 2; ; n++ {
		if _, taken := a.text[path]; !taken {
			break
		}
		path, _, _ = strings.Cut(path, "~")
		path = fmt.Sprintf("%s~%d", path, n)
	}
	a.paths = append(a.paths, path)
	a.text[path], a.value[path] = text, value
}

// outcome is the answer to a request that got none.
func outcome(text string) *answer {
	a := newAnswer()
	a.add("(outcome)", text, text)
	return a
}

// orderly are the APIs that answer topics in an order of their own or the request's.
var orderly = map[kmsg.Key]bool{kmsg.Fetch: true, kmsg.DescribeTopicPartitions: true}

// describe makes an answer of a reply.
func (s *side) describe(resp kmsg.Response, body []byte) *answer {
	s.learn(reflect.ValueOf(resp).Elem())
	if r, ok := resp.(*kmsg.InitProducerIDResponse); ok && r.ErrorCode == 0 {
		ordinal(s.pids, r.ProducerID)
	}
	a := newAnswer()
	again := resp.AppendTo(nil)
	if len(again) == len(body) {
		a.add("(bytes)", "canonical", nil)
	} else {
		a.add("(bytes)", fmt.Sprintf("%+d against the shortest form", len(body)-len(again)), nil)
	}
	s.walk(a, "", reflect.ValueOf(resp).Elem())
	if topics := reflect.ValueOf(resp).Elem().FieldByName("Topics"); topics.IsValid() && orderly[kmsg.Key(resp.Key())] {
		var order []string
		for i := range topics.Len() {
			if key, ok := s.key(topics.Index(i)); ok {
				order = append(order, key)
			}
		}
		a.add("Topics(order)", strings.Join(order, " "), nil)
	}
	return a
}

// learn takes the topic ids out of a reply.
func (s *side) learn(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			if v.Index(i).Kind() == reflect.Struct {
				s.learn(v.Index(i))
			}
		}
	case reflect.Struct:
		if id := v.FieldByName("TopicID"); id.IsValid() && !id.IsZero() {
			if name := stringField(v, "Topic"); name != "" {
				s.ids[name] = id.Interface().([16]byte)
				s.names[s.ids[name]] = s.roles.Replace(name)
			}
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice {
				s.learn(f)
			}
		}
	}
}

// ordinal numbers ids as they come.
func ordinal(m map[int64]int, id int64) int {
	if m[id] == 0 {
		m[id] = len(m) + 1
	}
	return m[id]
}

func stringField(v reflect.Value, name string) string {
	f := v.FieldByName(name)
	if f.IsValid() && f.Kind() == reflect.Pointer && !f.IsNil() {
		f = f.Elem()
	}
	if !f.IsValid() || f.Kind() != reflect.String {
		return ""
	}
	return f.String()
}

var foreign = regexp.MustCompile(`^d\d+x-`)

// key names an element of an array. ok is false for topics of other tellings.
func (s *side) key(v reflect.Value) (key string, ok bool) {
	for _, name := range []string{"Topic", "ResourceName", "Name", "TopicID", "ApiKey", "Partition", "NodeID"} {
		f := v.FieldByName(name)
		if !f.IsValid() || f.Kind() == reflect.Pointer && f.IsNil() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		if f.Kind() == reflect.String && f.Len() == 0 && name == "Topic" {
			if id := v.FieldByName("TopicID"); id.IsValid() && !id.IsZero() {
				continue
			}
			return `""`, true
		}
		key = s.scalar(name, f)
		if name == "ApiKey" {
			key = kmsg.Key(f.Int()).Name()
		}
		if foreign.MatchString(key) {
			return "", false
		}
		return key, true
	}
	return "", true
}

func (s *side) walk(a *answer, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch {
			case name == "Version" && path == "":
			case name == "UnknownTags":
				if tags := v.Field(i).Interface().(kmsg.Tags); tags.Len() > 0 {
					a.add(join(path, name), fmt.Sprint(tags.Len()), nil)
				}
			case name == "RecordBatches" && v.Field(i).Len() > 0:
				s.walkBatches(a, join(path, name), v.Field(i).Bytes())
			default:
				s.walk(a, join(path, name), v.Field(i))
			}
		}
		return
	case reflect.Pointer:
		if v.IsNil() {
			a.add(path, "null", nil)
			return
		}
		if v.Elem().Kind() == reflect.Struct {
			s.walk(a, path, v.Elem())
			return
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Struct {
			break
		}
		if v.IsNil() {
			a.add(path, "null", nil)
		} else if v.Len() == 0 {
			a.add(path, "[]", nil)
		}
		for i := range v.Len() {
			key, ok := s.key(v.Index(i))
			if !ok {
				continue
			}
			if key == "" {
				key = strconv.Itoa(i)
			}
			at := path + "[" + key + "]"
			for n := 2; a.text[at] != ""; n++ {
				at = fmt.Sprintf("%s[%s#%d]", path, key, n)
			}
			a.add(at, "present", nil)
			s.walk(a, at, v.Index(i))
		}
		return
	}
	a.add(path, s.scalar(path[strings.LastIndexByte(path, '.')+1:], v), v.Interface())
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// scalar is a plain value as text. Its field's name decides what it is.
func (s *side) scalar(name string, v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch name {
	case "ErrorMessage", "Documentation": // the words may differ
		if v.Len() == 0 {
			return "empty"
		}
		return "some"
	case "ErrorCode":
		if err, ok := kerr.ErrorForCode(int16(v.Int())).(*kerr.Error); ok && err != nil {
			return fmt.Sprintf("%d %s", err.Code, err.Message)
		}
		return "0"
	case "Port":
		if role := s.ports[v.Int()]; role != "" {
			return role
		}
	case "SessionID":
		if v.Int() != 0 {
			return "session " + strconv.Itoa(ordinal(s.sessions, v.Int()))
		}
	case "FinalizedFeaturesEpoch":
		return fmt.Sprint("set ", v.Int() >= 0)
	case "ProducerID":
		if n := s.pids[v.Int()]; n != 0 {
			return fmt.Sprintf("producer %d", n)
		}
	}
	switch v.Kind() {
	case reflect.String:
		return s.roles.Replace(v.String())
	case reflect.Array:
		id := v.Interface().([16]byte)
		if name := s.names[id]; name != "" {
			return name
		}
		return hex.EncodeToString(id[:])
	case reflect.Int64:
		if d := time.Since(time.UnixMilli(v.Int())); d.Abs() < 10*time.Minute {
			return "now"
		}
	case reflect.Slice:
		if v.IsNil() {
			return "null"
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%q", v.Bytes())
		}
	}
	return fmt.Sprint(v.Interface())
}

// walkBatches decodes fetched records.
func (s *side) walkBatches(a *answer, path string, b []byte) {
	for i := 0; len(b) > 0; i++ {
		at := fmt.Sprintf("%s[%d]", path, i)
		if len(b) < 61 || len(b) < 12+u32(b[8:]) {
			a.add(at, fmt.Sprintf("%d bytes of a batch that is cut", len(b)), nil)
			return
		}
		var batch kmsg.RecordBatch
		n := 12 + u32(b[8:])
		a.add(at, "present", nil)
		if err := batch.ReadFrom(b[:n]); err != nil {
			a.add(at+".Magic", err.Error(), nil)
			return
		}
		s.walkBatch(a, at, &batch, b[:n])
		b = b[n:]
	}
}

func u32(b []byte) int { return int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3]) }

func (s *side) walkBatch(a *answer, at string, batch *kmsg.RecordBatch, raw []byte) {
	crc := "right"
	if int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli))) != batch.CRC {
		crc = "wrong"
	}
	records := batch.Records
	codec := batch.Attributes & 7
	if codec != 0 {
		var err error
		if records, err = kgo.DefaultDecompressor().Decompress(records, kgo.CompressionCodecType(codec)); err != nil {
			a.add(at+".Records", err.Error(), nil)
		}
	} else {
		a.add(at+".Length", fmt.Sprint(batch.Length), nil)
	}
	batch.CRC, batch.Length, batch.Records = 0, 0, nil
	a.add(at+".CRC", crc, nil)
	v := reflect.ValueOf(batch).Elem()
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; name {
		case "CRC", "Length", "Records":
		default:
			s.walk(a, at+"."+name, v.Field(i))
		}
	}
	for i := 0; len(records) > 0; i++ {
		var r kmsg.Record
		if err := r.ReadFrom(records); err != nil {
			a.add(fmt.Sprintf("%s.Records[%d]", at, i), err.Error(), nil)
			return
		}
		n := len(r.AppendTo(nil))
		a.add(fmt.Sprintf("%s.Records[%d]", at, i), fmt.Sprintf("time +%d offset +%d attributes %d key %s value %s headers %q",
			r.TimestampDelta64, r.OffsetDelta, r.Attributes, short(r.Key), short(r.Value), r.Headers), nil)
		records = records[n:]
	}
}

func short(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q… (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}
