package compat_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The fixture is the set of records that every client sends and every client
// must read back. As text it has one record a line, the fields separated by
// tabs: partition, timestamp, key, value, headers; bytes in hexadecimal, "-"
// for null; headers are name=value, separated by commas. A record that was read
// has its offset after the partition.

const fixturePartitions = 3

// fixture returns about 150 records: nulls, empty fields, binary, long values,
// timestamps out of order, repeated and null headers.
func fixture() []*kgo.Record {
	rng := rand.New(rand.NewPCG(1, 2))
	blob := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	base := time.Now().Add(-time.Hour).Truncate(time.Second)
	add := func(rs []*kgo.Record, key, value []byte, headers ...kgo.RecordHeader) []*kgo.Record {
		return append(rs, &kgo.Record{
			Partition: int32(len(rs) % fixturePartitions), Key: key, Value: value, Headers: headers,
			Timestamp: base.Add(time.Duration(rng.IntN(3_000_000)) * time.Millisecond),
		})
	}
	var rs []*kgo.Record
	rs = add(rs, nil, nil)
	rs = add(rs, []byte{}, []byte{})
	rs = add(rs, []byte("key"), nil)
	rs = add(rs, nil, []byte("value"))
	rs = add(rs, []byte("ключ"), []byte("значение 値 🦦"))
	rs = add(rs, nil, []byte("headers"), kgo.RecordHeader{Key: "a", Value: []byte("1")}, kgo.RecordHeader{Key: "a", Value: []byte("2")},
		kgo.RecordHeader{Key: "empty", Value: []byte{}}, kgo.RecordHeader{Key: "null"}, kgo.RecordHeader{Key: "имя", Value: blob(300)})
	rs = add(rs, nil, []byte("header"), kgo.RecordHeader{Key: "имя", Value: blob(300)}, kgo.RecordHeader{Key: "", Value: []byte{}})
	rs = add(rs, blob(1), blob(1))
	rs = add(rs, blob(5_000), blob(100_000))
	rs = add(rs, nil, make([]byte, 200_000))
	for i := range 140 {
		rs = add(rs, fmt.Appendf(nil, "key-%d", i%7), append(fmt.Appendf(nil, "record %d ", i), blob(rng.IntN(200))...))
	}
	return rs
}

// recordLine is a record as text; offset < 0 leaves the offset out.
func recordLine(r *kgo.Record, offset int64) string {
	headers := make([]string, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = h.Key + "=" + hexOrNull(h.Value)
	}
	where := fmt.Sprint(r.Partition)
	if offset >= 0 {
		where += fmt.Sprintf("\t%d", offset)
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\n", where, r.Timestamp.UnixMilli(), hexOrNull(r.Key), hexOrNull(r.Value), strings.Join(headers, ","))
}

func hexOrNull(b []byte) string {
	if b == nil {
		return "-"
	}
	return hex.EncodeToString(b)
}

// writeFixture writes the records as producers read them.
func writeFixture(t *testing.T, rs []*kgo.Record) string {
	t.Helper()
	var text strings.Builder
	for _, r := range rs {
		text.WriteString(recordLine(r, -1))
	}
	name := filepath.Join(t.TempDir(), "fixture")
	if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// fixtureRead is what consumers must write for a topic that holds the records once.
func fixtureRead(rs []*kgo.Record) string {
	var text strings.Builder
	for p := range int32(fixturePartitions) {
		var offset int64
		for _, r := range rs {
			if r.Partition == p {
				text.WriteString(recordLine(r, offset))
				offset++
			}
		}
	}
	return text.String()
}

// difference describes the first line in which two texts differ, "" if they are equal.
func difference(got, want string) string {
	if got == want {
		return ""
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d of %d:\n got %s\nwant %s (of %d lines)", i+1, len(g), cut(a), cut(b), len(w))
		}
	}
	return "they differ"
}

func cut(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
