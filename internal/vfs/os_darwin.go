package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// call is a Linux matter.
type call struct{}

func newCall() *call { return nil }

func (f *osFile) WriteVec(bufs [][]byte, off int64) (int64, error) { return writeEach(f.f, bufs, off) }

// writeEach is WriteVec with one WriteAt per buffer.
func writeEach(w io.WriterAt, bufs [][]byte, off int64) (int64, error) {
	var n int64
	for _, b := range bufs {
		m, err := w.WriteAt(b, off+n)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Sync is F_FULLFSYNC, which is what os.File.Sync calls here: fsync alone
// leaves the data in the drive's own cache.
func (f *osFile) Sync() error { return f.f.Sync() }

// Allocate does nothing: F_PREALLOCATE reserves from the end of the file only.
func (f *osFile) Allocate(off, n int64) error { return nil }

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
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return err
		}
	}
}

func space(name string) (total, usable int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * int64(st.Bsize), int64(st.Bavail) * int64(st.Bsize), nil
}
