//go:build !linux

package wire

import (
	"errors"
	"net"
	"syscall"
)

// rawSocket: elsewhere than on Linux all goes through net.Conn.
func rawSocket(net.Conn) syscall.RawConn { return nil }

func (c *Conn) readSocket(uintptr) bool    { panic("BUG: wire: no descriptor here") }
func (w *writer) writeSocket(uintptr) bool { panic("BUG: wire: no descriptor here") }
func (w *writer) sendFile(*FilePart) error { return errors.ErrUnsupported }
func (w *writer) controlFile(uintptr)      {}
func (w *writer) sendSocket(uintptr) bool  { return true }
