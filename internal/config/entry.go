package config

import (
	"slices"
	"strings"
)

// Entry is one config as DescribeConfigs and CreateTopics answer it.
type Entry struct {
	Name      string
	Value     string // as DescribeConfigs shows it: read and written again; "" if Null
	Given     string // as CreateTopics shows it: the characters that were set
	Null      bool   // no value, or one that must not be shown
	Source    int8   // one of the Source constants
	Type      Type   // 0: not known
	ReadOnly  bool
	Sensitive bool
	Doc       string
	Synonyms  []Synonym // every place that has a value, in order of precedence
}

// Synonym is one place where an Entry could get its value from.
type Synonym struct {
	Name, Value string
	Null        bool // the value must not be shown
	Source      int8
}

// TopicEntries gives the 37 topic configs of a topic with these overrides, by name, and
// an internal one that is overridden.
func (c *Config) TopicEntries(overrides map[string]string) []Entry {
	rows := topicTable().rows
	entries := make([]Entry, 0, len(rows))
	for _, p := range rows {
		given, ok := overrides[p.Name]
		if p.Internal && !ok {
			continue
		}
		e := Entry{Name: p.Name, Type: p.Type, Doc: p.Doc, Sensitive: p.Sensitive()}
		if v, err := parseValue(p.Type, given); ok && err == nil {
			e.Given, e.Value, e.Source = given, v.canonical(p.Type), SourceTopic
			e.Synonyms = append(e.Synonyms, Synonym{Name: p.Name, Value: e.Value, Source: SourceTopic})
		} else {
			from := c.inherited(p)
			e.Given, e.Null, e.Source = from.given, from.value.null, from.source
			if !e.Null {
				e.Value = from.value.canonical(p.Type)
			}
		}
		e.Synonyms = append(e.Synonyms, c.topicSynonyms(p)...)
		entries = append(entries, e)
	}
	return entries
}

// topicSynonyms lists what the broker has for a topic config. Kafka shows nothing where
// all that exists are defaults, and of a second synonym (log.roll.hours where log.roll.ms
// has none).
func (c *Config) topicSynonyms(p *Property) []Synonym {
	var out []Synonym
	set := false
	for _, rule := range p.from {
		of, _ := Lookup(rule.name)
		list := c.synonyms(of)
		set = set || len(list) > 0 && list[0].Source != SourceDefault
		out = append(out, list...)
	}
	if !set && len(out) > 0 && out[0].Name != p.from[0].name {
		return nil
	}
	return out
}

// synonyms lists the values that a broker property has, by precedence, its default last.
func (c *Config) synonyms(p *Property) []Synonym {
	var out []Synonym
	for i, layer := range c.layers() {
		given, ok := layer[p.Name]
		if v, err := parseValue(p.Type, given); ok && err == nil {
			out = append(out, Synonym{Name: p.Name, Value: v.canonical(p.Type), Source: SourceBroker + int8(i)})
		}
	}
	if p.HasDefault && !p.Null {
		out = append(out, Synonym{Name: p.Name, Value: p.Default, Source: SourceDefault})
	}
	if p.Sensitive() {
		for i := range out {
			out[i].Value, out[i].Null = "", true
		}
	}
	return out
}

// BrokerEntries gives this broker's configs, by section: every property that Kafka
// defines, and what was given beyond that. Values of unknown keys are hidden, as they
// may be secrets of a plug-in.
func (c *Config) BrokerEntries() []Entry {
	var entries []Entry
	for _, p := range brokerTable().rows {
		e := c.brokerEntry(p)
		if !p.Internal && (!p.Undefined && !p.DynamicOnly || e.Source != SourceDefault) {
			entries = append(entries, e)
		}
	}
	unknown := make(map[string]bool)
	for i, layer := range c.layers() {
		for name := range layer {
			if _, ok := Lookup(name); !ok && !unknown[name] {
				unknown[name] = true
				entries = append(entries, unknownEntry(name, SourceBroker+int8(i)))
			}
		}
	}
	return entries
}

// ClusterEntries gives what was set at run time for all brokers: the answer for the
// broker resource without a name.
func (c *Config) ClusterEntries() []Entry {
	only := Config{cluster: c.cluster}
	var entries []Entry
	for name := range c.cluster {
		if p, ok := Lookup(name); ok {
			e := only.brokerEntry(p)
			e.Synonyms = e.Synonyms[:1]
			entries = append(entries, e)
		} else {
			entries = append(entries, unknownEntry(name, SourceDefaultBroker))
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

func unknownEntry(name string, source int8) Entry {
	return Entry{
		Name: name, Null: true, Source: source, ReadOnly: true, Sensitive: true,
		Synonyms: []Synonym{{Name: name, Null: true, Source: source}},
	}
}

func (c *Config) brokerEntry(p *Property) Entry {
	e := Entry{
		Name: p.Name, Type: p.Type, Doc: p.Doc, Sensitive: p.Sensitive(), ReadOnly: !p.alterable(),
		Null: true, Source: SourceDefault, Synonyms: c.synonyms(p),
	}
	if len(e.Synonyms) == 0 {
		return e // nor does Kafka show the later synonyms of a property without a value
	}
	first := e.Synonyms[0]
	e.Value, e.Given, e.Null, e.Source = first.Value, first.Value, first.Null, first.Source
	for _, name := range laterSynonyms(p.Name) {
		of, _ := Lookup(name)
		e.Synonyms = append(e.Synonyms, c.synonyms(of)...)
	}
	return e
}

// laterSynonyms gives the properties that mean the same as one, but count only where
// it is not set: log.retention.minutes and log.retention.hours for log.retention.ms.
func laterSynonyms(name string) []string {
	for _, p := range topicTable().rows {
		for i, rule := range p.from {
			if rule.name != name {
				continue
			}
			var later []string
			for _, r := range p.from[i+1:] {
				later = append(later, r.name)
			}
			return later
		}
	}
	return nil
}
