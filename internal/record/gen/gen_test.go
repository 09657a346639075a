package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The generated files are those of the schemas: nobody forgot go generate, and
// nobody changed them by hand.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	schemas, err := filepath.Glob("../schema/*.txt")
	if err != nil || len(schemas) == 0 {
		t.Fatalf("no schemas: %v", err)
	}
	dir := t.TempDir()
	if err := run(dir, ".go", true, schemas); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, "_test.go", false, []string{"../testdata/sample.txt"}); err != nil {
		t.Fatal(err)
	}
	made, _ := filepath.Glob(filepath.Join(dir, "zz_*.go"))
	have, _ := filepath.Glob("../zz_*.go")
	if len(made) != len(have) {
		t.Errorf("the schemas make %d files, there are %d", len(made), len(have))
	}
	for _, name := range made {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", filepath.Base(name)))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is out of date: run go generate ./internal/record (%v)", filepath.Base(name), err)
		}
	}
}

// A schema that says something wrong is refused, with the line.
func TestWrongSchemasAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no record":            {"  A int32", "outside of a record"},
		"header":               {"recrod A 0", "want: record NAME"},
		"versions":             {"record A 3-1", "want 0-4, 3+ or 2"},
		"word":                 {"record A 0 flavour 1", "unknown word"},
		"word alone":           {"record A 0 id", "without a value"},
		"twice":                {"record A 0\nrecord A 0", "defined twice"},
		"type":                 {"record A 0\n  F int31", "unknown type"},
		"null int":             {"record A 0\n  F int32?", "cannot be null"},
		"tag not flexible":     {"record A 0-1 flexible 1\n  F int32 tag 0", "not flexible"},
		"tag twice":            {"record A 0 flexible 0+\n  F int32 tag 0\n  G int32 tag 0", "name or tag"},
		"tag default":          {"record A 0 flexible 0+\n  F string? tag 0", "defaults to null"},
		"null default":         {"record A 0\n  F int32 = null", "may not be null"},
		"list default":         {"record A 0\n  F []int32 = 3", "no default"},
		"out of versions":      {"record A 0\n  F int32 v2+", "no version"},
		"description":          {"record A 0\n  F int32\n| late", "right under"},
		"struct elsewhere":     {"record A 0\n  F []S\n    G int8\nrecord B 0-1\n  F []S", "other versions"},
		"struct defined again": {"record A 0\n  F []S\n    G int8\n  H []S\n    I int8", "indent"},
		"write":                {"record A 0-1 write v1", "without a value|unknown|vVERSION|want"},
		"tagged bare struct":   {"record A 0 flexible 0+\n  F S tag 0\n    G int8", "may be null"},
	} {
		var p parser
		err := p.parse("x", c.text)
		ok := false
		for want := range strings.SplitSeq(c.want, "|") {
			ok = ok || err != nil && strings.Contains(err.Error(), want)
		}
		if !ok {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "x.txt:") {
			t.Errorf("%s: error without a line: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][3]string{
		"TopicId":             {"TopicID", "topicId", "TOPIC_ID"},
		"Isr":                 {"ISR", "isr", "ISR"},
		"LastKnownElr":        {"LastKnownELR", "lastKnownElr", "LAST_KNOWN_ELR"},
		"IsMigratingZkBroker": {"IsMigratingZKBroker", "isMigratingZkBroker", "IS_MIGRATING_ZK_BROKER"},
		"protocolType":        {"ProtocolType", "protocolType", "PROTOCOL_TYPE"},
		"NoOpRecord":          {"NoOpRecord", "noOpRecord", "NO_OP_RECORD"},
	} {
		if got := [3]string{goName(name), jsonName(name), enumName(name)}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
