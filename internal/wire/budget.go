package wire

import (
	"sync"
	"sync/atomic"
)

// Budget bounds the bytes of requests in work over all connections that share
// it (queued.max.request.bytes). The zero Budget and nil have no bound.
//
// A frame that does not fit waits; those that wait are served first come, first
// served. A charge above a quarter of the budget does not stand in that queue,
// where it would hold up every small request until the budget had drained: it
// is admitted when it fits, or else one at a time beside the budget, in a queue
// of its own. So a frame larger than the whole budget is served too, nothing
// waits for ever while requests are being answered, and the bytes held never
// exceed the budget plus the largest single charge.
type Budget struct {
	size int64
	used atomic.Int64 // bytes admitted within size

	// waiting counts those in both queues. Acquire raises it before it looks at
	// used for the last time, release lowers used before it looks at waiting: one
	// of the two sees the other.
	waiting atomic.Int32

	mu    sync.Mutex
	small waitList // charges ≤ size/4
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

// try books n within the budget if it fits now.
func (b *Budget) try(n int64) bool {
	for {
		used := b.used.Load()
		if n > b.size-used {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// tryAcquire books n bytes if nobody waits and they fit.
func (b *Budget) tryAcquire(n int64) (grant, bool) {
	if b.unbounded() {
		return grant{}, true
	}
	if b.waiting.Load() == 0 && b.try(n) {
		return grant{n: n}, true
	}
	return grant{}, false
}

// acquire books n bytes, waiting for them; it gives up when done is closed.
func (b *Budget) acquire(done <-chan struct{}, n int64) (grant, bool) {
	w := &waiter{n: n, ready: make(chan struct{})}
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
	if n > b.size/4 {
		return &b.large
	}
	return &b.small
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
	for b.small.head != nil && b.try(b.small.head.n) {
		b.small.head.granted = grant{n: b.small.head.n}
		b.grantLocked(&b.small)
	}
	for b.large.head != nil {
		n := b.large.head.n
		switch {
		case b.small.head == nil && b.try(n):
			b.large.head.granted = grant{n: n}
		case !b.side:
			b.side = true
			b.large.head.granted = grant{n: n, side: true}
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
