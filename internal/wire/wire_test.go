package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// handlerFunc makes a Handler of a function.
type handlerFunc func(*Request)

func (f handlerFunc) Serve(r *Request) { f(r) }

// echo answers with the request's body.
func echo(r *Request) {
	r.Reply(append(r.Buffer(len(r.Body)), r.Body...))
}

// start runs a server until stop is called. cfg.Listener may be nil: loopback
// TCP; cfg.Handler too: echo.
func start(t testing.TB, cfg Config) (s *Server, stop func()) {
	t.Helper()
	if cfg.Listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener = l
	}
	if cfg.Handler == nil {
		cfg.Handler = handlerFunc(echo)
	}
	s = NewServer(cfg)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(context.Background()); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, func() {
		s.Close()
		wg.Wait()
	}
}

// serve is start with the stop at the test's end.
func serve(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, stop := start(t, cfg)
	t.Cleanup(stop)
	return s
}

// connect opens a connection to s that gives up after a while.
func connect(t testing.TB, s *Server, secure bool) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if secure {
		c = tls.Client(c, clientTLS(t))
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// dial is connect without TLS, closed at the test's end.
func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c := connect(t, s, false)
	t.Cleanup(func() { c.Close() })
	return c
}

// frame builds a request frame.
func frame(key, version int16, correlation int32, body string) []byte {
	b := appendRequestHeader(nil, key, version, correlation, "test")
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthSize))
	return b
}

// answer reads one answer frame: correlation id and what follows it.
func answer(t testing.TB, r io.Reader) (correlation int32, rest string) {
	t.Helper()
	p, err := readAnswer(r)
	if err != nil {
		t.Fatalf("reading an answer: %v", err)
	}
	return int32(binary.BigEndian.Uint32(p)), string(p[4:])
}

func readAnswer(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	p := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(r, p)
	return p, err
}

func TestAnswersComeInOrderOfRequests(t *testing.T) {
	c := dial(t, serve(t, Config{}))
	var all []byte
	for i := range int32(100) {
		all = append(all, frame(0, int16(i%13), i, "body")...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	for i := range int32(100) {
		want := "body"
		if i%13 >= 9 {
			want = "\x00body" // response header v1
		}
		if id, got := answer(t, c); id != i || got != want {
			t.Fatalf("answer %d: correlation id %d, %q", i, id, got)
		}
	}
}
