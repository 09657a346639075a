package wire

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawSocket is the way to nc's descriptor if nc is a TCP or Unix socket.
func rawSocket(nc net.Conn) syscall.RawConn {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		if rc, err := nc.(syscall.Conn).SyscallConn(); err == nil {
			return rc
		}
	}
	return nil
}

// readSocket is one try to read, called by RawConn.Read with the descriptor:
// false means that the socket has nothing, and the goroutine sleeps until it
// has. The scratch buffer is taken only for the try, which is why a sleeping
// connection has none.
func (c *Conn) readSocket(fd uintptr) bool {
	rd := &c.rd
	p := rd.dst
	if p == nil {
		p = c.room()
	}
	for {
		rd.n, rd.err = syscall.Read(int(fd), p)
		if rd.err != syscall.EINTR {
			break
		}
	}
	if rd.err == syscall.EAGAIN {
		if rd.dst == nil {
			rd.shrink(&c.srv.pool)
		}
		return false
	}
	if rd.err != nil {
		rd.n, rd.err = 0, os.NewSyscallError("read", rd.err)
	} else if rd.n == 0 {
		rd.err = io.EOF
	}
	return true
}

// writeSocket writes what is gathered, called by RawConn.Write with the
// descriptor: false means that the socket is full.
func (w *writer) writeSocket(fd uintptr) bool {
	for w.count > 0 {
		var n int
		var err error
		switch {
		case w.more && w.count == 1:
			n, err = unix.SendmsgN(int(fd), w.iov[0], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		case w.count == 1:
			n, err = syscall.Write(int(fd), w.iov[0])
		default:
			n, err = unix.Writev(int(fd), w.iov[:w.count])
		}
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			w.err = os.NewSyscallError("write", err)
			return true
		}
		w.wrote(n)
	}
	return true
}

// sendFile sends a range of a file with sendfile: RawConn.Control holds the
// file's descriptor open, and RawConn.Write within it waits for the socket. An
// explicit offset leaves the file's position alone, which others share.
func (w *writer) sendFile(p *FilePart) error {
	file := p.Raw
	if file == nil {
		var err error
		if file, err = p.File.SyscallConn(); err != nil {
			return err
		}
	}
	w.off, w.left, w.err = p.Off, p.N, nil
	if err := file.Control(w.controlFn); err != nil {
		return err
	}
	return w.err
}

// controlFile is called with the file's descriptor.
func (w *writer) controlFile(fd uintptr) {
	w.file = int(fd)
	if err := w.c.sock.Write(w.sendFn); err != nil && w.err == nil {
		w.err = err
	}
}

// sendSocket is called with the socket's descriptor.
func (w *writer) sendSocket(fd uintptr) bool {
	for w.left > 0 {
		n, err := unix.Sendfile(int(fd), w.file, &w.off, int(min(w.left, sendChunk)))
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			w.err = os.NewSyscallError("sendfile", err)
			return true
		case n == 0:
			w.err = fmt.Errorf("wire: file ends %d bytes before what the answer promised: %w", w.left, io.ErrUnexpectedEOF)
			return true
		}
		w.left -= int64(n)
		w.sent(n)
	}
	return true
}
