// Package ottla runs a node of an event streaming platform inside a program: a
// complete Apache Kafka, without a JVM and without a process of its own.
//
//	n, err := ottla.Open(ctx, ottla.Config{Properties: map[string]string{
//		"log.dirs":  "/var/lib/app/events",
//		"listeners": "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
//	}})
//	if err != nil { … }
//	defer n.Close(context.Background())
//
// Any Kafka client talks to it at n.Addr("PLAINTEXT"). Properties are Kafka's
// own; what is not given is what `ottla serve` has without a file. For tests see
// package ottlatest.
package ottla

import (
	"context"
	"log/slog"
	"maps"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/node"
)

// Config says what node to run. The zero value is the node of `ottla serve`.
type Config struct {
	// Properties are Kafka's property names with their values, over the defaults.
	Properties map[string]string

	// Log gets the node's log lines; nil discards them.
	Log *slog.Logger
}

// Node is a running node. Its methods may be called by any goroutine.
type Node struct{ n *node.Node }

// Open starts a node and returns when clients can use it. ctx bounds the start
// alone. An error names the property to change where one is the cause.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	props := config.Default()
	maps.Copy(props, cfg.Properties)
	s, warnings, err := config.Load(props)
	if err != nil {
		return nil, err
	}
	if cfg.Log != nil {
		for _, w := range warnings {
			cfg.Log.Warn(w.String())
		}
	}
	n, err := node.Open(ctx, node.Config{Settings: s, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}

// Addr is host:port of the listener with this name, as it was bound; "" if there
// is no such listener.
func (n *Node) Addr(listener string) string { return n.n.Addr(listener) }

// HTTPAddr is host:port of /metrics, /healthz and /readyz; "" if they are off.
func (n *Node) HTTPAddr() string { return n.n.HTTPAddr() }

// ClusterID is the cluster's id in Kafka's text form.
func (n *Node) ClusterID() string { return n.n.ClusterID().String() }

// Failed gives the error of a part that ended by itself, a log folder or a
// listener that failed for example. The node must be closed then.
func (n *Node) Failed() <-chan error { return n.n.Failed() }

// Close stops the node: requests in work are finished and the logs closed, so
// that the next Open needs no recovery. ctx bounds the waiting.
func (n *Node) Close(ctx context.Context) error { return n.n.Close(ctx) }
