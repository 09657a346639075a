package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// defaultSpace is the size of a new Mem: more than a test can fill.
const defaultSpace = 1 << 40

// Mem is a file system in memory that knows what a power failure would take
// from it (CrashClone). It enforces what POSIX enforces: parents must exist, a
// removed file lives on for those who have it open, a rename swaps the name and
// not the file, permission bits hold for the owner (as for no superuser).
//
// Relative names count from its root. Times are those of package time, so in a
// testing/synctest bubble they are the bubble's.
//
// Locks: Mem.mu, then fileNode.mu. Every operation that changes something holds
// Mem.mu until it is done, for reading if it changes one file's bytes and for
// writing if it changes names; so CrashClone, which takes it for writing, sees
// each operation done or not begun, and all of them at one moment.
type Mem struct {
	hook  atomic.Pointer[func(Op)]
	used  atomic.Int64 // bytes of pages that exist or are reserved
	total atomic.Int64

	mu   sync.RWMutex
	root *dirNode
	seq  int64 // of the last change of names
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	m := &Mem{root: newDir(0o755)}
	m.total.Store(defaultSpace)
	return m
}

// OnOp has f called before each operation that changes something (OpCreate to
// OpChtimes), with no lock held: f may use the Mem, and clone it as of the moment
// before the operation. nil ends it.
func (m *Mem) OnOp(f func(Op)) {
	if f == nil {
		m.hook.Store(nil)
		return
	}
	m.hook.Store(&f)
}

func (m *Mem) announce(op Op) {
	if f := m.hook.Load(); f != nil {
		(*f)(op)
	}
}

// SetSpace sets the size of the file system in bytes. Writes that need a new
// page beyond it fail with ENOSPC after writing what fits.
func (m *Mem) SetSpace(total int64) { m.total.Store(total) }

// Space tells the size that SetSpace set and what is left of it.
func (m *Mem) Space(name string) (total, usable int64, err error) {
	if _, err := m.Stat(name); err != nil {
		return 0, 0, err
	}
	total = m.total.Load()
	return total, max(0, total-m.used.Load()), nil
}

// take takes n bytes of space if that many are left.
func (m *Mem) take(n int64) bool {
	if m.used.Add(n) > m.total.Load() {
		m.used.Add(-n)
		return false
	}
	return true
}

// free gives the node's space back once it has neither name nor user. Mem.mu is
// held for writing.
func (m *Mem) free(n *fileNode) {
	if n.links == 0 && n.opens == 0 {
		m.used.Add(-n.usage())
		n.spare = 0
	}
}

// Open opens a file for reading.
func (m *Mem) Open(name string) (File, error) { return m.OpenFile(name, os.O_RDONLY, 0) }

// OpenFile opens a file, or makes it with O_CREATE.
func (m *Mem) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if err := checkFlag(name, flag); err != nil {
		return nil, err
	}
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		m.announceOpen(name, flag)
	}
	f := &memFile{m: m, name: name}
	switch flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) {
	case os.O_RDONLY:
		f.read = true
	case os.O_WRONLY:
		f.write = true
	default:
		f.read, f.write = true, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.openLocked(name, flag, perm, f)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	n.opens++
	f.n = n
	return f, nil
}

// announceOpen tells what OpenFile is about to change, if anything.
func (m *Mem) announceOpen(name string, flag int) {
	_, err := m.Stat(name)
	switch {
	case err != nil && flag&os.O_CREATE != 0:
		m.announce(Op{Kind: OpCreate, Path: name})
	case err == nil && flag&os.O_TRUNC != 0:
		m.announce(Op{Kind: OpTruncate, Path: name})
	}
}

func (m *Mem) openLocked(name string, flag int, perm fs.FileMode, f *memFile) (*fileNode, error) {
	d, base, err := m.parentLocked(name)
	if err != nil {
		return nil, err
	}
	if base == "" {
		return nil, syscall.EISDIR
	}
	switch n := d.entries[base].(type) {
	case *dirNode:
		if flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0 {
			return nil, syscall.EEXIST
		}
		return nil, syscall.EISDIR
	case *fileNode:
		if flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0 {
			return nil, syscall.EEXIST
		}
		if f.read && n.mode&0o400 == 0 || f.write && n.mode&0o200 == 0 {
			return nil, syscall.EACCES
		}
		if flag&os.O_TRUNC != 0 && f.write {
			n.mu.Lock()
			m.setSize(n, 0)
			n.mu.Unlock()
		}
		return n, nil
	}
	if flag&os.O_CREATE == 0 {
		return nil, syscall.ENOENT
	}
	n := &fileNode{mode: perm.Perm(), mod: time.Now(), links: 1}
	m.changeLocked(bind{d, base, n})
	return n, nil
}

