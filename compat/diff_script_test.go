package compat_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A diffCase is a story of requests that both brokers are told. It has no
// expectations: what Apache Kafka answers is right. The notation:
//
//	# a comment
//	case API name [versions=A-B] [on=broker|controller|both] [alone]
//	  topic $t partitions=2 cleanup.policy=compact
//	  put $t 0 batch(n=3 ts=1000)
//	  API[/version][@controller] [option=value …] Field:value …
//	    more fields, if the line is indented deeper
//	  until Path=value
//	  API …
//	  let name Path
//	  close
//
// A case is told once for every version of its API that Kafka accepts, on each
// of its listeners. A step of that API without a version has the version that
// it is told for; steps of other APIs have the highest.
//
// Fields have kmsg's names, in any case; what is not given has kmsg's default.
// A value is a number, true, false, null, a word or "text", [a list], {an
// object} or a call: batch(…), see buildBatch; cat(…) of bytes; hex(…);
// id($t), a topic's id; uuid(…). The field On:$t sets Topic and TopicID.
// part($t 0 value Field=value …) adds a partition to Topics: value is its
// Records, FetchOffset, Timestamp or LeaderEpoch, as the API has it.
// In texts $name is a name of this telling alone, or what let took from the
// reply before; $cluster is the cluster's id. cut=N leaves out the last N bytes of
// the body, extra appends to it, raw=HEX replaces it; key=N stands in the header
// instead of the API's key, frame=HEX is all that is sent, length included. until repeats the next step
// until its reply has the value, for an error its number. alone: no other case runs meanwhile.
type diffCase struct {
	api      kmsg.Key
	name     string
	min, max int16 // versions; -1 for no bound
	on       []string
	alone    bool
	steps    []diffStep
}

// diffStep is a request or one of the verbs above.
type diffStep struct {
	line    int
	verb    string // "" for a request
	args    []node
	api     kmsg.Key
	version int // -1: see diffCase; an explicit version may be any int16
	swept   bool
	at      string // listener, "" for the case's or the broker's
	options map[string]string
	fields  []member
}

// node is a value of the notation.
type node struct {
	kind   byte // 'w' word or number, 'q' quoted, '[' list, '{' object, '(' call
	text   string
	list   []node
	fields []member
}

type member struct {
	name  string
	value node
}

func (n node) arg(name, otherwise string) string {
	for _, m := range n.fields {
		if m.name == name {
			return m.value.text
		}
	}
	return otherwise
}

// loadCases reads all scripts.
func loadCases(t *testing.T) []*diffCase {
	t.Helper()
	files, err := filepath.Glob("testdata/diff/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []*diffCase
	for _, name := range files {
		if filepath.Base(name) == "differences.txt" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		some, err := parseCases(string(text))
		if err != nil {
			t.Fatalf("%s:%v", name, err)
		}
		cases = append(cases, some...)
	}
	return cases
}

func parseCases(text string) ([]*diffCase, error) {
	var cases []*diffCase
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := comment.ReplaceAllString(lines[i], "")
		if strings.TrimSpace(line) == "" {
			continue
		}
		at := i + 1
		if strings.HasPrefix(line, "case ") {
			c, err := parseHeader(line)
			if err != nil {
				return nil, fmt.Errorf("%d: %w", at, err)
			}
			cases = append(cases, c)
			continue
		}
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "    ") {
			i++
			line += " " + comment.ReplaceAllString(lines[i], "")
		}
		if len(cases) == 0 || !strings.HasPrefix(line, "  ") {
			return nil, fmt.Errorf("%d: a step must be indented and follow a case", at)
		}
		c := cases[len(cases)-1]
		s, err := parseStep(line, c)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", at, err)
		}
		s.line = at
		c.steps = append(c.steps, s)
	}
	return cases, nil
}

var comment = regexp.MustCompile(`(^|\s)#.*$`)

func parseHeader(line string) (*diffCase, error) {
	words := strings.Fields(line)
	if len(words) < 3 {
		return nil, fmt.Errorf("want case API name, got %q", line)
	}
	key, err := apiKey(words[1])
	if err != nil {
		return nil, err
	}
	c := &diffCase{api: key, name: words[2], min: -1, max: -1, on: []string{"broker"}}
	for _, w := range words[3:] {
		name, value, _ := strings.Cut(w, "=")
		switch {
		case w == "alone":
			c.alone = true
		case name == "on" && value == "both":
			c.on = []string{"broker", "controller"}
		case name == "on":
			c.on = []string{value}
		case name == "versions":
			if n, _ := fmt.Sscanf(value, "%d-%d", &c.min, &c.max); n < 1 {
				return nil, fmt.Errorf("versions=%s: want A-B or A", value)
			} else if n == 1 && !strings.HasSuffix(value, "-") {
				c.max = c.min
			}
		default:
			return nil, fmt.Errorf("unknown attribute %q", w)
		}
	}
	return c, nil
}

func apiKey(name string) (kmsg.Key, error) {
	for k := range int16(kmsg.MaxKey) + 1 {
		if strings.EqualFold(kmsg.Key(k).Name(), name) {
			return kmsg.Key(k), nil
		}
	}
	return 0, fmt.Errorf("there is no API %q", name)
}

var verbs = []string{"topic", "put", "let", "until", "close"}

