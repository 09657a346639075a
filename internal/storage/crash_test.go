package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// crashTest runs a log on memory and, before operations on the "disk" that the
// seed chooses, opens what a power failure at that moment would have left. One
// goroutine drives; the hook runs on whatever goroutine does the operation.
//
// CHECK 1: every batch below the flushed offset is there, byte for byte.
// CHECK 2: what is there is a prefix of what was appended: nothing altered,
// nothing mixed from before and after a truncation.
// CHECK 3: epochs, producers, transactions and indexes are those of the batches.
type crashTest struct {
	t     *testing.T
	rng   *rand.Rand // of the driver
	mem   *vfs.Mem
	cfg   LogConfig
	f     *Folder
	l     *Log
	epoch model.Epoch
	next  map[int64]int32 // sequence by producer
	open  map[int64]bool  // producers in a transaction

	mu      sync.Mutex
	hookRng *rand.Rand
	log     *Log          // what the hook looks at; nil while there is none
	want    []batch.Batch // the log's batches in order
	before  []batch.Batch // during a truncation: those before it
	floor   model.Offset  // acked is at most this
	acked   model.Offset  // flushed at the last restart
	start   model.Offset  // the log's start at most
	id      model.UUID    // of the topic
	oldID   model.UUID    // while the topic is deleted and made again: of the former
	busy    bool          // a clone is being looked at
	clones  int
	problem error
}

func TestPowerFailureAtAnyMomentLosesNothingThatWasFlushed(t *testing.T) {
	seeds := 12
	if s := os.Getenv("OTTLA_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	for _, c := range []struct {
		name string
		cfg  LogConfig
	}{
		{"strict", LogConfig{SegmentBytes: 1500, IndexInterval: 200, DeleteDelayMs: -1}},
		{"page cache", LogConfig{SegmentBytes: 1500, IndexInterval: 200, FlushMessages: Never}},
		{"every 4 messages", LogConfig{SegmentBytes: 1500, IndexInterval: 200, FlushMessages: 4, DeleteDelayMs: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clones := 0
			for seed := range seeds {
				clones += runCrashes(t, c.cfg, uint64(seed))
			}
			t.Logf("%d power failures", clones)
		})
	}
}

// A truncation to the log's start once removed the last file that told where the
// log is: after a power failure it began at 0 again. This seed meets it.
func TestTruncationToTheStartKeepsTheOffsets(t *testing.T) {
	for range 3 {
		runCrashes(t, LogConfig{SegmentBytes: 1500, IndexInterval: 200, DeleteDelayMs: -1}, 1613)
	}
}

func runCrashes(t *testing.T, cfg LogConfig, seed uint64) int {
	c := &crashTest{
		t: t, cfg: cfg, mem: vfs.NewMem(), floor: 1 << 62, id: testTopic,
		rng: rand.New(rand.NewPCG(seed, 1)), hookRng: rand.New(rand.NewPCG(seed, 2)),
		next: map[int64]int32{}, open: map[int64]bool{},
	}
	c.mem.OnOp(c.hook)
	c.openAll()
	for range 80 {
		c.step()
		c.mu.Lock()
		problem := c.problem
		c.mu.Unlock()
		if problem != nil {
			t.Fatalf("seed %d: %v", seed, problem)
		}
	}
	c.closeAll()
	c.mem.OnOp(nil)
	if c.problem != nil {
		t.Fatalf("seed %d: %v", seed, c.problem)
	}
	return c.clones
}

