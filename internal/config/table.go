package config

import (
	_ "embed"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:generate go test -run TestUserDocumentation -write

//go:embed properties.txt
var brokerText string

//go:embed topics.txt
var topicText string

// A table is a parsed file of properties. It is built once and never changes.
type table struct {
	rows []*Property // in the file's order
	by   map[string]*Property
	why  map[string]string // reason → its text
}

// The tables are constants that Go cannot write as such: parsed at first use, then only
// read, by any number of nodes in a process.
var (
	brokerTable = sync.OnceValue(func() *table { return mustTable(brokerText, nil) })
	topicTable  = sync.OnceValue(func() *table { return mustTable(topicText, brokerTable().why) })
)

func mustTable(text string, why map[string]string) *table {
	t, err := parseTable(text, why)
	if err != nil {
		panic("BUG: built-in table of properties: " + err.Error())
	}
	return t
}

// parseTable reads the notation that the head of properties.txt describes.
func parseTable(text string, why map[string]string) (*table, error) {
	t := &table{by: make(map[string]*Property), why: why}
	if why == nil {
		t.why = make(map[string]string)
	}
	section := ""
	for i, line := range strings.Split(text, "\n") {
		var err error
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '=':
			section = strings.TrimSpace(line[1:])
		case line[0] == '!':
			word, reason, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
			t.why[word] = reason
		case line[0] == '\t':
			if len(t.rows) == 0 || t.rows[len(t.rows)-1].Doc != "" {
				err = fmt.Errorf("a sentence without a property")
			} else {
				t.rows[len(t.rows)-1].Doc = line[1:]
			}
		default:
			err = t.addRow(strings.Fields(line), section)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return t, nil
}

func (t *table) addRow(f []string, section string) error {
	if len(f) < 6 {
		return fmt.Errorf("want name type default valid dynamic status, got %q", f)
	}
	p := &Property{Name: f[0], Section: section, HasDefault: f[2] != "!", Null: f[2] == "-"}
	if t.by[p.Name] != nil {
		return fmt.Errorf("%s stands twice", p.Name)
	}
	i := slices.Index(typeNames[:], f[1])
	if i <= 0 {
		return fmt.Errorf("unknown type %q", f[1])
	}
	p.Type = Type(i)
	if p.HasDefault && !p.Null && f[2] != `""` {
		p.Default = f[2]
	}
	var err error
	if p.Valid, err = parseValidator(f[3]); err != nil {
		return err
	}
	p.initial = value{null: true}
	if p.HasDefault && !p.Null {
		if p.initial, err = p.parse(p.Default); err != nil {
			return err
		}
	}
	switch f[4] {
	case "cluster":
		p.Dynamic = ClusterWide
	case "broker":
		p.Dynamic = PerBroker
	}
	if err := t.status(p, f[5]); err != nil {
		return err
	}
	for _, option := range f[6:] {
		if err := p.option(option); err != nil {
			return err
		}
	}
	t.rows = append(t.rows, p)
	t.by[p.Name] = p
	return nil
}

func (t *table) status(p *Property, s string) error {
	word, reason, _ := strings.Cut(s, ":")
	for st := Obeyed; st <= Refused; st++ {
		if st.String() == word {
			p.Status, p.Why = st, t.why[reason]
			if (p.Why == "") != (st == Obeyed) || (reason == "") != (st == Obeyed) {
				return fmt.Errorf("status %q: want a reason that is given above, and none for obeyed", s)
			}
			return nil
		}
	}
	return fmt.Errorf("unknown status %q", s)
}

func (p *Property) option(s string) error {
	switch {
	case s == "internal":
		p.Internal = true
	case s == "undefined":
		p.Undefined = true
	case s == "dynamic-only":
		p.DynamicOnly = true
	case strings.HasPrefix(s, "kafka="):
		p.KafkaDefault = s[len("kafka="):]
	case s[0] == '<':
		name, times, scaled := strings.Cut(s[1:], "*")
		rule := synonymRule{name: name, times: 1}
		if scaled {
			n, err := strconv.ParseInt(times, 10, 64)
			if err != nil {
				return fmt.Errorf("synonym %q: %w", s, err)
			}
			rule.times = n
		}
		p.from = append(p.from, rule)
	default:
		return fmt.Errorf("unknown option %q", s)
	}
	return nil
}

// Lookup finds a broker property by name.
func Lookup(name string) (*Property, bool) {
	p, ok := brokerTable().by[name]
	return p, ok
}

// Properties yields every broker property, section by section.
func Properties() iter.Seq[*Property] { return slices.Values(brokerTable().rows) }

// LookupTopic finds a topic config by name.
func LookupTopic(name string) (*Property, bool) {
	p, ok := topicTable().by[name]
	return p, ok
}

// TopicProperties yields every topic config, by name.
func TopicProperties() iter.Seq[*Property] { return slices.Values(topicTable().rows) }
