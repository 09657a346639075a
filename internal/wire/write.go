package wire

import (
	"fmt"
	"io"
)

const (
	maxBatch  = 64       // answers popped at once
	maxVec    = 8        // buffers of one writev: unix.Writev allocates beyond
	sendChunk = 1 << 20  // bytes of one sendfile or writev
	copyChunk = 64 << 10 // bytes read at once where sendfile cannot be used
	smallFile = 64 << 10 // below, reading the file into memory beats sendfile
	gatherMax = 4 << 10  // answers up to this size are copied together
	gatherLen = 64 << 10 // into a buffer of this size
)

// writer gathers answers and writes them. It is taken from the server's pool for
// as long as someone holds a connection's writer role.
type writer struct {
	c *Conn

	iov   [maxVec][]byte // what is gathered, in order
	count int
	join  *buf // memory of small pieces that are written as one
	used  int  // of join
	open  bool // the last of iov is the end of join and may grow
	held  []*buf
	more  bool // file bytes follow

	off, left int64 // of the file being sent
	file      int   // its descriptor, only within controlFile
	err       error // outcome of the callbacks

	writeFn   func(uintptr) bool // methods of this writer, made once
	sendFn    func(uintptr) bool
	controlFn func(uintptr)
}

func newWriter() *writer {
	w := new(writer)
	w.writeFn, w.sendFn, w.controlFn = w.writeSocket, w.sendSocket, w.controlFile
	return w
}

// write holds the writer role, which the caller has taken (queue.writing): it
// writes answers in order until the next in turn is missing.
func (c *Conn) write() {
	w, _ := c.srv.writers.Get().(*writer)
	if w == nil {
		w = newWriter()
	}
	w.c = c
	c.mu.Lock()
	for {
		batch := c.queue.pop(maxBatch)
		if batch == nil {
			c.queue.writing = false
			c.wake.Signal() // for finish
			c.mu.Unlock()
			break
		}
		c.mu.Unlock()
		err := w.writeBatch(batch)
		count, bytes := 0, 0
		for r := batch; r != nil; r = r.next {
			count, bytes = count+1, bytes+r.size()
		}
		freeAll(batch)
		if err != nil {
			c.close(err)
		}
		c.mu.Lock()
		c.queue.count -= count
		c.queue.bytes -= bytes
		c.wake.Signal()
	}
	w.c = nil
	c.srv.writers.Put(w)
}

// writeBatch writes a list of answers. An error means that the connection is to
// be closed.
func (w *writer) writeBatch(list *Request) error {
	defer w.reset()
	for r := list; r != nil; r = r.next {
		if !r.silent {
			if err := w.answer(r); err != nil {
				return err
			}
		}
		if r.last {
			if err := w.flush(false); err != nil {
				return err
			}
			if r.cause == nil {
				return ErrClosed
			}
			return r.cause
		}
	}
	return w.flush(false)
}

// reset drops what is gathered.
func (w *writer) reset() {
	pool := &w.c.srv.pool
	pool.put(w.join)
	for i, b := range w.held {
		pool.put(b)
		w.held[i] = nil
	}
	clear(w.iov[:w.count])
	w.join, w.held, w.used, w.count, w.open = nil, w.held[:0], 0, 0, false
}

// answer gathers one answer; files that are not small are sent at once.
func (w *writer) answer(r *Request) error {
	body := r.out[1]
	if r.reply != nil && len(body) > 0 && &body[0] == &r.reply.b[headroom] {
		// The header stands right before the body: one piece.
		head := len(r.out[0])
		body = r.reply.b[headroom-head : headroom+len(body)]
		return w.pieces(r, body, head)
	}
	if err := w.add(r.out[0]); err != nil {
		return err
	}
	return w.pieces(r, body, 0)
}

// pieces gathers b, whose first skip bytes are header, with the files between.
func (w *writer) pieces(r *Request, b []byte, skip int) error {
	at := 0
	for i := range r.files {
		p := &r.files[i]
		if p.N == 0 {
			continue
		}
		end := min(max(p.At+skip, at), len(b))
		if err := w.add(b[at:end]); err != nil {
			return err
		}
		at = end
		if err := w.part(p); err != nil {
			return err
		}
	}
	return w.add(b[at:])
}

