package cli_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ottla.dev/ottla"
	"ottla.dev/ottla/internal/cli"
)

// The transcripts in testdata are sessions at a prompt; `ottla` in them is this
// test's own binary. REWRITE=1 writes what `cmp` compares with into them.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ottla": func() {
			os.Exit(cli.Run(cli.Host{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		},
	})
}

func TestTranscripts(t *testing.T) {
	n := nodes{running: map[*testscript.TestScript]*ottla.Node{}}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		UpdateScripts:      os.Getenv("REWRITE") != "",
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":     n.start,
			"stop":     n.stop,
			"freeport": freePort,
			"await":    await,
			"kafka":    kafkaFolder,
			"flip":     flip,
			"resize":   resize,
		},
	})
}

// nodes are the nodes that scripts run in this process.
type nodes struct {
	mu      sync.Mutex
	running map[*testscript.TestScript]*ottla.Node
}

// start is the command node [key=value…]. The node's data is in data, and `ottla`
// finds it without -b.
func (n *nodes) start(ts *testscript.TestScript, neg bool, args []string) {
	props := map[string]string{
		"listeners":                   "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
		"ottla.http.listener":         "",
		"log.flush.interval.messages": "9223372036854775807",
		"log.dirs":                    ts.MkAbs("data"),
	}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		if !ok || neg {
			ts.Fatalf("usage: node [key=value…]")
		}
		props[key] = value
	}
	node, err := ottla.Open(context.Background(), ottla.Config{Properties: props})
	ts.Check(err)
	n.mu.Lock()
	n.running[ts] = node
	n.mu.Unlock()
	ts.Defer(func() { n.stop(ts, false, nil) })
	ts.Setenv("OTTLA_BOOTSTRAP_SERVER", node.Addr("PLAINTEXT"))
	ts.Setenv("CONTROLLER", node.Addr("CONTROLLER"))
}

// stop ends the script's node in order.
func (n *nodes) stop(ts *testscript.TestScript, _ bool, _ []string) {
	n.mu.Lock()
	node := n.running[ts]
	delete(n.running, ts)
	n.mu.Unlock()
	if node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ts.Check(node.Close(ctx))
}

// freePort sets variables to addresses that nobody listens at: freeport NAME….
func freePort(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv(name, l.Addr().String())
		defer l.Close()
	}
}

// await waits until somebody listens at an address.
func await(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(awaitAddr(args[0]))
}

func awaitAddr(addr string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		}
	}
}

// kafkaFolder unpacks the log folder of an Apache Kafka: kafka FOLDER.
func kafkaFolder(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(unpackKafka(ts.MkAbs(args[0])))
}

func unpackKafka(dir string) error {
	text, err := os.ReadFile(filepath.Join("testdata", "kafka-4.4.0.hex"))
	if err != nil {
		return err
	}
	var f *os.File
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "-- "):
			name := filepath.Join(dir, filepath.FromSlash(strings.Trim(line, "- ")))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if f != nil {
				f.Close()
			}
			if f, err = os.Create(name); err != nil {
				return err
			}
		default:
			b, err := hex.DecodeString(line)
			if err != nil {
				return err
			}
			if _, err := f.Write(b); err != nil {
				return err
			}
		}
	}
	return f.Close()
}

// flip turns one bit of a file: flip FILE POSITION; a negative one counts from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(name, b, 0o644))
}

// resize cuts a file or adds zeros to it: resize FILE SIZE.
func resize(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// Whoever stops a node before it is ready has not made an error.
func TestServeInterruptedAtTheStartEndsWell(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := cli.RunContext(ctx, cli.Host{
		Args: []string{
			"serve", "--set", "log.dirs=" + t.TempDir(), "--set", "ottla.http.listener=",
			"--set", "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
		},
		Out: &out, Err: &errs,
	})
	if code != 0 {
		t.Errorf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
}
