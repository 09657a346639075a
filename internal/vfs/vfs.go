// Package vfs is the seam between Ottla and the disk. Everything that Ottla
// writes or reads goes through an FS, so that the same code runs on the
// operating system (OS), in memory (Mem), on what a power failure would have
// left (Mem.CrashClone), and under faults by rule (Inject).
//
// Durability follows POSIX as ext4 and XFS keep it, no more: data is durable
// after File.Sync; a new, renamed or removed name is durable after SyncDir of
// its folder; anything not synced may survive a crash wholly, partly or not at
// all. Code that is right on Mem's crash clones is right on a disk.
//
// An FS has no state beside its files, and any number of them work side by
// side. All methods of FS and File may be called from many goroutines. No
// method tries again what failed, caches or logs: what the host says reaches
// the caller, as an error that names the operation and the path.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

var (
	// ErrLocked says that a file is locked by another process or another user
	// of the same FS.
	ErrLocked = errors.New("file is locked by another process")
	// ErrTooLarge says that a file has more bytes than its reader admits.
	ErrTooLarge = errors.New("file is larger than its reader admits")
)

// FS is a file system. Names are paths in the host's form. Errors satisfy
// errors.Is with fs.ErrNotExist and fs.ErrExist where those are the cause.
// All methods are safe for concurrent use.
type FS interface {
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenFile opens with os.O_* flags. O_APPEND is not supported: all writes say where.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	// Remove removes a file or an empty folder. Whoever has the file open keeps
	// reading and writing it.
	Remove(name string) error
	// RemoveAll removes name and everything below it, one entry after another:
	// after a crash some of them may be left. It is no error if name is missing.
	RemoveAll(name string) error
	// Rename replaces newname atomically if it exists. A folder is never
	// replaced: that is fs.ErrExist.
	Rename(oldname, newname string) error
	// ReadDir returns a folder's entries in the order of their names.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a folder durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file, which it creates; it fails at once
	// with ErrLocked when another process (or FS user) holds it. Close releases
	// it; the file stays.
	Lock(name string) (io.Closer, error)
	// Space tells the size of the file system that holds name and the bytes an
	// unprivileged writer can still use.
	Space(name string) (total, usable int64, err error)
	// Chmod sets permission bits (snapshots are 0400).
	Chmod(name string, perm fs.FileMode) error
	// Chtimes sets a file's time of modification.
	Chtimes(name string, mod time.Time) error
}

// File is an open file. ReadAt, WriteAt and WriteVec do not move a position.
// All methods are safe for concurrent use; after Close they fail with fs.ErrClosed.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WriteVec writes the buffers one after another from off with as few system
	// calls as the host allows (pwritev). On an error n bytes were written.
	WriteVec(bufs [][]byte, off int64) (n int64, err error)
	// Truncate sets the size, growing with zeros. Blocks that Allocate reserved
	// beyond the size are given back, also when the size stays as it is.
	Truncate(size int64) error
	// Size is the file's size; bytes that Allocate reserved do not count.
	Size() (int64, error)
	// Sync makes data and size durable (fdatasync). After an error the state of
	// unsynced data is unknown for good: a second Sync proves nothing.
	Sync() error
	// Allocate reserves disk blocks for [off, off+n) without changing the size
	// (fallocate KEEP_SIZE). Where the host cannot it does nothing.
	Allocate(off, n int64) error
	Name() string
	// OSFile is the descriptor for sendfile, or nil where there is none.
	OSFile() *os.File
}
