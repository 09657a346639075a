// Package cli is the command line. Each command is a file; commands that talk
// to a cluster are plain Kafka clients and work against any Kafka.
//
// A command gets its input, output and surroundings from Host, so that tests run
// it in process. Errors end a command with a message on Err that says what to do,
// and exit code 1 (2 for wrong usage).
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Host is what a command runs in.
type Host struct {
	Args []string
	In   io.Reader
	Out  io.Writer
	Err  io.Writer
}

// usageError marks errors of the command line itself: exit code 2.
type usageError struct{ error }

// Run runs one command and gives its exit code.
func Run(h Host) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return RunContext(ctx, h)
}

// RunContext is Run with the caller's idea of an interrupt: the end of ctx.
func RunContext(ctx context.Context, h Host) int {
	root := newRoot(h)
	root.SetArgs(h.Args)
	root.SetIn(h.In)
	root.SetOut(h.Out)
	root.SetErr(h.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(h.Err, "ottla: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

const rootLong = `Ottla is an event streaming platform that every Kafka client and tool works with.

  ottla serve                              run a node
  ottla topic create hello                 in another terminal
  echo 'Hello, Kafka' | ottla produce hello
  ottla consume hello`

// The groups of commands in the help.
const (
	runGroup  = "run"
	useGroup  = "use"
	diskGroup = "disk"
)

func newRoot(h Host) *cobra.Command {
	root := group(&cobra.Command{
		Use:           "ottla",
		Short:         "A complete Apache Kafka in one file",
		Long:          rootLong,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.AddGroup(
		&cobra.Group{ID: runGroup, Title: "Run a node:"},
		&cobra.Group{ID: useGroup, Title: "Use a cluster, Ottla's or Apache Kafka's:"},
		&cobra.Group{ID: diskGroup, Title: "Look at disks:"},
	)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	in := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in(runGroup, newServe(h))
	in(useGroup, newTopic(h), newProduce(h), newConsume(h))
	in(diskGroup, newStorage(h), newDump(h))
	root.AddCommand(newVersion(h))
	return root
}

// group makes a command of one that only has commands below it: alone it prints
// its help, and a word that is none of them is wrong usage.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
		}
		return usageError{fmt.Errorf("%s\nSee '%s --help'", text, cmd.CommandPath())}
	}
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// arguments checks how many arguments a command gets; most is -1 for any number.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError{fmt.Errorf("something is missing: %s", cmd.UseLine())}
		case most >= 0 && len(args) > most:
			return usageError{fmt.Errorf("%q is too much: %s", args[most], cmd.UseLine())}
		}
		return nil
	}
}

// defaultServer is where commands look for a cluster.
const defaultServer = "127.0.0.1:9092"
