package memnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustFail(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// pair connects host "a" to host "b".
func pair(t testing.TB, n *Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Listen("b:0")
	must(t, err)
	a, err = n.Dial(context.Background(), "a", l.Addr().String())
	must(t, err)
	b, err = l.Accept()
	must(t, err)
	must(t, l.Close())
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	n, err := c.Write([]byte(s))
	if n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d bytes, %v", n, len(s), err)
	}
}

func mustRead(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if string(got[:n]) != want || err != nil {
		t.Fatalf("read %.60q, %v; want %.60q", got[:n], err, want)
	}
}

// mustBlock tells that f waits when nothing else happens, and returns what
// hands out f's error when it has come to an end. Only in a bubble.
func mustBlock(t testing.TB, what string, f func() error) (result func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait: %v", what, err)
	default:
	}
	return func() error { return <-done }
}

func readOne(c net.Conn) error  { _, err := c.Read(make([]byte, 1)); return err }
func writeOne(c net.Conn) error { _, err := c.Write([]byte{1}); return err }

func fill(t testing.TB, c net.Conn) {
	send(t, c, strings.Repeat("x", maxBuffer))
}

func TestBytesArriveInOrder(t *testing.T) {
	a, b := pair(t, New())
	send(t, a, "hello ")
	send(t, a, "world")
	mustRead(t, b, "hello world")
	send(t, b, "back")
	mustRead(t, a, "back")
	if b.RemoteAddr() != a.LocalAddr() || a.RemoteAddr() != b.LocalAddr() {
		t.Fatalf("addresses: %v→%v, %v→%v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	if host, _, err := net.SplitHostPort(a.LocalAddr().String()); host != "a" || err != nil {
		t.Fatalf("local address %v", a.LocalAddr())
	}
}

// TestAnyChunksArriveInOrder sends in any sizes through the ring, and reads so.
func TestAnyChunksArriveInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStream(false)
		var model []byte
		next := byte(0)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			size := rapid.SampledFrom([]int{0, 1, 300, 513, 30000, maxBuffer}).Draw(rt, "size")
			if rapid.Bool().Draw(rt, "write") {
				p := make([]byte, min(size, maxBuffer-len(model)))
				for i := range p {
					next++
					p[i] = next
				}
				if n, err := s.write(p); n != len(p) || err != nil {
					rt.Fatalf("wrote %d of %d, %v", n, len(p), err)
				}
				model = append(model, p...)
			} else if len(model) > 0 {
				p := make([]byte, size)
				n, err := s.read(p)
				if err != nil || n != min(size, len(model)) || !bytes.Equal(p[:n], model[:n]) {
					rt.Fatalf("read %d of %d, %v", n, size, err)
				}
				model = model[n:]
			}
		}
	})
}

func TestWriterWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		fill(t, a)
		wait := mustBlock(t, "a write to a full buffer", func() error { return writeOne(a) })
		must(t, readOne(b))
		must(t, wait())
	})
}

func TestWritesAreNotMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		const size, writers = 3 * maxBuffer, 4
		for w := range writers {
			go a.Write(bytes.Repeat([]byte{byte(w)}, size))
		}
		for range writers {
			got := make([]byte, size)
			_, err := io.ReadFull(b, got)
			must(t, err)
			if i := bytes.IndexFunc(got, func(r rune) bool { return byte(r) != got[0] }); i >= 0 {
				t.Fatalf("byte %d is of another write", i)
			}
		}
	})
}

func TestListen(t *testing.T) {
	n := New()
	l, err := n.Listen("h:9092")
	must(t, err)
	if got := l.Addr().String(); got != "h:9092" {
		t.Fatalf("address %s", got)
	}
	_, err = n.Listen("h:9092")
	mustFail(t, err, syscall.EADDRINUSE)
	other, err := n.Listen("i:9092")
	must(t, err)
	must(t, other.Close())
	must(t, l.Close())
	mustFail(t, l.Close(), net.ErrClosed)
	_, err = l.Accept()
	mustFail(t, err, net.ErrClosed)
	l, err = n.Listen("h:9092")
	must(t, err)
	must(t, l.Close())
	for _, bad := range []string{"h", "h:x", "h:70000", "h:-1"} {
		if _, err := n.Listen(bad); err == nil {
			t.Errorf("listens on %q", bad)
		}
		if _, err := n.Dial(context.Background(), "a", bad); err == nil {
			t.Errorf("dials %q", bad)
		}
	}
}

