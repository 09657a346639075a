package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
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
	cmd.PersistentFlags().StringVarP(&c.servers, "bootstrap-server", "b", def, "brokers to start with, host:port,… (environment: "+serversEnv+")")
	cmd.PersistentFlags().DurationVar(&c.timeout, "timeout", 15*time.Second, "how long a request may take, connecting included")
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
	if err == nil {
		return nil
	}
	text := err.Error()
	if strings.Contains(text, "refused") || strings.Contains(text, "no such host") || strings.Contains(text, "unable to dial") {
		return fmt.Errorf("cannot reach %s: %w\nIs the node running? `ottla serve` starts one; -b names another", c.servers, err)
	}
	return err
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
