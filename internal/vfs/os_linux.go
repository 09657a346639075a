package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVec is IOV_MAX, the most buffers that one pwritev takes.
const maxVec = 1024

// call is one system call on a pinned descriptor: its operands and its result.
// RawConn.Control takes a func, and a closure would be an allocation per write
// and per sync; run is bound once and the calls are pooled.
type call struct {
	run  func(fd uintptr)
	do   func(c *call, fd int)
	vecs []unix.Iovec // of pwritev: what is still to be written
	off  int64
	len  int64 // of fallocate
	n    int64 // of pwritev: bytes written
	err  error
}

func newCall() *call {
	c := &call{}
	c.run = func(fd uintptr) { c.do(c, int(fd)) }
	return c
}

// invoke runs c on the file's descriptor and returns what failed, named op.
func (f *osFile) invoke(c *call, op string) error {
	c.err = nil
	if err := f.raw.Control(c.run); err != nil {
		c.err = fs.ErrClosed // the only cause; RawConn does not name it so
	}
	if c.err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.f.Name(), Err: c.err}
}

func (f *osFile) WriteVec(bufs [][]byte, off int64) (int64, error) {
	if len(bufs) == 1 {
		n, err := f.f.WriteAt(bufs[0], off)
		return int64(n), err
	}
	if off < 0 {
		return 0, &fs.PathError{Op: "pwritev", Path: f.f.Name(), Err: errors.New("negative offset")}
	}
	c := f.fsys.calls.Get().(*call)
	c.do, c.n = pwritev, 0
	var err error
	for len(bufs) > 0 && err == nil {
		chunk := bufs[:min(len(bufs), maxVec)]
		bufs = bufs[len(chunk):]
		vecs := vectors(c.vecs[:0], chunk)
		c.vecs, c.off = vecs, off+c.n
		err = f.invoke(c, "pwritev")
		clear(vecs) // a pooled call must not keep the caller's buffers alive
		c.vecs = vecs[:0]
	}
	n := c.n
	f.fsys.calls.Put(c)
	return n, err
}

// vectors appends a vector for each buffer that has bytes.
func vectors(vecs []unix.Iovec, bufs [][]byte) []unix.Iovec {
	for _, b := range bufs {
		if len(b) > 0 {
			v := unix.Iovec{Base: unsafe.SliceData(b)}
			v.SetLen(len(b))
			vecs = append(vecs, v)
		}
	}
	return vecs
}

// pwritev writes c.vecs at c.off until all is written or a write fails. A
// write may be short: at 2 GiB, at a full disk, at a signal.
func pwritev(c *call, fd int) {
	for len(c.vecs) > 0 {
		// The kernel joins the offset from two longs; on 64 bits it shifts the
		// high one out.
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd),
			uintptr(unsafe.Pointer(&c.vecs[0])), uintptr(len(c.vecs)),
			uintptr(c.off), uintptr(uint64(c.off)>>32), 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			c.err = errno
			return
		case n == 0:
			c.err = io.ErrShortWrite
			return
		}
		c.n += int64(n)
		c.off += int64(n)
		c.vecs = advance(c.vecs, uint64(n))
	}
}

// advance drops the first n bytes of vecs.
func advance(vecs []unix.Iovec, n uint64) []unix.Iovec {
	for n > 0 {
		v := &vecs[0]
		if n < uint64(v.Len) {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(int(uint64(v.Len) - n))
			return vecs
		}
		n -= uint64(v.Len)
		vecs = vecs[1:]
	}
	return vecs
}

func (f *osFile) Sync() error {
	c := f.fsys.calls.Get().(*call)
	c.do = fdatasync
	err := f.invoke(c, "fdatasync")
	f.fsys.calls.Put(c)
	return err
}

// fdatasync leaves out the times, which cost a second journal write; the size
// is flushed with the data.
func fdatasync(c *call, fd int) {
	c.err = again(func() error { return unix.Fdatasync(fd) })
}

func (f *osFile) Allocate(off, n int64) error {
	c := f.fsys.calls.Get().(*call)
	c.do, c.off, c.len = fallocate, off, n
	err := f.invoke(c, "fallocate")
	f.fsys.calls.Put(c)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func fallocate(c *call, fd int) {
	c.err = again(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, c.off, c.len) })
}

// again repeats a call that a signal interrupted.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock takes a lock that belongs to this open file (flock), so that two users
// in one process exclude each other too.
func lock(f *os.File) error {
	err := again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

func space(name string) (total, usable int64, err error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Statfs(name, &st) }); err != nil {
		return 0, 0, err
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return int64(st.Blocks) * int64(unit), int64(st.Bavail) * int64(unit), nil
}
