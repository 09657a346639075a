package storage

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// What a decoder accepts must be what its encoder gives back.

func FuzzOffsets(f *testing.F) {
	f.Add([]byte("0\n2\norders 0 4711\norders 1 12\n"))
	f.Add([]byte("0\n0\n"))
	f.Add([]byte(""))
	f.Add([]byte("0\n1\na 99999999999 1\n"))
	f.Add([]byte("1\n1\na 1 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseOffsets(text)
		if err != nil {
			return
		}
		again, err := parseOffsets(appendOffsets(nil, len(got), maps.All(got)))
		if err != nil || !maps.Equal(got, again) {
			t.Errorf("%v became %v: %v", got, again, err)
		}
	})
}

func FuzzEpochs(f *testing.F) {
	f.Add([]byte("0\n1\n0 9\n"))
	f.Add([]byte("0\n3\n0 0\n4 10\n7 10\n"))
	f.Add([]byte("0\n2\n5 0\n4 10\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseEpochs(text)
		if err != nil {
			return
		}
		again, err := parseEpochs(appendEpochs(nil, got))
		if err != nil || !slices.Equal(got, again) {
			t.Errorf("%v became %v: %v", got, again, err)
		}
		e := epochs(got)
		for _, x := range got {
			if asked, end := e.end(x.epoch, 1<<62); asked != x.epoch || end < x.start {
				t.Errorf("epoch %d ends at %d, %d", x.epoch, asked, end)
			}
		}
	})
}

func FuzzTopicID(f *testing.F) {
	f.Add(appendTopicID(nil, testTopic))
	f.Add([]byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"))
	f.Add([]byte("topic_id:\nversion"))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, err := parseTopicID(text)
		if err != nil {
			return
		}
		if again, err := parseTopicID(appendTopicID(nil, id)); err != nil || again != id {
			t.Errorf("%v became %v: %v", id, again, err)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, Meta{ClusterID: testCluster, NodeID: 5, DirectoryID: testTopic}, time.UnixMilli(0)))
	f.Add([]byte("version=1\ncluster.id=x\n"))
	f.Add([]byte("a=${a}\nversion=1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMeta(text)
		if err != nil {
			return
		}
		if again, err := parseMeta(appendMeta(nil, m, time.UnixMilli(1))); err != nil || again != m {
			t.Errorf("%v became %v: %v", m, again, err)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	ps := &producers{}
	for i := range int64(3) {
		b := transacted(i, 3, int32(i), 2, 10)
		b.SetBaseOffset(model.Offset(10 * i))
		ps.apply(b)
	}
	f.Add(appendSnapshot(nil, ps))
	f.Add(appendSnapshot(nil, &producers{}))
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := parseSnapshot(b)
		if err != nil {
			return
		}
		// Duplicate ids collapse and there is room for odd numbers, so the second
		// round is what must be stable.
		once := appendSnapshot(nil, ps)
		again, err := parseSnapshot(once)
		if err != nil || !bytes.Equal(appendSnapshot(nil, again), once) {
			t.Errorf("%x became %x: %v", b, once, err)
		}
		ps.begin()
		next := produced(1, 3, 5, 1, 1)
		_, _ = ps.check(next)
		ps.apply(next)
		ps.rollback()
		if !bytes.Equal(appendSnapshot(nil, ps), once) {
			t.Error("rollback left something")
		}
	})
}

func FuzzTxnIndex(f *testing.F) {
	f.Add(appendTxn(appendTxn(nil, AbortedTxn{3, 12, 13, 14}), AbortedTxn{4, 1, 20, 3}))
	f.Add(make([]byte, txnEntry))
	f.Fuzz(func(t *testing.T, b []byte) {
		txns, err := parseTxns(b)
		if err != nil {
			return
		}
		var again []byte
		for _, x := range txns {
			again = appendTxn(again, x)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// A log file of any bytes, with indexes of any bytes, opens after an unclean stop
// and then reads without an error; what it has is whole batches.
func FuzzRecovery(f *testing.F) {
	var whole []byte
	base := model.Offset(0)
	for i := range 4 {
		b := produced(1, 0, int32(2*i), 2, 5)
		b.SetBaseOffset(base)
		base = b.NextOffset()
		whole = append(whole, b...)
	}
	marker := batch.EndTxnMarker(model.Producer{ID: 1}, false, 0, 6)
	marker.SetBaseOffset(base)
	f.Add(whole, []byte{}, []byte{}, []byte{})
	f.Add(append(slices.Clone(whole), marker...), []byte{0, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 24), make([]byte, 34))
	f.Add(whole[:len(whole)-3], make([]byte, 4096), make([]byte, 100), []byte("x"))
	f.Add(append(slices.Clone(whole), make([]byte, 500)...), []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, log, index, times, snapshot []byte) {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/log", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{logSuffix: log, indexSuffix: index, timeSuffix: times, snapshotSuffix: snapshot} {
			if err := vfs.WriteFileSync(mem, "/log/00000000000000000000"+name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s := NewSyncer(SyncerConfig{FS: mem, Path: "/"})
		defer s.Close()
		l, err := OpenLog("/log", LogOptions{}, s)
		if err != nil {
			t.Fatal(err)
		}
		got := contents(t, l, 0, 1)
		end := model.Offset(0)
		for _, b := range got {
			if b.BaseOffset() < end {
				t.Errorf("batch at %d after %d", b.BaseOffset(), end)
			}
			end = b.NextOffset()
		}
		if end != l.EndOffset() {
			t.Errorf("end %d, batches end at %d", l.EndOffset(), end)
		}
		_, _, _ = l.OffsetForTime(5, end) // records may be nonsense; no panic
		if err := l.SetLeaderEpoch(max(0, latest(l))); err == nil {
			if a := put(l, &Append{Batch: plain(1, 1, "x"), Epoch: max(0, latest(l))}); a.Err != nil || a.Base != end {
				t.Errorf("append: %v at %d", a.Err, a.Base)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// The files of a clean start are not scanned, so they may say anything; whatever
// they say, there is no panic and no endless loop.
func FuzzCleanStart(f *testing.F) {
	var whole []byte
	for i := range 3 {
		b := plain(2, 5, "x")
		b.SetBaseOffset(model.Offset(2 * i))
		whole = append(whole, b...)
	}
	f.Add(whole, []byte{0, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 12), []byte{})
	f.Add(whole, []byte{0, 0, 0, 1, 0x7f, 0, 0, 0}, []byte("123456789012"), make([]byte, 34))
	f.Fuzz(func(t *testing.T, log, index, times, txns []byte) {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/log", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{logSuffix: log, indexSuffix: index, timeSuffix: times, txnSuffix: txns} {
			if err := vfs.WriteFileSync(mem, "/log/00000000000000000000"+name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s := NewSyncer(SyncerConfig{FS: mem, Path: "/"})
		defer s.Close()
		l, err := OpenLog("/log", LogOptions{Clean: true}, s)
		if err != nil {
			return
		}
		for from := range min(l.EndOffset(), 20) {
			if c, err := l.Read(from, l.EndOffset(), 100, true); err == nil {
				c.Close()
			}
		}
		_, _, _ = l.OffsetForTime(5, l.EndOffset())
		_, _, _ = l.MaxTimestamp(l.EndOffset())
		_, _ = l.Aborted(0, 10)
		_ = l.TruncateTo(l.EndOffset() / 2)
		_ = l.Close()
	})
}
