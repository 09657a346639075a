package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

func fileNames(t *testing.T, fsys vfs.FS, dir string) []string {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// KAFKA.md 4.1: the files of a log folder and of a partition after a clean stop.
func TestFilesAfterACleanStop(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{})
	lead(t, l, produced(7, 2, 0, 3, 1000))
	lead(t, l, plain(1, 900, "older"))
	if err := f.CheckpointHighWatermarks(func(yield func(model.TopicPartition, model.Offset) bool) { yield(testPart, 4) }); err != nil {
		t.Fatal(err)
	}
	if err := l.AdvanceStart(2); err != nil {
		t.Fatal(err)
	}
	closeFolder(t, f)
	if got, want := fileNames(t, mem, testRoot), []string{
		".kafka_cleanshutdown", ".ottla", "log-start-offset-checkpoint", "meta.properties", "orders-3",
		"recovery-point-offset-checkpoint", "replication-offset-checkpoint",
	}; !slices.Equal(got, want) {
		t.Errorf("folder has %q, want %q", got, want)
	}
	if got, want := fileNames(t, mem, partDir()), []string{
		"00000000000000000000.index", "00000000000000000000.log", "00000000000000000000.timeindex",
		"00000000000000000004.snapshot", "leader-epoch-checkpoint", "partition.metadata",
	}; !slices.Equal(got, want) {
		t.Errorf("partition has %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"/data/.kafka_cleanshutdown":                    `{"version":0,"brokerEpoch":14}`,
		"/data/recovery-point-offset-checkpoint":        "0\n1\norders 3 4\n",
		"/data/replication-offset-checkpoint":           "0\n1\norders 3 4\n",
		"/data/log-start-offset-checkpoint":             "0\n1\norders 3 2\n",
		"/data/orders-3/leader-epoch-checkpoint":        "0\n1\n0 2\n",
		"/data/orders-3/partition.metadata":             "version: 0\ntopic_id: " + testTopic.String(),
		"/data/orders-3/00000000000000000000.index":     "",
		"/data/orders-3/00000000000000000000.timeindex": "\x00\x00\x00\x00\x00\x00\x03\xea\x00\x00\x00\x02",
	} {
		if got := string(readFile(t, mem, name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if n := len(readFile(t, mem, partDir(), "partition.metadata")); n != 43 {
		t.Errorf("partition.metadata has %d bytes, Kafka's has 43", n)
	}
}

// KAFKA.md 4.4, field by field.
func TestSnapshotBytes(t *testing.T) {
	ps := &producers{}
	b := produced(7, 2, 10, 3, 1000)
	b.SetBaseOffset(40)
	ps.apply(b)
	x := transacted(1, 5, 0, 2, 77)
	x.SetBaseOffset(50)
	ps.apply(x)
	got := appendSnapshot(nil, ps)
	want := []byte{0, 1, 0, 0, 0, 0}
	want = binary.BigEndian.AppendUint32(want, 2)
	for _, e := range []struct {
		id          int64
		epoch       int16
		seq         int32
		last        int64
		delta       int32
		timestamp   int64
		coordinator int32
		txn         int64
	}{{1, 5, 1, 51, 1, 78, -1, 50}, {7, 2, 12, 42, 2, 1002, -1, -1}} {
		want, _ = binary.Append(want, binary.BigEndian, e)
	}
	binary.BigEndian.PutUint32(want[2:], crc32.Checksum(want[6:], crc32.MakeTable(crc32.Castagnoli)))
	if !bytes.Equal(got, want) || len(got) != 10+2*46 {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if empty := appendSnapshot(nil, &producers{}); len(empty) != 10 {
		t.Errorf("empty snapshot has %d bytes, Kafka's has 10", len(empty))
	}
}

// KAFKA.md 4.3: an entry when more than index.interval.bytes came since the last,
// with the batch's last offset and its position; largest timestamps beside it.
func TestIndexBytes(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	const interval = 400
	l := openPart(t, f, LogConfig{IndexInterval: interval, SegmentBytes: 4000})
	type seg struct {
		base                        int64
		index, times                []byte
		size, since, maxTime, maxAt int64
		lastTime                    int64
	}
	var segs []*seg
	end := int64(0)
	stamps := []int64{5, 9, 3, 30, 30, 12, 40, 2}
	for i := range 120 {
		b := plain(1+i%4, stamps[i%len(stamps)]+int64(i), strings.Repeat("v", i%50))
		size, n := int64(len(b)), int64(1+i%4)
		var s *seg
		if len(segs) > 0 {
			s = segs[len(segs)-1]
		}
		if s == nil || s.size+size > 4000 {
			if s != nil && s.maxTime > s.lastTime {
				s.times, _ = binary.Append(s.times, binary.BigEndian, struct {
					T int64
					O int32
				}{s.maxTime, int32(s.maxAt - s.base)})
			}
			s = &seg{base: end, maxTime: -1, lastTime: -1}
			segs = append(segs, s)
		}
		last := end + n - 1
		if b.MaxTimestamp() > s.maxTime {
			s.maxTime, s.maxAt = b.MaxTimestamp(), last
		}
		if s.since > interval {
			s.index, _ = binary.Append(s.index, binary.BigEndian, [2]int32{int32(last - s.base), int32(s.size)})
			if s.maxTime > s.lastTime {
				s.times, _ = binary.Append(s.times, binary.BigEndian, struct {
					T int64
					O int32
				}{s.maxTime, int32(s.maxAt - s.base)})
				s.lastTime = s.maxTime
			}
			s.since = 0
		}
		s.since += size
		s.size += size
		end += n
		lead(t, l, b)
	}
	if s := segs[len(segs)-1]; s.maxTime > s.lastTime {
		s.times, _ = binary.Append(s.times, binary.BigEndian, struct {
			T int64
			O int32
		}{s.maxTime, int32(s.maxAt - s.base)})
	}
	closeFolder(t, f)
	check := func(how string) {
		t.Helper()
		for _, s := range segs {
			o := model.Offset(s.base)
			if got := readFile(t, mem, l.name(o, indexSuffix)); !bytes.Equal(got, s.index) {
				t.Errorf("%s: index of %d\n%x\nwant\n%x", how, s.base, got, s.index)
			}
			if got := readFile(t, mem, l.name(o, timeSuffix)); !bytes.Equal(got, s.times) {
				t.Errorf("%s: time index of %d\n%x\nwant\n%x", how, s.base, got, s.times)
			}
			if got := int64(len(readFile(t, mem, l.name(o, logSuffix)))); got != s.size {
				t.Errorf("%s: log of %d has %d bytes, want %d", how, s.base, got, s.size)
			}
		}
	}
	if len(segs) < 3 || len(segs[0].index) < 24 {
		t.Fatalf("the test is too small: %d segments", len(segs))
	}
	check("written")
	// What recovery makes anew is the same.
	for _, s := range segs {
		for _, suffix := range []string{indexSuffix, timeSuffix} {
			if err := mem.Remove(l.name(model.Offset(s.base), suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f = openFolder(t, mem)
	openPart(t, f, LogConfig{IndexInterval: interval, SegmentBytes: 4000})
	closeFolder(t, f)
	check("made anew")
}

// KAFKA.md 4.3: producer 3, data at 12, marker at 13, stable offset 14.
func TestTxnIndexBytes(t *testing.T) {
	mem := vfs.NewMem()
	f := openFolder(t, mem)
	l := openPart(t, f, LogConfig{})
	lead(t, l, plain(12, 1, "x"))
	lead(t, l, transacted(3, 0, 0, 1, 5))
	if o, ok := l.UnstableOffset(); !ok || o != 12 {
		t.Errorf("unstable %d, %v", o, ok)
	}
	lead(t, l, batch.EndTxnMarker(model.Producer{ID: 3}, false, 0, 6))
	if _, ok := l.UnstableOffset(); ok {
		t.Error("still unstable")
	}
	want, _ := binary.Append(nil, binary.BigEndian, struct {
		V          int16
		P, F, L, S int64
	}{0, 3, 12, 13, 14})
	if got := readFile(t, mem, partDir(), "00000000000000000000.txnindex"); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	// Until the marker is below the high watermark the transaction is undecided.
	for high, stable := range map[model.Offset]model.Offset{5: 5, 12: 12, 13: 12} {
		if got := l.LastStable(high); got != stable {
			t.Errorf("LastStable(%d) = %d, want %d", high, got, stable)
		}
	}
	if got := l.LastStable(14); got != 14 {
		t.Errorf("LastStable(14) = %d", got)
	}
	// A committed one leaves no entry.
	lead(t, l, transacted(3, 0, 1, 1, 5))
	lead(t, l, batch.EndTxnMarker(model.Producer{ID: 3}, true, 0, 6))
	if got, err := l.Aborted(0, 100); err != nil || len(got) != 1 || got[0].Producer != 3 || got[0].First != 12 || got[0].Last != 13 {
		t.Errorf("aborted %+v", got)
	}
	if got, err := l.Aborted(14, 100); err != nil || len(got) != 0 {
		t.Errorf("aborted after 14: %+v", got)
	}
	if got, err := l.Aborted(0, 12); err != nil || len(got) != 0 {
		t.Errorf("aborted before 12: %+v", got)
	}
}

func TestSegmentsRollByTimeAndSize(t *testing.T) {
	mem := vfs.NewMem()
	now := time.UnixMilli(1_000_000)
	c := folderConfig(mem)
	c.Now = func() time.Time { return now }
	f, err := OpenFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(-1)
	l := openPart(t, f, LogConfig{SegmentMs: 100})
	bases := func() (b []model.Offset) {
		for _, s := range l.segments {
			b = append(b, s.base)
		}
		return b
	}
	for _, ts := range []int64{1000, 1100, 900, 1101, 1150, 2000} { // rolls at 1101 and 2000
		lead(t, l, plain(1, ts, "x"))
	}
	if got := bases(); !slices.Equal(got, []model.Offset{0, 3, 5}) {
		t.Errorf("segments %v", got)
	}
	lead(t, l, plain(1, -1, "no time")) // counts as old, never as new
	now = now.Add(time.Hour)
	lead(t, l, plain(1, -1, "no time"))
	if got := bases(); !slices.Equal(got, []model.Offset{0, 3, 5}) {
		t.Errorf("segments %v", got)
	}
	if err := l.TruncateAll(100); err != nil {
		t.Fatal(err)
	}
	lead(t, l, plain(1, -5, "no time"))
	now = now.Add(time.Second)
	lead(t, l, plain(1, -5, "no time")) // by the wall clock
	if got := bases(); !slices.Equal(got, []model.Offset{100, 101}) {
		t.Errorf("segments %v", got)
	}
	l.SetConfig(LogConfig{SegmentBytes: 300})
	for range 4 {
		lead(t, l, plain(1, 1, strings.Repeat("y", 100)))
	}
	if got := bases(); len(got) != 5 {
		t.Errorf("segments %v", got)
	}
	if a := put(l, &Append{Batch: plain(1, 1, strings.Repeat("y", 300))}); a.Err == nil || a.Base != model.NoOffset {
		t.Errorf("a batch larger than a segment: %v at %d", a.Err, a.Base)
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.SetConfig(LogConfig{IndexBytes: 16, IndexInterval: -1})
	for i := range 6 {
		lead(t, l, plain(1, int64(10+i), "z"))
	}
	if got := bases(); len(got) < 7 {
		t.Errorf("full indexes do not roll: segments %v", got)
	}
}
