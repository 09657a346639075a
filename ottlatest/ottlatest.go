// Package ottlatest gives tests a Kafka cluster of their own, in the test's
// process, the way net/http/httptest gives them a web server:
//
//	func TestOrders(t *testing.T) {
//		c := ottlatest.NewCluster(t)
//		client, err := kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...))
//		…
//	}
//
// A cluster listens on free loopback ports, keeps its data in the test's
// temporary folder and is gone when the test ends. It starts in milliseconds;
// every test can have one, and several can live side by side.
package ottlatest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"ottla.dev/ottla"
)

// Option changes the cluster that NewCluster makes.
type Option func(*options)

type options struct {
	props map[string]string
	dir   string
}

// Property sets one of Kafka's properties on every node.
func Property(key, value string) Option {
	return func(o *options) { o.props[key] = value }
}

// Dir keeps the data in this folder instead of the test's temporary one, so
// that a later cluster can be opened on it.
func Dir(path string) Option {
	return func(o *options) { o.dir = path }
}

// Cluster is a running cluster; of one node, for the time being.
type Cluster struct {
	tb   testing.TB
	node *ottla.Node
}

// stopTimeout bounds the end of a cluster whose clients do not let go.
const stopTimeout = 30 * time.Second

// NewCluster starts a cluster and closes it when the test ends. Every record is
// in the page cache, not on disk, when it is acknowledged: tests need speed
// rather than safety; Property("log.flush.interval.messages", "1") has it back.
func NewCluster(tb testing.TB, opts ...Option) *Cluster {
	tb.Helper()
	o := options{props: map[string]string{
		"listeners":                   "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
		"ottla.http.listener":         "",
		"log.flush.interval.messages": "9223372036854775807",
	}}
	for _, opt := range opts {
		opt(&o)
	}
	if o.dir == "" {
		o.dir = filepath.Join(tb.TempDir(), "ottla")
	}
	if o.props["log.dirs"] == "" {
		o.props["log.dirs"] = o.dir
	}
	n, err := ottla.Open(context.Background(), ottla.Config{Properties: o.props})
	if err != nil {
		tb.Fatalf("ottlatest: %v", err)
	}
	c := &Cluster{tb: tb, node: n}
	tb.Cleanup(c.Close)
	return c
}

// Bootstrap gives the addresses that a client starts with.
func (c *Cluster) Bootstrap() []string { return []string{c.node.Addr("PLAINTEXT")} }

// ClusterID is the cluster's id.
func (c *Cluster) ClusterID() string { return c.node.ClusterID() }

// Close stops the cluster before the test's end. It may be called again.
func (c *Cluster) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := c.node.Close(ctx); err != nil {
		c.tb.Errorf("ottlatest: stopping the cluster: %v", err)
	}
}
