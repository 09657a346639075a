package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/node"
)

const serveLong = `Runs a node until it gets SIGTERM or Ctrl-C.

Without FILE it is a broker and controller on 127.0.0.1:9092 (controller 9093,
HTTP 8080) with its data in ./ottla-data. FILE is a server.properties of an
Apache Kafka KRaft node, unchanged; --set wins over it. ${env:NAME} and ${file:path:key}
in values are replaced if config.providers says so.

Empty folders are formatted by themselves. A record is on disk before it is
acknowledged, unless log.flush.interval.messages is set. Log lines go to stderr.`

// closeTimeout bounds a clean stop; what is on disk by then is recovered at the
// next start.
const closeTimeout = 30 * time.Second

func newServe(h Host) *cobra.Command {
	var set []string
	var quiet bool
	var level slog.Level
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Run a node",
		Long:  serveLong,
		Example: `  ottla serve
  ottla serve server.properties
  ottla serve --set listeners=PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(h.Err, &slog.HandlerOptions{Level: level}))
			s, err := loadSettings(args, set, log)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), h, s, log, quiet)
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "property over FILE and the defaults, `key=value` (may be repeated)")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "do not print the summary at the start")
	cmd.Flags().TextVar(&level, "log-level", slog.LevelInfo, "least `level` of log lines: debug, info, warn or error")
	return cmd
}

func loadSettings(args, set []string, log *slog.Logger) (*config.Config, error) {
	props := config.Default()
	given := map[string]bool{} // by the user: what our own defaults say needs no warning
	if len(args) == 1 {
		text, err := os.ReadFile(args[0])
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if props, err = config.ParseProperties(text); err != nil {
			return nil, fmt.Errorf("%s: %w", args[0], err)
		}
		for key := range props {
			given[key] = true
		}
	}
	for _, kv := range set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--set %s: want key=value", kv)}
		}
		key = strings.TrimSpace(key)
		props[key], given[key] = strings.TrimSpace(value), true
	}
	props, err := config.Resolve(props, config.Sources{Env: os.LookupEnv, ReadFile: os.ReadFile})
	if err != nil {
		return nil, err
	}
	s, warnings, err := config.Load(props)
	for _, w := range warnings {
		if given[w.Key] && !w.Note {
			log.Warn(w.String())
		}
	}
	return s, err
}

func serve(ctx context.Context, h Host, s *config.Config, log *slog.Logger, quiet bool) error {
	began := time.Now()
	n, err := node.Open(ctx, node.Config{Settings: s, Log: log, Progress: recoveryProgress(h.Err, began)})
	if err != nil && ctx.Err() != nil {
		log.Info("stopped before it was ready", "cause", err)
		return nil
	}
	if err != nil {
		return err
	}
	if !quiet {
		printReady(h.Out, s, n, time.Since(began))
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-n.Failed():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := n.Close(stop); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	if failed == nil && !quiet {
		fmt.Fprintln(h.Out, "stopped cleanly")
	}
	return failed
}

// recoveryProgress tells how far a start is that takes longer than a moment.
func recoveryProgress(w io.Writer, began time.Time) func(open, total int) {
	return func(open, total int) {
		step := max(1, total/20)
		if time.Since(began) > 2*time.Second && (open%step == 0 || open == total) {
			fmt.Fprintf(w, "opening logs: %d of %d (%.0f s)\n", open, total, time.Since(began).Seconds())
		}
	}
}

func printReady(w io.Writer, s *config.Config, n *node.Node, took time.Duration) {
	fmt.Fprintf(w, "ottla %s, Apache Kafka %s protocol: node %d of cluster %s\n\n", version(), kafkaRelease, s.NodeID(), n.ClusterID())
	for _, l := range s.BrokerListeners() {
		fmt.Fprintf(w, "  clients     %s (%s)\n", n.Addr(l.Name), l.Name)
	}
	for _, l := range s.ControllerListeners() {
		fmt.Fprintf(w, "  controller  %s (%s)\n", n.Addr(l.Name), l.Name)
	}
	if addr := n.HTTPAddr(); addr != "" {
		fmt.Fprintf(w, "  http        http://%s/metrics, /healthz, /readyz\n", addr)
	}
	fmt.Fprintf(w, "  data        %s (%s)\n", strings.Join(s.LogDirs(), ", "), durability(s))
	fmt.Fprintf(w, "\nready after %d ms. Try, in another terminal:\n\n", took.Milliseconds())
	server := ""
	if ls := s.BrokerListeners(); len(ls) > 0 && reachable(n.Addr(ls[0].Name)) != defaultServer {
		server = " -b " + reachable(n.Addr(ls[0].Name))
	}
	fmt.Fprintf(w, "  ottla topic create hello%s\n  echo 'Hello, Kafka' | ottla produce hello%s\n  ottla consume hello%s\n\nStop with Ctrl-C.\n", server, server, server)
}

// reachable is an address to dial where the node listens on all of them.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// durability says in words when an ack is given.
func durability(s *config.Config) string {
	switch n := s.Long(config.LogFlushIntervalMessages); {
	case n == 1:
		return "every record is on disk before its ack"
	case n < 1<<40:
		return fmt.Sprintf("flushed every %d records; an ack may come before the flush", n)
	}
	return "flushed by the operating system, as Apache Kafka does; an ack comes before that"
}
