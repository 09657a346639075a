package vfs

import (
	"math/rand/v2"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// CrashClone returns what a power failure at this moment may leave, as a new
// file system with nothing unsynced, nothing open and nothing locked. m stays
// as it is, and the two share the bytes that neither changes later: a clone
// costs about a map entry per file, however long the files are.
//
// Bytes: each sector of a file holds what it held at the last Sync or after any
// one of the writes since. The file's size is any that it had since then,
// whatever became of the bytes; where the size came through and the bytes did
// not, there are zeros. So a write may be kept, lost or torn, and a later one
// kept while an earlier one is lost.
//
// Names: of each folder's changes since its SyncDir a crash keeps the first few
// or all or none, in their order; one change is atomic, also if it is a rename
// onto an existing name or between two folders.
//
// The same r (and the same history) gives the same clone. With r nil only what
// was synced survives.
func (m *Mem) CrashClone(r *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{r: r, kept: map[*dirNode]int{}, out: NewMem()}
	c.out.total.Store(m.total.Load())
	c.visit(m.root)
	c.join()
	c.out.root = c.dir(m.root)
	return c.out
}

// crash is one CrashClone at work.
type crash struct {
	r *rand.Rand // nil: the least that can survive
	// kept says how many changes of each folder's log survive.
	kept map[*dirNode]int
	dirs []*dirNode // the keys of kept, in the order of the visits
	out  *Mem
}

// visit decides for a folder, and for all that a crash may bring back below it,
// how many of its changes survive.
func (c *crash) visit(d *dirNode) {
	if _, done := c.kept[d]; done {
		return
	}
	c.kept[d] = 0
	c.dirs = append(c.dirs, d)
	if c.r != nil && len(d.log) > 0 {
		switch c.r.IntN(3) {
		case 0: // none
		case 1:
			c.kept[d] = len(d.log)
		case 2:
			c.kept[d] = c.r.IntN(len(d.log) + 1)
		}
	}
	for _, name := range d.names() {
		if sub, ok := d.entries[name].(*dirNode); ok {
			c.visit(sub)
		}
	}
	for _, change := range d.log {
		for _, b := range change.undo {
			if sub, ok := b.to.(*dirNode); ok {
				c.visit(sub)
			}
		}
	}
}

// join has a rename between two folders survive in both if it does in one. It
// only raises kept, so it comes to an end.
func (c *crash) join() {
	for again := true; again; {
		again = false
		for _, d := range c.dirs {
			for _, change := range d.log[:c.kept[d]] {
				if change.peer == nil {
					continue
				}
				if n := change.peer.upTo(change.seq); c.kept[change.peer] < n {
					c.kept[change.peer] = n
					again = true
				}
			}
		}
	}
}

// upTo counts the changes in the log up to seq.
func (d *dirNode) upTo(seq int64) int {
	n := 0
	for n < len(d.log) && d.log[n].seq <= seq {
		n++
	}
	return n
}

// dir copies a folder as the crash leaves it.
func (c *crash) dir(d *dirNode) *dirNode {
	names := d
	if kept := c.kept[d]; kept < len(d.log) {
		names = &dirNode{entries: make(map[string]entry, len(d.entries))}
		for name, n := range d.entries {
			names.entries[name] = n
		}
		for i := len(d.log) - 1; i >= kept; i-- {
			undo := d.log[i].undo
			for j := len(undo) - 1; j >= 0; j-- {
				bind{names, undo[j].name, undo[j].to}.set()
			}
		}
	}
	out := &dirNode{entries: make(map[string]entry, len(names.entries)), mode: d.mode, mod: d.mod}
	for _, name := range names.names() {
		switch n := names.entries[name].(type) {
		case *dirNode:
			out.entries[name] = c.dir(n)
		case *fileNode:
			out.entries[name] = c.file(n)
		}
	}
	return out
}

// file copies a file as the crash leaves it.
func (c *crash) file(n *fileNode) *fileNode {
	out := &fileNode{disk: n.survivor(c.r), mode: n.mode, mod: n.mod, links: 1}
	out.cur = out.disk
	c.out.used.Add(out.usage())
	return out
}

// A moment says for each sector up to which level its writes survive: 0 the
// last Sync, 1 … the writes since (see fileNode.levels).
type moment func(sector int64) int

// everything is the moment after the last write.
func everything(int64) int { return int(^uint(0) >> 1) }

// levels is how many different moments a sector can be left at, besides that of
// the last Sync: one for mid if there is one, and one for each change in log.
func (n *fileNode) levels() int {
	if n.mid != nil {
		return len(n.log) + 1
	}
	return len(n.log)
}

// survivor returns the bytes that a crash leaves of the file.
func (n *fileNode) survivor(r *rand.Rand) image {
	levels := n.levels()
	if levels == 0 || r == nil {
		return n.disk.snapshot()
	}
	level := r.IntN(levels + 1)
	seed := r.Uint64()
	all := false
	var m moment
	switch r.IntN(6) {
	case 0:
		level = 0
		m = func(int64) int { return 0 }
	case 1:
		level, all = levels, true
		m = everything
	case 2: // a moment between two writes
		m = func(int64) int { return level }
	case 3: // a moment within a write
		m = func(s int64) int { return level - int(mix(seed, s)&1) }
	case 4: // the kernel wrote pages back as it liked
		m = func(s int64) int { return int(mix(seed, s*sector/pageSize) % uint64(levels+1)) }
	case 5: // the disk did, sector by sector
		m = func(s int64) int { return int(mix(seed, s) % uint64(levels+1)) }
	}
	size := n.sizeAt(level)
	if r.IntN(2) == 0 { // the size went its own way
		size = n.sizeAt(r.IntN(levels + 1))
	}
	if n.mid != nil && r.IntN(8) == 0 {
		size = n.low
	}
	if all && size == n.cur.size && !n.lost { // INV-VFS-2
		return n.cur.snapshot()
	}
	return n.torn(m, size)
}

// sizeAt is the size after the level's change.
func (n *fileNode) sizeAt(level int) int64 {
	if level > 0 && n.mid != nil {
		if level == 1 {
			return n.mid.size
		}
		level--
	}
	if level == 0 {
		return n.disk.size
	}
	return n.log[level-1].size
}

// torn builds the bytes of the file with each sector at its own moment.
func (n *fileNode) torn(m moment, size int64) image {
	out := n.disk.snapshot()
	level := 0
	if n.mid != nil {
		level = 1
		out.overlay(n.mid, m, level)
	}
	for _, c := range n.log {
		level++
		if c.data == nil {
			if c.cut {
				out.cut(c.size, m, level)
			}
			continue
		}
		for off, b := c.off, c.data; len(b) > 0; {
			k := min(len(b), int(sector-off%sector))
			if m(off/sector) >= level {
				out.put(b[:k], off)
			}
			off, b = off+int64(k), b[k:]
		}
	}
	out.resize(size)
	return out
}

// overlay takes the sectors from o that have come to the level, where o differs.
func (m *image) overlay(o *image, at moment, level int) {
	var buf [sector]byte
	full := *o
	full.size = maxImage // read past the size, too: put decides nothing by it
	m.diff(o, func(i int64) {
		for off := i * pageSize; off < (i+1)*pageSize; off += sector {
			if at(off/sector) >= level {
				full.read(buf[:], off)
				if o.page(i) == nil {
					m.wipe(off, off+sector)
				} else {
					m.put(buf[:], off)
				}
			}
		}
	})
}

// cut zeroes what lies from size on, in the sectors that have come to the level.
func (m *image) cut(size int64, at moment, level int) {
	for off := size; off < m.endPage()*pageSize; {
		if m.page(off/pageSize) == nil {
			off = (off/pageSize + 1) * pageSize
			continue
		}
		next := (off/sector + 1) * sector
		if at(off/sector) >= level {
			m.wipe(off, next)
		}
		off = next
	}
}

// mix is a hash of a seed and a number (SplitMix64's finisher).
func mix(seed uint64, n int64) uint64 {
	x := seed + uint64(n)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
