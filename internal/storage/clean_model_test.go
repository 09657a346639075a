package storage

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// cleanModel is a log under retention and compaction in the plainest form: lists of
// batches and records. KAFKA.md 5, Retention and Compaction, is written down a second
// time here, from the page and not from the code. Where segments begin, and how large
// they are, is taken from the log: it decides what the rules apply to.
type cleanModel struct {
	mem *vfs.Mem
	cfg LogConfig
	f   *Folder
	l   *Log
	c   *Cleaner
	p   Cleanup
	cap int // keys that the map can hold

	batches    []*mBatch
	start, end model.Offset
	dirty      model.Offset // first dirty offset
	now        int64
	producers  map[int64]*mProducer
	txns       int // transactions so far, for their ids
}

type mProducer struct {
	epoch    int16
	seq      int32
	txn      int          // under way; 0 = none
	lastData model.Offset // of this epoch; -1 = none
}

type mBatch struct {
	base, last model.Offset
	id         int64
	epoch      int16
	seq        int32
	txn        int // 0 = none
	marker     bool
	aborted    bool
	horizon    int64 // 0 = none
	maxTime    int64
	records    []mRecord
}

type mRecord struct {
	offset     model.Offset
	key, value string // "" = null
	ts         int64
}

func (b *mBatch) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d-%d p%d/%d/%d txn %v marker %v horizon %d time %d:", b.base, b.last, b.id, b.epoch, b.seq, b.txn > 0, b.marker, b.horizon, b.maxTime)
	for _, r := range b.records {
		fmt.Fprintf(&s, " %d %s=%s@%d", r.offset, r.key, r.value, r.ts)
	}
	return s.String()
}

// describe is a stored batch in the model's words.
func describe(b batch.Batch) (string, error) {
	by := b.Producer()
	m := mBatch{base: b.BaseOffset(), last: b.LastOffset(), id: by.ID, epoch: by.Epoch, seq: b.BaseSequence(), marker: b.Control(), maxTime: b.MaxTimestamp()}
	if b.Transactional() {
		m.txn = 1
	}
	if b.HasHorizon() {
		m.horizon = b.BaseTimestamp()
	}
	for r, err := range batch.NewCodecs().Records(b, 0) {
		if err != nil {
			return "", err
		}
		rec := mRecord{r.Offset, string(r.Key), string(r.Value), r.Timestamp}
		if b.Control() {
			rec.key, rec.value = "", ""
		}
		m.records = append(m.records, rec)
	}
	return m.String(), nil
}

func TestCompactionAndRetentionAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newCleanModel(rt, int32(rapid.IntRange(400, 4000).Draw(rt, "segment")))
		defer func() { _ = m.f.Close(-1) }()
		rt.Repeat(map[string]func(*rapid.T){
			"append":         m.append,
			"append more":    m.append,
			"append again":   m.append,
			"end txn":        m.endTxn,
			"compact":        m.compact,
			"compact all":    func(rt *rapid.T) { m.roll(rt); m.compact(rt) },
			"expire":         m.expire,
			"delete records": m.deleteRecords,
			"configure":      m.configure,
			"time":           func(rt *rapid.T) { m.now += int64(rapid.IntRange(1, 3000).Draw(rt, "passes")) },
			"restart":        m.restart,
			"power failure":  m.powerFailure,
			"":               m.check,
		})
	})
}

func newCleanModel(rt *rapid.T, segment int32) *cleanModel {
	m := &cleanModel{
		mem: vfs.NewMem(), now: 10_000, producers: map[int64]*mProducer{}, p: compacting(), cap: 14,
		cfg: LogConfig{SegmentBytes: segment, IndexInterval: 150, DeleteDelayMs: -1, Compact: true},
	}
	m.open(rt)
	return m
}

func (m *cleanModel) open(rt *rapid.T) {
	var err error
	m.f, err = OpenFolder(folderConfig(m.mem))
	must(rt, err)
	m.l, err = m.f.Open(testPart, testTopic, LogOptions{Config: m.cfg})
	must(rt, err)
	must(rt, m.l.SetLeaderEpoch(max(0, latest(m.l))))
	m.c = m.f.NewCleaner(CleanerConfig{Memory: 16 * slotSize, IOBuffer: 512})
}

