package wire

import (
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// take acquires n from b on a goroutine of its own and tells when it has it.
func take(b *Budget, n int64) (got *atomic.Pointer[grant], giveUp func()) {
	got = new(atomic.Pointer[grant])
	done := make(chan struct{})
	go func() {
		g, ok := b.tryAcquire(n)
		if !ok {
			g, ok = b.acquire(done, n, n)
		}
		if ok {
			got.Store(&g)
		}
	}()
	synctest.Wait()
	return got, func() { close(done); synctest.Wait() }
}

func TestBudgetAdmitsSmallChargesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		for range 4 {
			take(b, 25)
		}
		first, _ := take(b, 20)
		second, giveUp := take(b, 25)
		third, _ := take(b, 5)
		if b.Waiting() != 3 {
			t.Fatalf("%d wait", b.Waiting())
		}
		b.release(grant{n: 25})
		synctest.Wait()
		if first.Load() == nil || second.Load() != nil || third.Load() != nil {
			t.Fatal("a later charge overtook an earlier one, or none came in")
		}
		giveUp()
		if third.Load() == nil {
			t.Fatal("who gave up holds the queue")
		}
		if used, side := b.Used(); used != 100 || side || b.Waiting() != 0 {
			t.Fatalf("used %d, side %v, %d wait", used, side, b.Waiting())
		}
	})
}

func TestBudgetAdmitsOneLargeChargeAtATimeBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		for range 4 {
			take(b, 25)
		}
		large, _ := take(b, 1000)
		next, _ := take(b, 1000)
		if g := large.Load(); g == nil || !g.side || next.Load() != nil {
			t.Fatal("a charge above the budget is to be admitted, one at a time")
		}
		b.release(grant{n: 25})
		if small, _ := take(b, 25); small.Load() == nil {
			t.Fatal("a small charge waits behind a large one")
		}
		b.release(*large.Load())
		synctest.Wait()
		if next.Load() == nil {
			t.Fatal("the next large charge was not admitted")
		}
		fits, _ := take(b, 35)
		if fits.Load() != nil {
			t.Fatal("two large charges are admitted beside the budget")
		}
		b.release(grant{n: 25})
		b.release(grant{n: 25})
		synctest.Wait()
		if g := fits.Load(); g == nil || g.side {
			t.Fatal("a large charge that fits was not admitted within the budget")
		}
		for _, g := range []grant{*next.Load(), *fits.Load(), {n: 25}, {n: 25}} {
			b.release(g)
		}
		if used, side := b.Used(); used != 0 || side {
			t.Fatalf("used %d, side %v", used, side)
		}
	})
}

// Any mix of charges, some of which give up, ends with all of them served, the
// bound kept, and nothing booked.
func TestBudgetServesEverybodyWithinItsBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(1, 200).Draw(rt, "size")
		charges := rapid.SliceOfN(rapid.SliceOfN(rapid.Int64Range(0, 300), 1, 20), 1, 12).Draw(rt, "charges")
		seed := rapid.Uint64().Draw(rt, "seed")
		b := NewBudget(size)
		var within atomic.Int64
		var wg sync.WaitGroup
		for i, list := range charges {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				for _, n := range list {
					g, ok := b.tryAcquire(n)
					if !ok {
						done := make(chan struct{})
						if r.IntN(4) == 0 {
							close(done)
						}
						if g, ok = b.acquire(done, n, n); !ok {
							continue
						}
					}
					if !g.side {
						if now := within.Add(n); now > size {
							rt.Errorf("%d admitted within %d", now, size)
						}
						within.Add(-n)
					}
					b.release(g)
				}
			})
		}
		wg.Wait()
		if used, side := b.Used(); used != 0 || side || b.Waiting() != 0 || b.small.head != nil || b.large.head != nil {
			rt.Fatalf("at the end: used %d, side %v, %d wait", used, side, b.Waiting())
		}
	})
}

func TestRequestsWaitForTheBudget(t *testing.T) {
	l := new(log)
	budget := NewBudget(4096)
	bubble(t, Config{Handler: l, Budget: budget}, func(t *testing.T, s *Server, dial func() net.Conn) {
		produce := func(id int32) []byte { return frame(0, 0, id, strings.Repeat("x", 1000-14)) }
		c := dial()
		send(t, c, produce(1), produce(2), produce(3), produce(4), produce(5))
		l.want(t, 1, 2, 3, 4)
		other := dial()
		send(t, other, produce(6))
		l.want(t, 1, 2, 3, 4)
		l.take(4).Reply(nil) // out of turn: its answer waits, its memory does not
		l.want(t, 1, 2, 3, 4, 5)
		l.take(1).Release()
		l.want(t, 1, 2, 3, 4, 5, 6)
		gone := dial()
		send(t, gone, produce(7))
		l.want(t, 1, 2, 3, 4, 5, 6)
		gone.Close()
		synctest.Wait()
		// Other keys are charged many times their size.
		send(t, dial(), frame(3, 0, 8, strings.Repeat("x", 100)))
		l.want(t, 1, 2, 3, 4, 5, 6, 8)
		if used, side := budget.Used(); used != 4000 || !side {
			t.Fatalf("used %d, side %v", used, side)
		}
		l.take(8).NoReply()
		for _, id := range []int32{2, 3, 5, 6} {
			l.take(id).NoReply()
		}
		synctest.Wait()
		for _, r := range l.kept {
			r.NoReply()
		}
	})
}

// What a connection has read ahead is not in the budget: it must be small while
// others wait.
func TestWaitingConnectionsHoldLittle(t *testing.T) {
	var l log
	const size = 100_000
	budget := NewBudget(9 * size)
	s := serve(t, Config{Handler: &l, Budget: budget, MaxParked: 1000})
	f := frame(0, 0, 1, strings.Repeat("x", size-14))
	total := func() (held int) {
		for _, c := range s.list() {
			if c.rd.in != nil {
				held += len(c.rd.in.b)
			}
		}
		return held
	}
	blocker := dial(t, s)
	for i := range int32(10) { // the tenth waits
		f := frame(0, 0, i, strings.Repeat("x", size-14))
		if _, err := blocker.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the budget's end", func() bool { return budget.Waiting() == 1 })
	before := total()
	const conns = 20
	for range conns {
		c := dial(t, s)
		go c.Write(f)
	}
	waitFor(t, "all to wait", func() bool { return budget.Waiting() == 1+conns })
	if held := total() - before; held > conns*1024 {
		t.Fatalf("%d connections that wait hold %d bytes", conns, held)
	}
	s.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.kept {
		r.NoReply()
	}
}