func parseStep(line string, c *diffCase) (diffStep, error) {
	words := strings.Fields(line)
	if slices.Contains(verbs, words[0]) {
		s := diffStep{verb: words[0]}
		if s.verb == "let" || s.verb == "until" { // paths are no values
			for _, w := range words[1:] {
				s.args = append(s.args, node{kind: 'w', text: w})
			}
			return s, nil
		}
		p := parser{text: strings.Join(words[1:], " ")}
		for p.peek() != 0 {
			n, err := p.pair()
			if err != nil {
				return s, err
			}
			s.args = append(s.args, n)
		}
		return s, nil
	}
	head, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	s := diffStep{version: -1, options: map[string]string{}}
	head, s.at, _ = strings.Cut(head, "@")
	name, version, explicit := strings.Cut(head, "/")
	var err error
	if s.api, err = apiKey(name); err != nil {
		return s, err
	}
	if explicit {
		if s.version, err = strconv.Atoi(version); err != nil {
			return s, err
		}
	}
	s.swept = !explicit && s.api == c.api
	if s.api == kmsg.Produce {
		s.fields = []member{{"Acks", node{kind: 'w', text: "-1"}}, {"TimeoutMillis", node{kind: 'w', text: "5000"}}}
	}
	p := parser{text: rest}
	for p.peek() != 0 {
		word := p.word()
		switch p.peek() {
		case '=':
			p.at++
			s.options[word] = p.word()
		case ':':
			p.at++
			v, err := p.value()
			if err != nil {
				return s, err
			}
			s.fields = append(s.fields, member{word, v})
		case '(':
			p.at -= len(word)
			v, err := p.value()
			if err != nil {
				return s, err
			}
			if err := s.addPart(v); err != nil {
				return s, err
			}
		default:
			return s, fmt.Errorf("want option=value or Field:value at %q", rest[max(0, p.at-10):])
		}
	}
	return s, nil
}

// partValue names the third argument of part.
var partValue = map[kmsg.Key]string{
	kmsg.Produce: "Records", kmsg.Fetch: "FetchOffset", kmsg.ListOffsets: "Timestamp", kmsg.OffsetForLeaderEpoch: "LeaderEpoch",
}

// addPart writes a part call out as fields.
func (s *diffStep) addPart(call node) error {
	if call.text != "part" || len(call.list) != 3 || partValue[s.api] == "" {
		return fmt.Errorf("want part($topic partition value)")
	}
	part := node{kind: '{', fields: []member{{"Partition", call.list[1]}, {partValue[s.api], call.list[2]}}}
	if s.api == kmsg.Fetch {
		part.fields = append(part.fields, member{"PartitionMaxBytes", node{kind: 'w', text: "1000000"}})
	}
	part.fields = append(part.fields, call.fields...)
	topic := node{kind: '{', fields: []member{{"On", call.list[0]}, {"Partitions", node{kind: '[', list: []node{part}}}}}
	for i := range s.fields {
		if s.fields[i].name == "Topics" {
			topics := &s.fields[i].value
			if last := topics.list[len(topics.list)-1].fields; last[0].value.text == call.list[0].text {
				last[1].value.list = append(last[1].value.list, part)
				return nil
			}
			topics.list = append(topics.list, topic)
			return nil
		}
	}
	s.fields = append(s.fields, member{"Topics", node{kind: '[', list: []node{topic}}})
	return nil
}

// parser reads values. Commas are spaces.
type parser struct {
	text string
	at   int
}

// peek skips spaces and gives the next byte, 0 at the end.
func (p *parser) peek() byte {
	for p.at < len(p.text) && strings.IndexByte(" \t,", p.text[p.at]) >= 0 {
		p.at++
	}
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) word() string {
	p.peek()
	from := p.at
	for p.at < len(p.text) && strings.IndexByte(" \t,{}[]():=\"", p.text[p.at]) < 0 {
		p.at++
	}
	return p.text[from:p.at]
}

func (p *parser) value() (node, error) {
	switch c := p.peek(); c {
	case '"':
		end := strings.IndexByte(p.text[p.at+1:], '"')
		if end < 0 {
			return node{}, fmt.Errorf("a quote is not closed")
		}
		n := node{kind: 'q', text: p.text[p.at+1 : p.at+1+end]}
		p.at += end + 2
		return n, nil
	case '[', '{':
		p.at++
		n := node{kind: c}
		for p.peek() != c+2 { // ] and } stand two after [ and {
			if c == '{' {
				name := p.word()
				if p.peek() != ':' {
					return n, fmt.Errorf("want a colon after %q", name)
				}
				p.at++
				v, err := p.value()
				if err != nil {
					return n, err
				}
				n.fields = append(n.fields, member{name, v})
				continue
			}
			v, err := p.value()
			if err != nil {
				return n, err
			}
			n.list = append(n.list, v)
		}
		p.at++
		return n, nil
	}
	n := node{kind: 'w', text: p.word()}
	if n.text == "" {
		return n, fmt.Errorf("want a value at %q", p.text[p.at:])
	}
	if p.at < len(p.text) && p.text[p.at] == '(' {
		p.at++
		n.kind = '('
		for p.peek() != ')' {
			v, err := p.pair()
			if err != nil {
				return n, err
			}
			if v.kind == '=' {
				n.fields = append(n.fields, v.fields...)
			} else {
				n.list = append(n.list, v)
			}
		}
		p.at++
	}
	return n, nil
}

// pair reads a value, or name=value as a node of kind '='.
func (p *parser) pair() (node, error) {
	v, err := p.value()
	if err != nil || v.kind != 'w' || p.at >= len(p.text) || p.text[p.at] != '=' {
		return v, err
	}
	p.at++
	of, err := p.value()
	return node{kind: '=', fields: []member{{v.text, of}}}, err
}
