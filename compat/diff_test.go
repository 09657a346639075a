package compat_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestDiff tells every case of testdata/diff to Apache Kafka and to Ottla, both
// with the same server.properties, in every version, and compares the answers
// field by field. One case: -run TestDiff/Produce/bad-crc.
func TestDiff(t *testing.T) {
	cases := loadCases(t)
	known := loadKnown(t)
	kafka, ottla := startPeers(t)
	began := time.Now()
	r := &comparison{known: known, rows: map[kmsg.Key]*compareRow{}, found: map[finding][]string{}}
	t.Cleanup(func() {
		r.print(t)
		t.Logf("%v after both brokers stood", time.Since(began).Round(time.Second))
		for _, p := range []*peerBroker{kafka, ottla} {
			select {
			case <-p.done:
				t.Errorf("%s has ended: %v\n%s", p.kind, p.err, p.tail())
			default:
			}
		}
	})
	number := 0
	for _, alone := range []bool{true, false} {
		t.Run(map[bool]string{true: "alone", false: "together"}[alone], func(t *testing.T) {
			slots := make(chan struct{}, 8)
			for _, c := range cases {
				if c.alone != alone {
					continue
				}
				for _, on := range c.on {
					for _, v := range c.sweep(kafka, on) {
						number++
						r.all++
						prefix := fmt.Sprintf("d%dx-", number)
						t.Run(fmt.Sprintf("%s/%s/v%d-%s", c.api.Name(), c.name, v, on), func(t *testing.T) {
							if !alone {
								t.Parallel()
							}
							slots <- struct{}{}
							defer func() { <-slots }()
							r.compare(t, c, v, on, prefix, kafka, ottla)
						})
					}
				}
			}
		})
	}
}

// startPeers starts both brokers.
func startPeers(t *testing.T) (kafka, ottla *peerBroker) {
	t.Helper()
	extra := []string{"log.retention.ms=-1", "auto.create.topics.enable=true", "broker.rack=r1"}
	var peers []*peerBroker
	for _, kind := range []string{"kafka", "ottla"} {
		p, err := newPeer(newBrokerOf(t, kind, extra...))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		peers = append(peers, p)
	}
	return peers[0], peers[1]
}

// sweep lists the versions in which a case is told on a listener.
func (c *diffCase) sweep(kafka *peerBroker, on string) []int16 {
	r, ok := kafka.ranges[on][c.api]
	if !ok {
		return []int16{max(c.min, 0)} // refused by both, it is to be hoped
	}
	if c.min >= 0 {
		r[0] = max(r[0], c.min)
	}
	if c.max >= 0 {
		r[1] = min(r[1], c.max)
	}
	var out []int16
	for v := r[0]; v <= r[1]; v++ {
		out = append(out, v)
	}
	return out
}

// A comparison collects what all tellings found.
type comparison struct {
	mu    sync.Mutex
	known []*knownDifference
	rows  map[kmsg.Key]*compareRow
	found map[finding][]string // tellings in which each difference was seen
	order []finding
	all   int // tellings planned
}

type compareRow struct {
	cases    map[string]bool
	tellings int
	fields   int
	known    int
	differ   map[string]bool
}

// knownDifference is a line of differences.txt: case pattern, field pattern, reason.
type knownDifference struct {
	where, field, reason string
	used                 bool
}

func loadKnown(t *testing.T) []*knownDifference {
	t.Helper()
	text, err := os.ReadFile("testdata/diff/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var known []*knownDifference
	for i, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(line, "|", 3)
		if len(parts) != 3 {
			t.Fatalf("differences.txt:%d: want case | field | reason", i+1)
		}
		known = append(known, &knownDifference{where: strings.TrimSpace(parts[0]), field: strings.TrimSpace(parts[1]), reason: strings.TrimSpace(parts[2])})
	}
	return known
}

// glob matches * against anything; brackets are themselves.
func glob(pattern, text string) bool {
	escape := strings.NewReplacer("[", `\[`, "]", `\]`, "/", "\x01")
	ok, err := path.Match(escape.Replace(pattern), strings.ReplaceAll(text, "/", "\x01"))
	return ok && err == nil
}

func (r *comparison) expected(where, field string) bool {
	for _, k := range r.known {
		if glob(k.where, where) && glob(k.field, field) {
			k.used = true
			return true
		}
	}
	return false
}

