package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// Readers go on while the log is appended to, rolled, truncated, put to rest and
// cut at its start. What they get is what lies at that offset.
func TestReadersNeverSeeWhatIsNotThere(t *testing.T) {
	f := openFolder(t, vfs.NewMem())
	l := openPart(t, f, LogConfig{SegmentBytes: 2000, IndexInterval: 200, DeleteDelayMs: -1})
	f.disk.files.max = 3
	var stop atomic.Bool
	var wg sync.WaitGroup
	var reads atomic.Int64
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			for !stop.Load() {
				if err := readSomewhere(l, rng); err != nil {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		}()
	}
	rng := rand.New(rand.NewPCG(7, 7))
	epoch := model.Epoch(0)
	for step := 0; step < 1500 || reads.Load() < 1000; step++ {
		switch r := rng.IntN(100); {
		case r < 90:
			end := l.EndOffset()
			a := put(l, &Append{Batch: plain(1+rng.IntN(3), int64(end), fmt.Sprintf("at %d;", end)), Epoch: epoch})
			if a.Err != nil {
				t.Fatal(a.Err)
			}
		case r < 94:
			start, end := l.StartOffset(), l.EndOffset()
			if err := l.TruncateTo(max(start, end-model.Offset(rng.IntN(30)))); err != nil {
				t.Fatal(err)
			}
			epoch++
			if err := l.SetLeaderEpoch(epoch); err != nil {
				t.Fatal(err)
			}
		case r < 97:
			if err := l.rest(); err != nil {
				t.Fatal(err)
			}
		default:
			start, end := l.StartOffset(), l.EndOffset()
			if err := l.AdvanceStart(start + (end-start)/3); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}

// readSomewhere reads at an offset that is in the log and checks what it gets,
// unless the log was truncated meanwhile.
func readSomewhere(l *Log, rng *rand.Rand) error {
	l.mu.Lock()
	gen, start, end := l.gen, l.StartOffset(), l.EndOffset()
	l.mu.Unlock()
	if start == end {
		return nil
	}
	from := start + model.Offset(rng.Int64N(int64(end-start)))
	c, err := l.Read(from, end, int64(rng.IntN(2000)), true)
	if err != nil {
		if errors.Is(err, ErrOutOfRange) && l.moved(gen) || errors.Is(err, ErrOutOfRange) && l.StartOffset() > from {
			return nil
		}
		return fmt.Errorf("read at %d of [%d, %d): %w", from, start, end, err)
	}
	b := make([]byte, c.Len())
	_, err = c.ReadAt(b, 0)
	c.Close()
	found, ok, terr := l.OffsetForTime(int64(from), end)
	if l.moved(gen) || l.StartOffset() > from {
		return nil
	}
	if err != nil || terr != nil {
		return fmt.Errorf("read at %d: %w, %w", from, err, terr)
	}
	if !ok || found.Offset < from-5 {
		return fmt.Errorf("time %d is at %d, %v", from, found.Offset, ok)
	}
	first := true
	for len(b) > 0 {
		size, err := batch.Peek(b)
		if err != nil || size > len(b) {
			break
		}
		one := batch.Batch(b[:size])
		if err := one.Check(); err != nil {
			return fmt.Errorf("read at %d: %w", from, err)
		}
		if first && (one.BaseOffset() > from || one.LastOffset() < from) {
			return fmt.Errorf("read at %d begins with %d to %d", from, one.BaseOffset(), one.LastOffset())
		}
		if !strings.Contains(string(one.Body()), fmt.Sprintf("at %d;", one.BaseOffset())) {
			return fmt.Errorf("batch at %d has the records %q", one.BaseOffset(), one.Body())
		}
		first, b = false, b[size:]
	}
	return nil
}
