package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// scratchSize is what one read may bring: many small requests at once.
	scratchSize = 32 << 10
	// guessMax bounds the size up to which the next frame is guessed to be like
	// the last, and read as a whole into the buffer that will be its own.
	guessMax = 128 << 10
	// peekSize is read beyond such a guess, and is all that is read in search of a
	// frame's beginning when the last one was larger: the rest of it goes straight
	// to its own buffer.
	peekSize = 64
	// waitSize is read where readiness cannot be awaited without a buffer.
	waitSize = peekSize
	// heavyRequest is the size from which on a request may take Serve so long that
	// answers given before are not kept back.
	heavyRequest = 8 << 10
	// maxUnflushed bounds the answers of synchronous requests that wait for the
	// end of a pipelined read.
	maxUnflushed = 32
	// decodeFactor is how many times its size a request may take when kmsg
	// decodes it: 64 was measured with hostile arrays.
	decodeFactor = 64
	// fetchFactor is the same for Fetch: a partition, 16 bytes or more in a frame,
	// decodes into fewer than 200.
	fetchFactor = 12
)

// reader is the state of a connection's reader goroutine.
type reader struct {
	// in is the scratch buffer; in.b[r:w] is read and not yet parsed. An idle
	// connection has none.
	in   *buf
	r, w int

	dst     []byte // where read by descriptor goes, nil: in
	n       int    // outcome of the last read by descriptor
	err     error
	readFn  func(fd uintptr) bool // c.readSocket, made once
	wait    []byte                // of waitSize, only without a descriptor
	last    int                   // payload of the last frame in bytes
	pending int                   // requests served since the last flush
	client  *string               // last client id, shared by the requests that have it
}

// buffered is how many bytes are read and not yet parsed.
func (rd *reader) buffered() int { return rd.w - rd.r }

// shrink gives the scratch buffer back before a wait; what it holds moves to a
// buffer of its size.
func (rd *reader) shrink(p *pool) {
	if rd.in == nil {
		return
	}
	n := rd.buffered()
	if n == 0 {
		p.put(rd.in)
		rd.in, rd.r, rd.w = nil, 0, 0
		return
	}
	if n <= len(rd.in.b)/2 && len(rd.in.b) > minBuf {
		rd.move(p, n)
	}
}

// room returns where the next read goes, which is never empty. tight says that
// what is read may have to wait: then it is no more than a frame's beginning.
func (rd *reader) room(p *pool, tight bool) []byte {
	size, limit := scratchSize, scratchSize
	switch {
	case tight || rd.last > guessMax:
		limit = rd.buffered() + peekSize
	case rd.last > scratchSize/2:
		limit = lengthSize + rd.last + peekSize
		size = max(size, limit)
	}
	switch {
	case rd.in == nil:
		rd.in, rd.r, rd.w = p.get(size), 0, 0
	case len(rd.in.b) < size:
		rd.move(p, size)
	case rd.r > 0:
		rd.w = copy(rd.in.b, rd.in.b[rd.r:rd.w])
		rd.r = 0
	}
	return rd.in.b[rd.w:max(limit, rd.w+peekSize)]
}

// move puts what is buffered into a buffer of at least n bytes.
func (rd *reader) move(p *pool, n int) {
	b := p.get(n)
	rd.w = copy(b.b, rd.in.b[rd.r:rd.w])
	rd.r = 0
	p.put(rd.in)
	rd.in = b
}

// take takes a frame whose length field is buffered: its memory, its payload of n
// bytes in it, and how many of them are there. A frame that fills at least half
// of the scratch buffer takes the buffer itself; others are copied, which for
// many small ones in one read is cheaper than sharing it until the last of them
// is answered.
func (rd *reader) take(p *pool, n int) (frame *buf, payload []byte, have int) {
	start := rd.r + lengthSize
	end := start + n
	rd.last = n
	if frame = rd.in; n < len(frame.b)/2 || end > len(frame.b) {
		frame = p.get(n)
		have = copy(frame.b[:n], rd.in.b[start:rd.w])
		rd.r = start + have
		return frame, frame.b[:n:n], have
	}
	have = min(rd.w, end) - start
	payload = frame.b[start:end:end]
	over := rd.in.b[start+have : rd.w]
	rd.in, rd.r, rd.w = nil, 0, 0
	if len(over) > 0 {
		rd.in = p.get(len(over))
		rd.w = copy(rd.in.b, over)
	}
	return frame, payload, have
}

