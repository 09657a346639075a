package config

import "fmt"

// Type is a property's type, with the numbers that DescribeConfigs answers (v3+).
type Type int8

// The types of Kafka's properties.
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

var typeNames = [...]string{Boolean: "bool", String: "string", Int: "int", Short: "short", Long: "long", Double: "double", List: "list", Class: "class", Password: "password"}

// String gives the name that the tables use.
func (t Type) String() string {
	if t > 0 && int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", int8(t))
}

// Dynamic says how a property may change while the node runs.
type Dynamic int8

// The modes, as Kafka's documentation calls them.
const (
	ReadOnly    Dynamic = iota // only by a restart
	ClusterWide                // for all brokers at once or for one
	PerBroker                  // for one broker only
)

// String gives Kafka's word for the mode.
func (d Dynamic) String() string {
	switch d {
	case ClusterWide:
		return "cluster-wide"
	case PerBroker:
		return "per-broker"
	default:
		return "read-only"
	}
}

// Status says what setting a property does in this build.
type Status int8

const (
	// Obeyed: the value is followed.
	Obeyed Status = iota
	// Later: the value is accepted and kept, but what it governs is not built yet; Load warns.
	Later
	// Harmless: what it governs does not exist in Ottla and never needs to; Load notes it.
	Harmless
	// Refused: ignoring it would open access, weaken durability or change what the user
	// relies on; a value other than the default is an error.
	Refused
)

// String gives the word that the tables use.
func (s Status) String() string {
	switch s {
	case Obeyed:
		return "obeyed"
	case Later:
		return "later"
	case Harmless:
		return "harmless"
	default:
		return "refused"
	}
}

// Property is one row of a table: a broker property or a topic config. Rows are
// shared by all callers and never change.
type Property struct {
	Name         string
	Type         Type
	Default      string // meaningless unless HasDefault; "" if Null
	HasDefault   bool   // false: the property must be given
	Null         bool   // the default is null, "not set"
	KafkaDefault string // Kafka's default where ours differs on purpose, else ""
	Valid        Validator
	Dynamic      Dynamic
	Status       Status
	Why          string        // reason behind a Status other than Obeyed; "" for Obeyed
	Doc          string        // one sentence, ours
	Section      string        // heading it stands under; "" for topic configs
	Internal     bool          // hidden from documentation and DescribeConfigs
	Undefined    bool          // not part of Kafka's own definition, so not in DescribeConfigs unless set
	DynamicOnly  bool          // only through the admin protocol, never in a file
	initial      value         // the default, parsed; null if there is none
	from         []synonymRule // topic configs: broker properties that give the value, first wins
}

// synonymRule names a broker property that gives a topic config its value.
type synonymRule struct {
	name  string
	times int64 // factor to the topic config's unit, 1 mostly
}

// alterable reports whether the value may change while the node runs. Kafka could also
// change its listeners and config providers; here that takes a restart.
func (p *Property) alterable() bool {
	switch p.Name {
	case "listeners", "listener.security.protocol.map", "config.providers":
		return false
	}
	return p.Dynamic != ReadOnly
}

// Sensitive reports whether a value must never be shown or logged.
func (p *Property) Sensitive() bool { return p.Type == Password }

// parse reads text as the property's type and checks it against its valid range.
func (p *Property) parse(text string) (value, error) {
	v, err := parseValue(p.Type, text)
	if err != nil {
		return v, &ValueError{Key: p.Name, Value: p.shown(text), Want: err.Error()}
	}
	if want := p.Valid.check(v); want != "" {
		return v, &ValueError{Key: p.Name, Value: p.shown(text), Want: want}
	}
	return v, nil
}

// shown hides what must not be logged.
func (p *Property) shown(text string) string {
	if p.Sensitive() {
		return "[hidden]"
	}
	return text
}

// A ValueError says that a property has a value that it cannot have.
type ValueError struct {
	Key, Value string
	Want       string // what is allowed, or what to do
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s=%s: %s", e.Key, e.Value, e.Want)
}
