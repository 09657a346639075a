package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
)

// random sets every field of a record to something that any version can hold.
func random(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			random(t, v.Field(i))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int") >> (64 - v.Type().Bits()))
	case reflect.Uint16:
		v.SetUint(uint64(rapid.Uint16().Draw(t, "uint")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64().Draw(t, "float"))
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "string"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			random(t, v.Elem())
		}
	case reflect.Array:
		var id model.UUID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		v.Set(reflect.ValueOf(id))
	case reflect.Slice:
		n := rapid.IntRange(0, 5).Draw(t, "len")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			if v.Type().Elem().Kind() == reflect.Uint8 {
				v.Index(i).SetUint(uint64(rapid.Byte().Draw(t, "byte")))
				continue
			}
			random(t, v.Index(i))
		}
	}
}

// What is written at the highest version is read back the same, and at any
// version reading and writing again gives the same bytes.
func TestWrittenRecordsReadBack(t *testing.T) {
	for class, create := range messages() {
		t.Run(class, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := create()
				random(t, reflect.ValueOf(m).Elem())
				for v := range m.HighestVersion() + 1 {
					b := m.Append(nil, v)
					back := create()
					if err := back.Read(b, v); err != nil {
						t.Fatalf("version %d: %v", v, err)
					}
					if v == m.HighestVersion() && back.String() != m.String() {
						t.Fatalf("version %d\n got %s\nwant %s", v, back, m)
					}
					if again := back.Append(nil, v); !bytes.Equal(again, b) {
						t.Fatalf("version %d\n got %x\nwant %x", v, again, b)
					}
				}
			})
		})
	}
}

// Any prefix of a record, and a record with a byte too many, is an error.
func TestCutAndLongRecordsAreRefused(t *testing.T) {
	eachSample(func(class string, m message) {
		for v := range m.HighestVersion() + 1 {
			b := m.Append(nil, v)
			for n := range len(b) {
				if err := messages()[class]().Read(b[:n:n], v); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s version %d: %d of %d bytes: error %v", class, v, n, len(b), err)
				}
				if n > 300 {
					break // the rest is more of the same
				}
			}
			if err := messages()[class]().Read(append(b, 0), v); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s version %d with a byte too many: error %v", class, v, err)
			}
		}
	})
}

// A length that the bytes cannot hold costs no memory.
func TestHostileLengthsAllocateNothing(t *testing.T) {
	huge := binary.AppendUvarint(nil, math.MaxInt32)
	partition := NewPartitionRecord().Append(nil, 2)
	for name, b := range map[string][]byte{
		"array":       append(partition[:20:20], huge...),
		"tag count":   append(partition[:len(partition)-1:len(partition)-1], huge...),
		"tag size":    append(append(partition[:len(partition)-1:len(partition)-1], 1, 77), huge...),
		"tagged list": append(partition[:len(partition)-1:len(partition)-1], 1, 1, 5, 0xff, 0xff, 0xff, 0xff, 7),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := NewPartitionRecord().Read(b, 2)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
	if err := new(TopicRecord).Read(append([]byte{0x81, 0x80, 0x02}, make([]byte, 40_000)...), 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a string of 32,768 bytes: error %v", err)
	}
	if err := new(UserScramCredentialRecord).Read(append([]byte{2, 'x', 1}, huge...), 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte string of 2 GiB: error %v", err)
	}
}

// Tagged fields of a later Kafka are skipped; those known are still read.
func TestUnknownTagsAreSkipped(t *testing.T) {
	r := NewPartitionChangeRecord()
	r.PartitionID, r.Leader, r.ISR = 3, 7, []int32{7}
	b := r.Append(nil, 2)
	at := 4 + 16
	b[at] += 2 // two fields more: one in front, one behind
	b = append(b[:at+1:at+1], append([]byte{100, 3, 1, 2, 3}, append(b[at+1:], 101, 0)...)...)
	got := NewPartitionChangeRecord()
	if err := got.Read(b, 2); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r) {
		t.Errorf("read %s, want %s", got, r)
	}
	topic := append((&TopicRecord{Name: "a"}).Append(nil, 0)[:18], 1, 9, 2, 'x', 'y')
	if err := new(TopicRecord).Read(topic, 0); err != nil {
		t.Errorf("a tag on a record that has none: %v", err)
	}
}

func TestFramesThatCannotBeUnderstood(t *testing.T) {
	good := AppendFramed(nil, &TopicRecord{Name: "a"}, 0)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":          {nil, ErrCorrupt},
		"frame version":  {append([]byte{2}, good[1:]...), ErrUnsupported},
		"no such type":   {[]byte{1, 6, 0}, ErrUnsupported},
		"huge type":      {[]byte{1, 0xff, 0xff, 0xff, 0xff, 0xf, 0}, ErrUnsupported},
		"long varint":    {[]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, ErrCorrupt},
		"later version":  {[]byte{1, 2, 1}, ErrUnsupported},
		"null for name":  {append([]byte{1, 2, 0, 0}, make([]byte, 17)...), ErrCorrupt},
		"bytes too many": {append(good[:len(good):len(good)], 0), ErrCorrupt},
	} {
		if _, _, err := DecodeFramed(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
	if r, v, err := DecodeFramed(good); err != nil || v != 0 || r.String() != "TopicRecord name=a topicId=AAAAAAAAAAAAAAAAAAAAAA" {
		t.Errorf("a good one: %v %d %v", r, v, err)
	}
}

func TestAppendAtAnUnknownVersionIsABug(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.HasPrefix(r, "BUG: ") {
			t.Errorf("recovered %q", r)
		}
	}()
	new(TopicRecord).Append(nil, 1)
}

