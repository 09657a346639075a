package docs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla.dev/ottla"
)

// Links between the pages, and to others, lead somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, dir := range []string{".", "../internals", "../users"} {
		pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				if _, err := os.Stat(filepath.Join(dir, m[1])); errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s leads to %s, which does not exist", page, m[1])
				}
			}
		}
	}
}

// The page on metrics names every metric that a running node serves, and no
// other of Ottla's own.
func TestTheMetricsPageNamesWhatANodeServes(t *testing.T) {
	ctx := context.Background()
	n, err := ottla.Open(ctx, ottla.Config{Properties: map[string]string{
		"log.dirs":            filepath.Join(t.TempDir(), "data"),
		"listeners":           "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
		"ottla.http.listener": "127.0.0.1:0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(ctx)
	client, err := kgo.NewClient(kgo.SeedBrokers(n.Addr("PLAINTEXT")))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil { // some metrics begin with the first request
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + n.HTTPAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../users/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(string(text), -1) {
		served[m[1]] = true
		if !strings.Contains(string(page), "`"+m[1]+"`") && !strings.Contains(string(page), "`"+m[1]+"{") {
			t.Errorf("metrics.md does not name %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`(ottla_[a-z_]+)[`{]").FindAllStringSubmatch(string(page), -1) {
		if !served[m[1]] {
			t.Errorf("metrics.md names %s, which no node serves", m[1])
		}
	}
}