// Mkdir makes a folder.
func (m *Mem) Mkdir(name string, perm fs.FileMode) error {
	m.announce(Op{Kind: OpMkdir, Path: name})
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parentLocked(name)
	if err == nil && (base == "" || d.entries[base] != nil) {
		err = syscall.EEXIST
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	m.changeLocked(bind{d, base, newDir(perm.Perm())})
	return nil
}

// MkdirAll makes a folder and those above it that are missing.
func (m *Mem) MkdirAll(name string, perm fs.FileMode) error {
	info, err := m.Stat(name)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return pathError("mkdir", name, syscall.ENOTDIR)
	}
	if up := filepath.Dir(filepath.Clean(name)); up != name {
		if err := m.MkdirAll(up, perm); err != nil {
			return err
		}
	}
	if err := m.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Remove removes a file or an empty folder.
func (m *Mem) Remove(name string) error {
	m.announce(Op{Kind: OpRemove, Path: name})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.removeLocked(name); err != nil {
		return pathError("remove", name, err)
	}
	return nil
}

func (m *Mem) removeLocked(name string) error {
	d, base, err := m.parentLocked(name)
	if err != nil {
		return err
	}
	if base == "" {
		return syscall.EBUSY
	}
	switch n := d.entries[base].(type) {
	case nil:
		return syscall.ENOENT
	case *dirNode:
		if len(n.entries) > 0 {
			return syscall.ENOTEMPTY
		}
	case *fileNode:
		n.links--
		m.free(n)
	}
	m.changeLocked(bind{d, base, nil})
	return nil
}

// RemoveAll removes name and what is below it, one entry at a time, as the
// kernel does.
func (m *Mem) RemoveAll(name string) error {
	info, err := m.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := m.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := m.RemoveAll(filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return m.Remove(name)
}

// Rename gives a file or a folder another name, atomically.
func (m *Mem) Rename(oldname, newname string) error {
	m.announce(Op{Kind: OpRename, Path: oldname, To: newname})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.renameLocked(oldname, newname); err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (m *Mem) renameLocked(oldname, newname string) error {
	from, oldbase, err := m.parentLocked(oldname)
	if err != nil {
		return err
	}
	to, newbase, err := m.parentLocked(newname)
	if err != nil {
		return err
	}
	if oldbase == "" || newbase == "" {
		return syscall.EBUSY
	}
	n, there := from.entries[oldbase], to.entries[newbase]
	if n == nil {
		return syscall.ENOENT
	}
	if n == there {
		return nil
	}
	d, isDir := n.(*dirNode)
	if isDir && d.holds(to) {
		return syscall.EINVAL
	}
	switch old := there.(type) {
	case *dirNode:
		return syscall.EEXIST
	case *fileNode:
		if isDir {
			return syscall.ENOTDIR
		}
		old.links--
		m.free(old)
	}
	m.changeLocked(bind{from, oldbase, nil}, bind{to, newbase, n})
	return nil
}

// ReadDir returns a folder's entries by name.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, err := m.dirLocked(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	entries := make([]fs.DirEntry, 0, len(d.entries))
	for _, base := range d.names() {
		entries = append(entries, fs.FileInfoToDirEntry(d.entries[base].info(base)))
	}
	return entries, nil
}

// Stat describes a file or a folder.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.nodeLocked(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return n.info(filepath.Base(name)), nil
}

// SyncDir makes the names in a folder durable.
func (m *Mem) SyncDir(name string) error {
	m.announce(Op{Kind: OpSyncDir, Path: name})
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dirLocked(name)
	if err != nil {
		return pathError("sync", name, err)
	}
	d.settle(m.seq)
	return nil
}

// Chmod sets permission bits. It is durable at once, unlike on a disk.
func (m *Mem) Chmod(name string, perm fs.FileMode) error {
	m.announce(Op{Kind: OpChmod, Path: name})
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.nodeLocked(name)
	if err != nil {
		return pathError("chmod", name, err)
	}
	n.chmod(perm.Perm())
	return nil
}

// Chtimes sets a file's time of modification. It is durable at once, unlike on a disk.
func (m *Mem) Chtimes(name string, mod time.Time) error {
	m.announce(Op{Kind: OpChtimes, Path: name})
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.nodeLocked(name)
	if err != nil {
		return pathError("chtimes", name, err)
	}
	n.chtimes(mod)
	return nil
}

// Lock makes the file if it is missing and locks it.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	l := &memLock{f.(*memFile)}
	m.mu.Lock()
	held := l.n.locked
	l.n.locked = true
	m.mu.Unlock()
	if held {
		return nil, errors.Join(pathError("lock", name, ErrLocked), f.Close())
	}
	return l, nil
}

// memLock is a held lock.
type memLock struct{ *memFile }

// Close releases the lock, then the file.
func (l *memLock) Close() error {
	if !l.closed.Load() {
		l.m.mu.Lock()
		l.n.locked = false
		l.m.mu.Unlock()
	}
	return l.memFile.Close()
}
