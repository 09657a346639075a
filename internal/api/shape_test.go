package api

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every field of a kmsg struct a random value.
func fill(v reflect.Value, r *rand.Rand, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(1000)))
	case reflect.String:
		v.SetString(string(make([]byte, r.IntN(200))))
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), r, depth)
		}
	case reflect.Slice:
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), r, depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(r.IntN(256)))
		}
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(256)))
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && name != "UnknownTags" {
				fill(v.Field(i), r, depth)
			}
		}
	}
}

func TestShapesAreWhatRequestsLookLike(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, e := range entries {
		if e.serve == nil || e.raw {
			continue
		}
		if shapes[e.key] == "" {
			t.Errorf("%s has no shape", e.key.Name())
			continue
		}
		shape := parseShape(shapes[e.key])
		for version := e.min; version <= e.max; version++ {
			for range 200 {
				req := kmsg.RequestForKey(int16(e.key))
				req.SetVersion(version)
				fill(reflect.ValueOf(req).Elem(), r, 0)
				body := req.AppendTo(nil)
				walk := reader{b: body, flex: req.IsFlexible()}
				walk.walk(shape, version, true)
				if walk.bad || len(walk.b) > 0 {
					t.Fatalf("%s version %d: the shape leaves %d of %d bytes, bad %v\n%+v", e.key.Name(), version, len(walk.b), len(body), walk.bad, req)
				}
				if len(body) > 1 && fits(shape, body[:len(body)-1], version, req.IsFlexible()) {
					t.Fatalf("%s version %d: a body that is cut short has the shape", e.key.Name(), version)
				}
			}
		}
	}
}

// kmsg would loop over these for minutes.
func TestTaggedSectionThatClaimsBillionsIsRefused(t *testing.T) {
	shape := parseShape(shapes[kmsg.Metadata])
	body := []byte{0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x07}
	if fits(shape, body, 12, true) {
		t.Fatal("a section of two billion tagged fields fits nine bytes")
	}
}

func BenchmarkShape(b *testing.B) {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	for range 100 {
		t := kmsg.NewMetadataRequestTopic()
		name := "a-topic-of-usual-length"
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	body, shape := req.AppendTo(nil), parseShape(shapes[kmsg.Metadata])
	b.ReportAllocs()
	for b.Loop() {
		if !fits(shape, body, 12, true) {
			b.Fatal("does not fit")
		}
	}
}