// Records have Kafka's defaults when made, and a partition change changes nothing.
func TestNewRecordsHaveKafkasDefaults(t *testing.T) {
	for want, m := range map[string]message{
		"PartitionChangeRecord partitionId=-1 topicId=AAAAAAAAAAAAAAAAAAAAAA": NewPartitionChangeRecord(),
		"BrokerRegistrationChangeRecord brokerId=0 brokerEpoch=0":             NewBrokerRegistrationChangeRecord(),
		"ProducerIdsRecord brokerId=0 brokerEpoch=-1 nextProducerId=0":        NewProducerIdsRecord(),
		"NoOpRecord":             NewNoOpRecord(),
		"BeginTransactionRecord": NewBeginTransactionRecord(),
	} {
		if got := m.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if r := NewRegisterBrokerRecord(); !r.Fenced || r.CordonedLogDirs != nil {
		t.Errorf("a new registration is %s", r)
	}
}

// The text form keeps secrets and quotes what would be ambiguous.
func TestTextHidesSecretsAndQuotes(t *testing.T) {
	user := &UserScramCredentialRecord{Name: "a b", Salt: []byte("salt"), StoredKey: []byte("key")}
	want := `UserScramCredentialRecord name="a b" mechanism=0 salt=(4 bytes hidden) storedKey=(3 bytes hidden) serverKey=(0 bytes hidden) iterations=0`
	if got := user.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	config := &ConfigRecord{Name: "k=1", Value: new("null")}
	if got, want := config.String(), `ConfigRecord resourceType=0 resourceName="" name="k=1" value="null"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	quota := &ClientQuotaRecord{Entity: []EntityData{{EntityType: "user"}, {EntityType: "ip", EntityName: new("::1")}}, Value: 1.5}
	want = `{"type":"CLIENT_QUOTA_RECORD","version":0,"data":{"entity":[{"entityType":"user","entityName":null},{"entityType":"ip","entityName":"::1"}],"key":"","value":1.5,"remove":false}}`
	if got := string(AppendJSON(nil, quota, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := TypeName(99); got != "UNKNOWN_RECORD_99" {
		t.Errorf("type 99 is called %s", got)
	}
}

// Check refuses what the decoder, like Kafka's, would not read.
func TestCheckRefusesWhatCannotBeRead(t *testing.T) {
	for n, ok := range map[int]bool{MaxString: true, MaxString + 1: false} {
		long := strings.Repeat("x", n)
		for _, r := range []Metadata{
			&TopicRecord{Name: long},
			&ConfigRecord{Value: &long},
			&DelegationTokenRecord{Renewers: []string{long}},
			&ClientQuotaRecord{Entity: []EntityData{{EntityName: &long}}},
		} {
			_, _, err := DecodeFramed(AppendFramed(nil, r, 0))
			if check := Check(r); (check == nil) != ok || (err == nil) != ok {
				t.Errorf("%d bytes in a %s: Check says %v, DecodeFramed %v", n, TypeName(r.Type()), check, err)
			}
		}
	}
}

// DecodeFramed takes any bytes; what it accepts, it writes and reads again the same.
func FuzzDecodeFramed(f *testing.F) {
	eachSample(func(_ string, m message) {
		if r, ok := m.(Metadata); ok {
			f.Add(AppendFramed(nil, r, r.HighestVersion()))
			f.Add(AppendFramed(nil, r, 0))
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, version, err := DecodeFramed(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		again := AppendFramed(nil, r, version)
		back, v, err := DecodeFramed(again)
		if err != nil || v != version || back.String() != r.String() {
			t.Fatalf("%s at version %d came back as %v, %v", r, version, back, err)
		}
		if twice := AppendFramed(nil, back, version); !bytes.Equal(twice, again) {
			t.Fatalf("written twice: %x and %x", again, twice)
		}
	})
}

// The other messages take any bytes too.
func FuzzMessages(f *testing.F) {
	classes := messages()
	eachSample(func(class string, m message) { f.Add(class, uint8(0), m.Append(nil, 0)) })
	f.Fuzz(func(t *testing.T, class string, version uint8, b []byte) {
		create := classes[class]
		if create == nil {
			return
		}
		m := create()
		if err := m.Read(b, int16(version)); err != nil {
			return
		}
		back := create()
		if err := back.Read(m.Append(nil, int16(version)), int16(version)); err != nil || back.String() != m.String() {
			t.Fatalf("%s came back as %s, %v", m, back, err)
		}
	})
}

func BenchmarkDecodePartitionChange(b *testing.B) {
	r := NewPartitionChangeRecord()
	r.TopicID, r.ISR, r.Leader = model.UUID{1}, []int32{1, 2, 3}, 2
	src := AppendFramed(nil, r, 2)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := DecodeFramed(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPartitionChange(b *testing.B) {
	r := NewPartitionChangeRecord()
	r.TopicID, r.ISR, r.Leader = model.UUID{1}, []int32{1, 2, 3}, 2
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendFramed(dst[:0], r, 2)
	}
}
