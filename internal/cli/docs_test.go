package cli_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The page's examples of ./ottla are run one after another, as a reader would, in
// an empty folder that has the program in it. Only the addresses are others.
func TestGettingStartedIsTrue(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "users", "getting-started.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	outputs := map[string]string{}
	for _, line := range examples(string(page)) {
		outputs[line] = r.run(t, line)
	}
	for line, want := range map[string]string{
		"./ottla consume hello --end":           "Hello, Kafka\n",
		"./ottla topic describe hello":          "hello\t2\t",
		"./ottla dump ottla-data/hello-0/*.log": "ottla-data/hello-0/00000000000000000000.log: segment from offset 0",
	} {
		if got, ok := outputs[line]; !ok || !strings.Contains(got, want) {
			t.Errorf("%s (run: %v) printed\n%s\nwithout %q", line, ok, got, want)
		}
	}
}

// examples are the lines of a page's plain code blocks that run ./ottla.
func examples(page string) (lines []string) {
	blocks := strings.Split(page, "```")
	for i := 1; i < len(blocks); i += 2 {
		if !strings.HasPrefix(blocks[i], "\n") { // a block of a language
			continue
		}
		for line := range strings.Lines(blocks[i]) {
			if line = strings.TrimSpace(line); strings.Contains(line, "./ottla ") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// reader is somebody who types the examples.
type reader struct {
	dir   string
	addrs [3]string // clients, controller, HTTP
	node  *exec.Cmd
	log   bytes.Buffer // of the node; read when it has ended
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(r.dir, "ottla")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	properties := "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\nlog.dirs=elsewhere\n"
	if err := os.WriteFile(filepath.Join(r.dir, "server.properties"), []byte(properties), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range r.addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r.addrs[i] = l.Addr().String()
		defer l.Close()
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *reader) command(line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "OTTLA_BOOTSTRAP_SERVER="+r.addrs[0])
	return cmd
}

// run types a line. One that serves goes on until the next one of its kind.
func (r *reader) run(t *testing.T, line string) string {
	t.Helper()
	if !strings.HasPrefix(line, "./ottla serve") {
		out, err := r.command(line).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	r.stop(t)
	line = strings.ReplaceAll(line, "log.dirs=/", "log.dirs=./")
	line += fmt.Sprintf(" --set listeners=PLAINTEXT://%s,CONTROLLER://%s --set ottla.http.listener=%s", r.addrs[0], r.addrs[1], r.addrs[2])
	r.log.Reset()
	r.node = r.command("exec " + line)
	r.node.Stdout, r.node.Stderr = &r.log, &r.log
	if err := r.node.Start(); err != nil {
		t.Fatal(err)
	}
	if err := awaitAddr(r.addrs[0]); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return ""
}

// stop ends the node as Ctrl-C does.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	if r.node == nil {
		return
	}
	if err := r.node.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	slow := time.AfterFunc(time.Minute, func() { _ = r.node.Process.Kill() })
	err := r.node.Wait()
	if !slow.Stop() || err != nil {
		t.Errorf("the node did not stop in order: %v\n%s", err, r.log.String())
	}
	r.node = nil
}
