package metric

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func scrape(t *testing.T, r *Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: status %d: %s", w.Code, w.Body)
	}
	b, _ := io.ReadAll(w.Body)
	return string(b)
}

func mustShow(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(page, l) {
			t.Errorf("%q is not among the metrics", l)
		}
	}
}

func TestMetricsAreServed(t *testing.T) {
	r := New()
	r.Counter("ottla_requests_total", "Requests.", "api").WithLabelValues("Produce").Add(3)
	r.Gauge("ottla_connections", "Open connections.").WithLabelValues().Set(7)
	r.Histogram("ottla_wait_seconds", "Waits.", []float64{.1, 1}, "api").WithLabelValues("Fetch").Observe(.5)
	r.GaugeFunc("ottla_answer", "Told at the scrape.", func() float64 { return 42 })
	mustShow(t, scrape(t, r),
		`ottla_requests_total{api="Produce"} 3`,
		`ottla_connections 7`,
		`ottla_wait_seconds_bucket{api="Fetch",le="0.1"} 0`,
		`ottla_wait_seconds_bucket{api="Fetch",le="1"} 1`,
		`ottla_answer 42`,
		`go_goroutines`,
		`process_`,
	)
}

func TestOneNameIsOneMetric(t *testing.T) {
	r := New()
	a := r.Counter("ottla_syncs_total", "Syncs.", "dir")
	b := r.Counter("ottla_syncs_total", "Syncs.", "dir")
	a.WithLabelValues("x").Inc()
	b.WithLabelValues("x").Inc()
	if got := testutil.ToFloat64(a.WithLabelValues("x")); got != 2 {
		t.Fatalf("two users of one counter counted %v, want 2", got)
	}
}

func TestRegistriesCountApart(t *testing.T) {
	a, b := New(), New()
	a.Counter("ottla_x_total", "X.").WithLabelValues().Inc()
	b.Counter("ottla_x_total", "X.").WithLabelValues().Add(5)
	mustShow(t, scrape(t, a), "ottla_x_total 1")
	mustShow(t, scrape(t, b), "ottla_x_total 5")
}

func TestNilRegistryCountsUnseen(t *testing.T) {
	var r *Registry
	c := r.Counter("ottla_x_total", "X.", "l")
	c.WithLabelValues("v").Inc()
	if got := testutil.ToFloat64(c.WithLabelValues("v")); got != 1 {
		t.Fatalf("counted %v, want 1", got)
	}
	r.Gauge("ottla_g", "G.").WithLabelValues().Set(1)
	r.Histogram("ottla_h", "H.", nil).WithLabelValues().Observe(1)
	r.GaugeFunc("ottla_f", "F.", func() float64 { return 1 })
	if page := scrape(t, r); strings.Contains(page, "ottla_") {
		t.Fatalf("a nil registry serves %s", page)
	}
}

func TestFaultsOfOursPanic(t *testing.T) {
	r := New()
	r.Counter("ottla_x_total", "X.", "a")
	for name, f := range map[string]func(){
		"foreign name": func() { r.Gauge("kafka_x", "X.") },
		"other labels": func() { r.Counter("ottla_x_total", "X.", "b") },
		"other kind":   func() { r.Gauge("ottla_x_total", "X.", "a") },
		"two functions": func() {
			for range 2 {
				r.GaugeFunc("ottla_f", "F.", func() float64 { return 0 })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
