package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// versions is a range of record versions, both ends included.
type versions struct{ min, max int16 }

const noMax = 1<<15 - 1

// none is the empty range.
var none = versions{0, -1}

func (v versions) empty() bool            { return v.max < v.min }
func (v versions) within(w versions) bool { return v.min >= w.min && v.max <= w.max }

func (v versions) clip(w versions) versions { return versions{max(v.min, w.min), min(v.max, w.max)} }

// A typ is a field's type: a base type or a struct, or an array of either.
type typ struct {
	base     string  // as written: int32, string, BrokerEndpoint
	elem     *record // the struct, nil for base types
	array    bool
	nullable versions // the versions in which the value may be null
}

// A field is one line of a record.
type field struct {
	name     string // Kafka's
	typ      typ
	versions versions
	tag      int // -1: not tagged
	def      string
	secret   bool
	doc      string
}

// A record is a record or a struct within one.
type record struct {
	name     string
	file     string // base name of the schema file, without its ending
	doc      []string
	id       int // the metadata record type; -1 for messages and structs
	versions versions
	flexible versions
	write    []step // ascending
	fields   []*field
	nested   bool
}

// A step says from which metadata.version on a record version is written.
type step struct{ version, level int16 }

// parser reads schema files into records. Structs and records share one name space.
type parser struct {
	records []*record // in order of appearance, structs after the record that defines them
	byName  map[string]*record
}

// A scope is a record or struct whose fields are being read.
type scope struct {
	indent int // of the line that opened it
	fields int // indent of its fields, 0 before the first
	rec    *record
}

func (p *parser) parse(file, text string) error {
	var stack []scope // the record and the structs open at this line
	var top *record
	for n, line := range strings.Split(text, "\n") {
		fail := func(err error) error { return fmt.Errorf("%s.txt:%d: %w", file, n+1, err) }
		body, indent := strings.TrimLeft(line, " "), len(line)-len(strings.TrimLeft(line, " "))
		switch {
		case body == "" || body[0] == '#':
		case indent == 0 && body[0] == '|':
			if top == nil || len(top.fields) > 0 {
				return fail(fmt.Errorf("a description stands right under its record"))
			}
			top.doc = append(top.doc, strings.TrimSpace(body[1:]))
		case indent == 0:
			r, err := p.header(body)
			if err != nil {
				return fail(err)
			}
			r.file, top, stack = file, r, []scope{{rec: r}}
		default:
			var err error
			if stack, err = p.line(stack, indent, body); err != nil {
				return fail(err)
			}
		}
	}
	return nil
}

// header reads a record's first line.
func (p *parser) header(line string) (*record, error) {
	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "record" {
		return nil, fmt.Errorf("want: record NAME VERSIONS …, not %q", line)
	}
	r := &record{name: words[1], id: -1, flexible: none}
	var err error
	if r.versions, err = parseVersions(words[2]); err != nil {
		return nil, err
	}
	for words = words[3:]; len(words) >= 2 && err == nil; words = words[2:] {
		switch words[0] {
		case "id":
			r.id, err = strconv.Atoi(words[1])
		case "flexible":
			r.flexible, err = parseVersions(words[1])
			r.flexible = r.flexible.clip(r.versions)
		case "write":
			for len(words) >= 2 && strings.Contains(words[1], "@") {
				var s step
				if _, err := fmt.Sscanf(words[1], "v%d@%d", &s.version, &s.level); err != nil {
					return nil, fmt.Errorf("write %q: want vVERSION@LEVEL", words[1])
				}
				r.write = append(r.write, s)
				words = slices.Delete(words, 1, 2)
			}
			words = append([]string{""}, words...)
		default:
			return nil, fmt.Errorf("unknown word %q", words[0])
		}
	}
	if err == nil && len(words) != 0 {
		err = fmt.Errorf("word %q without a value", words[0])
	}
	if err != nil {
		return nil, err
	}
	return r, p.add(r)
}

func (p *parser) add(r *record) error {
	if p.byName[r.name] != nil {
		return fmt.Errorf("%s is defined twice", r.name)
	}
	if p.byName == nil {
		p.byName = map[string]*record{}
	}
	p.byName[r.name] = r
	p.records = append(p.records, r)
	return nil
}

// line reads one field and adds it to the scope that its indent names.
func (p *parser) line(stack []scope, indent int, body string) ([]scope, error) {
	if len(stack) == 0 {
		return nil, fmt.Errorf("a field outside of a record")
	}
	for len(stack) > 1 && indent <= stack[len(stack)-1].indent {
		stack = stack[:len(stack)-1]
	}
	in := &stack[len(stack)-1]
	if in.fields == 0 {
		in.fields = indent
	}
	if in.fields != indent {
		return nil, fmt.Errorf("indent of %d where the fields of %s have %d", indent, in.rec.name, in.fields)
	}
	owner := in.rec
	f, err := p.field(owner, body)
	if err != nil {
		return nil, err
	}
	if s := f.typ.elem; s != nil && s.fields == nil && s != owner {
		stack = append(stack, scope{indent: indent, rec: s})
	}
	if slices.ContainsFunc(owner.fields, func(o *field) bool { return o.name == f.name || o.tag == f.tag && f.tag >= 0 }) {
		return nil, fmt.Errorf("%s has the name or tag of %s already", owner.name, f.name)
	}
	owner.fields = append(owner.fields, f)
	return stack, nil
}

