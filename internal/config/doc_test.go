package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var write = flag.Bool("write", false, "write docs/users/configuration.md instead of comparing it")

const docPath = "../../docs/users/configuration.md"

// TestUserDocumentation holds docs/users/configuration.md against the tables.
// `go generate ./internal/config` writes it anew.
func TestUserDocumentation(t *testing.T) {
	want := documentation()
	if *write {
		if err := os.MkdirAll("../../docs/users", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(docPath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/users/configuration.md is not what the tables say; run: go generate ./internal/config")
	}
}

const docHead = `# Configuration

<!-- Made from internal/config/properties.txt and topics.txt by "go generate ./internal/config". Change those. -->

Ottla takes Apache Kafka's property names: ` + "`ottla serve server.properties`" + ` reads the file that starts a Kafka 4.4 KRaft
node. This page lists every property of Kafka 4.4 and the few of Ottla's own, and what this build does with each:

| here | meaning |
|---|---|
| yes | The value is followed. |
| not yet | It is accepted, but what it governs is not built yet. The start warns of it. |
| no effect | What it governs does not exist in Ottla and never needs to. |
| refused | A value other than the default stops the start: to ignore it would open access, weaken durability or change what you rely on. |

Properties that Kafka removed (` + "`zookeeper.connect`, `inter.broker.protocol.version`" + `, …), properties of a single listener
(` + "`listener.name.…`" + `) and unknown ones that begin with ` + "`ssl.`, `sasl.` or `ottla.`" + ` stop the start as well. Other unknown
properties only cause a warning. All mistakes in a file are reported at once.

**change**: a *cluster-wide* property can be changed while nodes run, for all brokers or for one; a *per-broker* one for
one broker at a time; the others when a node starts. What was set at run time goes before the file, what was set for one
broker before what was set for all.

Values may refer to environment variables and other files (` + "`${env:NAME}`, `${file:/path:key}`, `${dir:/path:file}`" + `)
once ` + "`config.providers`" + ` names the sources, as in Kafka:

` + "```properties" + `
config.providers=env,file
config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
broker.rack=${env:ZONE}
` + "```" + `

## Without a file

` + "`ottla serve`" + ` alone starts one node on loopback, as if it had read:

` + "```properties\n"

func documentation() []byte {
	var b bytes.Buffer
	b.WriteString(docHead)
	profile := Default()
	for p := range Properties() {
		if v, ok := profile[p.Name]; ok {
			fmt.Fprintf(&b, "%s=%s\n", p.Name, v)
		}
	}
	b.WriteString("```\n\n## Brokers and controllers\n")
	section := ""
	for p := range Properties() {
		if p.Internal {
			continue
		}
		if p.Section != section {
			section = p.Section
			fmt.Fprintf(&b, "\n### %s\n\n| property | type | default | allowed | change | here |\n|---|---|---|---|---|---|\n", section)
		}
		change := ""
		if p.alterable() {
			change = p.Dynamic.String()
		}
		if p.DynamicOnly {
			change += ", at run time only"
		}
		fmt.Fprintf(&b, "| `%s`<br>%s | %s | %s | %s | %s | %s |\n", p.Name, p.Doc, p.Type, docDefault(p), p.Valid, change, docStatus(p))
	}
	b.WriteString("\n## Topics\n\nA topic's own value goes before that of the broker property.\n\n| topic config | type | default | allowed | broker property | here |\n|---|---|---|---|---|---|\n")
	for p := range TopicProperties() {
		if p.Internal {
			continue
		}
		var from []string
		for _, r := range p.from {
			from = append(from, "`"+r.name+"`")
		}
		fmt.Fprintf(&b, "| `%s`<br>%s | %s | %s | %s | %s | %s |\n", p.Name, p.Doc, p.Type, docDefault(p), p.Valid, strings.Join(from, ", "), docStatus(p))
	}
	return b.Bytes()
}

func docDefault(p *Property) string {
	switch {
	case !p.HasDefault:
		return "must be set"
	case p.Null:
		return "not set"
	case p.Default == "":
		return "empty"
	case p.KafkaDefault != "":
		return "`" + p.Default + "` (Kafka: `" + p.KafkaDefault + "`)"
	}
	return "`" + strings.ReplaceAll(p.Default, ",", ", ") + "`"
}

func docStatus(p *Property) string {
	word := map[Status]string{Obeyed: "yes", Later: "not yet", Harmless: "no effect", Refused: "refused"}[p.Status]
	if p.Why != "" {
		word += ": " + p.Why
	}
	return word
}
