// Package config is the node's configuration: Kafka's property names, types,
// defaults and ranges, what Ottla does with each, and the values that are in force.
//
// The one idea: everything known about a property is a row of a table
// (properties.txt for brokers, topics.txt for topics). Loading, the typed getters,
// DescribeConfigs, CreateTopics and the user documentation all read that row; no
// other list of properties exists. A row also has a Status: whether this build obeys
// the property, does not need it, will obey it later, or must refuse it, because
// ignoring it would silently open access or weaken durability.
//
// The way of a file:
//
//	ParseProperties → Resolve (${env:…}, ${file:…}) → Load → *Config
//
// Load reports all mistakes at once, each naming key, value and what is allowed.
//
// A *Config never changes. What an administrator alters at run time makes a new one
// (Dynamic); readers hold whichever they were given. So everything here is safe for
// concurrent use, and there is no I/O: files and environment come as functions.
package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ottla.dev/ottla/internal/model"
)

// Config is a valid configuration: what was given, and the value of every property.
type Config struct {
	static  map[string]string // as given at the start, unknown keys too
	cluster map[string]string // dynamic, for all brokers
	broker  map[string]string // dynamic, for this broker; wins over cluster

	values map[string]value // effective value of each row of the broker table

	nodeID        model.NodeID
	isBroker      bool
	isController  bool
	listeners     []Listener // all, in the file's order
	advertised    []Listener // what the broker registers: never a controller listener
	interListener string     // name of the listener that other brokers use
	voters        []Voter
	topic         Topic // what a topic without overrides gets
}

// Warning is something that the user should know and that does not stop the start.
type Warning struct {
	Key, Value string // Value is "[hidden]" for a password
	Text       string
	// Note: nothing is lost by ignoring the property, so a program may keep quiet about it.
	Note bool
}

// String gives the warning as one line.
func (w Warning) String() string { return fmt.Sprintf("%s=%s: %s", w.Key, w.Value, w.Text) }

// Load checks properties and gives the configuration they make. The error joins
// everything that is wrong (errors.Join); the warnings are valid beside an error too.
// Values with ${…} must have been through Resolve.
func Load(props map[string]string) (*Config, []Warning, error) {
	l := &loader{c: &Config{static: maps.Clone(props), values: make(map[string]value, len(brokerTable().rows))}}
	if l.c.static == nil {
		l.c.static = make(map[string]string)
	}
	l.sameID()
	l.unresolved()
	l.keys()
	l.properties()
	if !l.unreadable {
		l.network()
	}
	l.limits()
	slices.SortFunc(l.warnings, func(a, b Warning) int { return strings.Compare(a.Key, b.Key) })
	if len(l.errs) > 0 {
		return nil, l.warnings, errors.Join(l.errs...)
	}
	l.c.topic = l.c.baseTopic()
	return l.c, l.warnings, nil
}

// loader collects what is wrong while a Config is built.
type loader struct {
	c        *Config
	errs     []error
	warnings []Warning
	// unreadable: a property of the node, its listeners or its quorum has no value, so
	// that holding them against each other would only find consequences.
	unreadable bool
}

func (l *loader) fail(key, val, format string, a ...any) {
	if p, ok := Lookup(key); ok {
		val = p.shown(val)
	}
	l.errs = append(l.errs, &ValueError{Key: key, Value: val, Want: fmt.Sprintf(format, a...)})
}

func (l *loader) warn(key, text string, note bool) {
	val := l.c.static[key]
	if p, ok := Lookup(key); !ok && looksSecret(key) || ok && p.Sensitive() {
		val = "[hidden]"
	}
	l.warnings = append(l.warnings, Warning{Key: key, Value: val, Text: text, Note: note})
}

// looksSecret guesses from its name that an unknown key holds a secret.
func looksSecret(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "password") || strings.Contains(key, "secret") || strings.Contains(key, "jaas") || strings.Contains(key, "token") || strings.HasSuffix(key, ".key")
}

// sameID makes broker.id and node.id one: either name gives both.
func (l *loader) sameID() {
	id, has := l.c.static["node.id"]
	old, hasOld := l.c.static["broker.id"]
	switch {
	case has && hasOld && strings.TrimSpace(id) != strings.TrimSpace(old):
		l.fail("broker.id", old, "must equal node.id=%s; broker.id is the old name, leave it out", id)
	case hasOld && !has:
		l.c.static["node.id"] = old
		l.warn("broker.id", "is the old name of node.id", true)
	case has && !hasOld:
		l.c.static["broker.id"] = id
	}
}

// unresolved finds references that Resolve should have replaced. To go on with one as
// a value would make, say, a password of it.
func (l *loader) unresolved() {
	for _, name := range splitList(strings.TrimSpace(l.c.static["config.providers"])) {
		for key, val := range l.c.static {
			if strings.Contains(val, "${"+name+":") {
				l.fail(key, val, "the reference to config provider %s was not resolved", name)
			}
		}
	}
}

