package wire

// firstCharge is what a frame that is booked in steps is charged at first. Later
// charges are above it and so never small: who waits for one stands in the queue
// whose head is admitted beside the budget if need be.
const firstCharge = smallCharge

// claim is a frame whose length was read and whose bytes may not have come.
type claim struct {
	n      int   // payload in bytes, as claimed
	factor int64 // what a byte of it is charged
	grant  grant
	// paid is how many of the n bytes grant pays for: no buffer of the frame is
	// larger. It is n when the budget lent all of it on the peer's word.
	paid int
}

// admit books a claim of which have bytes are here: all of it if the budget lends
// that much, else as much as has come or a small beginning.
func (c *Conn) admit(f *claim, have int) error {
	var ok bool
	if f.grant, ok = c.srv.cfg.Budget.tryAcquire(int64(f.n) * f.factor); ok {
		f.paid = f.n
		return nil
	}
	return c.book(f, max(have, firstCharge/int(f.factor)))
}

// book gets a grant for paid bytes of the claim in place of the one it has, which
// is the caller's to release. It may wait.
func (c *Conn) book(f *claim, paid int) error {
	paid = min(paid, f.n)
	c.rd.pending = 0
	c.flush()
	c.rd.shrink(&c.srv.pool)
	g, ok := c.srv.cfg.Budget.acquire(c.done, int64(paid)*f.factor, int64(f.n)*f.factor)
	if !ok {
		return ErrClosed
	}
	if g.side {
		paid = f.n
	}
	f.grant, f.paid = g, paid
	return nil
}

// receive reads a claim's payload into a buffer: one that has its size if all is
// paid for, else one that is replaced by another of twice the size whenever it is
// full, which costs a copy of the frame and happens only when memory is short.
// The frame is the caller's to give back, with f.grant, on
// errors too.
func (c *Conn) receive(f *claim) (frame *buf, payload []byte, err error) {
	pool := &c.srv.pool
	frame, payload, have := c.rd.take(pool, f.paid)
	c.rd.last = f.n
	for {
		if have < len(payload) {
			if err = c.readBody(payload[have:]); err != nil {
				return frame, payload, err
			}
			have = len(payload)
		}
		if have == f.n {
			return frame, payload, nil
		}
		old := f.grant
		if err = c.book(f, 2*have); err != nil {
			return frame, payload, err
		}
		grown := pool.get(f.paid)
		copy(grown.b, payload)
		pool.put(frame)
		c.srv.cfg.Budget.release(old)
		frame, payload = grown, grown.b[:f.paid:f.paid]
	}
}
