package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// logModel is what a log is meant to be, in the plainest form: a list of batches
// and, by producer, a list of what it wrote. KAFKA.md 5, Idempotence, is written
// down a second time here, from the table and not from the code.
type logModel struct {
	mem *vfs.Mem
	cfg LogConfig
	f   *Folder
	l   *Log

	batches []batch.Batch
	start   model.Offset
	epoch   model.Epoch
	known   map[int64]*modelProducer
	aborted []AbortedTxn
	now     int64
}

type modelProducer struct {
	epoch       int16
	wrote       []modelBatch // the last five of this epoch
	lastSeq     int32        // -1 = none in this epoch
	txn         model.Offset // -1 = none
	coordinator int32
	timestamp   int64
	unsure      int // of wrote, how many a restart may have forgotten
	restarted   bool
}

type modelBatch struct {
	first, last int32
	base, end   model.Offset
	timestamp   int64
}

func TestLogAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &logModel{
			mem:   vfs.NewMem(),
			cfg:   LogConfig{SegmentBytes: int32(rapid.IntRange(250, 3000).Draw(rt, "segment")), IndexInterval: 150, DeleteDelayMs: -1},
			known: map[int64]*modelProducer{}, epoch: -1, now: 1000,
		}
		if rapid.Bool().Draw(rt, "page cache") {
			m.cfg.FlushMessages = Never
		}
		m.open(rt)
		defer func() { _ = m.f.Close(-1) }()
		rt.Repeat(map[string]func(*rapid.T){
			"produce":       m.produce,
			"produce again": m.produceAgain,
			"produce next":  m.produceNext,
			"plain":         m.plain,
			"marker":        m.marker,
			"truncate":      m.truncate,
			"advance":       m.advance,
			"restart":       m.restart,
			"power failure": m.powerFailure,
			"rest":          func(rt *rapid.T) { must(rt, m.l.rest()) },
			"new epoch":     m.lead,
			"":              m.check,
		})
	})
}

