package vfs

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// dirChanges bounds what a folder remembers of changes that no SyncDir made
// durable; beyond, the older half becomes durable by itself, as a journal
// commits by itself every few seconds.
const dirChanges = 4096

// entry is what a name means: a *fileNode or a *dirNode.
type entry interface {
	info(base string) fs.FileInfo
	chmod(perm fs.FileMode)
	chtimes(mod time.Time)
}

// dirNode is a folder. All of it is guarded by Mem.mu.
type dirNode struct {
	entries map[string]entry
	// log has the changes of entries since the last SyncDir, oldest first. A
	// crash undoes any number of them, from the last one backwards.
	log  []rebind
	mode fs.FileMode
	mod  time.Time
}

// rebind is one atomic change of a folder's names, with what undoes it.
type rebind struct {
	seq  int64 // ascends in a log
	undo []bind
	// peer is the other folder of a rename between two; its log has the other
	// half under the same seq. File systems with a journal keep both or none.
	peer *dirNode
}

// bind says what a name in a folder means from some moment on; nil: nothing.
type bind struct {
	dir  *dirNode
	name string
	to   entry
}

func newDir(perm fs.FileMode) *dirNode {
	return &dirNode{entries: map[string]entry{}, mode: perm | fs.ModeDir, mod: time.Now()}
}

// set makes a name mean something else and returns what undoes that.
func (b bind) set() (undo bind) {
	undo = bind{b.dir, b.name, b.dir.entries[b.name]}
	if b.to == nil {
		delete(b.dir.entries, b.name)
	} else {
		b.dir.entries[b.name] = b.to
	}
	return undo
}

// changeLocked sets names in one step, in one folder or in two, and remembers
// how to undo it.
func (m *Mem) changeLocked(binds ...bind) {
	m.seq++
	now := time.Now()
	for i, b := range binds {
		d := b.dir
		if n := len(d.log); n == 0 || d.log[n-1].seq != m.seq {
			d.log = append(d.log, rebind{seq: m.seq})
		}
		c := &d.log[len(d.log)-1]
		c.undo = append(c.undo, b.set())
		if other := binds[len(binds)-1-i].dir; other != d {
			c.peer = other
		}
		d.mod = now
		if len(d.log) > dirChanges {
			d.settle(d.log[dirChanges/2].seq)
		}
	}
}

// settle makes the changes up to seq durable, and with them the other halves of
// renames and what precedes those.
func (d *dirNode) settle(seq int64) {
	n := 0
	for n < len(d.log) && d.log[n].seq <= seq {
		n++
	}
	done := d.log[:n]
	d.log = slices.Clone(d.log[n:])
	for _, c := range done {
		if c.peer != nil {
			c.peer.settle(c.seq)
		}
	}
}

// holds tells whether other is d or lies below it.
func (d *dirNode) holds(other *dirNode) bool {
	if d == other {
		return true
	}
	for _, n := range d.entries {
		if sub, ok := n.(*dirNode); ok && sub.holds(other) {
			return true
		}
	}
	return false
}

// names returns the entries' names in order.
func (d *dirNode) names() []string {
	names := make([]string, 0, len(d.entries))
	for base := range d.entries {
		names = append(names, base)
	}
	slices.Sort(names)
	return names
}

// nodeLocked returns what a path means.
func (m *Mem) nodeLocked(name string) (entry, error) {
	d, base, err := m.parentLocked(name)
	if err != nil {
		return nil, err
	}
	if base == "" {
		return m.root, nil
	}
	if n := d.entries[base]; n != nil {
		return n, nil
	}
	return nil, syscall.ENOENT
}

// dirLocked returns the folder that a path means.
func (m *Mem) dirLocked(name string) (*dirNode, error) {
	n, err := m.nodeLocked(name)
	if err != nil {
		return nil, err
	}
	if d, ok := n.(*dirNode); ok {
		return d, nil
	}
	return nil, syscall.ENOTDIR
}

// parentLocked returns the folder that holds a path's last part, and that part:
// "" for the root, which nothing holds.
func (m *Mem) parentLocked(name string) (d *dirNode, base string, err error) {
	if name == "" {
		return nil, "", syscall.ENOENT
	}
	const sep = string(filepath.Separator)
	rest := strings.TrimPrefix(filepath.Clean(sep+name), sep)
	d = m.root
	for {
		part, more, found := strings.Cut(rest, sep)
		if !found {
			return d, part, nil
		}
		switch n := d.entries[part].(type) {
		case nil:
			return nil, "", syscall.ENOENT
		case *fileNode:
			return nil, "", syscall.ENOTDIR
		case *dirNode:
			d, rest = n, more
		}
	}
}

// memInfo is an entry's description at one moment.
type memInfo struct {
	name string
	size int64
	mode fs.FileMode
	mod  time.Time
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return i.mod }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

func (d *dirNode) info(base string) fs.FileInfo { return memInfo{base, 0, d.mode, d.mod} }

func (n *fileNode) info(base string) fs.FileInfo {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return memInfo{base, n.cur.size, n.mode, n.mod}
}

func (d *dirNode) chmod(perm fs.FileMode) { d.mode = perm | fs.ModeDir }

func (n *fileNode) chmod(perm fs.FileMode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mode = perm
}

func (d *dirNode) chtimes(mod time.Time) { d.mod = mod }

func (n *fileNode) chtimes(mod time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mod = mod
}
