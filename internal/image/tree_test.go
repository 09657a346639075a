package image

import (
	"cmp"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A tree does what a sorted map does, and every version of it stays as it was.
func TestTreeIsAPersistentSortedMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			tree tree[int, int]
			want map[int]int
		}
		now := version{newTree[int, int](cmp.Compare), map[int]int{}}
		versions := []version{now}
		e := new(edit)
		for range rapid.IntRange(0, 40).Draw(t, "rounds") {
			lo := rapid.IntRange(0, 2000).Draw(t, "lo")
			n := rapid.IntRange(1, 200).Draw(t, "n")
			step := rapid.SampledFrom([]int{1, -1, 7, 601}).Draw(t, "step")
			remove := rapid.Bool().Draw(t, "remove")
			now.want = maps.Clone(now.want)
			for i := range n {
				k := ((lo+i*step)%2003 + 2003) % 2003
				if remove {
					now.tree = now.tree.del(e, k)
					delete(now.want, k)
				} else {
					now.tree = now.tree.put(e, k, i+lo)
					now.want[k] = i + lo
				}
			}
			if rapid.Bool().Draw(t, "publish") {
				e = new(edit)
				versions = append(versions, now)
			}
		}
		versions = append(versions, now)
		from := rapid.IntRange(-1, 2004).Draw(t, "from")
		for _, v := range versions {
			if got := maps.Collect(v.tree.all()); !maps.Equal(got, v.want) || v.tree.len() != len(v.want) {
				t.Fatalf("%d entries %v, want %d %v", v.tree.len(), got, len(v.want), v.want)
			}
			var tail []int
			for k := range v.tree.from(from) {
				tail = append(tail, k)
			}
			want := slices.DeleteFunc(slices.Sorted(maps.Keys(v.want)), func(k int) bool { return k < from })
			if !slices.Equal(tail, want) {
				t.Fatalf("from %d: %v, want %v", from, tail, want)
			}
			for k := range 2003 {
				got, ok := v.tree.get(k)
				if want, has := v.want[k]; got != want || ok != has {
					t.Fatalf("get %d: %d %v, want %d %v", k, got, ok, want, has)
				}
			}
		}
	})
}

// A tree filled in order is full, so that it wastes no memory; one emptied again
// has no nodes.
func TestTreeFilledInOrderIsFull(t *testing.T) {
	e := new(edit)
	tr := newTree[int, int](cmp.Compare)
	for k := range 10_000 {
		tr = tr.put(e, k, k)
	}
	leaves := 0
	var count func(n *node[int, int])
	count = func(n *node[int, int]) {
		if n.kids == nil {
			leaves++
		}
		for _, kid := range n.kids {
			count(kid)
		}
	}
	count(tr.root)
	if want := 10_000/fanout + 1; leaves != want {
		t.Errorf("%d leaves, want %d", leaves, want)
	}
	for k := range 10_000 {
		tr = tr.del(e, k)
	}
	if tr.root != nil || tr.len() != 0 {
		t.Errorf("an emptied tree keeps %d entries", tr.len())
	}
}
