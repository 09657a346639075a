package wire

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ottla.dev/ottla/internal/memnet"
)

// bubble runs f in a synctest bubble with a server in memory and a way to
// connect to it.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, s *Server, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		l, err := network.Listen("server:9092")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener = l
		s, stop := start(t, cfg)
		defer stop()
		f(t, s, func() net.Conn {
			c, err := network.Dial(context.Background(), "client", "server:9092")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		})
	})
}

// log is a handler that notes what was started, and keeps it.
type log struct {
	mu      sync.Mutex
	started []int32
	kept    map[int32]*Request
}

func (l *log) Serve(r *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = append(l.started, r.CorrelationID)
	if l.kept == nil {
		l.kept = make(map[int32]*Request)
	}
	l.kept[r.CorrelationID] = r
}

func (l *log) take(id int32) *Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.kept[id]
	delete(l.kept, id)
	return r
}

func (l *log) want(t *testing.T, ids ...int32) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.started, ids) {
		t.Fatalf("started %v, expected %v", l.started, ids)
	}
}

func send(t *testing.T, c net.Conn, frames ...[]byte) {
	t.Helper()
	if _, err := c.Write(slices.Concat(frames...)); err != nil {
		t.Fatal(err)
	}
}

func wantAnswer(t *testing.T, c net.Conn, id int32) {
	t.Helper()
	if got, _ := answer(t, c); got != id {
		t.Fatalf("answer to %d, expected %d", got, id)
	}
}

func TestReaderStopsAtMaxParked(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: l, MaxParked: 2}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 2, ""), frame(0, 0, 3, ""), frame(0, 0, 4, ""))
		l.want(t, 1, 2)
		l.take(2).Reply(nil) // its answer waits for that of 1
		l.want(t, 1, 2)
		l.take(1).Reply(nil)
		l.want(t, 1, 2, 3, 4)
		wantAnswer(t, c, 1)
		wantAnswer(t, c, 2)
		l.take(3).NoReply()
		l.take(4).Reply(nil)
		wantAnswer(t, c, 4)
	})
}

func TestReaderStopsWhenParkedAnswersAreLarge(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: l}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 2, ""))
		l.want(t, 1, 2)
		l.take(2).Reply(make([]byte, maxParkedBytes))
		send(t, c, frame(0, 0, 3, ""))
		synctest.Wait()
		// The reader had passed the gate before the answer came: it is after the
		// next request that it stops.
		send(t, c, frame(0, 0, 4, ""))
		l.want(t, 1, 2, 3)
		l.take(1).Reply(nil)
		wantAnswer(t, c, 1)
		wantAnswer(t, c, 2)
		l.want(t, 1, 2, 3, 4)
		l.take(3).NoReply()
		l.take(4).NoReply()
	})
}

func TestBarrierHoldsTheNextRequest(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: handlerFunc(func(r *Request) {
		if r.CorrelationID == 2 {
			r.Barrier()
		}
		l.Serve(r)
	})}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 2, ""), frame(0, 0, 3, ""))
		l.want(t, 1, 2)
		l.take(1).Reply(nil)
		l.want(t, 1, 2)
		l.take(2).Reply(nil)
		l.want(t, 1, 2, 3)
		l.take(3).NoReply()
	})
}

func TestMuteAnswersAtOnceAndDelaysTheNextRequest(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: handlerFunc(func(r *Request) {
		l.Serve(r)
		r.Mute(time.Duration(r.CorrelationID) * time.Second)
		l.take(r.CorrelationID).Reply(nil)
	})}, func(t *testing.T, s *Server, dial func() net.Conn) {
		begin := time.Now()
		c := dial()
		send(t, c, frame(0, 0, 3, ""), frame(0, 0, 0, ""))
		wantAnswer(t, c, 3)
		if d := time.Since(begin); d != 0 {
			t.Fatalf("the answer came after %v", d)
		}
		l.want(t, 3)
		wantAnswer(t, c, 0)
		if d := time.Since(begin); d != 3*time.Second {
			t.Fatalf("the next request was started after %v", d)
		}
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 5, ""))
		c.Close() // muted connections end as well
	})
}

func TestCloseComesAfterEarlierAnswersAndBeforeLaterRequests(t *testing.T) {
	l := new(log)
	var why error
	nonsense := errors.New("nonsense")
	bubble(t, Config{
		Handler: handlerFunc(func(r *Request) {
			if r.CorrelationID == 2 {
				r.Close(nonsense)
				return
			}
			l.Serve(r)
		}),
		Closed: func(_ *Conn, err error) { why = err },
	}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 2, ""), frame(0, 0, 3, ""))
		l.want(t, 1)
		l.take(1).Reply(nil)
		wantAnswer(t, c, 1)
		wantClosed(t, c)
		l.want(t, 1)
		if why != nonsense {
			t.Fatalf("closed because of %v", why)
		}
	})
}

func TestCloseAfterSendsTheLastAnswer(t *testing.T) {
	bubble(t, Config{Handler: handlerFunc(func(r *Request) {
		r.CloseAfter(errors.New("wrong password"))
		go func() {
			time.Sleep(100 * time.Millisecond)
			echo(r)
		}()
	})}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""), frame(0, 0, 2, ""))
		wantAnswer(t, c, 1)
		wantClosed(t, c)
	})
}

func TestBareFrames(t *testing.T) {
	bubble(t, Config{Handler: handlerFunc(func(r *Request) {
		r.Barrier()
		r.Conn().SetBare(r.Key == 17)
		echo(r)
	})}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(17, 0, 1, "PLAIN"), []byte("\x00\x00\x00\x05token"), frame(0, 0, 2, ""))
		wantAnswer(t, c, 1)
		if p, err := readAnswer(c); err != nil || string(p) != "token" {
			t.Fatalf("got %q, %v", p, err)
		}
		wantAnswer(t, c, 2)
	})
}

func TestClosedConnectionsTellTheirHandlers(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: l}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(1, 0, 1, ""), frame(1, 0, 2, ""), frame(1, 0, 3, ""))
		l.want(t, 1, 2, 3)
		released := 0
		l.take(2).Reply(nil, FilePart{N: 10, Src: strings.NewReader("0123456789"), Release: func() { released++ }})
		r := l.take(1)
		c.Close()
		<-r.Conn().Done()
		synctest.Wait()
		if released != 1 {
			t.Fatalf("an answer nobody will read was released %d times", released)
		}
		if r.Conn().Software(); string(r.Body) != "" {
			t.Fatal("the request is no longer the handler's")
		}
		r.Reply(nil)
		l.take(3).Reply(nil, FilePart{N: 1, Src: strings.NewReader("0"), Release: func() { released++ }})
		if released != 2 {
			t.Fatalf("an answer to a closed connection was not released")
		}
	})
}

func TestAFileShorterThanPromisedClosesTheConnection(t *testing.T) {
	_, file := noiseFile(t)
	for _, n := range []int64{100, smallFile, 1 << 20} {
		s := serve(t, Config{Handler: handlerFunc(func(r *Request) {
			r.Reply(nil, FilePart{File: file, Off: 512<<10 - 50, N: n})
		})})
		c := dial(t, s)
		if _, err := c.Write(frame(1, 0, 1, "")); err != nil {
			t.Fatal(err)
		}
		wantClosed(t, c)
	}
}
