package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxBuffer is how many bytes a stream holds before its writer waits.
const maxBuffer = 64 << 10

// stream is one direction of a connection.
//
//	writer ─▶ [ arrived | in flight ] ─▶ reader      at most maxBuffer
//
// While the link is whole, all that is sent has arrived.
type stream struct {
	mu   sync.Mutex
	wake *sync.Cond // on mu; every change wakes reader and writers

	ring    []byte // grows with use to maxBuffer
	head    int    // of the first byte in ring
	size    int    // bytes in ring
	arrived int    // of those, which the reader may have; ≤ size
	writing bool   // a Write is under way, between whose parts no other may come

	cut  bool
	sent marks // what either end has done
	seen marks // of that, what the other end knows; differs only while cut

	readerGone bool // the reader has closed its end, here and now
	writerGone bool // and so the writer
	readBy     deadline
	writeBy    deadline
}

// marks are a stream's events besides bytes.
type marks struct {
	fin   bool // writer → reader: no more bytes
	reset bool // writer → reader: no more bytes, and an error
	gone  bool // reader → writer: nobody reads
}

// deadline is a moment from which on reading, or writing, fails.
type deadline struct {
	at    time.Time // zero: never
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && time.Until(d.at) <= 0 }

func newStream(cut bool) *stream {
	s := &stream{cut: cut}
	s.wake = sync.NewCond(&s.mu)
	return s
}

// deliverLocked lets everything arrive unless the link is cut, and wakes.
func (s *stream) deliverLocked() {
	if !s.cut {
		s.arrived, s.seen = s.size, s.sent
	}
	s.wake.Broadcast()
}

func (s *stream) setCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
	s.deliverLocked()
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerGone:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case s.arrived > 0:
			return s.takeLocked(p), nil
		case s.seen.reset:
			return 0, os.NewSyscallError("read", syscall.ECONNRESET)
		case s.seen.fin:
			return 0, io.EOF
		}
		s.wake.Wait()
	}
}

// takeLocked moves arrived bytes to p.
func (s *stream) takeLocked(p []byte) int {
	p = p[:min(len(p), s.arrived)]
	n := copy(p, s.ring[s.head:])
	copy(p[n:], s.ring)
	if s.head += len(p); s.head >= len(s.ring) {
		s.head -= len(s.ring)
	}
	s.size -= len(p)
	s.arrived -= len(p)
	if s.size == 0 {
		s.head = 0
	}
	s.wake.Broadcast()
	return len(p)
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitLocked(func() bool { return !s.writing }); err != nil {
		return 0, err
	}
	s.writing = true
	defer func() {
		s.writing = false
		s.wake.Broadcast()
	}()
	n := 0
	for n < len(p) {
		if err := s.waitLocked(func() bool { return s.size < maxBuffer }); err != nil {
			return n, err
		}
		n += s.putLocked(p[n:])
		s.deliverLocked()
	}
	return n, nil
}

// waitLocked waits until ready, or until writing can no longer succeed.
func (s *stream) waitLocked(ready func() bool) error {
	for {
		switch {
		case s.writerGone:
			return net.ErrClosed
		case s.writeBy.passed():
			return os.ErrDeadlineExceeded
		case s.sent.fin:
			return os.NewSyscallError("write", syscall.EPIPE)
		case s.seen.gone:
			return os.NewSyscallError("write", syscall.ECONNRESET)
		case ready():
			return nil
		}
		s.wake.Wait()
	}
}

// putLocked moves bytes from p into the ring, as many as it can hold.
func (s *stream) putLocked(p []byte) int {
	p = p[:min(len(p), maxBuffer-s.size)]
	if need := s.size + len(p); need > len(s.ring) {
		ring := make([]byte, min(maxBuffer, max(512, 2*len(s.ring), need)))
		n := copy(ring[:s.size], s.ring[s.head:])
		copy(ring[n:s.size], s.ring)
		s.ring, s.head = ring, 0
	}
	tail := s.head + s.size
	if tail >= len(s.ring) {
		tail -= len(s.ring)
	}
	n := copy(s.ring[tail:], p)
	copy(s.ring, p[n:])
	s.size += len(p)
	return len(p)
}

// finish sends the end of the stream; false if the writer has closed.
func (s *stream) finish() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writerGone {
		return false
	}
	s.sent.fin = true
	s.deliverLocked()
	return true
}

// closeWriter is the writer's Close; reset says that it ends in an error, and
// that bytes in flight are lost.
func (s *stream) closeWriter(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writerGone = true
	s.sent.fin = true
	if reset {
		s.sent.reset = true
		s.size = s.arrived
	}
	s.writeBy.stop()
	s.deliverLocked()
}

// closeReader is the reader's Close. It tells whether bytes are left unread.
func (s *stream) closeReader() (unread bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unread = s.arrived > 0
	s.readerGone = true
	s.sent.gone = true
	s.readBy.stop()
	s.deliverLocked()
	return unread
}

// finished tells whether both ends have closed.
func (s *stream) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readerGone && s.writerGone
}

// setDeadline sets one of the stream's deadlines and wakes whom it concerns.
func (s *stream) setDeadline(d *deadline, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d == &s.readBy && s.readerGone || d == &s.writeBy && s.writerGone {
		return net.ErrClosed
	}
	d.at = t
	left := time.Until(t)
	switch {
	case t.IsZero() || left <= 0:
		d.stop()
	case d.timer == nil:
		d.timer = time.AfterFunc(left, func() { s.expire(d) })
	default:
		d.timer.Reset(left)
	}
	s.wake.Broadcast()
	return nil
}

// expire wakes those whom the deadline concerns, or waits on if it has moved.
func (s *stream) expire(d *deadline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := time.Until(d.at); !d.at.IsZero() && left > 0 {
		d.timer.Reset(left)
		return
	}
	s.wake.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
