package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"ottla.dev/ottla/internal/model"
)

// keyMap is the offset of each key's newest record, for compaction. It has the keys'
// hashes only, so it costs 24 bytes for each however long they are: two keys with one
// hash of 128 bits would count as one. The hash is a cryptographic one: nobody can
// find such keys to make another's record vanish.
//
// It is a table with open addressing and linear probing. It grows by doubling, so a
// log with few keys costs little, up to limit slots; while it grows it needs half as
// much again.
type keyMap struct {
	slots []keySlot
	used  int
	limit int     // slots at most
	load  float64 // part of the slots that may be used
}

// keySlot is one key: the first 16 bytes of its SHA-256 and the offset plus one; 0 is
// an empty slot.
type keySlot struct {
	a, b uint64
	next int64
}

const (
	slotSize   = 24
	firstSlots = 1024 // that a map begins with
	minSlots   = 16   // that it may have, however little memory there is
)

// newKeyMap makes a map of at most so many bytes, but not less than minSlots.
func newKeyMap(bytes int64, load float64) *keyMap {
	if load <= 0 || load > 0.99 {
		load = 0.9
	}
	limit := int(max(bytes/slotSize, minSlots))
	return &keyMap{limit: limit, load: load, slots: make([]keySlot, min(limit, firstSlots))}
}

func hashKey(key []byte) (a, b uint64) {
	sum := sha256.Sum256(key)
	return binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])
}

// find is the slot that has the key, or where it belongs.
func (m *keyMap) find(a, b uint64) *keySlot {
	i, _ := bits.Mul64(a, uint64(len(m.slots)))
	for {
		s := &m.slots[i]
		if s.next == 0 || s.a == a && s.b == b {
			return s
		}
		if i++; i == uint64(len(m.slots)) {
			i = 0
		}
	}
}

// put notes that the key's newest record is at offset. It is false if the map is full.
func (m *keyMap) put(key []byte, offset model.Offset) bool {
	a, b := hashKey(key)
	s := m.find(a, b)
	if s.next == 0 {
		if m.used >= int(m.load*float64(len(m.slots))) {
			if len(m.slots) >= m.limit {
				return false
			}
			m.grow()
			s = m.find(a, b)
		}
		m.used++
	}
	*s = keySlot{a, b, int64(offset) + 1}
	return true
}

// get is the offset of the key's newest record, NoOffset if the map does not have it.
func (m *keyMap) get(key []byte) model.Offset {
	return model.Offset(m.find(hashKey(key)).next - 1)
}

func (m *keyMap) grow() {
	old := m.slots
	m.slots = make([]keySlot, min(2*len(old), m.limit))
	for i := range old {
		if old[i].next != 0 {
			*m.find(old[i].a, old[i].b) = old[i]
		}
	}
}