func (m *cleanModel) append(rt *rapid.T) {
	b := &mBatch{base: m.end, id: -1, epoch: -1, seq: -1}
	o := batch.Plain(0, 0)
	var p *mProducer
	if id := rapid.Int64Range(-1, 2).Draw(rt, "producer"); id >= 0 {
		if p = m.producers[id]; p == nil {
			p = &mProducer{lastData: -1}
			m.producers[id] = p
		}
		if p.txn == 0 && rapid.Bool().Draw(rt, "transaction") {
			m.txns++
			p.txn = m.txns
		}
		b.id, b.epoch, b.seq, b.txn = id, p.epoch, p.seq, p.txn
		o = batch.BuilderOptions{Producer: model.Producer{ID: id, Epoch: p.epoch}, Sequence: p.seq, Transactional: p.txn > 0}
	}
	o.Codec = rapid.SampledFrom([]batch.Codec{batch.None, batch.None, batch.Snappy, batch.LZ4, batch.Zstd}).Draw(rt, "codec")
	o.LogAppendTime = rapid.IntRange(0, 4).Draw(rt, "append time") == 0
	w := batch.NewCodecs().NewBuilder(o)
	for i := range rapid.IntRange(1, 4).Draw(rt, "records") {
		r := mRecord{offset: m.end + model.Offset(i), ts: m.now + int64(rapid.IntRange(-500, 500).Draw(rt, "ts"))}
		if o.LogAppendTime {
			r.ts = m.now
		}
		r.key = rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"}).Draw(rt, "key")
		if rapid.IntRange(0, 3).Draw(rt, "tombstone") > 0 {
			r.value = fmt.Sprint("v", r.offset, strings.Repeat("x", rapid.IntRange(0, 60).Draw(rt, "length")))
		}
		w.Add(r.ts, null(r.key), null(r.value))
		b.records = append(b.records, r)
		b.maxTime = max(b.maxTime, r.ts)
	}
	out, err := w.Build()
	must(rt, err)
	m.put(rt, b, slices.Clone(out))
	if p != nil {
		p.seq += int32(len(b.records))
		p.lastData = b.last
	}
	m.now++
}

func (m *cleanModel) put(rt *rapid.T, b *mBatch, bytes batch.Batch) {
	a := put(m.l, &Append{Batch: bytes, Epoch: m.l.leader})
	if a.Err != nil || a.Base != m.end {
		rt.Fatalf("append at %d: %v, at %d", m.end, a.Err, a.Base)
	}
	b.last = a.End - 1
	m.end = a.End
	m.batches = append(m.batches, b)
}

func (m *cleanModel) endTxn(rt *rapid.T) {
	id := rapid.Int64Range(0, 2).Draw(rt, "producer")
	if p := m.producers[id]; p != nil && p.txn > 0 {
		commit, bump := rapid.Bool().Draw(rt, "commit"), rapid.Bool().Draw(rt, "new epoch")
		if bump {
			p.epoch, p.seq, p.lastData = p.epoch+1, 0, -1
		}
		b := &mBatch{base: m.end, id: id, epoch: p.epoch, seq: -1, txn: p.txn, marker: true, maxTime: m.now}
		b.records = []mRecord{{offset: m.end, ts: m.now}}
		if !commit {
			for _, d := range m.batches {
				d.aborted = d.aborted || d.txn == p.txn
			}
		}
		m.put(rt, b, batch.EndTxnMarker(model.Producer{ID: id, Epoch: p.epoch}, commit, 0, m.now))
		p.txn = 0
	}
}

func (m *cleanModel) roll(rt *rapid.T) {
	must(rt, m.l.do(func() error {
		if m.l.active().size == 0 {
			return nil
		}
		return m.l.roll(m.l.EndOffset(), m.l.EndOffset())
	}))
}

// stable is the last stable offset; what is in the log is replicated.
func (m *cleanModel) stable() model.Offset {
	stable := m.end
	for _, p := range m.producers {
		for _, b := range m.batches {
			if p.txn > 0 && b.txn == p.txn {
				stable = min(stable, b.base)
			}
		}
	}
	return stable
}

