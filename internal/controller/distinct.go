package controller

import "iter"

// distinct yields the first element of each key, in order, with how often the
// key stands in the list: what a request names twice is refused, and once.
func distinct[T any, K comparable](list []T, key func(*T) K) iter.Seq2[*T, int] {
	return func(yield func(*T, int) bool) {
		count := make(map[K]int, len(list))
		for i := range list {
			count[key(&list[i])]++
		}
		for i := range list {
			k := key(&list[i])
			n := count[k]
			if n == 0 {
				continue
			}
			count[k] = 0
			if !yield(&list[i], n) {
				return
			}
		}
	}
}
