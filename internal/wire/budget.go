package wire

import (
	"sync"
	"sync/atomic"
)

// smallCharge is up to what a charge is small; it is also small only up to a
// quarter of the budget.
const smallCharge = 64 << 10

// Budget bounds the bytes of requests in work over all connections that share
// it (queued.max.request.bytes). The zero Budget and nil have no bound.
//
// A length that a peer claims costs it nothing. So a large charge is lent at once
// only from the first half of the budget; beyond that a frame is charged in steps:
// a small charge first, and never more than twice what has arrived (Conn.receive).
// So peers that lie hold little. An eighth is for small charges alone.
//
// What does not fit waits, small charges first come, first served, and large ones
// in a queue of their own, where they hold up no small one. The head of that
// queue is admitted when it fits, or else, one frame at a time, beside the budget
// with all it will ever need. So a frame larger than the whole budget is served
// too, frames that hold a part and wait for more do not hold up each other for
// ever, and the bytes held never exceed the budget plus the largest single frame.
type Budget struct {
	size int64
	used atomic.Int64 // bytes admitted within size

	// waiting counts those in both queues. Acquire raises it before it looks at
	// used for the last time, release lowers used before it looks at waiting: one
	// of the two sees the other.
	waiting atomic.Int32

	mu    sync.Mutex
	small waitList // charges for which isSmall holds
	large waitList
	side  bool // a large charge is admitted beside the budget
}

// grant says where a charge was booked.
type grant struct {
	n    int64
	side bool
}

// waiter is a frame that waits for admission.
type waiter struct {
	next    *waiter
	n       int64
	whole   int64 // what is charged beside the budget: n and all steps to come
	granted grant
	ready   chan struct{} // closed under mu when granted
}

// waitList is a queue of waiters.
type waitList struct{ head, tail *waiter }

func (l *waitList) push(w *waiter) {
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
}

func (l *waitList) pop() {
	if l.head = l.head.next; l.head == nil {
		l.tail = nil
	}
}

func (l *waitList) remove(w *waiter) {
	var prev *waiter
	for at := l.head; at != nil; prev, at = at, at.next {
		if at != w {
			continue
		}
		if prev == nil {
			l.head = at.next
		} else {
			prev.next = at.next
		}
		if l.tail == at {
			l.tail = prev
		}
		return
	}
}

// NewBudget returns a budget of size bytes; ≤ 0 means no bound.
func NewBudget(size int64) *Budget {
	return &Budget{size: max(size, 0)}
}

// Used is the number of bytes admitted now, and whether a large request is
// admitted beside the budget.
func (b *Budget) Used() (bytes int64, side bool) {
	if b == nil {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used.Load(), b.side
}

// Waiting is the number of frames that wait for admission.
func (b *Budget) Waiting() int {
	if b == nil {
		return 0
	}
	return int(b.waiting.Load())
}

func (b *Budget) unbounded() bool { return b == nil || b.size == 0 }

func (b *Budget) isSmall(n int64) bool { return n <= min(smallCharge, b.size/4) }

// try books n if used stays within limit.
func (b *Budget) try(n, limit int64) bool {
	for {
		used := b.used.Load()
		if n > limit-used {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// limit is how far a charge of n may fill the budget.
func (b *Budget) limit(n int64) int64 {
	if b.isSmall(n) {
		return b.size
	}
	return b.size - b.size/8
}

// tryAcquire books n bytes, of which none need be there, if nobody waits and they
// fit, large charges into the first half.
func (b *Budget) tryAcquire(n int64) (grant, bool) {
	if b.unbounded() {
		return grant{}, true
	}
	limit := b.size
	if !b.isSmall(n) {
		limit /= 2
	}
	if b.waiting.Load() == 0 && b.try(n, limit) {
		return grant{n: n}, true
	}
	return grant{}, false
}

// acquire books n bytes, waiting for them, or whole bytes beside the budget; it
// gives up when done is closed. A caller that holds a grant already asks for a
// large charge.
func (b *Budget) acquire(done <-chan struct{}, n, whole int64) (grant, bool) {
	if b.waiting.Load() == 0 && b.try(n, b.limit(n)) {
		return grant{n: n}, true
	}
	w := &waiter{n: n, whole: whole, ready: make(chan struct{})}
	b.mu.Lock()
	b.waiting.Add(1)
	b.list(n).push(w)
	b.admitLocked()
	b.mu.Unlock()
	select {
	case <-w.ready:
		return w.granted, true
	case <-done:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready: // granted meanwhile: give it back
		b.releaseLocked(w.granted)
	default:
		b.list(n).remove(w)
		b.waiting.Add(-1)
	}
	b.admitLocked()
	return grant{}, false
}

func (b *Budget) list(n int64) *waitList {
	if b.isSmall(n) {
		return &b.small
	}
	return &b.large
}

// release gives a charge back and admits those it was missing to.
func (b *Budget) release(g grant) {
	if b.unbounded() || g.n == 0 {
		return
	}
	if !g.side {
		b.used.Add(-g.n)
		if b.waiting.Load() == 0 {
			return
		}
		g.n = 0
	}
	b.mu.Lock()
	b.releaseLocked(g)
	b.admitLocked()
	b.mu.Unlock()
}

func (b *Budget) releaseLocked(g grant) {
	if g.side {
		b.side = false
		return
	}
	b.used.Add(-g.n)
}

// admitLocked lets in all that may come in now, in their order.
func (b *Budget) admitLocked() {
	for b.small.head != nil && b.try(b.small.head.n, b.size) {
		b.small.head.granted = grant{n: b.small.head.n}
		b.grantLocked(&b.small)
	}
	for b.large.head != nil {
		n := b.large.head.n
		switch {
		case b.small.head == nil && b.try(n, b.limit(n)):
			b.large.head.granted = grant{n: n}
		case !b.side:
			b.side = true
			b.large.head.granted = grant{n: b.large.head.whole, side: true}
		default:
			return
		}
		b.grantLocked(&b.large)
	}
}

func (b *Budget) grantLocked(l *waitList) {
	close(l.head.ready)
	l.pop()
	b.waiting.Add(-1)
}
