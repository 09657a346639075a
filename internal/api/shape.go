package api

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A shape is what the body of a request looks like on the wire, as far as one
// must know to walk over it. kmsg's decoders believe what a body claims: a
// tagged section of four billion fields makes them loop over nothing for
// minutes. So a body is walked first, by its shape and Kafka's limits (KAFKA.md
// 3.1): arrays and tagged sections must fit what is there. The walk costs a few
// nanoseconds a field and no allocation.
//
// The notation, one string for each API: a field is a type with the versions
// that have it, `type:from` or `type:from-to`.
//
//	1 2 4 8 16  that many bytes      s  string      b  bytes
//	[ … ]       array of structs     ( )  array of one simple thing
//	{ … }       struct that may be null
//
// Each struct ends with its tagged fields where the version is flexible.
var shapes = map[kmsg.Key]string{
	kmsg.ListOffsets:             "4 1:2 [s [4 4:4 8]] 4:10",
	kmsg.Metadata:                "[16:10 s] 1:4 1:8-10 1:8",
	kmsg.OffsetCommit:            "s 4:1 s:1 s:7 8:2-4 [s:0-9 16:10 [4 8 4:6 s]]",
	kmsg.OffsetFetch:             "s:0-7 [s (4)]:0-7 [s s:9 4:9 [s:8-9 16:10 (4)]]:8 1:7",
	kmsg.FindCoordinator:         "s:0-3 1:1 (s):4",
	kmsg.JoinGroup:               "s 4 4:1 s s:5 s [s b] s:8",
	kmsg.Heartbeat:               "s 4 s s:3",
	kmsg.LeaveGroup:              "s s:0-2 [s s s:5]:3",
	kmsg.SyncGroup:               "s 4 s s:3 s:5 s:5 [s b]",
	kmsg.DescribeGroups:          "(s) 1:3",
	kmsg.ListGroups:              "(s):4 (s):5",
	kmsg.ApiVersions:             "s:3 s:3 s:5 4:5",
	kmsg.CreateTopics:            "[s 4 2 [4 (4)] [s s]] 4 1:1",
	kmsg.DeleteTopics:            "[s 16]:6 (s):0-5 4",
	kmsg.DeleteRecords:           "[s [4 8]] 4",
	kmsg.InitProducerID:          "s 4 8:3 2:3",
	kmsg.OffsetForLeaderEpoch:    "4:3 [s [4 4:2 4]]",
	kmsg.DescribeConfigs:         "[1 s (s)] 1:1 1:3",
	kmsg.AlterConfigs:            "[1 s [s s]] 1",
	kmsg.CreatePartitions:        "[s 4 [(4)]] 4 1",
	kmsg.DeleteGroups:            "(s)",
	kmsg.IncrementalAlterConfigs: "[1 s [s 1 s]] 1",
	kmsg.OffsetDelete:            "s [s [4]]",
	kmsg.DescribeCluster:         "1 1:1 1:2",
	kmsg.DescribeTopicPartitions: "[s] 4 {s 4}",
}

// field is one field of a parsed shape.
type field struct {
	kind     byte // 'n' for bytes, 's', 'b', '[', '(' or '{'
	size     int  // of kind 'n'
	from, to int16
	each     []field // what an array or struct holds
}

// parseShape reads the notation. A mistake in it is ours, and found at the start.
func parseShape(text string) []field {
	text = strings.NewReplacer("[", " [ ", "]", " ]", "{", " { ", "}", " }", "(", " ( ", ")", " )").Replace(text)
	fields, rest := parseFields(strings.Fields(text))
	if len(rest) > 0 {
		panic(fmt.Sprintf("BUG: api: shape %q goes on with %q", text, rest))
	}
	return fields
}

func parseFields(words []string) (fields []field, rest []string) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if strings.IndexByte("]})", word[0]) >= 0 {
			return fields, append([]string{word}, words...)
		}
		f := field{kind: word[0]}
		if word == "[" || word == "{" || word == "(" {
			f.each, words = parseFields(words)
			word, words = words[0], words[1:] // the bracket that closes, with its versions
		}
		kind, versions, _ := strings.Cut(word, ":")
		if n, err := strconv.Atoi(kind); err == nil {
			f.kind, f.size = 'n', n
		}
		f.from, f.to = parseVersions(versions)
		fields = append(fields, f)
	}
	return fields, nil
}

func parseVersions(text string) (from, to int16) {
	if text == "" {
		return 0, math.MaxInt16
	}
	low, high, bounded := strings.Cut(text, "-")
	a, _ := strconv.ParseInt(low, 10, 16)
	b := int64(math.MaxInt16)
	if bounded {
		b, _ = strconv.ParseInt(high, 10, 16)
	}
	return int16(a), int16(b)
}

// walk goes over a struct's fields. It sets bad where they do not fit.
func (r *reader) walk(fields []field, version int16, tagged bool) {
	for i := range fields {
		if f := &fields[i]; version >= f.from && version <= f.to {
			r.walkField(f, version)
		}
		if r.bad {
			return
		}
	}
	if tagged {
		r.tags(nil)
	}
}

func (r *reader) walkField(f *field, version int16) {
	switch f.kind {
	case 'n':
		r.take(f.size)
	case 's':
		r.string()
	case 'b':
		r.bytes()
	case '{':
		if r.int8() >= 0 {
			r.walk(f.each, version, true)
		}
	case '[', '(':
		for range r.array(1) {
			r.walk(f.each, version, f.kind == '[')
			if r.bad {
				return
			}
		}
	}
}

// fits reports whether a body has a shape, with nothing but tagged fields behind.
func fits(shape []field, body []byte, version int16, flexible bool) bool {
	r := reader{b: body, flex: flexible}
	r.walk(shape, version, true)
	return !r.bad
}