// add gathers a piece. Small ones are copied together, since a vector of many
// tiny buffers costs the kernel more.
func (w *writer) add(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) <= gatherMax && w.count > 0 {
		return w.copy(p)
	}
	if w.count == maxVec {
		if err := w.flush(true); err != nil {
			return err
		}
	}
	w.iov[w.count] = p
	w.count++
	w.open = false
	return nil
}

// copy appends a small piece to the last gathered one.
func (w *writer) copy(p []byte) error {
	if w.join != nil && w.used+len(p) > len(w.join.b) {
		if err := w.flush(true); err != nil {
			return err
		}
	}
	if w.join == nil {
		w.join, w.used = w.c.srv.pool.get(gatherLen), 0
	}
	if !w.open {
		last := w.count - 1
		if last >= 0 && len(w.iov[last]) <= gatherMax && w.used+len(w.iov[last])+len(p) <= len(w.join.b) {
			n := copy(w.join.b[w.used:], w.iov[last])
			w.iov[last] = w.join.b[w.used : w.used+n]
			w.used += n
		} else {
			if w.count == maxVec {
				if err := w.flush(true); err != nil {
					return err
				}
			}
			w.iov[w.count] = w.join.b[w.used:w.used]
			w.count++
		}
		w.open = true
	}
	w.used += copy(w.join.b[w.used:], p)
	last := &w.iov[w.count-1]
	*last = (*last)[:len(*last)+len(p)]
	return nil
}

// part gathers or sends a file's bytes.
func (w *writer) part(p *FilePart) error {
	if p.N >= smallFile && w.c.sock != nil && p.File != nil {
		if err := w.flush(true); err != nil {
			return err
		}
		return w.sendFile(p)
	}
	src := p.Src
	if src == nil {
		src = p.File
	}
	for off, left := p.Off, p.N; left > 0; {
		n := int(min(left, copyChunk))
		b := w.c.srv.pool.get(n)
		if got, err := src.ReadAt(b.b[:n], off); got < n {
			w.held = append(w.held, b)
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("wire: %d of %d promised bytes of a file: %w", got, n, err)
		}
		err := w.add(b.b[:n]) // which may flush, and free what is held
		w.held = append(w.held, b)
		if err != nil {
			return err
		}
		off, left = off+int64(n), left-int64(n)
		if left > 0 {
			if err := w.flush(true); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes what is gathered. more says that other bytes of the same answers
// follow at once.
func (w *writer) flush(more bool) error {
	if w.count == 0 {
		return nil
	}
	w.more, w.err = more, nil
	if w.c.sock != nil {
		if err := w.c.sock.Write(w.writeFn); err != nil {
			return err
		}
	} else {
		w.writeConn()
	}
	if w.err != nil {
		return w.err
	}
	pool := &w.c.srv.pool
	for i, b := range w.held {
		pool.put(b)
		w.held[i] = nil
	}
	w.held, w.used, w.open = w.held[:0], 0, false
	return nil
}

// writeConn writes what is gathered through net.Conn, in pieces small enough
// that a slow peer shows progress.
func (w *writer) writeConn() {
	if w.count > 1 {
		w.flatten()
	}
	for w.count > 0 {
		p := w.iov[0]
		n, err := w.c.nc.Write(p[:min(len(p), copyChunk)])
		if err != nil {
			w.err = err
			return
		}
		w.wrote(n)
	}
}

// flatten joins the first pieces when they fit into one buffer: one TLS record,
// one packet.
func (w *writer) flatten() {
	total := 0
	for _, p := range w.iov[:w.count] {
		total += len(p)
	}
	if total > copyChunk {
		return
	}
	b := w.c.srv.pool.get(total)
	w.held = append(w.held, b)
	n := 0
	for _, p := range w.iov[:w.count] {
		n += copy(b.b[n:], p)
	}
	clear(w.iov[:w.count])
	w.iov[0], w.count = b.b[:n], 1
}

// wrote steps over n gathered bytes that are written.
func (w *writer) wrote(n int) {
	w.sent(n)
	i := 0
	for i < w.count && n >= len(w.iov[i]) {
		n -= len(w.iov[i])
		i++
	}
	if i < w.count {
		w.iov[i] = w.iov[i][n:]
	}
	left := copy(w.iov[:], w.iov[i:w.count])
	clear(w.iov[left:w.count])
	w.count = left
}

// sent notes progress.
func (w *writer) sent(n int) {
	w.c.progress.Add(1)
	w.c.srv.stats.sent(n)
}