func (m *cleanModel) compact(rt *rapid.T) {
	to := model.Offset(0) // whole segments that are decided
	for i, s := range m.l.segments[:len(m.l.segments)-1] {
		next := m.l.segments[i+1].base
		if next > m.stable() {
			break
		}
		if m.p.MinLagMs > 0 && next > max(m.dirty, m.start) && m.newest(s.base, next) > m.now-m.p.MinLagMs {
			break
		}
		to = next
	}
	if m.dirty < m.start || m.dirty > m.end {
		m.dirty = m.start
	}
	d, err := m.c.Look(m.l, m.p, m.stable(), time.UnixMilli(m.now))
	must(rt, err)
	if !d.Due {
		for _, b := range m.batches {
			if b.last >= m.dirty && b.base < to && m.p.Compact {
				rt.Fatalf("not due although %v is dirty, below %d", b, to)
			}
		}
		return
	}
	newest, upper, mark := m.newestOfEachKey(to)
	limit := to // the segments that begin below upper
	for _, s := range slices.Backward(m.l.segments) {
		if s.base >= upper {
			limit = s.base
		}
	}
	more, err := m.c.Clean(rt.Context(), m.l, m.p, d, time.UnixMilli(m.now))
	must(rt, err)
	if !more {
		rt.Fatalf("compaction to %d was put off", to)
	}
	m.apply(newest, upper, limit, to)
	m.dirty = mark
}

// newest is the largest timestamp of the batches that begin in [from, to). Without
// any the file's age counts, which is new.
func (m *cleanModel) newest(from, to model.Offset) int64 {
	ts := int64(-1)
	for _, b := range m.batches {
		if b.base >= from && b.base < to {
			ts = max(ts, b.maxTime)
		}
	}
	if ts < 0 {
		return time.Now().UnixMilli()
	}
	return ts
}

func (m *cleanModel) newestOfEachKey(to model.Offset) (newest map[string]model.Offset, upper, mark model.Offset) {
	newest, upper = map[string]model.Offset{}, m.dirty
	for _, b := range m.batches {
		if b.last < m.dirty || b.base >= to {
			continue
		}
		for _, r := range b.records {
			if b.marker || b.aborted || r.key == "" || r.offset < m.dirty {
				continue
			}
			if _, known := newest[r.key]; !known && len(newest) == m.cap {
				return newest, r.offset, r.offset
			}
			newest[r.key] = r.offset
		}
		upper = b.last + 1
	}
	return newest, upper, to
}

// apply is what compaction must do to the batches below limit.
func (m *cleanModel) apply(newest map[string]model.Offset, upper, limit, to model.Offset) {
	data := map[int]bool{} // transactions that still have data
	for _, b := range m.batches {
		data[b.txn] = data[b.txn] || !b.marker
	}
	var left []*mBatch
	for _, b := range m.batches {
		if b.base >= limit {
			left = append(left, b)
			continue
		}
		idle := b.aborted && !b.marker || b.marker && !data[b.txn]
		past := b.horizon > 0 && b.horizon <= m.now
		var keep []mRecord
		tombstone := false
		for _, r := range b.records {
			latest, known := newest[r.key]
			switch {
			case b.marker && !(idle && past):
				keep = append(keep, r)
			case b.marker, idle:
			case r.offset >= upper, r.key != "" && (!known || r.offset >= latest) && (r.value != "" || !past):
				keep = append(keep, r)
				tombstone = tombstone || r.value == ""
			}
		}
		rebuilt := len(keep) < len(b.records)
		if p := m.producers[b.id]; len(keep) == 0 {
			needed := b.last+1 == upper || b.last+1 == to
			if p != nil && p.lastData >= 0 {
				needed = needed || p.lastData == b.last
			} else if p != nil {
				needed = needed || b.marker && b.epoch == p.epoch
			}
			if !needed {
				continue
			}
			if rebuilt {
				b.horizon = 0
			}
		} else {
			if b.horizon == 0 && (tombstone || b.marker && idle) {
				b.horizon = m.now + m.p.DeleteRetentionMs
			}
			if rebuilt { // with append time all records have the batch's
				b.maxTime = 0
				for _, r := range keep {
					b.maxTime = max(b.maxTime, r.ts)
				}
			}
		}
		b.records = keep
		left = append(left, b)
	}
	m.batches = left
}

