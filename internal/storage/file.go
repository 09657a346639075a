package storage

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"ottla.dev/ottla/internal/vfs"
)

// handle is an open file that may be closed behind its users' backs. Whoever
// uses it pins it; an unpinned one can be evicted; one with unsynced data is
// pinned until it is synced (D5).
//
//	state = number of pins, plus
//	        doomed: no new pins; the last one to leave closes the file
//	        closed: the file is closed, or being closed
type handle struct {
	f     vfs.File
	files *files
	slot  *atomic.Pointer[handle] // where users find it; nil if nowhere
	state atomic.Int64
	used  atomic.Bool // since the clock hand last came by
	place int         // index in files.ring; guarded by files.mu
}

const (
	doomed = 1 << 40
	closed = 1 << 41
)

// pin keeps the file open until unpin. It fails if the file is being closed.
func (h *handle) pin() bool {
	for {
		n := h.state.Load()
		if n >= doomed {
			return false
		}
		if h.state.CompareAndSwap(n, n+1) {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return true
		}
	}
}

func (h *handle) unpin() {
	n := h.state.Add(-1)
	if n < 0 || n >= closed {
		panic("BUG: storage: a file handle was unpinned more often than pinned")
	}
	if n == doomed && h.state.CompareAndSwap(doomed, doomed|closed) {
		h.close()
	}
}

// doom closes the file as soon as nobody uses it.
func (h *handle) doom() {
	for {
		n := h.state.Load()
		if n >= doomed {
			return
		}
		to := n | doomed
		if n == 0 {
			to |= closed
		}
		if h.state.CompareAndSwap(n, to) {
			if n == 0 {
				h.close()
			}
			return
		}
	}
}

// evict closes the file if nobody uses it.
func (h *handle) evict() bool {
	if !h.state.CompareAndSwap(0, doomed|closed) {
		return false
	}
	h.close()
	return true
}

func (h *handle) close() {
	if h.slot != nil {
		h.slot.CompareAndSwap(h, nil)
	}
	h.files.forget(h)
	// Nothing unsynced is in it, so there is nothing that Close could lose.
	_ = h.f.Close()
}

// files are the open files of a Syncer: a cache of descriptors with a clock hand.
// Its lock is taken when a file is opened or closed, never when one is used.
type files struct {
	fs  vfs.FS
	max int // files kept open, more only while all are pinned

	// opened is called after a file was opened, so that it will be closed one day.
	opened func()

	over atomic.Bool // more are open than max

	mu   sync.Mutex
	ring []*handle
	hand int
}

// acquire returns the file behind slot, pinned; it opens name if need be.
func (c *files) acquire(slot *atomic.Pointer[handle], name string, flag int) (*handle, error) {
	if h := slot.Load(); h != nil && h.pin() {
		return h, nil
	}
	f, err := c.fs.OpenFile(name, os.O_RDWR|flag, 0o644)
	if err != nil {
		return nil, err
	}
	h := &handle{f: f, files: c, slot: slot}
	h.state.Store(1)
	h.used.Store(true)
	c.add(h)
	for {
		old := slot.Load()
		if old != nil && old.pin() { // somebody else was faster
			h.doom()
			h.unpin()
			return old, nil
		}
		if slot.CompareAndSwap(old, h) {
			return h, nil
		}
	}
}

// adopt makes a handle, pinned, of a file that nobody else looks for.
func (c *files) adopt(f vfs.File) *handle {
	h := &handle{f: f, files: c}
	h.state.Store(1)
	c.add(h)
	return h
}

// add enters h and evicts others if there are too many.
func (c *files) add(h *handle) {
	c.mu.Lock()
	h.place = len(c.ring)
	c.ring = append(c.ring, h)
	c.over.Store(len(c.ring) > c.max)
	c.mu.Unlock()
	c.trim()
	c.opened()
}

// trim evicts files while too many are open, as far as they are not in use. Who
// ends a long use of files calls it.
func (c *files) trim() {
	if !c.over.Load() {
		return
	}
	c.mu.Lock()
	victims := c.victimsLocked(len(c.ring)-c.max, 2*len(c.ring))
	c.mu.Unlock()
	for _, v := range victims {
		v.evict()
	}
}

// victimsLocked lets the hand pass over at most steps files and picks up to n
// that are neither in use nor were used since it last came by.
func (c *files) victimsLocked(n, steps int) []*handle {
	var victims []*handle
	for ; steps > 0 && len(victims) < n; steps-- {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		h := c.ring[c.hand]
		c.hand++
		if h.state.Load() == 0 && !h.used.Swap(false) {
			victims = append(victims, h)
		}
	}
	return victims
}

func (c *files) forget(h *handle) {
	c.mu.Lock()
	last := len(c.ring) - 1
	c.ring[last].place = h.place
	c.ring[h.place] = c.ring[last]
	c.ring[last] = nil
	c.ring = c.ring[:last]
	c.over.Store(last > c.max)
	c.mu.Unlock()
}

// sweep closes what nobody used since the last sweep and reports whether any
// file is left.
func (c *files) sweep() bool {
	c.mu.Lock()
	victims := c.victimsLocked(len(c.ring), len(c.ring))
	c.mu.Unlock()
	for _, v := range victims {
		v.evict()
	}
	return c.open() > 0
}

// open is the number of open files.
func (c *files) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ring)
}

// drop dooms the file behind slot if there is one.
func drop(slot *atomic.Pointer[handle]) {
	if h := slot.Load(); h != nil {
		h.doom()
	}
}

// removeFile removes a file that need not be there.
func removeFile(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// share adds a pin for another user. The caller has one already, so it cannot
// fail, even on a doomed file.
func (h *handle) share() *handle {
	if n := h.state.Add(1); n&^doomed < 2 || n >= closed {
		panic("BUG: storage: a file handle was shared without being pinned")
	}
	return h
}
