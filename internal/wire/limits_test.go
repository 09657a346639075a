package wire

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ottla.dev/ottla/internal/memnet"
)

func TestConnectionsBeyondTheTotalWait(t *testing.T) {
	var opened atomic.Int32
	count := func(*Conn) error { opened.Add(1); return nil }
	bubble(t, Config{MaxConns: 2, Opened: count}, func(t *testing.T, s *Server, dial func() net.Conn) {
		first := dial()
		dial()
		third := dial()
		send(t, third, frame(0, 0, 3, ""))
		synctest.Wait()
		if n := opened.Load(); n != 2 {
			t.Fatalf("%d connections opened", n)
		}
		first.Close()
		wantAnswer(t, third, 3)
		dial() // waits while the server stops
		synctest.Wait()
	})
}

func TestConnectionsBeyondTheAddressesShareAreRefused(t *testing.T) {
	s := serve(t, Config{MaxConnsPerIP: 5, PerIPOverrides: map[string]int{"127.0.0.1": 2}})
	ping := func(c net.Conn) {
		if _, err := c.Write(frame(0, 0, 1, "")); err != nil {
			t.Fatal(err)
		}
		if id, _ := answer(t, c); id != 1 {
			t.Fatalf("got %d", id)
		}
	}
	first, second := dial(t, s), dial(t, s)
	ping(first)
	ping(second)
	wantClosed(t, dial(t, s))
	first.Close()
	waitFor(t, "the connection's end", func() bool { return len(s.list()) == 1 })
	ping(dial(t, s))
	ping(second)
}

func TestAcceptingKeepsItsPace(t *testing.T) {
	times := make([]time.Duration, 0, 10)
	var mu sync.Mutex
	var begin time.Time
	cfg := Config{Limits: []*Limits{NewLimits(LimitsConfig{MaxConnRate: 2})}, Opened: func(*Conn) error {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Since(begin))
		return nil
	}}
	bubble(t, cfg, func(t *testing.T, s *Server, dial func() net.Conn) {
		begin = time.Now()
		for range 6 {
			dial()
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for i, want := range []time.Duration{0, 0, 500, 1000, 1500, 2000} {
			if got := times[i]; got != want*time.Millisecond {
				t.Errorf("connection %d came after %v, expected %v", i, got, want*time.Millisecond)
			}
		}
	})
}

func TestTheBrokersListenerTakesAnotherOnesPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		limits := NewLimits(LimitsConfig{MaxConns: 2})
		var why error
		open := func(addr string, protected bool) (dial func() net.Conn, stop func()) {
			l, err := network.Listen(addr)
			if err != nil {
				t.Fatal(err)
			}
			_, stop = start(t, Config{Listener: l, Limits: []*Limits{limits}, Protected: protected, Closed: func(_ *Conn, err error) {
				if errors.Is(err, ErrEvicted) {
					why = err
				}
			}})
			return func() net.Conn {
				c, err := network.Dial(context.Background(), "client", addr)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}, stop
		}
		clients, stop := open("server:9092", false)
		defer stop()
		brokers, stop := open("server:9093", true)
		defer stop()
		idle, busy := clients(), clients()
		time.Sleep(time.Minute)
		send(t, busy, frame(0, 0, 1, ""))
		wantAnswer(t, busy, 1)
		broker := brokers()
		send(t, broker, frame(0, 0, 2, ""))
		wantAnswer(t, broker, 2)
		wantClosed(t, idle)
		send(t, busy, frame(0, 0, 3, ""))
		wantAnswer(t, busy, 3)
		synctest.Wait()
		if why == nil {
			t.Fatal("nobody was evicted")
		}
	})
}

func TestRaisedLimitsLetWaitingConnectionsIn(t *testing.T) {
	limits := NewLimits(LimitsConfig{MaxConns: 1})
	bubble(t, Config{Limits: []*Limits{limits}, Opened: func(*Conn) error { return nil }}, func(t *testing.T, s *Server, dial func() net.Conn) {
		dial()
		c := dial()
		send(t, c, frame(0, 0, 1, ""))
		synctest.Wait()
		if n := len(s.list()); n != 1 {
			t.Fatalf("%d connections", n)
		}
		limits.Set(LimitsConfig{MaxConns: 2})
		wantAnswer(t, c, 1)
	})
}

func TestAFailedListenerEndsServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Listener: l, Handler: handlerFunc(echo)})
	l.Close()
	if err := s.Serve(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
}