func (p *parser) field(owner *record, body string) (*field, error) {
	decl, doc, _ := strings.Cut(body, " -- ")
	words := strings.Fields(decl)
	if len(words) < 2 {
		return nil, fmt.Errorf("want: FIELD TYPE …, not %q", body)
	}
	f := &field{name: words[0], versions: owner.versions, tag: -1, doc: strings.TrimSpace(doc)}
	var err error
	if f.typ, err = p.parseType(owner, words[1]); err != nil {
		return nil, err
	}
	for words = words[2:]; len(words) > 0; words = words[1:] {
		w := words[0]
		switch {
		case w == "secret":
			f.secret = true
			continue
		case w == "tag" && len(words) > 1:
			f.tag, err = strconv.Atoi(words[1])
			words = words[1:]
		case w == "=" && len(words) > 1:
			f.def = words[1]
			words = words[1:]
		case w[0] == 'v':
			f.versions, err = parseVersions(w[1:])
			f.versions = f.versions.clip(owner.versions)
		default:
			err = fmt.Errorf("unknown word %q", w)
		}
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.name, err)
		}
	}
	return f, f.check(owner)
}

// check refuses what the emitter cannot express.
func (f *field) check(owner *record) error {
	f.typ.nullable = f.typ.nullable.clip(f.versions)
	switch {
	case f.versions.empty():
		return fmt.Errorf("field %s is in no version of %s", f.name, owner.name)
	case f.tag > 127:
		return fmt.Errorf("field %s: tags above 127 are not supported", f.name)
	case f.tag >= 0 && !f.versions.within(owner.flexible):
		return fmt.Errorf("field %s is tagged in versions that are not flexible", f.name)
	case f.def == "null" && !f.typ.canBeNull():
		return fmt.Errorf("field %s defaults to null but may not be null", f.name)
	case f.tag >= 0 && f.typ.canBeNull() && f.def != "null":
		return fmt.Errorf("field %s: a tagged field that may be null defaults to null", f.name)
	case f.def != "" && f.def != "null" && (f.typ.array || f.typ.elem != nil || f.typ.base == "bytes" || f.typ.base == "uuid"):
		return fmt.Errorf("field %s: a %s has no default but its zero value", f.name, f.typ.base)
	case f.tag >= 0 && f.typ.elem != nil && !f.typ.array && !f.typ.canBeNull():
		return fmt.Errorf("field %s: a tagged struct must be one that may be null", f.name)
	}
	return nil
}

func (t typ) canBeNull() bool { return !t.nullable.empty() }

func (p *parser) parseType(owner *record, s string) (typ, error) {
	t := typ{nullable: none}
	s, null, ok := strings.Cut(s, "?")
	if ok {
		t.nullable = versions{0, noMax}
		if null != "" {
			var err error
			if t.nullable, err = parseVersions(null); err != nil {
				return t, err
			}
		}
	}
	t.base, t.array = strings.CutPrefix(s, "[]")
	if _, ok := baseTypes[t.base]; ok {
		if ok := t.array || t.base == "string" || t.base == "bytes"; t.canBeNull() && !ok {
			return t, fmt.Errorf("a %s cannot be null", t.base)
		}
		return t, nil
	}
	if t.base == "" || t.base[0] < 'A' || t.base[0] > 'Z' {
		return t, fmt.Errorf("unknown type %q", s)
	}
	if t.elem = p.byName[t.base]; t.elem == nil {
		t.elem = &record{name: t.base, file: owner.file, id: -1, versions: owner.versions, flexible: owner.flexible, nested: true}
		return t, p.add(t.elem)
	}
	if t.elem.versions != owner.versions || t.elem.flexible != owner.flexible {
		return t, fmt.Errorf("struct %s belongs to a record with other versions", t.base)
	}
	return t, nil
}

func parseVersions(s string) (versions, error) {
	lo, hi, ranged := strings.Cut(s, "-")
	if from, open := strings.CutSuffix(s, "+"); open {
		lo, hi, ranged = from, strconv.Itoa(noMax), true
	}
	if !ranged {
		hi = lo
	}
	a, err1 := strconv.ParseInt(lo, 10, 16)
	b, err2 := strconv.ParseInt(hi, 10, 16)
	if err1 != nil || err2 != nil || a < 0 || b < a {
		return none, fmt.Errorf("versions %q: want 0-4, 3+ or 2", s)
	}
	return versions{int16(a), int16(b)}, nil
}
