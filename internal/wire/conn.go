package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxParkedBytes bounds the answers of one connection that wait for an earlier
// one: beyond it the connection starts no further request.
const maxParkedBytes = 1 << 20

// Reasons why wire closes a connection, besides ErrMalformed and I/O errors.
var (
	ErrClosed   = errors.New("wire: closed")
	ErrIdle     = errors.New("wire: connection idle for too long")
	ErrEvicted  = errors.New("wire: connection closed in favour of another broker's")
	ErrStalled  = errors.New("wire: peer makes no progress within a frame")
	errDraining = errors.New("wire: server is shutting down")
)

// Conn is one accepted connection. Its reader goroutine owns rd and calls the
// handler; whoever holds the writer role (queue.writing) owns the socket's
// other direction.
type Conn struct {
	// State is the handler's own: it is set in Config.Opened or in Serve, and
	// wire does not look at it.
	State any

	// Immutable.
	srv      *Server
	nc       net.Conn
	sock     syscall.RawConn // of nc where it can be read and written by descriptor, else nil
	id       uint64
	host     string        // peer's host, key of the limit per address
	done     chan struct{} // closed when the connection is
	writeRun func()        // c.write, made once so that `go` allocates nothing

	maxFrame atomic.Int32
	bare     atomic.Bool
	phase    atomic.Uint32 // what the reader does, for the scan
	progress atomic.Uint64 // grows with each step that counts as life

	rd reader

	mu    sync.Mutex
	wake  sync.Cond // on mu: the gate may be open, or the connection closed
	queue queue
	seen  watch
	// closed is final; cause is why.
	closed   bool
	cause    error
	draining bool      // start nothing more; close when nothing is outstanding
	software [2]string // name and version
}

// Values of Conn.phase.
const (
	phaseBusy  = uint32(iota) // not waiting for the peer
	phaseIdle                 // waiting for a frame to begin
	phaseFrame                // waiting for the rest of a handshake or a frame's beginning
	phaseBody                 // waiting for the rest of a frame, whose memory is booked
)

func newConn(s *Server, nc net.Conn, id uint64, host string) *Conn {
	c := &Conn{srv: s, nc: nc, id: id, host: host, done: make(chan struct{})}
	c.wake.L = &c.mu
	c.writeRun = c.write
	c.maxFrame.Store(s.cfg.MaxFrame)
	return c
}

// ID is unique among the connections of a Server.
func (c *Conn) ID() uint64 { return c.id }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// LocalAddr is the address the peer connected to.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Listener is Config.Name.
func (c *Conn) Listener() string { return c.srv.cfg.Name }

// Done is closed when the connection is: what waits on behalf of the peer may
// stop. Requests must be answered even then.
func (c *Conn) Done() <-chan struct{} { return c.done }

// TLS is the state of the handshake, or nil without TLS.
func (c *Conn) TLS() *tls.ConnectionState {
	tc, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	state := tc.ConnectionState()
	return &state
}

// SetMaxFrame bounds the payload of the frames to come, in bytes: small before
// authentication, larger after.
func (c *Conn) SetMaxFrame(n int32) { c.maxFrame.Store(n) }

// SetBare makes the frames to come bare (SaslHandshake v0, KAFKA.md 3.3): the
// whole payload is the Body of a request with Key -1, and its answer has no
// header but the length. It is called while a Barrier holds the reader.
func (c *Conn) SetBare(on bool) { c.bare.Store(on) }

// SetSoftware notes what the client says it is (ApiVersions v3+).
func (c *Conn) SetSoftware(name, version string) {
	c.mu.Lock()
	c.software = [2]string{name, version}
	c.mu.Unlock()
}

// Software is what SetSoftware noted.
func (c *Conn) Software() (name, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.software[0], c.software[1]
}

// Close closes the connection at once; err is for the log. Outstanding requests
// must still be answered.
func (c *Conn) Close(err error) { c.close(err) }

func (c *Conn) close(err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.cause = true, err
	dead := c.queue.detach()
	c.wake.Broadcast()
	c.mu.Unlock()
	close(c.done)
	if _, ok := c.nc.(*tls.Conn); ok {
		go c.nc.Close() // says farewell, which may take it five seconds
	} else {
		c.nc.Close()
	}
	freeAll(dead)
}