// compare tells a case to both sides at once and compares.
func (r *comparison) compare(t *testing.T, c *diffCase, version int16, on, prefix string, kafka, ottla *peerBroker) {
	var answers [2][]*answer
	var errs [2]error
	for try := range 3 {
		var wg sync.WaitGroup
		for i, p := range []*peerBroker{kafka, ottla} {
			wg.Go(func() { answers[i], errs[i] = p.side(fmt.Sprintf("%s%d-", prefix, try)).tell(c, version, on) })
		}
		wg.Wait()
		if errs[0] == nil && !unsettled(answers[0]) {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[c.api]
	if row == nil {
		row = &compareRow{cases: map[string]bool{}, differ: map[string]bool{}}
		r.rows[c.api] = row
	}
	where := fmt.Sprintf("%s/%s/v%d-%s", c.api.Name(), c.name, version, on)
	row.cases[c.name] = true
	row.tellings++
	for i, name := range []string{"Kafka", "Ottla"} {
		if errs[i] != nil {
			row.differ[c.name] = true
			r.find(t, finding{c, 0, name + " cannot go on", errs[i].Error(), ""}, version, on)
		}
	}
	if errs[0] != nil || errs[1] != nil {
		return
	}
	requests := slices.DeleteFunc(slices.Clone(c.steps), func(s diffStep) bool { return s.verb != "" })
	for i, step := range requests {
		row.fields += len(answers[0][i].paths)
		for _, d := range differences(answers[0][i], answers[1][i]) {
			if r.expected(where, d.path) {
				row.known++
				continue
			}
			row.differ[c.name] = true
			r.find(t, finding{c, step.line, d.path, d.kafka, d.ottla}, version, on)
		}
	}
}

// A finding is a difference that is not known. It is reported once for all
// versions.
type finding struct {
	c                  *diffCase
	line               int
	path, kafka, ottla string
}

func (r *comparison) find(t *testing.T, f finding, version int16, on string) {
	if r.found[f] == nil {
		r.order = append(r.order, f)
	}
	r.found[f] = append(r.found[f], fmt.Sprintf("v%d-%s", version, on))
	t.Fail()
}

// unsettled tells that Kafka's controller was between two terms, which happens on
// a busy machine and says nothing about how it answers.
func unsettled(answers []*answer) bool {
	return slices.ContainsFunc(answers, func(a *answer) bool {
		return slices.ContainsFunc(a.paths, func(p string) bool { return strings.HasPrefix(a.text[p], "41 ") })
	})
}

type fieldDifference struct{ path, kafka, ottla string }

func differences(kafka, ottla *answer) (out []fieldDifference) {
	if k, o := kafka.text["(outcome)"], ottla.text["(outcome)"]; k != o {
		return []fieldDifference{{"(outcome)", cmp.Or(k, "a reply"), cmp.Or(o, "a reply")}}
	}
	for _, p := range kafka.paths {
		if o, ok := ottla.text[p]; !ok {
			out = append(out, fieldDifference{p, kafka.text[p], "nothing"})
		} else if o != kafka.text[p] && !moreWords(p, kafka.text[p], o) {
			out = append(out, fieldDifference{p, kafka.text[p], o})
		}
	}
	for _, p := range ottla.paths {
		if _, ok := kafka.text[p]; !ok {
			out = append(out, fieldDifference{p, "nothing", ottla.text[p]})
		}
	}
	return outermost(out)
}

// moreWords tells that Ottla explains what Kafka does not. That is no difference.
func moreWords(path, kafka, ottla string) bool {
	return strings.HasSuffix(path, "ErrorMessage") && kafka != "some" && ottla == "some"
}

// outermost drops what lies inside an element that one side lacks.
func outermost(ds []fieldDifference) (out []fieldDifference) {
	var gone []string
	for _, d := range ds {
		if slices.ContainsFunc(gone, func(p string) bool { return strings.HasPrefix(d.path, p) }) {
			continue
		}
		if d.kafka == "present" || d.ottla == "present" {
			gone = append(gone, d.path+".")
		}
		out = append(out, d)
	}
	return out
}

// print writes what differs and the table of what was compared.
func (r *comparison) print(t *testing.T) {
	var text strings.Builder
	for _, f := range r.order {
		where := r.found[f]
		if len(where) > 3 {
			where = []string{where[0], "…", where[len(where)-1], fmt.Sprintf("(%d)", len(where))}
		}
		fmt.Fprintf(&text, "%s/%s %s, line %d: %s\n  Kafka %s\n  Ottla %s\n", f.c.api.Name(), f.c.name, strings.Join(where, " "), f.line, f.path, f.kafka, f.ottla)
	}
	fmt.Fprintf(&text, "\n%-26s%8s%10s%10s%8s  differ\n", "API", "cases", "tellings", "fields", "known")
	sum := compareRow{cases: map[string]bool{}, differ: map[string]bool{}}
	for _, k := range slices.Sorted(maps.Keys(r.rows)) {
		row := r.rows[k]
		names := slices.Sorted(maps.Keys(row.differ))
		fmt.Fprintf(&text, "%-26s%8d%10d%10d%8d  %s\n", k.Name(), len(row.cases), row.tellings, row.fields, row.known, strings.Join(names, " "))
		for name := range row.cases {
			sum.cases[k.Name()+name] = true
		}
		for name := range row.differ {
			sum.differ[k.Name()+name] = true
		}
		sum.tellings, sum.fields, sum.known = sum.tellings+row.tellings, sum.fields+row.fields, sum.known+row.known
	}
	fmt.Fprintf(&text, "%-26s%8d%10d%10d%8d  %d cases\n", "all", len(sum.cases), sum.tellings, sum.fields, sum.known, len(sum.differ))
	t.Log("\n" + text.String())
	for _, k := range r.known {
		if !k.used && sum.tellings == r.all {
			t.Errorf("differences.txt: %s | %s was not seen: strike it out", k.where, k.field)
		}
	}
}