// run is the connection's reader goroutine.
func (c *Conn) run() {
	err := c.open()
	if err == nil {
		err = c.readLoop()
		c.finish()
	}
	c.close(err)
	c.rd.shrink(&c.srv.pool)
	c.srv.forget(c)
}

// finish writes what is answered, or lets whoever writes it come to an end: a peer
// that has ended its side may still read.
func (c *Conn) finish() {
	c.flush()
	c.mu.Lock()
	for c.queue.writing && !c.closed {
		c.wake.Wait()
	}
	c.mu.Unlock()
}

// open prepares the connection: handshake, descriptor, the handler's hook.
func (c *Conn) open() error {
	if tc, ok := c.nc.(*tls.Conn); ok {
		c.phase.Store(phaseFrame)
		ctx, cancel := context.WithTimeout(context.Background(), c.srv.cfg.StallTimeout)
		err := tc.HandshakeContext(ctx)
		cancel()
		c.phase.Store(phaseBusy)
		if err != nil {
			return fmt.Errorf("wire: TLS handshake: %w", err)
		}
	} else {
		c.sock = rawSocket(c.nc)
	}
	if c.sock != nil {
		c.rd.readFn = c.readSocket
	}
	if f := c.srv.cfg.Opened; f != nil {
		return f(c)
	}
	return nil
}

// readLoop reads and starts requests until there will be no more.
func (c *Conn) readLoop() error {
	for {
		if err := c.gate(); err != nil {
			return err
		}
		r, err := c.next()
		if err != nil {
			return err
		}
		if c.rd.pending++; c.rd.pending > maxUnflushed || len(r.Body) >= heavyRequest {
			c.rd.pending = 0
			c.flush()
		}
		if err := c.start(r); err != nil {
			r.Release()
			r.free()
			return err
		}
		c.srv.stats.request(r.Key, len(r.Body))
		c.srv.cfg.Handler.Serve(r)
	}
}

// next reads one frame and makes a request of it.
func (c *Conn) next() (*Request, error) {
	f, err := c.begin()
	if err != nil {
		return nil, err
	}
	frame, payload, err := c.receive(&f)
	r, _ := c.srv.requests.Get().(*Request)
	if r == nil {
		r = new(Request)
	}
	r.conn, r.frame, r.grant = c, frame, f.grant
	if err == nil {
		err = r.parse(payload)
	}
	if err != nil {
		r.Release()
		r.free()
		return nil, err
	}
	return r, nil
}

// parse fills in the request from its frame.
func (r *Request) parse(payload []byte) error {
	c := r.conn
	if c.bare.Load() {
		r.Key, r.Version, r.Body = rawFrameKey, -1, payload
		return nil
	}
	h, body, err := parseHeader(payload)
	if err != nil {
		return err
	}
	r.Key, r.Version, r.CorrelationID, r.Body = h.key, h.version, h.correlation, body
	if h.clientID == nil {
		return nil
	}
	if c.rd.client == nil || *c.rd.client != string(h.clientID) {
		id := string(h.clientID)
		c.rd.client = &id
	}
	r.ClientID = c.rd.client
	return nil
}

