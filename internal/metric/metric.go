// Package metric is a node's metrics: one Registry per node, in Prometheus'
// terms. A package that measures takes a *Registry in its Config, asks it once
// for its metrics and keeps them as fields; nothing here is global, so ten
// nodes in one process count apart.
//
// A nil *Registry is valid: its metrics count and are shown nowhere, so tests
// and tools pass none. Names begin with "ottla_", and one name is registered
// once: asking again with the same help and labels gives the same metric, which
// is how parts that exist many times (log folders, listeners) share one.
//
// All methods are safe for concurrent use.
package metric

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// prefix begins the name of every metric of Ottla's own.
const prefix = "ottla_"

// Registry holds the metrics of one node.
type Registry struct {
	reg *prometheus.Registry
}

// New returns a registry that has the metrics of the Go runtime and of the
// process, and no other.
func New() *Registry {
	r := &Registry{reg: prometheus.NewRegistry()}
	r.reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Counter returns a counter: a number that only grows. Its name ends in
// "_total" by Prometheus' custom.
func (r *Registry) Counter(name, help string, labels ...string) *prometheus.CounterVec {
	check(name)
	return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

// Gauge returns a gauge: a number that goes up and down.
func (r *Registry) Gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	check(name)
	return register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

// Histogram returns a histogram with these upper bounds of its buckets, in
// ascending order and in the metric's unit; nil means Prometheus' default
// buckets for seconds.
func (r *Registry) Histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	check(name)
	return register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
}

// GaugeFunc registers a gauge whose value f tells at each scrape. f is called
// from any goroutine and must not wait. A second function under one name is a
// fault: there is one value to tell.
func (r *Registry) GaugeFunc(name, help string, f func() float64) {
	check(name)
	r.Collector(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
}

// Collector registers a collector that makes its metrics at each scrape, for
// what is counted elsewhere already or whose labels come and go.
func (r *Registry) Collector(c prometheus.Collector) {
	if r == nil {
		return
	}
	if err := r.reg.Register(c); err != nil {
		panic(fmt.Sprintf("BUG: metric: %v", err))
	}
}

// Handler serves the metrics in the formats that Prometheus scrapes. What one
// collector fails to give does not keep the others from being served.
func (r *Registry) Handler() http.Handler {
	if r == nil {
		return promhttp.HandlerFor(prometheus.NewRegistry(), promhttp.HandlerOpts{})
	}
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// check refuses names outside of Ottla's prefix: names are literals in our own
// code, so a wrong one is our fault.
func check(name string) {
	if !strings.HasPrefix(name, prefix) {
		panic(fmt.Sprintf("BUG: metric %q does not begin with %q", name, prefix))
	}
}

// register registers c, or returns the equal one that is registered already.
func register[C prometheus.Collector](r *Registry, c C) C {
	if r == nil {
		return c
	}
	err := r.reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: metric: %v", err))
	}
	return c
}