func (c *crashTest) openAll() {
	cfg := folderConfig(c.mem)
	f, err := OpenFolder(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := f.Open(testPart, c.id, LogOptions{Config: c.cfg})
	if err != nil {
		c.t.Fatal(err)
	}
	c.f, c.l = f, l
	c.lead()
	c.mu.Lock()
	c.log = l
	c.mu.Unlock()
}

// lead begins a new epoch. The controller never gives one twice.
func (c *crashTest) lead() {
	c.epoch++
	if err := c.l.SetLeaderEpoch(c.epoch); err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashTest) closeAll() {
	if err := c.f.Close(1); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = c.l.EndOffset() // a clean stop makes all of it durable
	c.log = nil
}

func (c *crashTest) step() {
	switch r := c.rng.IntN(100); {
	case r < 60:
		c.append(1 + c.rng.IntN(3))
	case r < 70:
		c.marker()
	case r < 78:
		c.truncate()
	case r < 84:
		if err := c.l.Sync(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	case r < 88:
		if err := c.f.Checkpoint(); err != nil {
			c.t.Fatal(err)
		}
	case r < 91:
		c.lead()
	case r < 94:
		c.advance()
	case r < 95:
		c.recreate()
	case r < 97:
		if err := c.l.rest(); err != nil {
			c.t.Fatal(err)
		}
	default:
		c.closeAll()
		c.openAll()
	}
}

// append puts n batches into the log with one call.
func (c *crashTest) append(n int) {
	var list []*Append
	end := c.l.EndOffset()
	for range n {
		id := int64(c.rng.IntN(4)) - 1
		var b batch.Batch
		records := 1 + c.rng.IntN(3)
		switch {
		case id < 0:
			b = plain(records, int64(c.rng.IntN(1000)), fmt.Sprint("plain ", end))
		case id == 2 || c.open[id]:
			b, c.open[id] = transacted(id, 0, c.next[id], records, int64(c.rng.IntN(1000))), true
		default:
			b = produced(id, 0, c.next[id], records, int64(c.rng.IntN(1000)))
		}
		if id >= 0 {
			c.next[id] += int32(records)
		}
		list = append(list, &Append{Batch: b})
		end += model.Offset(records)
	}
	c.put(list)
}

// put enters what will be in the log before it can be, then appends it.
func (c *crashTest) put(list []*Append) {
	epoch, end := c.l.leader, c.l.EndOffset()
	c.mu.Lock()
	for _, a := range list {
		b := slices.Clone(a.Batch)
		b.SetBaseOffset(end)
		b.SetLeaderEpoch(epoch)
		end = b.NextOffset()
		c.want = append(c.want, b)
		a.Epoch = epoch
	}
	c.mu.Unlock()
	var done sync.WaitGroup
	done.Add(len(list))
	for _, a := range list {
		a.Done = func(*Append) { done.Done() }
	}
	c.l.AppendAll(list...)
	done.Wait()
	for _, a := range list {
		if a.Err != nil || a.Duplicate {
			c.t.Fatalf("append: %v, duplicate %v", a.Err, a.Duplicate)
		}
	}
}

func (c *crashTest) marker() {
	for id := range c.open {
		if c.open[id] {
			c.open[id] = false
			b := batch.EndTxnMarker(model.Producer{ID: id}, c.rng.IntN(2) == 0, 1, int64(c.rng.IntN(1000)))
			c.put([]*Append{{Batch: b}})
			return
		}
	}
}

func (c *crashTest) truncate() {
	start, end := c.l.StartOffset(), c.l.EndOffset()
	if end == start {
		return
	}
	off := start + model.Offset(c.rng.Int64N(int64(end-start)))
	if c.rng.IntN(3) > 0 {
		off = max(start, end-model.Offset(c.rng.IntN(6)))
	}
	c.mu.Lock()
	kept := slices.Clone(c.want)
	for len(kept) > 0 && kept[len(kept)-1].LastOffset() >= off {
		kept = kept[:len(kept)-1]
	}
	c.before, c.want = c.want, kept
	c.floor = 0
	if n := len(kept); n > 0 {
		c.floor = kept[n-1].NextOffset()
	}
	c.mu.Unlock()
	if err := c.l.TruncateTo(off); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.before, c.floor = nil, 1<<62
	c.start = min(c.start, c.l.EndOffset())
	c.mu.Unlock()
	c.lead()
	// The producers of the driver follow.
	c.next, c.open = map[int64]int32{}, map[int64]bool{}
	for _, p := range naive(c.want).list() {
		c.next[p.Producer.ID], c.open[p.Producer.ID] = p.LastSequence+1, p.TxnStart >= 0
	}
}

func (c *crashTest) advance() {
	start, end := c.l.StartOffset(), c.l.EndOffset()
	if end == start {
		return
	}
	to := start + model.Offset(c.rng.Int64N(int64(end-start)/4+1))
	c.mu.Lock()
	c.start = max(c.start, to)
	c.mu.Unlock()
	if err := c.l.AdvanceStart(to); err != nil {
		c.t.Fatal(err)
	}
}

// recreate deletes the topic and makes it again under the same name.
func (c *crashTest) recreate() {
	c.mu.Lock()
	c.log, c.acked = nil, 0
	c.before, c.want, c.start = c.want, nil, max(c.start, 0)
	c.oldID, c.id = c.id, model.UUID{0: c.id[0] + 1, 1: 5}
	c.mu.Unlock()
	if err := c.f.Delete(c.l); err != nil {
		c.t.Fatal(err)
	}
	l, err := c.f.Open(testPart, c.id, LogOptions{Config: c.cfg})
	if err != nil {
		c.t.Fatal(err)
	}
	if l.EndOffset() != 0 || l.StartOffset() != 0 {
		c.t.Fatalf("a new log has [%d, %d)", l.StartOffset(), l.EndOffset())
	}
	c.l = l
	c.lead()
	c.next, c.open = map[int64]int32{}, map[int64]bool{}
	c.append(1)
	if err := l.Sync(context.Background()); err != nil { // from here on the old one is gone for good
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.log, c.before, c.oldID, c.start = l, nil, model.ZeroUUID, 0
	c.mu.Unlock()
}

// naive is the producers' state after the batches, by the plainest means.
func naive(all []batch.Batch) *producers {
	ps := &producers{}
	for _, b := range all {
		ps.begin()
		switch {
		case b.Producer().ID < 0:
		case b.Control():
			ps.applyMarker(b, 1)
		default:
			ps.apply(b)
		}
	}
	return ps
}

// hook is called before each mutating operation.
func (c *crashTest) hook(op vfs.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || c.problem != nil || c.hookRng.IntN(3) > 0 {
		return
	}
	acked := c.acked
	if c.log != nil {
		acked = 0
		if c.cfg.FlushMessages == 0 {
			acked = c.log.FlushedOffset()
		} else if c.log.mu.TryLock() {
			acked = c.log.sync.synced
			c.log.mu.Unlock()
		}
	}
	acked = min(acked, c.floor)
	var r *rand.Rand
	if c.hookRng.IntN(4) > 0 {
		r = c.hookRng
	}
	c.clones++
	clone := c.mem.CrashClone(r)
	// Power fails again while the folder is opened: before the n-th operation.
	var second atomic.Pointer[vfs.Mem]
	var n atomic.Int64
	again := rand.New(rand.NewPCG(c.hookRng.Uint64(), 3))
	n.Store(int64(again.IntN(60)))
	clone.OnOp(func(vfs.Op) {
		if n.Add(-1) == 0 {
			second.Store(clone.CrashClone(again))
		}
	})
	err := c.look(clone, acked)
	clone.OnOp(nil)
	if mem := second.Load(); err == nil && mem != nil {
		c.clones++
		if err = c.look(mem, acked); err != nil {
			err = fmt.Errorf("and again while opening: %w", err)
		}
	}
	if err != nil {
		c.problem = fmt.Errorf("power failure %d, before %v %s (%d, %d), acked %d: %w", c.clones, op.Kind, op.Path, op.Off, op.Len, acked, err)
	}
}

// look opens a clone and checks it.
func (c *crashTest) look(mem *vfs.Mem, acked model.Offset) error {
	cfg := folderConfig(mem)
	f, err := OpenFolder(cfg)
	if err != nil {
		return err
	}
	defer f.Close(-1)
	if acked > 0 && !f.Has(testPart) {
		return fmt.Errorf("the partition is gone")
	}
	if acked > 0 && c.oldID == model.ZeroUUID && f.dirs[testPart].TopicID == model.ZeroUUID {
		return fmt.Errorf("the topic id is gone")
	}
	id := c.id
	if d := f.dirs[testPart]; d != nil && d.TopicID != model.ZeroUUID {
		id = d.TopicID
	}
	if id != c.id && (c.oldID == model.ZeroUUID || id != c.oldID) {
		return fmt.Errorf("topic id %v", id)
	}
	l, err := f.Open(testPart, id, LogOptions{Config: c.cfg})
	if err != nil {
		return err
	}
	if err := c.checkLog(l, acked); err != nil {
		return err
	}
	// A second, clean start must see the same.
	end := l.EndOffset()
	if err := f.Close(2); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	again, err := OpenFolder(cfg)
	if err != nil {
		return err
	}
	defer again.Close(-1)
	if l, err = again.Open(testPart, id, LogOptions{Config: c.cfg}); err != nil {
		return fmt.Errorf("after a clean stop: %w", err)
	}
	if l.EndOffset() != end {
		return fmt.Errorf("end %d after a clean stop, was %d", l.EndOffset(), end)
	}
	if err := c.checkLog(l, acked); err != nil {
		return fmt.Errorf("after a clean stop: %w", err)
	}
	return nil
}

func (c *crashTest) checkLog(l *Log, acked model.Offset) error {
	if l.EndOffset() < acked {
		return fmt.Errorf("CHECK 1: the log ends at %d", l.EndOffset())
	}
	if l.StartOffset() > max(c.start, 0) {
		return fmt.Errorf("CHECK 1: the log starts at %d, at most %d was asked for", l.StartOffset(), c.start)
	}
	if l.FlushedOffset() != l.EndOffset() {
		return fmt.Errorf("flushed %d, end %d after opening", l.FlushedOffset(), l.EndOffset())
	}
	got, err := readAll(l, l.StartOffset(), l.EndOffset(), 700)
	if err != nil {
		return fmt.Errorf("CHECK 2: %w", err)
	}
	err = prefix(got, c.want, l)
	if err != nil && c.before != nil {
		err = prefix(got, c.before, l)
	}
	if err != nil {
		return fmt.Errorf("CHECK 2: %w", err)
	}
	return checkState(l, got)
}

// prefix demands that got are the batches of want from the log's start to its end.
func prefix(got, want []batch.Batch, l *Log) error {
	var expect []batch.Batch
	for _, b := range want {
		if b.LastOffset() >= l.StartOffset() && b.LastOffset() < l.EndOffset() {
			expect = append(expect, b)
		}
	}
	if n := len(expect); n > 0 && expect[n-1].NextOffset() != l.EndOffset() {
		return fmt.Errorf("the log ends at %d, inside of a batch or in a gap", l.EndOffset())
	}
	return equalBatches(got, expect)
}

// checkState compares what the log knows about its batches with the batches.
func checkState(l *Log, got []batch.Batch) error {
	for _, b := range got {
		if e, ok := l.EpochOf(max(b.BaseOffset(), l.StartOffset())); !ok || e != b.LeaderEpoch() {
			return fmt.Errorf("CHECK 3: epoch of %d is %d, the batch of %d has %d; all are %v, the log [%d, %d)", max(b.BaseOffset(), l.StartOffset()), e, b.BaseOffset(), b.LeaderEpoch(), l.epochs, l.StartOffset(), l.EndOffset())
		}
	}
	all, err := readAll(l, l.segments[0].base, l.EndOffset(), 1<<20)
	if l.StartOffset() > l.segments[0].base { // below the start only storage can read
		all, err = got, nil
	}
	if err != nil {
		return err
	}
	ps := naive(all)
	for _, p := range l.Producers() {
		q := ps.byID[p.Producer.ID]
		if q == nil {
			continue // known from a snapshot, its batches are below the start
		}
		if q.epoch != p.Producer.Epoch || q.count > 0 && q.lastSeq() != p.LastSequence || q.count > 0 && p.TxnStart != q.txn && l.StartOffset() == 0 {
			return fmt.Errorf("CHECK 3: producer %d: %+v, the batches say epoch %d, sequence %d, transaction %d", p.Producer.ID, p, q.epoch, q.lastSeq(), q.txn)
		}
		delete(ps.byID, p.Producer.ID)
	}
	if len(ps.byID) > 0 {
		return fmt.Errorf("CHECK 3: %d producers are not known", len(ps.byID))
	}
	return checkTimes(l, got)
}

// checkTimes looks up times by the index and by hand.
func checkTimes(l *Log, got []batch.Batch) error {
	for _, ts := range []int64{0, 200, 500, 900, 1100} {
		want := model.NoOffset
		for _, b := range got {
			if want >= 0 || b.MaxTimestamp() < ts {
				continue
			}
			for r, err := range l.disk.codecs.Records(b, 0) {
				if err != nil {
					return err
				}
				if r.Timestamp >= ts && r.Offset >= l.StartOffset() && want < 0 {
					want = r.Offset
				}
			}
		}
		found, ok, err := l.OffsetForTime(ts, l.EndOffset())
		if err != nil {
			return err
		}
		if ok != (want >= 0) || ok && found.Offset != want {
			return fmt.Errorf("CHECK 3: time %d is at %d (%v), by hand at %d", ts, found.Offset, ok, want)
		}
	}
	return nil
}
