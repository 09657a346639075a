package config

import (
	"maps"
	"os"
	"strings"
	"testing"
)

// TestFilesAreTakenAndRefusedAsKafkaDoes plays testdata/cases.txt, whose head explains it.
func TestFilesAreTakenAndRefusedAsKafkaDoes(t *testing.T) {
	text, err := os.ReadFile("testdata/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, cases, _ := strings.Cut(string(text), "\n== ")
	n := 0
	for c := range strings.SplitSeq(cases, "\n== ") {
		name, body, _ := strings.Cut(c, "\n")
		n++
		t.Run(name, func(t *testing.T) { playCase(t, body) })
	}
	if n < 100 {
		t.Errorf("only %d cases were found", n)
	}
}

func playCase(t *testing.T, body string) {
	props := map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.listener.names": "CONTROLLER", "log.dirs": "/d",
		"listeners":                "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
		"controller.quorum.voters": "1@localhost:9093",
	}
	kafka, want := "", ""
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if v, ok := strings.CutPrefix(line, "kafka: "); ok {
			kafka = v
		} else if v, ok := strings.CutPrefix(line, "ottla: "); ok {
			want = v
		} else if key, ok := strings.CutPrefix(line, "-"); ok {
			delete(props, key)
		} else if key, val, ok := strings.Cut(line, "="); ok {
			props[key] = val
		}
	}
	if kafka != "ok" && kafka != "refused" {
		t.Fatalf("kafka: %q", kafka)
	}
	if want == "" {
		want = kafka
	}
	given := maps.Clone(props)
	_, _, err := Load(props)
	if !maps.Equal(given, props) {
		t.Error("Load changed the map it was given")
	}
	outcome, part, _ := strings.Cut(want, ": ")
	switch {
	case outcome == "ok" && err != nil:
		t.Errorf("refused: %v", err)
	case outcome == "refused" && err == nil:
		t.Errorf("taken; Kafka: %s", kafka)
	case outcome == "refused" && !strings.Contains(err.Error(), part):
		t.Errorf("refused with %q, want %q in it", err, part)
	}
}
