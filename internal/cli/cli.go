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

func newRoot(h Host) *cobra.Command {
	root := &cobra.Command{
		Use:           "ottla",
		Short:         "A complete Apache Kafka in one file",
		Long:          "Ottla is an event streaming platform that every Kafka client and tool works with.\nStart a node with `ottla serve`, then try `ottla topic create hello`.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	root.AddCommand(newServe(h), newTopic(h), newProduce(h), newConsume(h), newStorage(h), newDump(h), newVersion(h))
	return root
}

// defaultServer is where commands look for a cluster.
const defaultServer = "127.0.0.1:9092"
