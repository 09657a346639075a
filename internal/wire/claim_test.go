package wire

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lie is the beginning of a frame that claims n bytes and brings have.
func lie(n, have int) []byte {
	b := frame(0, 0, 1, strings.Repeat("x", have-14))
	binary.BigEndian.PutUint32(b, uint32(n))
	return b
}

// Frames of which only a beginning comes keep nobody waiting: in the bubble, not
// for a moment.
func TestClaimsAloneHoldNobodyUp(t *testing.T) {
	budget := NewBudget(64 << 20)
	bubble(t, Config{Budget: budget}, func(t *testing.T, s *Server, dial func() net.Conn) {
		for i := range 100 {
			send(t, dial(), lie((1+i)<<20, 100+1000*i))
		}
		synctest.Wait()
		if used, _ := budget.Used(); used > 45<<20 {
			t.Errorf("claims hold %d MiB", used>>20)
		}
		began := time.Now()
		for _, size := range []int{10, 60_000, 1 << 20, 15 << 20, 10, 65 << 20} {
			c := dial()
			send(t, c, frame(0, 0, 2, strings.Repeat("y", size)))
			if id, body := answer(t, c); id != 2 || len(body) != size || strings.Trim(body, "y") != "" {
				t.Fatalf("%d bytes: answer %d of %d bytes", size, id, len(body))
			}
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("honest frames waited for %v", d)
		}
	})
}

// Frames that come but for their last bytes do hold memory. Small requests pass
// them by; large ones wait until those before them that stand still are closed,
// which is much sooner than if nobody waited.
func TestFramesThatStandStillAreClosedWhenOthersWait(t *testing.T) {
	var ended ends
	budget := NewBudget(1 << 20)
	cfg := ended.in(Config{Budget: budget, StallTimeout: time.Minute})
	bubble(t, cfg, func(t *testing.T, s *Server, dial func() net.Conn) {
		ended.start()
		const liars = 9
		var conns []net.Conn
		for range liars { // the last have the place beside the budget, or wait
			c := dial()
			conns = append(conns, c)
			go c.Write(frame(0, 0, 1, strings.Repeat("x", 200_000))[:200_000])
		}
		synctest.Wait()
		small := dial()
		send(t, small, frame(0, 0, 2, strings.Repeat("y", 50_000)))
		wantAnswer(t, small, 2)
		if d := time.Since(ended.begin); d > 0 {
			t.Errorf("a small request waited for %v", d)
		}
		large := dial()
		send(t, large, frame(0, 0, 3, strings.Repeat("y", 400_000)))
		wantAnswer(t, large, 3)
		if d := time.Since(ended.begin); d > 30*time.Second {
			t.Errorf("a large request waited for %v", d)
		}
		for range liars {
			if got := <-ended.ch; !errors.Is(got.why, ErrStalled) {
				t.Fatalf("closed because of %v", got.why)
			}
		}
		if used, side := budget.Used(); used != 0 || side {
			t.Fatalf("%d bytes of the budget are not given back", used)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

// Frames read in steps arrive whole, whatever pieces they come in.
func TestFramesReadInStepsArriveWhole(t *testing.T) {
	budget := NewBudget(2 << 20)
	s := serve(t, Config{Budget: budget})
	blocker := dial(t, s)
	if _, err := blocker.Write(lie(1<<20, 100)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first half to be lent", func() bool { used, _ := budget.Used(); return used == 1<<20 })
	var body strings.Builder
	for i := 0; body.Len() < 900_000; i++ {
		body.WriteString(string(rune('a' + i%26)))
		body.WriteString(strings.Repeat("-", i%97))
	}
	c := dial(t, s)
	for _, size := range []int{70_000, 131_100, 300_000, 900_000} {
		for _, piece := range []int{1 << 20, 65_536, 10_007} {
			want := body.String()[:size]
			go func() {
				for f := frame(0, 0, 1, want); len(f) > 0; {
					n := min(piece, len(f))
					c.Write(f[:n])
					f = f[n:]
				}
			}()
			if _, got := answer(t, c); got != want {
				t.Fatalf("%d bytes in pieces of %d came back as %d others", size, piece, len(got))
			}
		}
	}
}