func must(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

func (m *logModel) open(rt *rapid.T) {
	var err error
	m.f, err = OpenFolder(folderConfig(m.mem))
	must(rt, err)
	m.l, err = m.f.Open(testPart, testTopic, LogOptions{Config: m.cfg})
	must(rt, err)
	m.lead(rt)
}

func (m *logModel) lead(rt *rapid.T) {
	m.epoch++
	must(rt, m.l.SetLeaderEpoch(m.epoch))
}

func (m *logModel) end() model.Offset {
	if n := len(m.batches); n > 0 {
		return m.batches[n-1].NextOffset()
	}
	return m.start
}

// stamp draws a timestamp.
func (m *logModel) stamp(rt *rapid.T) int64 {
	m.now++
	return m.now + int64(rapid.IntRange(-20, 20).Draw(rt, "time"))
}

// wrote enters what the log should have taken.
func (m *logModel) wrote(rt *rapid.T, a *Append) {
	if a.Err != nil || a.Duplicate || a.Base != m.end() {
		rt.Fatalf("append: %v, duplicate %v at %d; want success at %d", a.Err, a.Duplicate, a.Base, m.end())
	}
	m.batches = append(m.batches, a.Batch)
}

func (m *logModel) plain(rt *rapid.T) {
	b := plain(rapid.IntRange(1, 5).Draw(rt, "records"), m.stamp(rt), "plain")
	m.wrote(rt, put(m.l, &Append{Batch: b, Epoch: m.epoch}))
}

// produce tries any sequence and epoch.
func (m *logModel) produce(rt *rapid.T) {
	id := rapid.Int64Range(0, 2).Draw(rt, "producer")
	epoch := int16(rapid.IntRange(0, 2).Draw(rt, "epoch"))
	seq := rapid.SampledFrom([]int32{0, 0, 1, 2, 5, math.MaxInt32 - 1, math.MaxInt32}).Draw(rt, "sequence")
	m.tryProduce(rt, id, epoch, seq, rapid.IntRange(1, 4).Draw(rt, "records"), rapid.Bool().Draw(rt, "transaction"))
}

// produceNext goes on where the producer is.
func (m *logModel) produceNext(rt *rapid.T) {
	id := rapid.Int64Range(0, 2).Draw(rt, "producer")
	p := m.known[id]
	if p == nil {
		return
	}
	seq := int32(uint32(p.lastSeq+1) & math.MaxInt32)
	m.tryProduce(rt, id, p.epoch, seq, rapid.IntRange(1, 4).Draw(rt, "records"), p.txn >= 0 || rapid.Bool().Draw(rt, "transaction"))
}

// produceAgain repeats an earlier batch.
func (m *logModel) produceAgain(rt *rapid.T) {
	for _, p := range []int64{0, 1, 2} {
		if q := m.known[p]; q != nil && len(q.wrote) > 0 {
			w := q.wrote[rapid.IntRange(0, len(q.wrote)-1).Draw(rt, "which")]
			n := int(uint32(w.last-w.first)&math.MaxInt32) + 1
			m.tryProduce(rt, p, q.epoch, w.first, n, q.txn >= 0)
			return
		}
	}
}

func (m *logModel) tryProduce(rt *rapid.T, id int64, epoch int16, seq int32, n int, txn bool) {
	b := produced(id, epoch, seq, n, m.stamp(rt))
	if txn {
		b = transacted(id, epoch, seq, n, m.now)
	}
	ts := b.MaxTimestamp()
	a := put(m.l, &Append{Batch: b, Epoch: m.epoch})
	last := int32((int64(seq) + int64(n) - 1) & math.MaxInt32)
	p := m.known[id]
	if p == nil {
		p = &modelProducer{epoch: epoch, lastSeq: -1, txn: -1, coordinator: -1}
	} else {
		if epoch == p.epoch {
			for i, w := range p.wrote {
				if w.first != seq || w.last != last {
					continue
				}
				if i < p.unsure && errors.Is(a.Err, ErrSequence) {
					return
				}
				// A snapshot has one timestamp a producer, and a marker moves it.
				timeOK := a.AppendTime == w.timestamp || p.restarted && a.AppendTime >= 0
				if a.Err != nil || !a.Duplicate || a.Base != w.base || a.End != w.end || !timeOK {
					rt.Fatalf("copy of [%d, %d]: %v, duplicate %v at [%d, %d); want [%d, %d)", seq, last, a.Err, a.Duplicate, a.Base, a.End, w.base, w.end)
				}
				return
			}
		}
		var want error
		switch {
		case epoch < p.epoch:
			want = ErrProducerEpoch
		case epoch > p.epoch && seq != 0:
			want = ErrSequence
		case epoch == p.epoch && int64(seq) != (int64(p.lastSeq)+1)&math.MaxInt32:
			want = ErrSequence
		case !txn && p.txn >= 0:
			want = ErrTxnState
		}
		if want != nil {
			if !errors.Is(a.Err, want) {
				rt.Fatalf("producer %d at epoch %d, sequence %d: epoch %d, sequence %d: %v, want %v", id, p.epoch, p.lastSeq, epoch, seq, a.Err, want)
			}
			return
		}
	}
	m.wrote(rt, a)
	m.known[id] = p
	if epoch != p.epoch {
		p.epoch, p.wrote, p.unsure = epoch, nil, 0
	}
	p.wrote = append(p.wrote, modelBatch{seq, last, a.Base, a.End, ts})
	if len(p.wrote) > 5 {
		p.wrote, p.unsure = p.wrote[1:], max(p.unsure-1, 0)
	}
	p.lastSeq, p.timestamp = last, ts
	if txn && p.txn < 0 {
		p.txn = a.Base
	}
}

// marker ends a transaction, or tries to.
func (m *logModel) marker(rt *rapid.T) {
	id := rapid.Int64Range(0, 2).Draw(rt, "producer")
	epoch := int16(rapid.IntRange(0, 2).Draw(rt, "epoch"))
	coordinator := int32(rapid.IntRange(0, 2).Draw(rt, "coordinator"))
	commit := rapid.Bool().Draw(rt, "commit")
	version := int16(rapid.IntRange(1, 2).Draw(rt, "transaction.version"))
	b := batch.EndTxnMarker(model.Producer{ID: id, Epoch: epoch}, commit, coordinator, m.stamp(rt))
	a := put(m.l, &Append{Batch: b, Epoch: m.epoch, TxnVersion: version})
	p := m.known[id]
	if p == nil {
		p = &modelProducer{epoch: epoch, lastSeq: -1, txn: -1, coordinator: -1}
	}
	var want error
	switch {
	case epoch < p.epoch, version == 2 && epoch == p.epoch && len(p.wrote) > 0:
		want = ErrProducerEpoch
	case coordinator < p.coordinator:
		want = ErrCoordinatorEpoch
	}
	if want != nil {
		if !errors.Is(a.Err, want) {
			rt.Fatalf("marker: %v, want %v", a.Err, want)
		}
		return
	}
	m.wrote(rt, a)
	m.known[id] = p
	m.ended(p, b, commit, coordinator)
}

// ended applies a marker.
func (m *logModel) ended(p *modelProducer, b batch.Batch, commit bool, coordinator int32) {
	if e := b.Producer().Epoch; e != p.epoch {
		p.epoch, p.wrote, p.unsure, p.lastSeq = e, nil, 0, -1
	}
	p.coordinator, p.timestamp = coordinator, b.MaxTimestamp()
	if p.txn < 0 {
		return
	}
	if !commit {
		stable := b.BaseOffset() + 1
		for id, q := range m.known {
			if id != b.Producer().ID && q.txn >= 0 {
				stable = min(stable, q.txn)
			}
		}
		m.aborted = append(m.aborted, AbortedTxn{b.Producer().ID, p.txn, b.BaseOffset(), stable})
	}
	p.txn = -1
}

// rebuild makes the producers from the batches that are left; a log that was
// truncated cannot know more, and may know what is in a snapshot.
func (m *logModel) rebuild(rt *rapid.T) {
	m.known, m.aborted = map[int64]*modelProducer{}, nil
	for _, b := range m.batches {
		id := b.Producer().ID
		if id < 0 {
			continue
		}
		p := m.known[id]
		if p == nil {
			p = &modelProducer{epoch: b.Producer().Epoch, lastSeq: -1, txn: -1, coordinator: -1}
			m.known[id] = p
		}
		if b.Control() {
			kind, coordinator, _ := m.l.marker(b)
			m.ended(p, b, kind == batch.Commit, coordinator)
			continue
		}
		if e := b.Producer().Epoch; e != p.epoch {
			p.epoch, p.wrote = e, nil
		}
		p.wrote = append(p.wrote, modelBatch{b.BaseSequence(), b.LastSequence(), b.BaseOffset(), b.NextOffset(), b.MaxTimestamp()})
		if len(p.wrote) > 5 {
			p.wrote = p.wrote[1:]
		}
		p.lastSeq, p.timestamp = b.LastSequence(), b.MaxTimestamp()
		if b.Transactional() && p.txn < 0 {
			p.txn = b.BaseOffset()
		}
	}
	m.forget()
}

// forget: after a restart only the last batch of a producer is sure to be known.
func (m *logModel) forget() {
	for _, p := range m.known {
		p.unsure, p.restarted = max(len(p.wrote)-1, 0), true
	}
}

func (m *logModel) truncate(rt *rapid.T) {
	if m.start > 0 {
		return // what is known of producers in removed segments would be guesswork
	}
	off := model.Offset(rapid.Int64Range(int64(m.l.StartOffset()), int64(m.end())+2).Draw(rt, "to"))
	must(rt, m.l.TruncateTo(off))
	n := len(m.batches)
	for len(m.batches) > 0 && m.batches[len(m.batches)-1].LastOffset() >= off {
		m.batches = m.batches[:len(m.batches)-1]
	}
	if len(m.batches) < n {
		m.rebuild(rt)
	}
	if m.l.EndOffset() != m.end() {
		rt.Fatalf("truncated to %d: end %d, want %d", off, m.l.EndOffset(), m.end())
	}
	m.lead(rt)
}

func (m *logModel) advance(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "rarely") > 0 {
		return
	}
	to := model.Offset(rapid.Int64Range(int64(m.l.StartOffset()), int64(m.end())).Draw(rt, "to"))
	must(rt, m.l.AdvanceStart(to))
	m.start = max(m.start, to)
	must(rt, m.f.Checkpoint())
}

