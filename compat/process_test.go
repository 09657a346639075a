package compat_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process is one running program whose output goes to a file.
type process struct {
	cmd  *exec.Cmd
	log  string        // path of the output
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
}

// launch starts a program. The process dies with the test, whatever happens.
func launch(t *testing.T, log string, name string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() // the child has its own
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the output of %s ends:\n%s", name, p.tail())
		}
		p.kill()
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) } // an ended process needs none

// kill is kill -9: no chance to write anything more.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end and waits until it has.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.signal(syscall.SIGQUIT) // Go and Java both tell what their threads do
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
		}
		t.Fatal("still running a minute after SIGTERM")
	}
}

// tail returns the end of the output.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

// awaitPort waits until somebody listens at addr.
func (p *process) awaitPort(t *testing.T, addr string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		select {
		case <-p.done:
			t.Fatalf("%s ended before it listened at %s: %v", p.cmd.Path, addr, p.err)
		default:
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// eventually tries until f succeeds; it fails the test when limit has passed.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; <-tick.C {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}

// freeAddr returns a loopback address that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// output runs a program to its end and returns what it wrote to stdout.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is output for programs that may fail; the error has the end of stderr.
func try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	dieWithParent(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String() + stdout.String())
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said[max(0, len(said)-4000):])
	}
	return stdout.String(), nil
}
