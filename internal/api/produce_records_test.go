package api

import (
	"errors"
	"slices"
	"testing"

	"ottla.dev/ottla/internal/batch"
)

func TestOnlyBatchCutsAsKafkaDoes(t *testing.T) {
	one := make([]byte, batch.HeaderSize+7)
	one[lengthEnd-1] = byte(len(one) - lengthEnd)
	one[magicEnd-1] = 2
	with := func(at int, v byte) []byte {
		b := slices.Clone(one)
		b[at] = v
		return b
	}
	for _, c := range []struct {
		name    string
		records []byte
		size    int
		err     error
	}{
		{"one", one, len(one), nil},
		{"padded", append(slices.Clone(one), 0, 0, 0), len(one), nil},
		{"half a batch more", append(slices.Clone(one), one[:30]...), len(one), nil},
		{"two", append(slices.Clone(one), one...), len(one), batch.ErrInvalid},
		{"nonsense behind it", append(slices.Clone(one), make([]byte, 20)...), len(one), batch.ErrCorrupt},
		{"none", nil, 0, batch.ErrInvalid},
		{"cut", one[:len(one)-1], 0, batch.ErrInvalid},
		{"short length", with(lengthEnd-1, 5), 0, batch.ErrCorrupt},
		{"negative length", with(lengthEnd-4, 0x80), 0, batch.ErrCorrupt},
		{"less than a header", with(lengthEnd-1, 30)[:lengthEnd+30], 0, batch.ErrCorrupt},
		{"magic 1", with(magicEnd-1, 1), 0, batch.ErrInvalid},
		{"magic 3", with(magicEnd-1, 3), 0, batch.ErrCorrupt},
		{"magic -1", with(magicEnd-1, 0xff), 0, batch.ErrCorrupt},
	} {
		size, err := onlyBatch(c.records)
		if !errors.Is(err, c.err) || c.err == nil && err != nil || err == nil && size != c.size {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, size, err, c.size, c.err)
		}
	}
}
