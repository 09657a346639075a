package wire

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ends notes when and why connections end.
type ends struct {
	begin time.Time
	ch    chan end // made in the bubble
}

type end struct {
	after time.Duration
	why   error
}

// in sets cfg to note the ends of its connections.
func (e *ends) in(cfg Config) Config {
	cfg.Closed = func(_ *Conn, err error) { e.ch <- end{time.Since(e.begin), err} }
	return cfg
}

// start begins to count the time.
func (e *ends) start() {
	e.begin = time.Now()
	if e.ch == nil {
		e.ch = make(chan end, 10)
	}
}

// want fails unless a connection ends for a reason between two moments.
func (e *ends) want(t *testing.T, why error, from, to time.Duration) {
	t.Helper()
	if got := <-e.ch; !errors.Is(got.why, why) || got.after < from || got.after > to {
		t.Fatalf("closed after %v because of %v; expected %v to %v, %v", got.after, got.why, from, to, why)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	l := new(log)
	var ended ends
	cfg := ended.in(Config{Handler: l, IdleTimeout: time.Minute})
	bubble(t, cfg, func(t *testing.T, s *Server, dial func() net.Conn) {
		ended.start()
		dial() // silent from the start
		busy := dial()
		waiting := dial()
		send(t, waiting, frame(1, 0, 1, "")) // a request in work is no idleness
		for range 6 {
			time.Sleep(30 * time.Second)
			send(t, busy, frame(0, 0, 2, ""))
			synctest.Wait()
			l.take(2).Reply(nil)
			wantAnswer(t, busy, 2)
		}
		ended.want(t, ErrIdle, time.Minute, 90*time.Second)
		ended.want(t, ErrIdle, 4*time.Minute, 4*time.Minute+30*time.Second)
		l.take(1).Reply(nil)
		wantAnswer(t, waiting, 1)
		ended.want(t, ErrIdle, 5*time.Minute, 6*time.Minute)
	})
}

func TestAFrameThatMakesNoProgressIsGivenUp(t *testing.T) {
	var ended ends
	budget := NewBudget(4 << 20)
	cfg := ended.in(Config{StallTimeout: time.Minute, Budget: budget})
	bubble(t, cfg, func(t *testing.T, s *Server, dial func() net.Conn) {
		ended.start()
		f := frame(0, 0, 1, strings.Repeat("x", 1<<20))
		silent := dial()
		send(t, silent, f[:1000])
		ended.want(t, ErrStalled, time.Minute, 90*time.Second)

		trickle := dial() // a byte every ten seconds is no progress either
		ended.start()
		send(t, trickle, f[:1000])
		for i := range 20 {
			time.Sleep(10 * time.Second)
			if _, err := trickle.Write(f[1000+i:][:1]); err != nil {
				break
			}
		}
		ended.want(t, ErrStalled, time.Minute, 90*time.Second)

		slow := dial() // but a twentieth of the frame every 50 seconds is
		for len(f) > 0 {
			n := min(len(f), 1<<20/20)
			send(t, slow, f[:n])
			f = f[n:]
			time.Sleep(50 * time.Second)
		}
		wantAnswer(t, slow, 1)
		if used, _ := budget.Used(); used != 0 {
			t.Fatalf("%d bytes of the budget are not given back", used)
		}
	})
}

func TestAPeerThatReadsNothingIsGivenUp(t *testing.T) {
	var ended ends
	cfg := ended.in(Config{
		WriteTimeout: time.Minute,
		Handler:      handlerFunc(func(r *Request) { r.Reply(make([]byte, 1<<20)) }),
	})
	bubble(t, cfg, func(t *testing.T, s *Server, dial func() net.Conn) {
		ended.start()
		send(t, dial(), frame(0, 0, 1, ""))
		ended.want(t, ErrStalled, time.Minute, 90*time.Second)

		slow := dial()
		ended.start()
		send(t, slow, frame(0, 0, 1, ""))
		total := 0
		for buf := make([]byte, 128<<10); total < 8+1<<20; {
			n, err := slow.Read(buf)
			if total += n; err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
			time.Sleep(20 * time.Second)
		}
	})
}

func TestShutdownFinishesWhatIsStarted(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: l}, func(t *testing.T, s *Server, dial func() net.Conn) {
		idle, busy, half := dial(), dial(), dial()
		send(t, busy, frame(0, 0, 1, ""), frame(0, 0, 2, ""))
		send(t, half, frame(0, 0, 3, "")[:7])
		l.want(t, 1, 2)
		done := make(chan error)
		go func() { done <- s.Shutdown(context.Background()) }()
		wantClosed(t, idle)
		wantClosed(t, half)
		send(t, busy, frame(0, 0, 4, ""))
		l.take(2).Reply(nil)
		l.want(t, 1, 2)
		l.take(1).Reply(nil)
		wantAnswer(t, busy, 1)
		wantAnswer(t, busy, 2)
		wantClosed(t, busy)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestShutdownClosesWhatIsLeftWhenItsTimeIsUp(t *testing.T) {
	l := new(log)
	bubble(t, Config{Handler: l}, func(t *testing.T, s *Server, dial func() net.Conn) {
		c := dial()
		send(t, c, frame(0, 0, 1, ""))
		l.want(t, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		wantClosed(t, c)
		l.take(1).Reply(nil)
	})
}
