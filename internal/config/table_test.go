package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

func TestTableHasEveryPropertyOfKafka44(t *testing.T) {
	defined, internal, dynamic := 0, 0, 0
	for p := range Properties() {
		switch {
		case p.Undefined:
		case p.DynamicOnly:
			dynamic++
		default:
			defined++
			if p.Internal {
				internal++
			}
		}
	}
	// AbstractKafkaConfig.CONFIG_DEF has 379 keys, DescribeConfigs shows 350 of them, and
	// DynamicBrokerConfig adds three.
	if defined != 379 || internal != 29 || dynamic != 3 {
		t.Errorf("%d properties, %d of them internal, and %d for run time only; want 379, 29, 3", defined, internal, dynamic)
	}
	topics := 0
	for p := range TopicProperties() {
		if !p.Internal {
			topics++
		}
	}
	if topics != 37 {
		t.Errorf("%d topic configs, want 37", topics)
	}
}

func TestEveryRowIsComplete(t *testing.T) {
	for _, table := range []*table{brokerTable(), topicTable()} {
		for _, p := range table.rows {
			if len(p.Doc) < 10 || !strings.HasSuffix(p.Doc, ".") || strings.ContainsAny(p.Doc, "<>|") {
				t.Errorf("%s: doc %q", p.Name, p.Doc)
			}
			if p.HasDefault && !p.Null {
				if v, err := p.parse(p.Default); err != nil || !p.isDefault(v) {
					t.Errorf("%s: the default is not recognized as such", p.Name)
				}
			}
			for _, r := range p.from {
				of, ok := Lookup(r.name)
				if !ok {
					t.Errorf("%s: no such broker property %s", p.Name, r.name)
				} else if r.times == 1 && of.Default != p.Default && !of.Null {
					t.Errorf("%s=%s and its broker property %s=%s have different defaults", p.Name, p.Default, of.Name, of.Default)
				}
			}
		}
	}
	for _, p := range topicTable().rows {
		if topicFields[p.Name] == nil {
			t.Errorf("topic config %s has no field", p.Name)
		}
	}
	if len(topicFields) != len(topicTable().rows) {
		t.Errorf("%d fields for %d topic configs", len(topicFields), len(topicTable().rows))
	}
}

// TestConstantsAreWhatTheTableObeys: a property that nothing in the code can name is not
// obeyed, and one that the code reads is not called harmless.
func TestConstantsAreWhatTheTableObeys(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	getter := map[Type]string{Boolean: "BoolKey", Int: "IntKey", Short: "IntKey", Long: "LongKey", Double: "DoubleKey", String: "StringKey", Class: "StringKey", Password: "StringKey", List: "ListKey"}
	named := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		key, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		named[key] = true
		p, ok := Lookup(key)
		if !ok {
			t.Errorf("%s: no such property %s", spec.Names[0], key)
			return true
		}
		if typ := spec.Type.(*ast.Ident).Name; typ != getter[p.Type] {
			t.Errorf("%s is a %s, want %s for %s", spec.Names[0], typ, getter[p.Type], key)
		}
		if p.Status != Obeyed && p.Status != Later {
			t.Errorf("%s names a property that is %s", spec.Names[0], p.Status)
		}
		return true
	})
	for p := range Properties() {
		if p.Status == Obeyed && !named[p.Name] {
			t.Errorf("%s is called obeyed, but has no constant in keys.go", p.Name)
		}
	}
}

func TestMistakesInATableAreFound(t *testing.T) {
	for _, bad := range []string{
		"a int", "a what 1 - - obeyed", "a int 1 1-2 - obeyed", "a int 1 - - never", "a int 1 - - later:nosuch", "a int 1 - - obeyed:x",
		"a int 1 - - obeyed\na int 1 - - obeyed", "\tno property", "a int 1 - - obeyed wat", "a int 1 - - obeyed <b*x", "a int 1 x.. - obeyed", "a int x - - obeyed", "a int 0 1.. - obeyed",
	} {
		if _, err := parseTable(bad, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestValidatorsSayWhatTheyAllow(t *testing.T) {
	for notation, want := range map[string]string{
		"-": "", "1..": "1 or more", "0..1": "0 to 1", "1..9|-1": "1 to 9, or -1", "{a,b}": "a, b", "{i:A,B}": "A, B (in any case)",
		"nonempty": "not empty", "list": "", "list+": "at least one", "list{a,b}": "any of a, b", "list+{a,b}": "one or more of a, b",
		"voters": "id@host:port, …", "servers": "host:port, …", "replicas": "partition:broker, … or *",
	} {
		v, err := parseValidator(notation)
		if err != nil || v.String() != want {
			t.Errorf("%s: %q %v, want %q", notation, v, err, want)
		}
	}
}
