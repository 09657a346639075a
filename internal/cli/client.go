package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// serversEnv names the variable that stands in for --bootstrap-server.
const serversEnv = "OTTLA_BOOTSTRAP_SERVER"

// cluster is how commands reach a cluster.
type cluster struct {
	servers string
	timeout time.Duration
}

// flags adds the flags that say which cluster is meant.
func (c *cluster) flags(cmd *cobra.Command) {
	def := defaultServer
	if env := os.Getenv(serversEnv); env != "" {
		def = env
	}
	cmd.PersistentFlags().StringVarP(&c.servers, "bootstrap-server", "b", def, "brokers to start with, `host:port`,… (environment: "+serversEnv+")")
	cmd.PersistentFlags().DurationVar(&c.timeout, "timeout", 15*time.Second, "longest `time` for a request, connecting included")
}

// client makes a client; the first request connects.
func (c *cluster) client(opts ...kgo.Opt) (*kgo.Client, error) {
	base := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(c.servers, ",")...),
		kgo.ClientID("ottla-cli"),
		kgo.RequestTimeoutOverhead(c.timeout),
		kgo.RetryTimeout(c.timeout),
		kgo.DialTimeout(c.timeout),
	}
	return kgo.NewClient(append(base, opts...)...)
}

// explain adds what to look at to an error of a client that cannot connect.
func (c *cluster) explain(err error) error {
	var op *net.OpError
	var dns *net.DNSError
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("cannot reach %s: there is no host %q; -b wants host:port", c.servers, dns.Name)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("cannot reach %s: %w\nIs the node running? `ottla serve` starts one; -b names another", c.servers, op.Err)
	case errors.As(err, &eof):
		return fmt.Errorf("%s closes the connection without an answer: it is a controller's listener, it wants TLS or SASL, or it is no Kafka at all", c.servers)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %v: %w\nThe node may be busy or unreachable; --timeout waits longer", c.servers, c.timeout, err)
	}
	return err
}

// about says which topic an error is about, in words for the commonest.
func about(topic string, err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("there is no topic %s; `ottla topic list` shows what there is, `ottla topic create %s` makes it", topic, topic)
	}
	return fmt.Errorf("topic %s: %w", topic, err)
}

// completeTopics offers the cluster's topics to the shell.
func (c *cluster) completeTopics(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c.timeout = min(c.timeout, 2*time.Second) // somebody waits at the prompt
		var names []string
		_ = c.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
			topics, err := adm.ListTopics(ctx)
			for _, name := range topics.Names() {
				if strings.HasPrefix(name, prefix) {
					names = append(names, name)
				}
			}
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// rows prints a table: aligned on a terminal, tab-separated in a pipe so that
// other programs can cut it. The header is for people only.
func rows(w io.Writer, header []string, lines [][]string) {
	if !isTerminal(w) {
		for _, l := range lines {
			fmt.Fprintln(w, strings.Join(l, "\t"))
		}
		return
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(tableRow(header))
	for _, l := range lines {
		t.AppendRow(tableRow(l))
	}
	fmt.Fprintln(w, t.Render())
}

func tableRow(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
