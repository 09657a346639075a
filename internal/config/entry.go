package config

import "maps"

// Entry is one config as DescribeConfigs and CreateTopics answer it.
type Entry struct {
	Name      string
	Value     string // "" if Null
	Null      bool   // no value, or one that must not be shown
	Source    int8   // one of the Source constants
	Type      Type
	ReadOnly  bool
	Sensitive bool
	Doc       string
	Synonyms  []Synonym // every place that has a value, in order of precedence
}

// Synonym is one place where an Entry could get its value from.
type Synonym struct {
	Name, Value string
	Null        bool
	Source      int8
}

// TopicEntries gives the 37 topic configs of a topic with these overrides, by name.
func (c *Config) TopicEntries(overrides map[string]string) []Entry {
	rows := topicTable().rows
	entries := make([]Entry, 0, len(rows))
	for _, p := range rows {
		if p.Internal {
			continue
		}
		e := Entry{Name: p.Name, Type: p.Type, Doc: p.Doc, Sensitive: p.Sensitive()}
		if val, ok := overrides[p.Name]; ok {
			e.Value, e.Source = val, SourceTopic
			e.Synonyms = append(e.Synonyms, Synonym{Name: p.Name, Value: val, Source: SourceTopic})
		} else {
			v, source, _ := c.inherited(p)
			e.Value, e.Null, e.Source = v.text, v.null, source
		}
		e.Synonyms = c.topicSynonyms(e.Synonyms, p)
		entries = append(entries, e)
	}
	return entries
}

// topicSynonyms adds what the broker has for a topic config.
func (c *Config) topicSynonyms(to []Synonym, p *Property) []Synonym {
	for i, layer := range c.layers() {
		for _, rule := range p.from {
			if given, ok := layer[rule.name]; ok {
				to = append(to, Synonym{Name: rule.name, Value: given, Source: SourceBroker + int8(i)})
			}
		}
	}
	return to
}

// BrokerEntries gives this broker's configs, by section: every property that Kafka
// defines, and what was given beyond that. Values of unknown keys are hidden, as they
// may be secrets of a plug-in.
func (c *Config) BrokerEntries() []Entry {
	rest := maps.Clone(c.static)
	var entries []Entry
	for _, p := range brokerTable().rows {
		_, given := rest[p.Name]
		delete(rest, p.Name)
		_, dynamic := c.broker[p.Name]
		if !dynamic {
			_, dynamic = c.cluster[p.Name]
		}
		if p.Internal || (p.Undefined || p.DynamicOnly) && !given && !dynamic {
			continue
		}
		entries = append(entries, c.brokerEntry(p))
	}
	for name := range rest {
		entries = append(entries, Entry{Name: name, Null: true, Source: SourceStatic, ReadOnly: true, Sensitive: true})
	}
	return entries
}

func (c *Config) brokerEntry(p *Property) Entry {
	e := Entry{Name: p.Name, Type: p.Type, Doc: p.Doc, Sensitive: p.Sensitive(), ReadOnly: p.Dynamic == ReadOnly}
	for i, layer := range c.layers() {
		if given, ok := layer[p.Name]; ok {
			e.Synonyms = append(e.Synonyms, Synonym{Name: p.Name, Value: given, Source: SourceBroker + int8(i)})
		}
	}
	if p.HasDefault && !p.Null {
		e.Synonyms = append(e.Synonyms, Synonym{Name: p.Name, Value: p.Default, Source: SourceDefault})
	}
	if len(e.Synonyms) > 0 {
		e.Value, e.Source = e.Synonyms[0].Value, e.Synonyms[0].Source
	} else {
		e.Null, e.Source = true, SourceDefault
	}
	if e.Sensitive {
		e.Value, e.Null = "", true
		for i := range e.Synonyms {
			e.Synonyms[i].Value, e.Synonyms[i].Null = "", true
		}
	}
	return e
}
