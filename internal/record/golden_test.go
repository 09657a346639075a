package record

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/model"
)

// testdata/kafka.txt holds what Apache Kafka 4.4.0's own classes make of our
// samples: "CLASS VERSION HEX JSON" a line, and "@level LEVEL TYPE:VERSION…" for
// the versions that it writes. testdata/Golden.java makes it from what -samples
// prints.
var samples = flag.Bool("samples", false, "print the samples for Apache Kafka's classes instead of testing")

// A message is what all generated records have in common.
type message interface {
	HighestVersion() int16
	Append(dst []byte, version int16) []byte
	Read(src []byte, version int16) error
	String() string
	print(p *printer, version int16)
}

// kafkaClass names the class of a message in Kafka.
func kafkaClass(m message) string {
	switch m.(type) {
	case *sampleGroup:
		return "GroupMetadataValue"
	case *sampleMember5:
		return "ConsumerGroupMemberMetadataValue"
	case *sampleSegment:
		return "RemoteLogSegmentMetadataRecord"
	}
	return reflect.TypeOf(m).Elem().Name()
}

// messages returns every record type there is, at its defaults.
func messages() map[string]func() message {
	all := map[string]func() message{}
	add := func(f func() message) { all[kafkaClass(f())] = f }
	for typ := range int16(100) {
		if newMetadata(typ) != nil {
			add(func() message { return newMetadata(typ).(message) })
		}
	}
	add(func() message { return NewLeaderChangeMessage() })
	add(func() message { return NewSnapshotHeaderRecord() })
	add(func() message { return NewSnapshotFooterRecord() })
	add(func() message { return NewKRaftVersionRecord() })
	add(func() message { return NewVotersRecord() })
	add(func() message { return newSampleGroup() })
	add(func() message { return newSampleMember5() })
	add(func() message { return newSampleSegment() })
	return all
}

// fill sets every field below v to values that differ by style and place.
func fill(v reflect.Value, style int, seed *int) {
	*seed++
	n := *seed
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), style, seed)
		}
	case reflect.Bool:
		v.SetBool(style != 2)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x := int64(n)
		if style == 2 {
			x = -1 << (v.Type().Bits() - 1)
		}
		v.SetInt(x)
	case reflect.Uint16:
		v.SetUint(uint64(65535 - n))
	case reflect.Float64:
		v.SetFloat(float64(n) * 1234.5678)
	case reflect.String:
		v.SetString([]string{fmt.Sprint("name-", n), strings.Repeat("é", 64) + fmt.Sprint(n), ""}[style])
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), style, seed)
	case reflect.Array:
		id := model.UUID{0: byte(n), 7: 0xff, 15: byte(style)}
		v.Set(reflect.ValueOf(id))
	case reflect.Slice:
		size := []int{2, 130, 0}[style] // 130: a length of two bytes
		if k := v.Type().Elem().Kind(); style == 1 && k != reflect.Uint8 && k != reflect.Int32 {
			size = 9
		}
		v.Set(reflect.MakeSlice(v.Type(), size, size))
		for i := range size {
			if v.Type().Elem().Kind() == reflect.Uint8 {
				v.Index(i).SetUint(uint64(i))
				continue
			}
			fill(v.Index(i), style, seed)
		}
	}
}

// eachSample calls f with the samples of every message: defaults, small values,
// long values, extreme values with empty lists.
func eachSample(f func(class string, m message)) {
	all := messages()
	for _, class := range slices.Sorted(maps.Keys(all)) {
		f(class, all[class]())
		for style := range 3 {
			m, seed := all[class](), 0
			fill(reflect.ValueOf(m).Elem(), style, &seed)
			f(class, m)
		}
	}
}

func data(m message, version int16) []byte {
	p := printer{json: true}
	p.open("", '{')
	m.print(&p, version)
	p.close('}')
	return p.buf
}

// framed is a metadata record with its frame, any other message bare.
func framed(m message, version int16) []byte {
	if r, ok := m.(Metadata); ok {
		return AppendFramed(nil, r, version)
	}
	return m.Append(nil, version)
}

// Each sample at each version has the bytes and the JSON that Kafka gives it,
// and Kafka's bytes decode to a record that encodes to them again.
func TestBytesAndJSONAreKafkas(t *testing.T) {
	if *samples {
		eachSample(func(class string, m message) {
			for v := range m.HighestVersion() + 1 {
				fmt.Printf("%s %d %s\n", class, v, data(m, v))
			}
		})
		return
	}
	golden := goldenLines(t)
	seen := 0
	eachSample(func(class string, m message) {
		for v := range m.HighestVersion() + 1 {
			if seen >= len(golden) {
				t.Fatalf("testdata/kafka.txt ends before %s version %d", class, v)
			}
			line := golden[seen]
			seen++
			if line[0] != class || line[1] != strconv.Itoa(int(v)) {
				t.Fatalf("testdata/kafka.txt line %d is %s %s, want %s %d: make it anew", seen, line[0], line[1], class, v)
			}
			want, err := hex.DecodeString(line[2])
			if err != nil {
				t.Fatal(err)
			}
			if got := framed(m, v); !bytes.Equal(got, want) {
				t.Errorf("%s version %d\n got %x\nwant %x", class, v, got, want)
			}
			back := messages()[class]()
			if err := readFramed(back, want, v); err != nil {
				t.Errorf("%s version %d: %v", class, v, err)
			}
			if got := framed(back, v); !bytes.Equal(got, want) {
				t.Errorf("%s version %d, read and written\n got %x\nwant %x", class, v, got, want)
			}
			sameJSON(t, data(back, v), []byte(line[3]))
		}
	})
	if seen != len(golden) {
		t.Errorf("testdata/kafka.txt has %d samples, there are %d", len(golden), seen)
	}
}

func readFramed(m message, b []byte, version int16) error {
	r, ok := m.(Metadata)
	if !ok {
		return m.Read(b, version)
	}
	got, v, err := DecodeFramed(b)
	if err != nil {
		return err
	}
	if got.Type() != r.Type() || v != version {
		return fmt.Errorf("frame says type %d version %d", got.Type(), v)
	}
	reflect.ValueOf(m).Elem().Set(reflect.ValueOf(got).Elem())
	return nil
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("JSON\n got %s\nwant %s", got, want)
	}
}

// goldenLines returns CLASS, VERSION, HEX, JSON of each sample.
func goldenLines(t *testing.T) (lines [][]string) {
	t.Helper()
	f, err := os.Open("testdata/kafka.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if line := s.Text(); line != "" && line[0] != '#' && line[0] != '@' {
			lines = append(lines, strings.SplitN(line, " ", 4))
		}
	}
	return lines
}

// The versions written at each metadata.version are those of Kafka.
func TestWrittenVersionsAreKafkas(t *testing.T) {
	text, err := os.ReadFile("testdata/kafka.txt")
	if err != nil {
		t.Fatal(err)
	}
	levels := 0
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "@level" {
			continue
		}
		levels++
		var level, typ, want int16
		fmt.Sscan(words[1], &level)
		for _, w := range words[2:] {
			if _, err := fmt.Sscanf(w, "%d:%d", &typ, &want); err != nil {
				t.Fatal(err)
			}
			if got := MetadataVersionOf(typ, level); got != want {
				t.Errorf("%s at metadata.version %d: version %d, want %d", TypeName(typ), level, got, want)
			}
		}
	}
	if levels < 20 {
		t.Errorf("only %d levels in testdata/kafka.txt", levels)
	}
}
