// Command ottla is an event streaming platform in one file: a complete Apache
// Kafka node and its tools. `ottla serve` runs a node; `ottla help` lists the rest.
package main

import (
	"os"

	"ottla.dev/ottla/internal/cli"
)

func main() {
	os.Exit(cli.Run(cli.Host{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