// expire is KAFKA.md 5, Retention.
func (m *cleanModel) expire(rt *rapid.T) {
	high := model.Offset(rapid.Int64Range(int64(m.start), int64(m.end)).Draw(rt, "high watermark"))
	if rapid.Bool().Draw(rt, "all replicated") {
		high = m.end
	}
	want := m.start
	segments := m.l.segments[m.l.findLocked(m.start):]
	total := int64(0)
	for _, s := range segments {
		total += s.size
	}
	for i, s := range segments {
		next := m.end
		if i+1 < len(segments) {
			next = segments[i+1].base
		}
		large := m.p.RetentionBytes >= 0 && total-s.size >= m.p.RetentionBytes
		old := m.p.RetentionMs >= 0 && m.now-m.newest(s.base, next) > m.p.RetentionMs
		if !m.p.Delete || next > high || i == len(segments)-1 && s.size == 0 || !large && !old {
			break
		}
		total -= s.size
		want = next
	}
	must(rt, m.l.Expire(m.p, time.UnixMilli(m.now), high))
	if m.l.StartOffset() != want {
		rt.Fatalf("start %d, want %d", m.l.StartOffset(), want)
	}
	m.start = want
	must(rt, m.f.Trim())
	m.trimmed(rt)
}

// trimmed forgets the batches that went with their segments.
func (m *cleanModel) trimmed(rt *rapid.T) {
	first := m.l.segments[0].base
	if n := len(m.l.segments); n > 1 && m.l.segments[1].base <= m.start {
		rt.Fatalf("the segment at %d is there although the log begins at %d", first, m.start)
	}
	if first > m.start {
		rt.Fatalf("the first segment begins at %d, the log at %d", first, m.start)
	}
	m.batches = slices.DeleteFunc(m.batches, func(b *mBatch) bool { return b.last < first })
}

func (m *cleanModel) deleteRecords(rt *rapid.T) {
	if rapid.IntRange(0, 2).Draw(rt, "rarely") > 0 {
		return
	}
	to := model.Offset(rapid.Int64Range(int64(m.start), int64(m.start+(m.stable()-m.start)/2)).Draw(rt, "to"))
	must(rt, m.l.RaiseStart(to))
	m.start = max(m.start, to)
	must(rt, m.f.Trim(m.l))
	m.trimmed(rt)
}

func (m *cleanModel) configure(rt *rapid.T) {
	m.cfg.SegmentBytes = int32(rapid.IntRange(400, 4000).Draw(rt, "segment"))
	m.l.SetConfig(m.cfg)
	limit := func(name string, most int) int64 {
		return int64(rapid.SampledFrom([]int{-1, 0, most / 8, most / 2, most}).Draw(rt, name))
	}
	m.p = Cleanup{
		Compact: rapid.IntRange(0, 4).Draw(rt, "compact") > 0, Delete: rapid.Bool().Draw(rt, "delete"),
		RetentionMs: limit("retention", 20000), RetentionBytes: limit("bytes", 8000),
		DeleteRetentionMs: max(0, limit("delete retention", 4000)), MaxLagMs: math.MaxInt64,
		MinLagMs: max(0, limit("lag", 2000)),
	}
}

func (m *cleanModel) restart(rt *rapid.T) {
	must(rt, m.f.Close(1))
	m.open(rt)
}

func (m *cleanModel) powerFailure(rt *rapid.T) {
	must(rt, m.l.Sync(rt.Context()))
	m.mem = m.mem.CrashClone(nil)
	_ = m.f.Close(-1)
	m.open(rt)
}

func (m *cleanModel) check(rt *rapid.T) {
	if m.l.StartOffset() != m.start || m.l.EndOffset() != m.end {
		rt.Fatalf("[%d, %d), want [%d, %d)", m.l.StartOffset(), m.l.EndOffset(), m.start, m.end)
	}
	all, err := readGaps(m.l, m.start, m.end)
	must(rt, err)
	var got, want []string
	for _, b := range all {
		s, err := describe(b)
		must(rt, err)
		got = append(got, s)
	}
	for _, b := range m.batches {
		if b.last >= m.start {
			want = append(want, b.String())
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			rt.Fatalf("batch %d of the log:\n%s\nof the model:\n%s", i, strings.Join(got[min(i, len(got)):], "\n"), strings.Join(want[min(i, len(want)):], "\n"))
		}
	}
	m.checkAborted(rt)
}

// checkAborted: whoever reads what is left knows of all of it which is aborted.
func (m *cleanModel) checkAborted(rt *rapid.T) {
	aborted, err := m.l.Aborted(m.start, m.end)
	must(rt, err)
	for _, b := range m.batches {
		if b.marker || b.txn == 0 || b.last < m.start {
			continue
		}
		listed := slices.ContainsFunc(aborted, func(t AbortedTxn) bool { return t.Producer == b.id && t.First <= b.base && t.Last > b.last })
		if listed != b.aborted {
			rt.Fatalf("%v: aborted %v, but listed %v in %v", b, b.aborted, listed, aborted)
		}
	}
}