func (m *logModel) restart(rt *rapid.T) {
	must(rt, m.f.Close(1))
	m.open(rt)
	m.forget()
}

func (m *logModel) powerFailure(rt *rapid.T) {
	must(rt, m.l.Sync(context.Background()))
	old := m.f
	m.mem = m.mem.CrashClone(nil)
	_ = old.Close(-1)
	m.open(rt)
	m.forget()
}

// check compares everything that can be read.
func (m *logModel) check(rt *rapid.T) {
	l := m.l
	if l.EndOffset() != m.end() || l.StartOffset() != m.start {
		rt.Fatalf("log [%d, %d), want [%d, %d)", l.StartOffset(), l.EndOffset(), m.start, m.end())
	}
	got, err := readAll(l, m.start, m.end(), 300)
	must(rt, err)
	var want []batch.Batch
	for _, b := range m.batches {
		if b.LastOffset() >= m.start {
			want = append(want, b)
		}
	}
	must(rt, equalBatches(got, want))
	must(rt, m.checkProducers())
	var aborted []AbortedTxn
	for _, a := range m.aborted {
		if a.Last >= m.start {
			aborted = append(aborted, a)
		}
	}
	slices.SortFunc(aborted, func(a, b AbortedTxn) int { return int(a.First - b.First) })
	if have, err := l.Aborted(m.start, m.end()); err != nil || !slices.Equal(have, aborted) {
		rt.Fatalf("aborted %v, want %v", have, aborted)
	}
	ts := m.now - 30
	found, ok, err := l.OffsetForTime(ts, m.end())
	must(rt, err)
	hand, okHand := byHand(l, want, m.start, ts)
	if ok != okHand || ok && found.Offset != hand {
		rt.Fatalf("time %d at %d (%v), by hand %d (%v)", ts, found.Offset, ok, hand, okHand)
	}
}

