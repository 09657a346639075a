package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// logChanges and logBytes bound what a file remembers of single unsynced
	// writes; beyond, they are folded into one (fileNode.mid).
	logChanges = 1024
	logBytes   = 256 << 10
)

// fileNode is a file, whatever names it has. Its bytes exist three times,
// sharing what they can:
//
//	disk ──(first writes)──▶ mid ──(log)──▶ cur
//	durable                  may be nil     what reads see
//
// INV-VFS-1: disk is changed by Sync alone. INV-VFS-2: unless lost, mid (or
// disk, without mid) with log applied has cur's bytes.
type fileNode struct {
	// mu guards what follows, down to mod. It is taken under Mem.mu held for
	// reading, or replaced by Mem.mu held for writing.
	mu       sync.RWMutex
	cur      image
	disk     image
	mid      *image   // disk plus the writes that log has forgotten
	low      int64    // the least size since disk, of those that log has forgotten
	log      []change // since mid, oldest first
	logBytes int      // data in log
	lost     bool     // a failed Sync dropped writes that cur still shows
	spare    int64    // pages reserved by Allocate that do not exist yet
	mode     fs.FileMode
	mod      time.Time

	// Guarded by Mem.mu alone.
	links  int // names; 0 or 1
	opens  int // open Files
	locked bool
}

// change is one unsynced write, or the setting of a size.
type change struct {
	off  int64
	data []byte // nil: Truncate
	size int64  // of the file, afterwards
	cut  bool   // Truncate to less than before: everything from size on is zeros
}

// dirty tells whether a crash may lose something.
func (n *fileNode) dirty() bool { return n.mid != nil || len(n.log) > 0 || n.lost }

// record remembers a change that cur has seen already.
func (n *fileNode) record(c change) {
	n.mod = time.Now()
	full := len(n.log) == logChanges || n.logBytes+len(c.data) > logBytes
	if full && !n.lost { // then mid will be cur, which has the change
		n.fold(c.size)
		return
	}
	c.data = append([]byte(nil), c.data...)
	n.log = append(n.log, c)
	n.logBytes += len(c.data)
	if full {
		n.fold(c.size)
	}
}

// fold forgets the single changes: a crash leaves of each sector what disk has,
// or mid, or a later write.
func (n *fileNode) fold(size int64) {
	if n.mid == nil {
		n.low = n.disk.size
	}
	n.low = min(n.low, size)
	for _, c := range n.log {
		n.low = min(n.low, c.size)
	}
	mid := n.intended()
	n.mid, n.log, n.logBytes = &mid, nil, 0
}

// intended is what a Sync now makes durable: what reads see, without writes
// that a failed Sync has dropped.
func (n *fileNode) intended() image {
	if !n.lost {
		return n.cur.snapshot()
	}
	return n.torn(everything, n.lastSize())
}

// lastSize is the size after the last change that is not lost.
func (n *fileNode) lastSize() int64 {
	switch {
	case len(n.log) > 0:
		return n.log[len(n.log)-1].size
	case n.mid != nil:
		return n.mid.size
	}
	return n.disk.size
}

// usage is the file's share of the Mem's space.
func (n *fileNode) usage() int64 { return (n.cur.pages + n.spare) * pageSize }

// memFile is an open file of a Mem.
type memFile struct {
	m      *Mem
	n      *fileNode
	name   string
	read   bool
	write  bool
	closed atomic.Bool
}

// check tells whether an operation that writes, or reads, may go on.
func (f *memFile) check(op string, allowed bool, off int64) error {
	switch {
	case f.closed.Load():
		return pathError(op, f.name, fs.ErrClosed)
	case !allowed:
		return pathError(op, f.name, syscall.EBADF)
	case off < 0:
		return pathError(op, f.name, errors.New("negative offset"))
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read", f.read, off); err != nil {
		return 0, err
	}
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	n := f.n.cur.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	one := [1][]byte{p}
	n, err := f.WriteVec(one[:], off)
	return int(n), err
}

