package memnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// conn is one end of a connection: a net.Conn, with TCP's CloseWrite.
type conn struct {
	n             *Network
	local, remote Addr
	peer          *conn
	in, out       *stream // out is the peer's in
	close         sync.Once
}

// newConn returns the dialing end; its peer is the accepting one.
func newConn(n *Network, from, to Addr, cut bool) *conn {
	there, back := newStream(cut), newStream(cut)
	c := &conn{n: n, local: from, remote: to, in: back, out: there}
	c.peer = &conn{n: n, local: to, remote: from, in: there, out: back, peer: c}
	return c
}

// wrap names the operation; io.EOF stays bare, as io.Reader demands.
func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return opError(op, c.local, c.remote, err)
}

// Read reads what has arrived, or waits for it. After the peer's close it
// returns io.EOF, after a reset syscall.ECONNRESET, both behind the bytes that
// had arrived.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

// Write returns when all of p is in the connection's buffer. If the peer has
// closed it is syscall.ECONNRESET.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

// Close closes both directions. The peer reads what was written, then io.EOF;
// if bytes had arrived here that nobody read, the connection is reset instead,
// as TCP does.
func (c *conn) Close() error {
	err := c.wrap("close", net.ErrClosed)
	c.close.Do(func() {
		err = nil
		unread := c.in.closeReader()
		c.out.closeWriter(unread)
		c.forget()
	})
	return err
}

// abort closes and resets.
func (c *conn) abort() {
	c.close.Do(func() {
		c.in.closeReader()
		c.out.closeWriter(true)
		c.forget()
	})
}

// forget takes a connection that is closed on both ends out of the network.
// Until then it may hold bytes that a healing link has to let through.
func (c *conn) forget() {
	if c.in.finished() && c.out.finished() {
		c.n.mu.Lock()
		delete(c.n.conns, c)
		delete(c.n.conns, c.peer)
		c.n.mu.Unlock()
	}
}

// CloseWrite ends what the peer can read, and leaves the other direction open.
func (c *conn) CloseWrite() error {
	if !c.out.finish() {
		return c.wrap("close", net.ErrClosed)
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.wrap("set", c.in.setDeadline(&c.in.readBy, t))
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.wrap("set", c.out.setDeadline(&c.out.writeBy, t))
}
