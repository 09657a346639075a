package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// What the tests of this package share.

const testRoot = "/data"

var (
	testTopic   = model.UUID{1: 7, 15: 9}
	testCluster = model.UUID{3: 3}
	testPart    = model.TopicPartition{Topic: "orders", Partition: 3}
)

// plain builds a batch of records without a producer; every record has the text.
func plain(n int, ts int64, text string) batch.Batch {
	return build(batch.Plain(0, 0), n, ts, text)
}

// produced builds a batch of an idempotent producer.
func produced(id int64, epoch int16, seq int32, n int, ts int64) batch.Batch {
	o := batch.BuilderOptions{Producer: model.Producer{ID: id, Epoch: epoch}, Sequence: seq}
	return build(o, n, ts, fmt.Sprintf("p%d-%d", id, seq))
}

// transacted builds a batch of a transaction.
func transacted(id int64, epoch int16, seq int32, n int, ts int64) batch.Batch {
	o := batch.BuilderOptions{Producer: model.Producer{ID: id, Epoch: epoch}, Sequence: seq, Transactional: true}
	return build(o, n, ts, fmt.Sprintf("t%d-%d", id, seq))
}

func build(o batch.BuilderOptions, n int, ts int64, text string) batch.Batch {
	var b batch.Builder
	b.Reset(o)
	for i := range n {
		b.Add(ts+int64(i), fmt.Appendf(nil, "k%d", i), []byte(text))
	}
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return slices.Clone(out)
}

// put appends one batch and waits until it is written.
func put(l *Log, a *Append) *Append {
	done := make(chan struct{})
	a.Done = func(*Append) { close(done) }
	l.Append(a)
	<-done
	return a
}

// lead appends as the leader of epoch 0 and fails the test on an error.
func lead(t testing.TB, l *Log, b batch.Batch) *Append {
	t.Helper()
	a := put(l, &Append{Batch: b})
	if a.Err != nil {
		t.Fatalf("append: %v", a.Err)
	}
	return a
}

// contents reads all batches in [from, end) through Read with chunks of at most most bytes.
func contents(t testing.TB, l *Log, from model.Offset, most int64) []batch.Batch {
	t.Helper()
	all, err := readAll(l, from, l.EndOffset(), most)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return all
}

func readAll(l *Log, from, limit model.Offset, most int64) ([]batch.Batch, error) {
	var all []batch.Batch
	for from < limit {
		c, err := l.Read(from, limit, most, true)
		if err != nil {
			return all, err
		}
		b := make([]byte, c.Len())
		n, err := c.ReadAt(b, 0)
		c.Close()
		if n != len(b) {
			return all, fmt.Errorf("chunk of %d bytes gave %d: %w", len(b), n, err)
		}
		if n == 0 {
			return all, fmt.Errorf("nothing at %d although the limit is %d", from, limit)
		}
		before := from
		for len(b) > 0 {
			size, err := batch.Peek(b)
			if err != nil || size > len(b) {
				break // cut
			}
			one := batch.Batch(b[:size])
			if err := one.Check(); err != nil {
				return all, fmt.Errorf("at %d: %w", from, err)
			}
			all = append(all, one)
			from = one.NextOffset()
			b = b[size:]
		}
		if from == before {
			return all, fmt.Errorf("no whole batch at %d", from)
		}
	}
	return all, nil
}

// recorder is a Notify that remembers.
type recorder struct {
	mu       sync.Mutex
	appended []model.Offset
	flushed  []model.Offset
	failed   error
}

func (r *recorder) Appended(_ *Log, end model.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.appended = append(r.appended, end)
}

func (r *recorder) Flushed(_ *Log, flushed model.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushed = append(r.flushed, flushed)
}

func (r *recorder) Failed(_ *Log, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
}

func folderConfig(fsys vfs.FS) FolderConfig {
	src := rand.New(rand.NewPCG(rand.Uint64(), 2)) // ids do not repeat in a folder
	var mu sync.Mutex
	return FolderConfig{
		FS: fsys, Path: testRoot, ClusterID: testCluster, NodeID: 1,
		NewID: func() model.UUID {
			mu.Lock()
			defer mu.Unlock()
			return model.RandomUUID(src.Uint64)
		},
	}
}

// openFolder opens the test's folder and closes it at the end if the test has not.
func openFolder(t testing.TB, fsys vfs.FS) *Folder {
	t.Helper()
	f, err := OpenFolder(folderConfig(fsys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(-1) })
	return f
}

// openPart opens the test's partition as a leader in epoch 0.
func openPart(t testing.TB, f *Folder, c LogConfig) *Log {
	t.Helper()
	l, err := f.Open(testPart, testTopic, LogOptions{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetLeaderEpoch(max(0, latest(l))); err != nil {
		t.Fatal(err)
	}
	return l
}

func latest(l *Log) model.Epoch {
	e, _ := l.LatestEpoch()
	return e
}

func closeFolder(t testing.TB, f *Folder) {
	t.Helper()
	if err := f.Close(14); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, fsys vfs.FS, elem ...string) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fsys, filepath.Join(elem...), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func partDir() string { return filepath.Join(testRoot, testPart.String()) }

// equalBatches compares bytes and tells the first difference.
func equalBatches(got, want []batch.Batch) error {
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("batch %d: offset %d, %d bytes instead of offset %d, %d bytes",
				i, got[i].BaseOffset(), len(got[i]), want[i].BaseOffset(), len(want[i]))
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d batches instead of %d", len(got), len(want))
	}
	return nil
}

func be32(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) }
