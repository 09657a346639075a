package record

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"ottla.dev/ottla/internal/model"
)

// AppendJSON appends the form in which Kafka's dump tool shows a metadata
// record: {"type":"TOPIC_RECORD","version":0,"data":{…}}. Secrets are in it.
func AppendJSON(dst []byte, r Metadata, version int16) []byte {
	dst = append(dst, `{"type":`...)
	dst = strconv.AppendQuote(dst, TypeName(r.Type()))
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendInt(dst, int64(version), 10)
	dst = append(dst, `,"data":`...)
	p := printer{buf: dst, json: true}
	p.open("", '{')
	if w, ok := r.(interface{ print(*printer, int16) }); ok {
		w.print(&p, version)
	}
	p.close('}')
	return append(p.buf, '}')
}

// text is a record as one line.
func text(name string, version int16, print func(*printer, int16)) string {
	p := printer{buf: append(make([]byte, 0, 256), name...), more: true}
	print(&p, version)
	return string(p.buf)
}

// Check says whether Kafka can read a record: its strings may have MaxString
// bytes. Whoever writes to the metadata log asks first, for a record that nobody
// can read stops the whole cluster.
func Check(r Metadata) error {
	w, ok := r.(interface{ print(*printer, int16) })
	if !ok {
		return fmt.Errorf("%w: metadata record of type %d is none of ours", ErrUnsupported, r.Type())
	}
	p := printer{more: true}
	w.print(&p, r.HighestVersion())
	if p.long != "" {
		return fmt.Errorf("%s: %s is longer than %d bytes", TypeName(r.Type()), p.long, MaxString)
	}
	return nil
}

// A printer renders fields as JSON, or as text: name=value, lists in brackets,
// structs in braces. A name of "" stands for an array's element.
type printer struct {
	buf  []byte
	json bool
	more bool   // something stands before the next value on this level
	in   []byte // the kinds of the open brackets
	long string // the last string longer than MaxString
}

// key begins a value.
func (p *printer) key(name string) {
	if p.more {
		switch {
		case p.json || len(p.in) > 0 && p.in[len(p.in)-1] == '[':
			p.buf = append(p.buf, ',')
		default:
			p.buf = append(p.buf, ' ')
		}
	}
	p.more = true
	switch {
	case name == "":
	case p.json:
		p.buf = append(append(append(p.buf, '"'), name...), '"', ':')
	default:
		p.buf = append(append(p.buf, name...), '=')
	}
}

func (p *printer) open(name string, kind byte) {
	p.key(name)
	p.buf = append(p.buf, kind)
	p.in = append(p.in, kind)
	p.more = false
}

func (p *printer) close(kind byte) {
	p.buf = append(p.buf, kind)
	p.in = p.in[:len(p.in)-1]
	p.more = true
}

func (p *printer) null(name string) {
	p.key(name)
	p.buf = append(p.buf, "null"...)
}

func (p *printer) bool(name string, v bool) {
	p.key(name)
	p.buf = strconv.AppendBool(p.buf, v)
}

func (p *printer) int(name string, v int64) {
	p.key(name)
	p.buf = strconv.AppendInt(p.buf, v, 10)
}

func (p *printer) float(name string, v float64) {
	p.key(name)
	quote := p.json && (math.IsNaN(v) || math.IsInf(v, 0)) // JSON has no such numbers
	if quote {
		p.buf = append(p.buf, '"')
	}
	from := len(p.buf)
	p.buf = strconv.AppendFloat(p.buf, v, 'g', -1, 64)
	if p.json && !quote && !bytes.ContainsAny(p.buf[from:], ".e") {
		p.buf = append(p.buf, ".0"...) // Kafka's reader refuses a whole number here
	}
	if quote {
		p.buf = append(p.buf, '"')
	}
}

func (p *printer) string(name, v string) {
	p.key(name)
	if len(v) > MaxString {
		p.long = cmp.Or(name, "an element")
	}
	switch {
	case p.json:
		b, err := json.Marshal(v)
		if err != nil {
			panic("BUG: record: a string without a JSON form: " + err.Error())
		}
		p.buf = append(p.buf, b...)
	case v == "" || v == "null" || strings.ContainsFunc(v, odd):
		p.buf = strconv.AppendQuote(p.buf, v)
	default:
		p.buf = append(p.buf, v...)
	}
}

// odd reports whether a character would make a bare string hard to read back.
func odd(c rune) bool {
	return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"'=,[]{}\`, c)
}

func (p *printer) nullString(name string, v *string) {
	if v == nil {
		p.null(name)
		return
	}
	p.string(name, *v)
}

func (p *printer) uuid(name string, v model.UUID) {
	p.key(name)
	if p.json {
		p.buf = append(p.buf, '"')
	}
	p.buf = append(p.buf, v.String()...)
	if p.json {
		p.buf = append(p.buf, '"')
	}
}

func (p *printer) bytes(name string, v []byte) {
	p.key(name)
	quote := p.json || len(v) == 0
	if quote {
		p.buf = append(p.buf, '"')
	}
	p.buf = base64.StdEncoding.AppendEncode(p.buf, v)
	if quote {
		p.buf = append(p.buf, '"')
	}
}

// secret hides the value from text, which ends up in logs, but not from JSON.
func (p *printer) secret(name string, v []byte) {
	if p.json {
		p.bytes(name, v)
		return
	}
	p.key(name)
	p.buf = fmt.Appendf(p.buf, "(%d bytes hidden)", len(v))
}
