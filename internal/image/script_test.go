package image

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print into them")

func sorted[K comparable, V any](m map[K]V, cmp func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), cmp)
}

// Each testdata/*.txt is a story: commands, each with its input lines, "----" and
// what it prints, up to an empty line.
//
//	apply    records, one a line, follow the image; prints the delta or the error
//	image    prints the image
//	on N     prints the partitions that broker N holds
//	collide NAME
//	since N  prints the sum of the deltas of the last N applies
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := story{t: t, image: Empty()}
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	for n := 0; n < len(lines); n++ {
		line := lines[n]
		out.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		var input, want []string
		for n++; n < len(lines) && lines[n] != "----"; n++ {
			input = append(input, lines[n])
			out.WriteString(lines[n] + "\n")
		}
		for n++; n < len(lines) && lines[n] != ""; n++ {
			want = append(want, lines[n])
		}
		got := strings.TrimRight(s.run(strings.Fields(line), input), "\n")
		if w := strings.Join(want, "\n"); got != w && !*rewrite {
			t.Errorf("%s:\n%s\n\ngot:\n%s\n\nwant:\n%s", file, line+"\n"+strings.Join(input, "\n"), got, w)
		}
		out.WriteString("----\n" + got)
		if got != "" {
			out.WriteString("\n")
		}
		if n < len(lines) {
			out.WriteString("\n")
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A story is the state of a script.
type story struct {
	t      *testing.T
	image  *Image
	deltas []*Delta
}

func (s *story) run(cmd, input []string) string {
	switch cmd[0] {
	case "apply":
		return s.apply(input)
	case "image":
		return dump(s.image)
	case "on":
		return s.on(cmd[1])
	case "collide":
		other, ok := s.image.CollidingTopic(cmd[1])
		return fmt.Sprint(other, " ", ok)
	case "since":
		return s.since(cmd[1])
	}
	s.t.Fatalf("unknown command %q", cmd[0])
	return ""
}

func (s *story) apply(input []string) string {
	var recs []record.Metadata
	for _, line := range input {
		recs = append(recs, parseRecord(s.t, line))
	}
	before := dump(s.image)
	next, delta, err := s.image.Apply(s.image.Offset()+1, 1, recs)
	if got := dump(s.image); got != before {
		s.t.Errorf("Apply changed the image that it started from\n%s\nto\n%s", before, got)
	}
	if err != nil {
		if !errors.Is(err, ErrInvalid) {
			s.t.Errorf("error does not wrap ErrInvalid: %v", err)
		}
		return short(err.Error())
	}
	s.image = next
	s.deltas = append(s.deltas, delta)
	return dumpDelta(delta)
}

func (s *story) on(node string) string {
	id, err := strconv.Atoi(node)
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for tp, p := range s.image.PartitionsOn(model.NodeID(id)) {
		fmt.Fprintf(&b, "%s leader %d isr %v\n", tp, p.Leader, p.ISR)
	}
	return short(b.String()) + fmt.Sprint(s.image.NumPartitionsOn(model.NodeID(id)))
}

func (s *story) since(count string) string {
	n, err := strconv.Atoi(count)
	if err != nil {
		s.t.Fatal(err)
	}
	var sum *Delta
	for _, d := range s.deltas[len(s.deltas)-n:] {
		c := *d
		c.Topics = maps.Clone(d.Topics)
		for id, t := range c.Topics {
			c.Topics[id] = &TopicDelta{t.Name, t.Created, t.Deleted, maps.Clone(t.Partitions)}
		}
		c.Brokers, c.Configs = maps.Clone(d.Brokers), maps.Clone(d.Configs)
		sum = sum.Merge(&c)
	}
	return dumpDelta(sum)
}
