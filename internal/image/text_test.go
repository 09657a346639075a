package image

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Records in scripts look like what their String gives: TYPE field=value …, with
// lists in brackets and structs in braces. Ids may be short: T1, D7 or I3 are
// ids that begin with this letter and digit and are zero elsewhere.

// ids are the short ids and what they stand for.
var ids = func() map[string]model.UUID {
	m := map[string]model.UUID{}
	for _, c := range "TDIA" {
		for n := range byte(10) {
			m[string(c)+string('0'+rune(n))] = model.UUID{0: byte(c), 1: n + 1}
		}
	}
	m["unassigned"] = model.DirUnassigned
	m["none"] = model.ZeroUUID
	return m
}()

// short spells ids in a text their short way.
func short(text string) string {
	for name, id := range ids {
		text = strings.ReplaceAll(text, id.String(), name)
	}
	return text
}

// parseRecord reads a record from its text.
func parseRecord(t testing.TB, line string) record.Metadata {
	t.Helper()
	p := textParser{t: t, line: line, rest: line}
	name := p.until(" ")
	for typ := range int16(64) {
		r, err := record.NewMetadata(typ)
		if err == nil && reflect.TypeOf(r).Elem().Name() == name {
			p.fields(reflect.ValueOf(r).Elem(), "")
			return r
		}
	}
	t.Fatalf("no record type is called %q: %s", name, line)
	return nil
}

type textParser struct {
	t          testing.TB
	line, rest string
}

// until takes the text before any of the characters.
func (p *textParser) until(stops string) string {
	i := strings.IndexAny(p.rest, stops)
	if i < 0 {
		i = len(p.rest)
	}
	word := p.rest[:i]
	p.rest = p.rest[i:]
	return word
}

// took takes a character if it is next.
func (p *textParser) took(c string) bool {
	rest, ok := strings.CutPrefix(p.rest, c)
	p.rest = rest
	return ok
}

// fields reads name=value pairs into a struct, up to the end or a closing brace.
func (p *textParser) fields(v reflect.Value, end string) {
	for p.took(" ") {
	}
	for p.rest != "" && !(end != "" && p.took(end)) {
		name := p.until("=")
		p.took("=")
		f := v.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, name) })
		if !f.IsValid() {
			p.t.Fatalf("%s has no field %q: %s", v.Type(), name, p.line)
		}
		p.value(f)
		for p.took(" ") {
		}
	}
}

func (p *textParser) value(v reflect.Value) {
	if p.took("null") {
		v.SetZero()
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		p.value(v.Elem())
	case v.Kind() == reflect.Struct:
		if !p.took("{") {
			p.t.Fatalf("want { before %q: %s", p.rest, p.line)
		}
		p.fields(v, "}")
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		if !p.took("[") {
			p.t.Fatalf("want [ before %q: %s", p.rest, p.line)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		for !p.took("]") {
			p.took(",")
			e := reflect.New(v.Type().Elem()).Elem()
			p.value(e)
			v.Set(reflect.Append(v, e))
		}
	default:
		p.scalar(v, p.word())
	}
}

// word takes a bare or quoted word.
func (p *textParser) word() string {
	if !strings.HasPrefix(p.rest, `"`) {
		return p.until(" ,]}")
	}
	quoted, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		p.t.Fatalf("%v: %s", err, p.line)
	}
	p.rest = p.rest[len(quoted):]
	word, _ := strconv.Unquote(quoted)
	return word
}

func (p *textParser) scalar(v reflect.Value, word string) {
	var err error
	switch v.Kind() {
	case reflect.String:
		v.SetString(word)
	case reflect.Bool:
		v.SetBool(word == "true")
	case reflect.Float64:
		var f float64
		f, err = strconv.ParseFloat(word, 64)
		v.SetFloat(f)
	case reflect.Slice:
		v.SetBytes([]byte(word))
	case reflect.Array:
		id, ok := ids[word]
		if !ok {
			id, err = model.ParseUUID(word)
		}
		v.Set(reflect.ValueOf(id))
	case reflect.Uint16:
		var n uint64
		n, err = strconv.ParseUint(word, 10, 16)
		v.SetUint(n)
	default:
		var n int64
		n, err = strconv.ParseInt(word, 10, v.Type().Bits())
		v.SetInt(n)
	}
	if err != nil {
		p.t.Fatalf("%v: %s", err, p.line)
	}
}

// dump is everything that an image's accessors say.
func dump(i *Image) string {
	var b strings.Builder
	open := ""
	if i.InTransaction() {
		open = ", in a transaction"
	}
	fmt.Fprintf(&b, "offset %d, epoch %d%s\n", i.Offset(), i.Epoch(), open)
	for r := range i.Records() {
		fmt.Fprintln(&b, r)
	}
	return short(b.String())
}

// dumpDelta is a delta as text, in a fixed order.
func dumpDelta(d *Delta) string {
	var b strings.Builder
	for _, id := range sorted(d.Topics, cmpUUID) {
		t := d.Topics[id]
		what := "changed"
		if t.Created {
			what = "created"
		}
		if t.Deleted {
			what = "deleted"
		}
		fmt.Fprintf(&b, "topic %s %s %s, partitions %v\n", t.Name, id, what, sorted(t.Partitions, func(a, b int32) int { return int(a) - int(b) }))
	}
	for _, id := range sorted(d.Brokers, func(a, b model.NodeID) int { return int(a) - int(b) }) {
		fmt.Fprintf(&b, "broker %d\n", id)
	}
	for _, res := range sorted(d.Configs, cmpResource) {
		fmt.Fprintf(&b, "configs of %d %q\n", res.Type, res.Name)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"features", d.Features},
		{"controllers", d.Controllers},
		{"producer ids", d.ProducerIDs},
		{"acls", d.ACLs},
		{"scram", d.Scram},
		{"quotas", d.Quotas},
		{"tokens", d.Tokens},
	} {
		if flag.set {
			fmt.Fprintln(&b, flag.name)
		}
	}
	return short(b.String())
}
