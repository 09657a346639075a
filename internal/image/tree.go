package image

import (
	"iter"
	"slices"
)

// A tree is a persistent ordered map, a B+ tree whose nodes are shared between
// versions. put and del return a new tree and leave the old one as it was, so
// any number of goroutines may read any version while another makes the next.
//
// Who changes a tree names his edit. A node made under the same edit belongs to
// him alone and is changed in place; any other node is copied first. So one
// change costs a copy of the nodes on one path, O(log n), and a thousand
// changes under one edit copy each node at most once.
//
// Deleting frees a node when it is empty and never merges half-empty ones: that
// keeps the code small, and the height can only shrink.
//
// The zero tree is not usable; newTree gives it its order.
type tree[K, V any] struct {
	root *node[K, V] // nil when empty
	n    int
	cmp  func(a, b K) int
}

// An edit names one writer of trees for as long as nobody else sees them. It is
// compared by address, hence not of size zero.
type edit struct{ _ byte }

// fanout is the most entries of a node. Larger makes reads cheaper, and changes
// dearer: each copies one node per level.
const fanout = 32

// A node is a leaf (keys and vals) or an inner node (keys and kids), where
// keys[i] is at most the smallest key below kids[i] and larger than every key
// below kids[i-1]. Only the root may be shorter than one entry, by being nil.
type node[K, V any] struct {
	edit *edit
	keys []K
	vals []V
	kids []*node[K, V]
}

func newTree[K, V any](cmp func(a, b K) int) tree[K, V] { return tree[K, V]{cmp: cmp} }

func (t tree[K, V]) len() int { return t.n }

func (t tree[K, V]) get(k K) (v V, ok bool) {
	n := t.root
	if n == nil {
		return v, false
	}
	for n.kids != nil {
		n = n.kids[n.child(t.cmp, k)]
	}
	i, ok := slices.BinarySearchFunc(n.keys, k, t.cmp)
	if !ok {
		return v, false
	}
	return n.vals[i], true
}

// child is the index of the kid that holds k if any does.
func (n *node[K, V]) child(cmp func(a, b K) int, k K) int {
	i, found := slices.BinarySearchFunc(n.keys, k, cmp)
	if !found && i > 0 {
		i--
	}
	return i
}

func (t tree[K, V]) put(e *edit, k K, v V) tree[K, V] {
	if t.root == nil {
		t.root = &node[K, V]{edit: e, keys: []K{k}, vals: []V{v}}
		t.n = 1
		return t
	}
	root, right, added := t.root.put(e, t.cmp, k, v)
	if right != nil {
		root = &node[K, V]{edit: e, keys: []K{root.keys[0], right.keys[0]}, kids: []*node[K, V]{root, right}}
	}
	t.root = root
	if added {
		t.n++
	}
	return t
}

// put returns the node with the entry in it and, where it grew too large, a new
// node to stand right of it.
func (n *node[K, V]) put(e *edit, cmp func(a, b K) int, k K, v V) (self, right *node[K, V], added bool) {
	n = n.own(e)
	if n.kids == nil {
		i, found := slices.BinarySearchFunc(n.keys, k, cmp)
		if found {
			n.vals[i] = v
			return n, nil, false
		}
		n.keys = slices.Insert(n.keys, i, k)
		n.vals = slices.Insert(n.vals, i, v)
		return n, n.split(e, i), true
	}
	i := n.child(cmp, k)
	if i == 0 && cmp(k, n.keys[0]) < 0 {
		n.keys[0] = k
	}
	kid, beside, added := n.kids[i].put(e, cmp, k, v)
	n.kids[i] = kid
	if beside == nil {
		return n, nil, added
	}
	n.keys = slices.Insert(n.keys, i+1, beside.keys[0])
	n.kids = slices.Insert(n.kids, i+1, beside)
	return n, n.split(e, i+1), added
}

// split cuts a node that has become too large and returns the right part. Where
// the newest entry is the last one, more such are to be expected (partitions and
// snapshots arrive in order), so the left part stays full.
func (n *node[K, V]) split(e *edit, newest int) *node[K, V] {
	if len(n.keys) <= fanout {
		return nil
	}
	at := len(n.keys) / 2
	if newest == len(n.keys)-1 {
		at = newest
	}
	right := &node[K, V]{edit: e, keys: slices.Clone(n.keys[at:])}
	n.keys = shorten(n.keys, at)
	if n.kids == nil {
		right.vals = slices.Clone(n.vals[at:])
		n.vals = shorten(n.vals, at)
		return right
	}
	right.kids = slices.Clone(n.kids[at:])
	n.kids = shorten(n.kids, at)
	return right
}

// shorten cuts a slice to n entries and clears what is behind, for the
// garbage collector.
func shorten[T any](s []T, n int) []T {
	clear(s[n:])
	return s[:n]
}

// own returns the node itself if it belongs to the edit, else a copy that does.
func (n *node[K, V]) own(e *edit) *node[K, V] {
	if n.edit == e {
		return n
	}
	c := &node[K, V]{edit: e, keys: slices.Clone(n.keys)}
	if n.kids == nil {
		c.vals = slices.Clone(n.vals)
	} else {
		c.kids = slices.Clone(n.kids)
	}
	return c
}

func (t tree[K, V]) del(e *edit, k K) tree[K, V] {
	if _, ok := t.get(k); !ok {
		return t
	}
	t.n--
	t.root = t.root.del(e, t.cmp, k)
	for t.root != nil && len(t.root.kids) == 1 {
		t.root = t.root.kids[0]
	}
	return t
}

// del removes an entry that is there and returns nil for a node that is now empty.
func (n *node[K, V]) del(e *edit, cmp func(a, b K) int, k K) *node[K, V] {
	n = n.own(e)
	i := 0
	if n.kids == nil {
		i, _ = slices.BinarySearchFunc(n.keys, k, cmp)
		n.vals = slices.Delete(n.vals, i, i+1)
	} else {
		i = n.child(cmp, k)
		if kid := n.kids[i].del(e, cmp, k); kid != nil {
			n.kids[i] = kid
			return n
		}
		n.kids = slices.Delete(n.kids, i, i+1)
	}
	n.keys = slices.Delete(n.keys, i, i+1)
	if len(n.keys) == 0 {
		return nil
	}
	return n
}

// all yields the entries in order.
func (t tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.root != nil {
			t.root.walk(yield)
		}
	}
}

func (n *node[K, V]) walk(yield func(K, V) bool) bool {
	for i, v := range n.vals {
		if !yield(n.keys[i], v) {
			return false
		}
	}
	for _, kid := range n.kids {
		if !kid.walk(yield) {
			return false
		}
	}
	return true
}

// from yields the entries whose key is k or larger, in order.
func (t tree[K, V]) from(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.root != nil {
			t.root.walkFrom(t.cmp, k, yield)
		}
	}
}

func (n *node[K, V]) walkFrom(cmp func(a, b K) int, k K, yield func(K, V) bool) bool {
	if n.kids == nil {
		i, _ := slices.BinarySearchFunc(n.keys, k, cmp)
		for ; i < len(n.keys); i++ {
			if !yield(n.keys[i], n.vals[i]) {
				return false
			}
		}
		return true
	}
	i := n.child(cmp, k)
	if !n.kids[i].walkFrom(cmp, k, yield) {
		return false
	}
	for _, kid := range n.kids[i+1:] {
		if !kid.walk(yield) {
			return false
		}
	}
	return true
}