func byHand(l *Log, all []batch.Batch, start model.Offset, ts int64) (model.Offset, bool) {
	for _, b := range all {
		for r := range l.disk.codecs.Records(b, 0) {
			if r.Timestamp >= ts && r.Offset >= start {
				return r.Offset, true
			}
		}
	}
	return 0, false
}

func (m *logModel) checkProducers() error {
	states := m.l.Producers()
	if len(states) != len(m.known) {
		return fmt.Errorf("%d producers are known, want %d", len(states), len(m.known))
	}
	for _, s := range states {
		p := m.known[s.Producer.ID]
		if p == nil || p.epoch != s.Producer.Epoch || p.lastSeq != s.LastSequence || p.txn != s.TxnStart || p.coordinator != s.CoordinatorEpoch || p.timestamp != s.LastTimestamp {
			return fmt.Errorf("producer %+v, want %+v", s, p)
		}
	}
	return nil
}

func TestProducersExpireButNotInsideOfATransaction(t *testing.T) {
	l := openPart(t, openFolder(t, vfs.NewMem()), LogConfig{ProducerExpireMs: 1000})
	lead(t, l, produced(1, 0, 0, 1, 5000))
	lead(t, l, transacted(2, 0, 0, 1, 5000))
	lead(t, l, produced(3, 0, 0, 1, 5500))
	l.ExpireProducers(time.UnixMilli(6000))
	var ids []int64
	for _, p := range l.Producers() {
		ids = append(ids, p.Producer.ID)
	}
	if !slices.Equal(ids, []int64{2, 3}) {
		t.Errorf("left are %v", ids)
	}
	if a := put(l, &Append{Batch: produced(1, 0, 9, 1, 6000)}); a.Err != nil {
		t.Errorf("an expired producer begins anywhere: %v", a.Err)
	}
}
