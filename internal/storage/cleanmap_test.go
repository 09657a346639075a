package storage

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
)

func TestKeyMapAgainstAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		slots := rapid.IntRange(16, 3000).Draw(rt, "slots")
		m, want := newKeyMap(int64(slots*slotSize), 0.9), map[string]model.Offset{}
		room := int(0.9 * float64(slots))
		keys := rapid.IntRange(1, 2*slots).Draw(rt, "keys")
		step := rapid.IntRange(1, 7).Draw(rt, "step")
		for i := range 2 * keys {
			key := fmt.Sprint(i * step % keys)
			_, known := want[key]
			ok := m.put([]byte(key), model.Offset(i))
			if ok != (known || len(want) < room) {
				rt.Fatalf("put of key %d with %d in %d slots: %v", i, len(want), slots, ok)
			}
			if ok {
				want[key] = model.Offset(i)
			}
		}
		for i := range keys {
			key := fmt.Sprint(i)
			if offset, known := want[key]; known && m.get([]byte(key)) != offset || !known && m.get([]byte(key)) != model.NoOffset {
				rt.Fatalf("key %s is at %d, want %d", key, m.get([]byte(key)), want[key])
			}
		}
	})
}
