package vfs

import "slices"

const (
	pageSize = 4096
	// leafPages is how many pages hang on one leaf: 1 MiB of the file.
	leafPages = 256
	// maxImage bounds a file (1 TiB), and with it the root that one write far
	// out could demand (8 MiB).
	maxImage = 1 << 40
)

// image is a file's bytes at one moment: a tree of two levels over pages of
// 4 KiB.
//
//	root [ leaf | leaf | nil | … ]      a leaf covers 1 MiB
//	         └─ [ page | nil | … ]      nil is a hole, and reads as zeros
//	                └─ up to 4096 bytes; what is missing reads as zeros
//
// Images share what they have in common. Each part bears the owner that made
// it, and only the image with that owner may change it; every other one copies
// the part first. A snapshot is therefore O(1): both sides lose their owner.
// An image does not lock: whoever holds it does.
type image struct {
	owner     *owner // nil: owns nothing
	rootOwner *owner
	root      []*leaf
	size      int64
	pages     int64 // pages that exist, in all leaves
}

// owner is an identity: only its address counts, so it must have a size.
type owner struct{ _ byte }

type leaf struct {
	owner *owner
	pages []*page // at most leafPages
}

type page struct {
	owner *owner
	data  []byte // at most pageSize; grows with use, so that small files stay small
}

// snapshot returns a second image of the same bytes.
func (m *image) snapshot() image {
	m.owner = nil
	return *m
}

// page returns page number i, or nil for a hole.
func (m *image) page(i int64) *page {
	l := i / leafPages
	if l >= int64(len(m.root)) || m.root[l] == nil {
		return nil
	}
	p := i % leafPages
	if pages := m.root[l].pages; p < int64(len(pages)) {
		return pages[p]
	}
	return nil
}

// endPage is a bound: no page from it on exists.
func (m *image) endPage() int64 { return int64(len(m.root)) * leafPages }

// ownRoot makes the root changeable and n leaves long at least.
func (m *image) ownRoot(n int) {
	if m.owner == nil {
		m.owner = new(owner)
	}
	if m.rootOwner != m.owner {
		m.root, m.rootOwner = append(make([]*leaf, 0, max(n, len(m.root))), m.root...), m.owner
	}
	for len(m.root) < n {
		m.root = append(m.root, nil)
	}
}

// ownPage returns page number i, which may be changed, made if it is a hole.
func (m *image) ownPage(i int64) *page {
	l, p := int(i/leafPages), int(i%leafPages)
	m.ownRoot(l + 1)
	lf := m.root[l]
	switch {
	case lf == nil:
		lf = &leaf{owner: m.owner}
	case lf.owner != m.owner:
		lf = &leaf{owner: m.owner, pages: slices.Clone(lf.pages)}
	}
	m.root[l] = lf
	for len(lf.pages) <= p {
		lf.pages = append(lf.pages, nil)
	}
	pg := lf.pages[p]
	switch {
	case pg == nil:
		pg = &page{owner: m.owner}
		m.pages++
	case pg.owner != m.owner:
		pg = &page{owner: m.owner, data: slices.Clone(pg.data)}
	}
	lf.pages[p] = pg
	return pg
}

// put writes b, which must not cross a page, and leaves the size alone.
func (m *image) put(b []byte, off int64) {
	pg := m.ownPage(off / pageSize)
	at := int(off % pageSize)
	end := at + len(b)
	if end > len(pg.data) {
		if end > cap(pg.data) {
			pg.data = slices.Grow(pg.data, min(pageSize, max(64, 2*end))-len(pg.data))
		}
		old := len(pg.data)
		pg.data = pg.data[:end]
		if at > old {
			clear(pg.data[old:at])
		}
	}
	copy(pg.data[at:], b)
}

// wipe zeroes [from, to), which must not cross a page, and makes no page.
func (m *image) wipe(from, to int64) {
	if pg := m.page(from / pageSize); pg == nil || int64(len(pg.data)) <= from%pageSize {
		return
	}
	pg := m.ownPage(from / pageSize)
	at := int(from % pageSize)
	clear(pg.data[at:min(len(pg.data), at+int(to-from))])
}

// read fills b from off and returns how many bytes lie before the end.
func (m *image) read(b []byte, off int64) int {
	if off >= m.size {
		return 0
	}
	b = b[:min(int64(len(b)), m.size-off)]
	for rest := b; len(rest) > 0; {
		at := int(off % pageSize)
		n := min(len(rest), pageSize-at)
		got := 0
		if pg := m.page(off / pageSize); pg != nil && at < len(pg.data) {
			got = copy(rest[:n], pg.data[at:])
		}
		clear(rest[got:n])
		rest, off = rest[n:], off+int64(n)
	}
	return len(b)
}

// resize sets the size and drops every byte from it on.
func (m *image) resize(size int64) {
	m.size = size
	keep := (size + pageSize - 1) / pageSize // pages
	if at := size % pageSize; at != 0 {
		if pg := m.page(keep - 1); pg != nil && int64(len(pg.data)) > at {
			pg = m.ownPage(keep - 1)
			pg.data = pg.data[:at]
		}
	}
	leaves := int((keep + leafPages - 1) / leafPages)
	if len(m.root) > leaves {
		for _, lf := range m.root[leaves:] {
			m.pages -= lf.count(0)
		}
		m.ownRoot(0)
		clear(m.root[leaves:])
		m.root = m.root[:leaves]
	}
	rest := int(keep % leafPages)
	if rest == 0 || leaves == 0 || len(m.root) < leaves || m.root[leaves-1].count(rest) == 0 {
		return
	}
	lf := m.root[leaves-1]
	m.pages -= lf.count(rest)
	m.ownRoot(0)
	m.root[leaves-1] = &leaf{owner: m.owner, pages: slices.Clone(lf.pages[:rest])}
}

// count counts the pages from index i on.
func (lf *leaf) count(i int) int64 {
	var n int64
	if lf != nil && i < len(lf.pages) {
		for _, pg := range lf.pages[i:] {
			if pg != nil {
				n++
			}
		}
	}
	return n
}

// diff yields the numbers of the pages that the two images do not share.
func (m *image) diff(o *image, yield func(i int64)) {
	leaf := func(m *image, l int) *leaf {
		if l < len(m.root) {
			return m.root[l]
		}
		return nil
	}
	for l := range max(len(m.root), len(o.root)) {
		if leaf(m, l) == leaf(o, l) {
			continue
		}
		for i := int64(l) * leafPages; i < int64(l+1)*leafPages; i++ {
			if m.page(i) != o.page(i) {
				yield(i)
			}
		}
	}
}
