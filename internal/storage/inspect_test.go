package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// sink puts bytes into a file in memory.
func sink(t testing.TB, fsys vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// laid puts batches one behind another, at offsets from base on.
func laid(base model.Offset, epoch model.Epoch, bs ...batch.Batch) []byte {
	var out []byte
	for _, b := range bs {
		b = slices.Clone(b)
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(epoch)
		base = b.NextOffset()
		out = append(out, b...)
	}
	return out
}

// inspected is a walk as text: a batch is first-last, damage is what it says.
func inspected(fsys vfs.FS, name string) (out []string) {
	for b, err := range InspectBatches(fsys, name) {
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		good := ""
		if !b.GoodCRC {
			good = " bad"
		}
		out = append(out, fmt.Sprintf("%d-%d at %d%s", b.Header.BaseOffset(), b.Header.LastOffset(), b.Pos, good))
	}
	return out
}

func TestInspectBatchesSeesEveryBatchAndWhatIsWrong(t *testing.T) {
	whole := laid(5, 2, plain(3, 100, "a"), plain(2, 200, "b"), plain(1, 300, "c"))
	one, two := len(plain(3, 100, "a")), len(plain(2, 200, "b"))
	change := func(at int, bit byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= bit; return b }
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   []string
	}{
		"sound":          {func(b []byte) []byte { return b }, []string{"5-7 at 0", "8-9 at 91", "10-10 at 172"}},
		"empty":          {func([]byte) []byte { return nil }, nil},
		"reserved":       {func(b []byte) []byte { return append(b, make([]byte, 300_000)...) }, []string{"5-7 at 0", "8-9 at 91", "10-10 at 172"}},
		"reserved a bit": {func(b []byte) []byte { return append(b, 0, 0, 0) }, []string{"5-7 at 0", "8-9 at 91", "10-10 at 172"}},
		"rubbish":        {func(b []byte) []byte { return append(b, 0, 1) }, []string{"5-7 at 0", "8-9 at 91", "10-10 at 172", "position 243: 2 bytes are too few for a record batch, which has 61 at least; " + meansTail}},
		"not zeros": {func(b []byte) []byte { return append(append(b, make([]byte, 300_000)...), 1) }, []string{
			"5-7 at 0", "8-9 at 91", "10-10 at 172",
			"position 243: no record batch begins here: record batch has magic 0, only 2 is supported; " + meansCut,
		}},
		"bit of a record": {change(one+70, 1), []string{"5-7 at 0", "8-9 at 91 bad", "position 91, offset 8: the batch has CRC ", "10-10 at 172"}},
		"offset back":     {change(one+7, 8), []string{"5-7 at 0", "0-1 at 91", "position 91, offset 0: the batch begins at offset 0, at least 8 must come; " + meansOrder, "10-10 at 172"}},
		"epoch back":      {change(one+two+15, 3), []string{"5-7 at 0", "8-9 at 91", "10-10 at 172", "position 172, offset 10: the batch is of leader epoch 1 and follows one of epoch 2; " + meansOrder}},
		"cut":             {func(b []byte) []byte { return b[:len(b)-1] }, []string{"5-7 at 0", "8-9 at 91", "position 172, offset 10: the file ends after 70 of the batch's 71 bytes; " + meansTail}},
		"negative length": {change(one+8, 0x80), []string{"5-7 at 0", "position 91: no record batch begins here: record batch has length -"}},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem()
			sink(t, fsys, "/f.log", c.change(bytes.Clone(whole)))
			got := inspected(fsys, "/f.log")
			ok := len(got) == len(c.want)
			for i := range got {
				ok = ok && len(c.want[i]) <= len(got[i]) && got[i][:len(c.want[i])] == c.want[i]
			}
			if !ok {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// A length field can claim 2 GB: nothing of that size may be made of it.
func TestInspectAllocatesNothingForSizesThatAreOnlyClaimed(t *testing.T) {
	fsys := vfs.NewMem()
	data := laid(0, 0, plain(1, 0, "x"))
	binary.BigEndian.PutUint32(data[8:], 1<<31-1)
	sink(t, fsys, "/f.log", data)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := inspected(fsys, "/f.log")
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; len(got) != 1 || n > 4<<20 {
		t.Errorf("%d bytes allocated for %q", n, got)
	}
	b := BatchAt{Size: 1 << 31}
	if _, err := b.Load(1 << 20); !errors.Is(err, batch.ErrTooLarge) {
		t.Errorf("Load of a batch that is too large: %v", err)
	}
}

func TestInspectReadsWhatALogWrote(t *testing.T) {
	fsys := vfs.NewMem()
	f := openFolderForInspect(t, fsys)
	l, err := f.Open(testPart, testTopic, LogOptions{Config: LogConfig{IndexInterval: 100, SegmentBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetLeaderEpoch(3); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if a := put(l, &Append{Batch: produced(7, 0, int32(i*3), 3, int64(1000+i)), Epoch: 3}); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	for _, b := range []batch.Batch{transacted(8, 0, 0, 2, 2000), batch.EndTxnMarker(model.Producer{ID: 8}, false, 1, 2001)} {
		if a := put(l, &Append{Batch: b, Epoch: 3}); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	if err := f.Close(9); err != nil {
		t.Fatal(err)
	}
	dir := testRoot + "/orders-3"
	segment := dir + "/00000000000000000000.log"
	if got := inspected(fsys, segment); len(got) != 12 {
		t.Errorf("%d batches, want 12: %q", len(got), got)
	}
	if n := len(collect(t, InspectIndex(fsys, dir+"/00000000000000000000.index", 0))); n < 3 {
		t.Errorf("%d entries in the index", n)
	}
	if n := len(collect(t, InspectTimes(fsys, dir+"/00000000000000000000.timeindex", 0))); n < 3 {
		t.Errorf("%d entries in the time index", n)
	}
	txns := collect(t, InspectTxns(fsys, dir+"/00000000000000000000.txnindex"))
	if len(txns) != 1 || txns[0].Producer != 8 || txns[0].First != 30 || txns[0].Last != 32 || txns[0].StableOffset() != 33 {
		t.Errorf("aborted transactions: %+v", txns)
	}
	for err := range VerifyIndex(fsys, dir+"/00000000000000000000.index", segment, 0) {
		t.Error(err)
	}
	for err := range VerifyTimes(fsys, dir+"/00000000000000000000.timeindex", segment, 0) {
		t.Error(err)
	}
	for err := range VerifyTxns(fsys, dir+"/00000000000000000000.txnindex", segment) {
		t.Error(err)
	}
	producers := collect(t, InspectProducers(fsys, dir+"/00000000000000000033.snapshot"))
	if len(producers) != 2 || producers[0].LastSequence != 29 || producers[0].LastOffset != 29 || producers[0].OffsetDelta != 2 || producers[1].CoordinatorEpoch != 1 {
		t.Errorf("producers: %+v", producers)
	}
	if e, err := InspectEpochs(fsys, dir+"/leader-epoch-checkpoint"); err != nil || !slices.Equal(e, []EpochStart{{3, 0}}) {
		t.Errorf("epochs: %v, %v", e, err)
	}
	if id, err := InspectTopicID(fsys, dir+"/partition.metadata"); err != nil || id != testTopic {
		t.Errorf("topic id: %v, %v", id, err)
	}
	if o, err := InspectOffsets(fsys, testRoot+"/recovery-point-offset-checkpoint"); err != nil || !slices.Equal(o, []PartitionOffset{{testPart, 33}}) {
		t.Errorf("recovery points: %v, %v", o, err)
	}
	if m, err := InspectMeta(fsys, testRoot+"/meta.properties"); err != nil || m.ClusterID != testCluster {
		t.Errorf("meta.properties: %v, %v", m, err)
	}
	if e, err := InspectClean(fsys, testRoot+"/.kafka_cleanshutdown"); err != nil || e != 9 {
		t.Errorf("clean shutdown: %v, %v", e, err)
	}
}

func openFolderForInspect(t *testing.T, fsys vfs.FS) *Folder {
	t.Helper()
	id := byte(0)
	f, err := OpenFolder(FolderConfig{FS: fsys, Path: testRoot, ClusterID: testCluster, NodeID: 1, NewID: func() model.UUID {
		id++
		return model.UUID{0: 1, 15: id}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func collect[E any](t *testing.T, seq func(func(E, error) bool)) (out []E) {
	t.Helper()
	for e, err := range seq {
		if err != nil {
			t.Error(err)
			continue
		}
		out = append(out, e)
	}
	return out
}

func TestInspectOfAMissingFileIsAnErrorOfTheDisk(t *testing.T) {
	fsys := vfs.NewMem()
	for range 2 {
		for _, err := range InspectBatches(fsys, "/none.log") {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
		}
	}
	n := 0
	for err := range VerifyIndex(fsys, "/none.index", "/none.log", 0) {
		t.Errorf("an index that is not there was verified: %v", err)
	}
	for err := range VerifyTxns(fsys, "/none.txnindex", "/none.log") {
		if n++; !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d errors for a segment that is not there, want 1", n)
	}
}

func TestKindsOfFiles(t *testing.T) {
	for name, want := range map[string]FileKind{
		"00000000000000000000.log": SegmentFile, "a/00000000000000000000.log.deleted": SegmentFile,
		"00000000000000000000.index.swap": IndexFile, "00000000000000000000.timeindex.cleaned": TimeIndexFile,
		"00000000000000000000.txnindex": TxnIndexFile, "00000000000000000000.snapshot": ProducerFile,
		"00000000000000000000-0000000001.checkpoint": SnapshotFile, "00000000000000000000-0000000001.checkpoint.part": SnapshotFile,
		"bootstrap.checkpoint": SnapshotFile, "leader-epoch-checkpoint": EpochFile,
		"recovery-point-offset-checkpoint": OffsetFile, "cleaner-offset-checkpoint": OffsetFile,
		"partition.metadata": TopicIDFile, "meta.properties": MetaFile, ".kafka_cleanshutdown": CleanFile,
		".lock": OtherFile, ".ottla": OtherFile, "cat.jpg": OtherFile,
	} {
		if got := KindOf(name); got != want {
			t.Errorf("%s is of kind %d, want %d", name, got, want)
		}
	}
}

// FuzzInspect takes any bytes for each kind of file: nothing panics, every walk
// ends, and what it gives lies within the file.
func FuzzInspect(f *testing.F) {
	whole := laid(0, 0, plain(3, 100, "a"), transacted(8, 0, 0, 2, 200), batch.EndTxnMarker(model.Producer{ID: 8}, false, 1, 2001))
	f.Add(whole, []byte{0, 0, 0, 4, 0, 0, 0, 86})
	f.Add(append(whole, make([]byte, 100)...), appendTxn(nil, AbortedTxn{8, 3, 5, 6}))
	f.Add(whole[:100], []byte{0, 0, 0, 0, 0, 0, 0, 102, 0, 0, 0, 2})
	f.Add([]byte("0\n1\norders 0 5\n"), []byte("0\n1\n7 4711\n"))
	f.Add(appendSnapshot(nil, &producers{byID: map[int64]*producer{1: newProducer()}}), []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"))
	f.Fuzz(func(t *testing.T, log, other []byte) {
		fsys := vfs.NewMem()
		sink(t, fsys, "/s", log)
		sink(t, fsys, "/o", other)
		end := int64(0)
		for b, err := range InspectBatches(fsys, "/s") {
			if err != nil {
				continue
			}
			if b.Pos != end || b.Size < batch.HeaderSize || b.Pos+b.Size > int64(len(log)) {
				t.Fatalf("batch at %d of %d bytes after %d, in a file of %d", b.Pos, b.Size, end, len(log))
			}
			end = b.Pos + b.Size
			all, err := b.Load(1 << 20)
			if err != nil || !bytes.Equal(all, log[b.Pos:end]) {
				t.Fatalf("Load: %v", err)
			}
			if b.GoodCRC != (all.Check() == nil) {
				t.Fatalf("GoodCRC is %v, Check says %v", b.GoodCRC, all.Check())
			}
		}
		for _, name := range []string{"/s", "/o"} {
			n := 0
			limit := len(log) + len(other) + 2
			count := func() {
				if n++; n > 20*limit {
					t.Fatal("a walk gives more than a file can have")
				}
			}
			for range InspectIndex(fsys, name, 0) {
				count()
			}
			for range InspectTimes(fsys, name, 0) {
				count()
			}
			for range InspectTxns(fsys, name) {
				count()
			}
			for range InspectProducers(fsys, name) {
				count()
			}
			for range VerifyIndex(fsys, name, "/s", 0) {
				count()
			}
			for range VerifyTimes(fsys, name, "/s", 0) {
				count()
			}
			for range VerifyTxns(fsys, name, "/s") {
				count()
			}
			_, _ = InspectEpochs(fsys, name)
			_, _ = InspectOffsets(fsys, name)
			_, _ = InspectTopicID(fsys, name)
			_, _ = InspectMeta(fsys, name)
			_, _ = InspectClean(fsys, name)
		}
	})
}