// queue holds a connection's requests from their start until their answers are
// written. All of it is guarded by Conn.mu.
type queue struct {
	head, tail *Request // in arrival order; popped when about to be written
	// serving is the last request given to the handler by a reader that has not
	// looked up since: its answer, if given meanwhile, is the reader's to write.
	serving *Request
	// writing: someone has the writer role. Only the holder pops and writes.
	writing bool
	count   int       // started and not yet written
	bytes   int       // of answers given and not yet written
	barrier *Request  // unanswered request that holds the reader
	muted   time.Time // the reader starts nothing before
}

func (q *queue) push(r *Request) {
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
	q.count++
}

// pop takes up to limit answered requests off the front, as a list.
func (q *queue) pop(limit int) (first *Request) {
	var last *Request
	for ; limit > 0 && q.head != nil && q.head.done; limit-- {
		last = q.head
		if first == nil {
			first = last
		}
		q.head = last.next
	}
	if last != nil {
		last.next = nil
	}
	if q.head == nil {
		q.tail = nil
	}
	return first
}

// ready: there is something to write and nobody to do it.
func (q *queue) ready() bool { return !q.writing && q.head != nil && q.head.done }

// detach empties the queue of a closed connection. It returns the answered
// requests; the others are freed one by one when they are answered.
func (q *queue) detach() (dead *Request) {
	for r := q.head; r != nil; {
		next := r.next
		r.next = nil
		if r.done {
			r.next, dead = dead, r
		}
		r = next
	}
	q.head, q.tail, q.serving = nil, nil, nil
	return dead
}

func freeAll(list *Request) {
	for list != nil {
		next := list.next
		list.free()
		list = next
	}
}

// start queues a request that is about to be given to the handler.
func (c *Conn) start(r *Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.cause
	}
	c.queue.push(r)
	c.queue.serving = r
	return nil
}

// complete takes an answered request. If its turn has come and nobody writes, a
// writer is started, unless the reader will write when Serve returns.
func (c *Conn) complete(r *Request) {
	if c == nil || r.done {
		panic("BUG: wire: request answered twice")
	}
	r.Release()
	var until time.Time
	if r.mute > 0 {
		until = time.Now().Add(r.mute)
	}
	c.mu.Lock()
	q := &c.queue
	r.done = true
	q.bytes += r.size()
	if until.After(q.muted) {
		q.muted = until
	}
	if q.barrier == r && !r.last {
		q.barrier = nil
		c.wake.Signal()
	}
	if c.closed {
		c.mu.Unlock()
		r.free()
		return
	}
	if q.head != r || q.writing || q.serving == r {
		c.mu.Unlock()
		return
	}
	q.writing = true
	c.mu.Unlock()
	go c.writeRun()
}

// flush writes what is answered, on the reader's own goroutine: it is called
// before the reader does anything that may block.
func (c *Conn) flush() {
	c.mu.Lock()
	c.queue.serving = nil
	if !c.queue.ready() {
		c.mu.Unlock()
		return
	}
	c.queue.writing = true
	c.mu.Unlock()
	c.write()
}

// gate waits until the next request may be started: no barrier, not muted, not
// too much outstanding. It returns why there will be no next one.
func (c *Conn) gate() error {
	c.mu.Lock()
	open, err := c.gateLocked()
	c.mu.Unlock()
	if open {
		return err
	}
	c.flush()
	c.rd.shrink(&c.srv.pool)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if open, err := c.gateLocked(); open {
			return err
		}
		c.wake.Wait()
	}
}

func (c *Conn) gateLocked() (open bool, err error) {
	q := &c.queue
	switch {
	case c.closed:
		return true, c.cause
	case c.draining:
		return q.count == 0, errDraining
	case q.barrier != nil, q.count >= c.srv.cfg.MaxParked, q.bytes >= maxParkedBytes:
		return false, nil
	case q.muted.IsZero():
		return true, nil
	}
	left := time.Until(q.muted)
	if left <= 0 {
		q.muted = time.Time{}
		return true, nil
	}
	time.AfterFunc(left, func() {
		c.mu.Lock()
		c.wake.Signal()
		c.mu.Unlock()
	})
	return false, nil
}

// drain lets the connection finish what it has started and then close.
func (c *Conn) drain() {
	c.mu.Lock()
	c.draining = true
	c.wake.Broadcast()
	c.mu.Unlock()
	c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}