// begin waits for the beginning of a frame, checks its size and books memory for
// it. The frame's length field is the next thing buffered.
func (c *Conn) begin() (f claim, err error) {
	rd := &c.rd
	for rd.buffered() < lengthSize {
		if err := c.fill(); err != nil {
			return f, err
		}
	}
	size := int32(binary.BigEndian.Uint32(rd.in.b[rd.r:]))
	if size < 0 || size > c.maxFrame.Load() {
		return f, fmt.Errorf("%w: length %d, allowed are 0 to %d", ErrMalformed, size, c.maxFrame.Load())
	}
	f.n, f.factor = int(size), 1
	if !c.bare.Load() {
		if size < minPayload {
			return f, fmt.Errorf("%w: length %d, a request has at least %d", ErrMalformed, size, minPayload)
		}
		for rd.buffered() < prefixSize {
			if err := c.fill(); err != nil {
				return f, err
			}
		}
		key := int16(binary.BigEndian.Uint16(rd.in.b[rd.r+lengthSize:]))
		version := int16(binary.BigEndian.Uint16(rd.in.b[rd.r+lengthSize+2:]))
		if bound := c.srv.cfg.MaxRequest; bound != nil {
			if most := bound(key, version); int64(size) > most {
				return f, fmt.Errorf("%w: request of api key %d version %d has %d bytes, allowed are %d", ErrMalformed, key, version, size, most)
			}
		}
		switch key {
		case keyProduce:
		case keyFetch:
			f.factor = fetchFactor
		default:
			f.factor = decodeFactor
		}
	}
	return f, c.admit(&f, rd.buffered()-lengthSize)
}

// fill reads more into the scratch buffer, at least one byte. Before that it
// writes what is answered.
func (c *Conn) fill() error {
	c.rd.pending = 0
	c.flush()
	phase := phaseFrame
	if c.rd.buffered() == 0 {
		phase = phaseIdle
	}
	c.phase.Store(phase)
	n, err := c.readScratch()
	c.phase.Store(phaseBusy)
	c.progress.Add(1)
	c.rd.w += n
	if n > 0 {
		return nil
	}
	return c.readError(err)
}

// room is where the next read into the scratch buffer goes. While frames wait for
// the budget, what is read ahead of admission is kept small.
func (c *Conn) room() []byte {
	return c.rd.room(&c.srv.pool, c.srv.cfg.Budget.Waiting() > 0)
}

// readScratch reads into the scratch buffer behind what is buffered.
func (c *Conn) readScratch() (int, error) {
	rd := &c.rd
	if c.sock != nil {
		rd.dst = nil
		if err := c.sock.Read(rd.readFn); err != nil {
			return 0, err
		}
		return rd.n, rd.err
	}
	if rd.buffered() > 0 {
		return c.nc.Read(c.room())
	}
	rd.shrink(&c.srv.pool)
	if rd.wait == nil {
		rd.wait = make([]byte, waitSize)
	}
	n, err := c.nc.Read(rd.wait)
	if n > 0 {
		copy(c.room(), rd.wait[:n])
	}
	return n, err
}

// readBody fills p with the rest of a frame, or of what is paid for. The peer must
// bring a good part of it, not just a byte, within each stall timeout, which is
// short while others wait for memory: this is booked.
func (c *Conn) readBody(p []byte) error {
	rd := &c.rd
	rd.pending = 0
	c.flush()
	if rd.buffered() == 0 {
		rd.shrink(&c.srv.pool)
	}
	c.progress.Add(1) // the wait for memory before this was not the peer's
	c.phase.Store(phaseBody)
	defer c.phase.Store(phaseBusy)
	step := max(len(p)/32, 4<<10)
	for got := 0; len(p) > 0; {
		var n int
		var err error
		if c.sock != nil {
			rd.dst = p
			if err = c.sock.Read(rd.readFn); err == nil {
				n, err = rd.n, rd.err
			}
			rd.dst = nil
		} else {
			n, err = c.nc.Read(p)
		}
		if n <= 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return c.readError(err)
		}
		p = p[n:]
		if got += n; got >= step || len(p) == 0 {
			got = 0
			c.progress.Add(1)
		}
	}
	return nil
}

// readError explains a read that brought nothing.
func (c *Conn) readError(err error) error {
	if err == nil {
		err = io.EOF
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// Shutdown woke the reader: it ends when all is answered.
	c.rd.shrink(&c.srv.pool)
	return c.gate()
}