func (f *memFile) WriteVec(bufs [][]byte, off int64) (int64, error) {
	if err := f.check("write", f.write, off); err != nil {
		return 0, err
	}
	var total int64
	for _, b := range bufs {
		total += int64(len(b))
	}
	f.m.announce(Op{Kind: OpWrite, Path: f.name, Off: off, Len: total})
	if off > maxImage-total {
		return 0, pathError("write", f.name, syscall.EFBIG)
	}
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	var n int64
	for _, b := range bufs {
		w, err := f.m.store(f.n, b, off+n)
		n += int64(w)
		if err != nil {
			return n, pathError("write", f.name, err)
		}
	}
	return n, nil
}

// store writes b into the node, whose mu is held, as far as there is space.
func (m *Mem) store(n *fileNode, b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var err error
	done := 0
	for done < len(b) {
		at := off + int64(done)
		k := min(len(b)-done, pageSize-int(at%pageSize))
		if n.cur.page(at/pageSize) == nil {
			switch {
			case n.spare > 0:
				n.spare-- // reserved: the new page takes its place
			case !m.take(pageSize):
				err = syscall.ENOSPC
			}
			if err != nil {
				break
			}
		}
		n.cur.put(b[done:done+k], at)
		done += k
	}
	if done > 0 {
		n.cur.size = max(n.cur.size, off+int64(done))
		n.record(change{off: off, data: b[:done], size: n.cur.size})
	}
	return done, err
}

func (f *memFile) Truncate(size int64) error {
	if err := f.check("truncate", f.write, 0); err != nil {
		return err
	}
	f.m.announce(Op{Kind: OpTruncate, Path: f.name, Len: size})
	switch {
	case size < 0:
		return pathError("truncate", f.name, syscall.EINVAL)
	case size > maxImage:
		return pathError("truncate", f.name, syscall.EFBIG)
	}
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	f.m.setSize(f.n, size)
	return nil
}

// setSize truncates the node, whose mu is held or not needed.
func (m *Mem) setSize(n *fileNode, size int64) {
	old, used := n.cur.size, n.usage()
	n.cur.resize(size)
	n.spare = 0
	m.used.Add(n.usage() - used)
	if size != old {
		n.record(change{size: size, cut: size < old})
	}
}

func (f *memFile) Size() (int64, error) {
	if err := f.check("stat", true, 0); err != nil {
		return 0, err
	}
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	return f.n.cur.size, nil
}

func (f *memFile) Sync() error {
	if err := f.check("sync", true, 0); err != nil {
		return err
	}
	f.m.announce(Op{Kind: OpSync, Path: f.name})
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	n := f.n
	if len(n.log) > 0 || n.mid != nil {
		n.disk = n.intended()
		n.mid, n.log, n.logBytes = nil, nil, 0
	}
	return nil
}

// loseUnsynced is what a failed fdatasync does on Linux: the pages count as
// clean, so reads still see them and no later Sync writes them.
func (f *memFile) loseUnsynced() {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if n := f.n; n.dirty() {
		n.mid, n.log, n.logBytes, n.lost = nil, nil, 0, true
	}
}

func (f *memFile) Allocate(off, n int64) error {
	if err := f.check("allocate", f.write, off); err != nil {
		return err
	}
	f.m.announce(Op{Kind: OpAllocate, Path: f.name, Off: off, Len: n})
	switch {
	case n <= 0:
		return pathError("allocate", f.name, syscall.EINVAL)
	case off > maxImage-n:
		return pathError("allocate", f.name, syscall.EFBIG)
	}
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	more := (off+n+pageSize-1)/pageSize - f.n.cur.pages - f.n.spare
	if more <= 0 {
		return nil
	}
	if !f.m.take(more * pageSize) {
		return pathError("allocate", f.name, syscall.ENOSPC)
	}
	f.n.spare += more
	return nil
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.opens--
	f.m.free(f.n)
	return nil
}

func (f *memFile) Name() string     { return f.name }
func (f *memFile) OSFile() *os.File { return nil }