func TestDialIsRefusedWhereNobodyListens(t *testing.T) {
	n := New()
	_, err := n.Dial(context.Background(), "a", "b:1")
	mustFail(t, err, syscall.ECONNREFUSED)
	if !strings.Contains(err.Error(), "b:1") || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error %q", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = n.Dial(ctx, "a", "b:1")
	mustFail(t, err, context.Canceled)
}

func TestWildcardListenerAnswersForEveryHost(t *testing.T) {
	n := New()
	all, err := n.Listen(":9092")
	must(t, err)
	defer all.Close()
	one, err := n.Listen("h:9092")
	must(t, err)
	defer one.Close()
	for _, to := range []struct {
		addr string
		l    net.Listener
	}{{"i:9092", all}, {"h:9092", one}} {
		c, err := n.Dial(context.Background(), "a", to.addr)
		must(t, err)
		d, err := to.l.Accept()
		must(t, err)
		if d.LocalAddr().String() != to.addr {
			t.Fatalf("accepted as %v, want %s", d.LocalAddr(), to.addr)
		}
		c.Close()
		d.Close()
	}
}

func TestFullBacklogHasDialWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("b:1")
		must(t, err)
		for range backlog {
			c, err := n.Dial(context.Background(), "a", "b:1")
			must(t, err)
			defer c.Close()
		}
		wait := mustBlock(t, "dial", func() error {
			c, err := n.Dial(context.Background(), "a", "b:1")
			if err == nil {
				defer c.Close()
				err = readOne(c)
			}
			return err
		})
		refused := mustBlock(t, "dial", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := n.Dial(ctx, "a", "b:1")
			return err
		})
		mustFail(t, refused(), context.DeadlineExceeded)
		_, err = l.Accept()
		must(t, err)
		synctest.Wait()
		must(t, l.Close()) // and who was not accepted is reset
		mustFail(t, wait(), syscall.ECONNRESET)
	})
}

func TestCloseEndsInEOF(t *testing.T) {
	a, b := pair(t, New())
	send(t, a, "last words")
	must(t, a.Close())
	mustFail(t, a.Close(), net.ErrClosed)
	mustFail(t, readOne(a), net.ErrClosed)
	mustFail(t, writeOne(a), net.ErrClosed)
	mustFail(t, a.SetDeadline(time.Now()), net.ErrClosed)
	mustRead(t, b, "last words")
	if err := readOne(b); err != io.EOF {
		t.Fatalf("read %v, want a bare io.EOF", err)
	}
	mustFail(t, writeOne(b), syscall.ECONNRESET)
}

func TestCloseWithUnreadBytesResets(t *testing.T) {
	a, b := pair(t, New())
	send(t, b, "never read")
	send(t, a, "x")
	must(t, a.Close())
	mustRead(t, b, "x")
	mustFail(t, readOne(b), syscall.ECONNRESET)
	mustFail(t, writeOne(b), syscall.ECONNRESET)
}

func TestHalfClose(t *testing.T) {
	a, b := pair(t, New())
	send(t, a, "question")
	must(t, a.(interface{ CloseWrite() error }).CloseWrite())
	mustFail(t, writeOne(a), syscall.EPIPE)
	got, err := io.ReadAll(b)
	must(t, err)
	send(t, b, "answer to "+string(got))
	must(t, b.Close())
	got, err = io.ReadAll(a)
	must(t, err)
	if string(got) != "answer to question" {
		t.Fatalf("read %q", got)
	}
	must(t, a.Close())
	mustFail(t, a.(interface{ CloseWrite() error }).CloseWrite(), net.ErrClosed)
}

func TestCloseWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		fill(t, a)
		aReads := mustBlock(t, "read", func() error { return readOne(a) })
		aWrites := mustBlock(t, "write", func() error { return writeOne(a) })
		must(t, a.Close())
		mustFail(t, aReads(), net.ErrClosed)
		mustFail(t, aWrites(), net.ErrClosed)
		must(t, b.Close())

		a, b = pair(t, n)
		aReads = mustBlock(t, "read", func() error { return readOne(a) })
		must(t, b.Close())
		mustFail(t, aReads(), io.EOF)

		a, b = pair(t, n)
		fill(t, a)
		aWrites = mustBlock(t, "write", func() error { return writeOne(a) })
		must(t, b.Close())
		mustFail(t, aWrites(), syscall.ECONNRESET)

		l, err := n.Listen("b:1")
		must(t, err)
		accepts := mustBlock(t, "accept", func() error { _, err := l.Accept(); return err })
		must(t, l.Close())
		mustFail(t, accepts(), net.ErrClosed)
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		start := time.Now()
		must(t, a.SetReadDeadline(start.Add(5*time.Second)))
		err := readOne(a)
		mustFail(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Fatalf("%v is no timeout", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Fatalf("the deadline came after %v", d)
		}
		send(t, b, "x") // a read after the deadline fails, whatever there is to read
		mustFail(t, readOne(a), os.ErrDeadlineExceeded)
		must(t, a.SetReadDeadline(time.Time{}))
		must(t, readOne(a))

		fill(t, a)
		must(t, a.SetDeadline(time.Now().Add(time.Second)))
		n, err := a.Write([]byte("no room"))
		if n != 0 {
			t.Fatalf("wrote %d", n)
		}
		mustFail(t, err, os.ErrDeadlineExceeded)
		must(t, a.SetDeadline(time.Time{}))
	})
}

func TestDeadlineMovesUnderAWaitingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(t, New())
		start := time.Now()
		must(t, a.SetReadDeadline(start.Add(time.Second)))
		read := mustBlock(t, "read", func() error { return readOne(a) })
		must(t, a.SetReadDeadline(start.Add(time.Hour))) // later
		time.Sleep(time.Minute)
		must(t, a.SetReadDeadline(start.Add(2*time.Minute))) // sooner
		mustFail(t, read(), os.ErrDeadlineExceeded)
		if d := time.Since(start); d != 2*time.Minute {
			t.Fatalf("the deadline came after %v", d)
		}
		must(t, a.SetReadDeadline(time.Time{}))
		read = mustBlock(t, "read", func() error { return readOne(a) })
		must(t, a.SetReadDeadline(time.Unix(1, 0))) // the past: at once
		mustFail(t, read(), os.ErrDeadlineExceeded)
	})
}

func TestNetworkForgetsClosedConnections(t *testing.T) {
	n := New()
	for range 10 {
		a, b := pair(t, n)
		must(t, a.Close())
		if len(n.conns) != 1 {
			t.Fatal("a half closed connection is out of Cut's reach")
		}
		must(t, b.Close())
	}
	if got := n.String(); got != "0 listeners, 0 connections, 0 links cut" {
		t.Fatal(got)
	}
}

func TestTLS(t *testing.T) {
	n := New()
	l, err := n.Listen("127.0.0.1:443")
	must(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secret") }))
	s.Listener.Close()
	s.Listener = l
	s.StartTLS()
	defer s.Close()
	c := s.Client()
	tr := c.Transport.(*http.Transport).Clone()
	tr.DialContext = n.Dialer("client")
	tr.TLSClientConfig = &tls.Config{RootCAs: tr.TLSClientConfig.RootCAs}
	c.Transport = tr
	defer tr.CloseIdleConnections()
	body, err := get(c, "https://127.0.0.1/")
	if body != "secret" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
}

func TestReadAndWriteDoNotAllocate(t *testing.T) {
	a, b := pair(t, New())
	buf := make([]byte, 1000)
	send(t, a, string(buf))
	mustRead(t, b, string(buf))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// BenchmarkPingPong is one byte there and back between two goroutines; the
// upper bound is two switches of the scheduler.
func BenchmarkPingPong(b *testing.B) {
	x, y := pair(b, New())
	go io.Copy(y, y)
	one := []byte{1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := x.Read(one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream is 64 KB one way; the upper bound is two memory copies.
func BenchmarkStream(b *testing.B) {
	x, y := pair(b, New())
	go io.Copy(io.Discard, y)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
