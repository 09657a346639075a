package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// osFS is the operating system's file system. What differs between hosts
// (vectored writes, flushing, reserving, locks, space) is in os_HOST.go.
type osFS struct {
	// calls holds *call, the operands of one system call; see os_linux.go.
	calls sync.Pool
}

// OS returns the file system of the operating system.
func OS() FS {
	o := &osFS{}
	o.calls.New = func() any { return newCall() }
	return o
}

// osFile is an open file of the host. The *os.File pins the descriptor while a
// system call uses it, so Close during a read or a write is harmless.
type osFile struct {
	f    *os.File
	fsys *osFS
	// raw runs a function on the pinned descriptor; made once, because making
	// it allocates.
	raw syscall.RawConn
}

func (o *osFS) Open(name string) (File, error) { return o.OpenFile(name, os.O_RDONLY, 0) }

func (o *osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if err := checkFlag(name, flag); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{f: f, fsys: o, raw: raw}, nil
}

// checkFlag refuses O_APPEND on every FS: on Linux pwrite ignores its offset
// on a descriptor opened so.
func checkFlag(name string, flag int) error {
	if flag&os.O_APPEND != 0 {
		return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("O_APPEND: %w", errors.ErrUnsupported)}
	}
	return nil
}

func (o *osFS) Mkdir(name string, perm fs.FileMode) error    { return os.Mkdir(name, perm) }
func (o *osFS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }
func (o *osFS) Remove(name string) error                     { return os.Remove(name) }
func (o *osFS) RemoveAll(name string) error                  { return os.RemoveAll(name) }
func (o *osFS) Rename(oldname, newname string) error         { return os.Rename(oldname, newname) }
func (o *osFS) ReadDir(name string) ([]fs.DirEntry, error)   { return os.ReadDir(name) }
func (o *osFS) Stat(name string) (fs.FileInfo, error)        { return os.Stat(name) }
func (o *osFS) Chmod(name string, perm fs.FileMode) error    { return os.Chmod(name, perm) }

func (o *osFS) Chtimes(name string, mod time.Time) error {
	return os.Chtimes(name, time.Time{}, mod) // the time of access stays
}

func (o *osFS) SyncDir(name string) error { return syncDir(name) }

func (o *osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

func (o *osFS) Space(name string) (total, usable int64, err error) {
	total, usable, err = space(name)
	if err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	return total, usable, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f *osFile) Close() error                             { return f.f.Close() }
func (f *osFile) Name() string                             { return f.f.Name() }
func (f *osFile) OSFile() *os.File                         { return f.f }

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