// properties parses every row of the table and judges what was given.
func (l *loader) properties() {
	for _, p := range brokerTable().rows {
		given, ok := l.c.static[p.Name]
		switch {
		case p.DynamicOnly && ok:
			l.warn(p.Name, "can only be set at run time (kafka-configs); in a file it has no effect", false)
			ok = false
		case !ok && !p.HasDefault:
			l.errs = append(l.errs, fmt.Errorf("%s is not set: %s", p.Name, p.Doc))
			l.unreadable = true
		}
		l.c.values[p.Name] = p.initial
		if !ok {
			continue
		}
		v, err := p.parse(given)
		if err != nil {
			l.errs = append(l.errs, err)
			l.unreadable = l.unreadable || p.Section == brokerTable().rows[0].Section || strings.HasPrefix(p.Name, "controller.")
			continue
		}
		l.c.values[p.Name] = v
		l.judge(p, v)
	}
}

// judge says what a given value means, by the property's status.
func (l *loader) judge(p *Property, v value) {
	if p.Status == Obeyed || p.isDefault(v) {
		return
	}
	switch p.Status {
	case Refused:
		if p.Null {
			l.fail(p.Name, v.text, "refused: %s; take it out", p.Why)
		} else {
			l.fail(p.Name, v.text, "refused: %s; only %q is possible", p.Why, p.Default)
		}
	case Later:
		l.warn(p.Name, "has no effect yet: "+p.Why, false)
	case Harmless:
		l.warn(p.Name, "has no effect: "+p.Why, true)
	}
}

// isDefault reports whether a value says the same as the default.
func (p *Property) isDefault(v value) bool {
	if !p.HasDefault {
		return false
	}
	d := p.initial
	if d.null || v.null {
		return d.null == v.null
	}
	switch p.Type {
	case String, Class, Password:
		return d.text == v.text
	case List:
		return slices.Equal(d.list, v.list)
	default:
		return d.num == v.num && d.real == v.real
	}
}

// get finds a value; asking for a property that is not in the table is our own fault.
func (c *Config) get(name string) value {
	v, ok := c.values[name]
	if !ok {
		panic("BUG: no such property: " + name)
	}
	return v
}

// Bool gives a property's value.
func (c *Config) Bool(k BoolKey) bool { return c.get(string(k)).num != 0 }

// Int gives a property's value; 0 if it is null.
func (c *Config) Int(k IntKey) int32 { return int32(c.get(string(k)).num) }

// Long gives a property's value; 0 if it is null.
func (c *Config) Long(k LongKey) int64 { return c.get(string(k)).num }

// Float gives a property's value.
func (c *Config) Float(k DoubleKey) float64 { return c.get(string(k)).real }

// String gives a property's value; "" if it is null.
func (c *Config) String(k StringKey) string { return c.get(string(k)).text }

// List gives a property's elements; nil if it is null or empty. The slice is shared: do not modify it.
func (c *Config) List(k ListKey) []string { return c.get(string(k)).list }

// IsNull reports whether a property has neither a value nor a default.
func (c *Config) IsNull(name string) bool { return c.get(name).null }

// IsSet reports whether a property, known or not, was given in the file (or by With).
func (c *Config) IsSet(name string) bool {
	_, ok := c.static[name]
	return ok
}

// Static gives a copy of the properties as they were given.
func (c *Config) Static() map[string]string { return maps.Clone(c.static) }

// With gives the configuration that the same file with other values for some keys
// makes. Dynamic values stay.
func (c *Config) With(overrides map[string]string) (*Config, []Warning, error) {
	props := maps.Clone(c.static)
	if _, ok := overrides["node.id"]; ok {
		delete(props, "broker.id")
	}
	maps.Copy(props, overrides)
	next, warnings, err := Load(props)
	if err != nil {
		return nil, warnings, err
	}
	if len(c.cluster)+len(c.broker) > 0 {
		if next, err = next.Dynamic(c.cluster, c.broker); err != nil {
			warnings = append(warnings, Warning{Key: "dynamic configs", Text: err.Error()})
		}
	}
	return next, warnings, nil
}

// Dynamic gives the configuration with the values that administrators set at run
// time: cluster for all brokers, broker for this one. Both replace what was dynamic
// before. A value that cannot be (a newer version may have written it) is left out, and
// the error names it; the Config is usable in any case.
func (c *Config) Dynamic(cluster, broker map[string]string) (*Config, error) {
	next := *c
	next.cluster, next.broker = maps.Clone(cluster), maps.Clone(broker)
	next.values = maps.Clone(c.values)
	l := &loader{c: &next}
	for _, p := range brokerTable().rows {
		if p.alterable() {
			next.values[p.Name] = l.effective(p)
		}
	}
	l.limits()
	next.topic = next.baseTopic()
	return &next, errors.Join(l.errs...)
}

// effective gives the value of highest precedence that can be read, and takes what
// cannot be read out of the dynamic layers.
func (l *loader) effective(p *Property) value {
	for _, layer := range []map[string]string{l.c.broker, l.c.cluster} {
		text, ok := layer[p.Name]
		if !ok {
			continue
		}
		v, err := p.parse(text)
		if err == nil {
			return v
		}
		l.errs = append(l.errs, err)
		delete(layer, p.Name)
	}
	if text, ok := l.c.static[p.Name]; ok && !p.DynamicOnly {
		if v, err := p.parse(text); err == nil { // Load saw to that
			return v
		}
	}
	return p.initial
}
