package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// cleanCrash runs retention, DeleteRecords and compaction and, before every operation
// on the "disk", opens what a power failure at that moment would have left.
//
// CHECK 1: the log's end is where it was, and its start between the one that was
// confirmed last and the one that is under way.
// CHECK 2: every record that is found is the one that was written at its offset.
// CHECK 3: what a reader makes of the log, the last value of each key by committed
// records, is what it would make of all records from the start on: nothing that lives
// is lost, nothing that was deleted comes back.
// CHECK 4: all of that holds again after one more compaction, and after a clean stop.
type cleanCrash struct {
	t   *testing.T
	rng *rand.Rand
	mem *vfs.Mem
	cfg LogConfig
	f   *Folder
	l   *Log
	c   *Cleaner
	now int64
	seq int32

	mu       sync.Mutex
	hookRng  *rand.Rand
	watching bool
	history  []written
	low, top model.Offset // bounds of the start
	clones   int
	problem  error
}

// written is a record that was appended.
type written struct {
	key, value string
	aborted    bool
	control    bool
}

func TestPowerFailureDuringRetentionAndCompaction(t *testing.T) {
	seeds := 2
	if s := os.Getenv("OTTLA_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	for _, flush := range []int64{1, Never} {
		t.Run(fmt.Sprintf("flush.messages=%d", flush), func(t *testing.T) {
			clones := 0
			for seed := range uint64(seeds) {
				c := &cleanCrash{
					t: t, mem: vfs.NewMem(), now: 10_000,
					rng: rand.New(rand.NewPCG(seed, 1)), hookRng: rand.New(rand.NewPCG(seed, 2)),
					cfg: LogConfig{SegmentBytes: 900, IndexInterval: 200, DeleteDelayMs: -1, FlushMessages: flush},
				}
				c.open()
				for range 40 {
					c.step()
					if c.problem != nil {
						t.Fatalf("seed %d: %v", seed, c.problem)
					}
				}
				c.mem.OnOp(nil)
				_ = c.f.Close(-1)
				clones += c.clones
			}
			t.Logf("%d power failures", clones)
		})
	}
}

func (c *cleanCrash) open() {
	c.mem.OnOp(c.hook)
	var err error
	if c.f, err = OpenFolder(folderConfig(c.mem)); err != nil {
		c.t.Fatal(err)
	}
	c.l = openPart(c.t, c.f, c.cfg)
	c.c = c.f.NewCleaner(CleanerConfig{Memory: 16 * slotSize, IOBuffer: 1024})
}

func (c *cleanCrash) policy() Cleanup {
	p := compacting()
	p.DeleteRetentionMs = int64(c.rng.IntN(3)) * 1000
	return p
}

func (c *cleanCrash) step() {
	c.now += int64(c.rng.IntN(900))
	switch r := c.rng.IntN(20); {
	case r < 11:
		c.append()
	case r < 16:
		if err := c.l.do(func() error {
			if c.l.active().size == 0 {
				return nil
			}
			return c.l.roll(c.l.EndOffset(), c.l.EndOffset())
		}); err != nil {
			c.t.Fatal(err)
		}
		c.watch(true)
		cleanOnce(c.t, c.c, c.l, c.policy(), c.now)
		c.watch(false)
	case r < 17:
		c.moveStart(c.l.EndOffset(), func() error {
			p := Cleanup{Delete: true, RetentionMs: -1, RetentionBytes: int64(2000 + c.rng.IntN(4000))}
			return errors.Join(c.l.Expire(p, time.UnixMilli(c.now), c.l.EndOffset()), c.f.Trim())
		})
	case r < 18:
		start := c.l.StartOffset()
		to := start + model.Offset(c.rng.Int64N(int64(c.l.EndOffset()-start)/3+1))
		c.moveStart(to, func() error { return errors.Join(c.l.RaiseStart(to), c.f.Trim(c.l)) })
	case r < 19:
		c.watch(true)
		closeFolder(c.t, c.f)
		c.open()
		c.watch(false)
	default: // and go on with what is left
		mem := c.mem.CrashClone(c.rng)
		c.mem.OnOp(nil)
		_ = c.f.Close(-1)
		c.mem = mem
		c.open()
	}
}

func (c *cleanCrash) moveStart(to model.Offset, f func() error) {
	c.mu.Lock()
	c.top = max(c.top, to)
	c.mu.Unlock()
	c.watch(true)
	if err := f(); err != nil {
		c.t.Fatal(err)
	}
	c.watch(false)
	c.mu.Lock()
	c.low = c.l.StartOffset()
	c.top = c.low
	c.mu.Unlock()
}

func (c *cleanCrash) watch(on bool) {
	if err := c.l.Sync(context.Background()); on && err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watching = on
}

// append writes a batch, or a transaction of one, and syncs it.
func (c *cleanCrash) append() {
	var records []kv
	for range 1 + c.rng.IntN(4) {
		r := kv{key: string(rune('a' + c.rng.IntN(18)))}
		if c.rng.IntN(3) > 0 {
			r.value = fmt.Sprint("value ", c.rng.IntN(1000))
		}
		records = append(records, r)
	}
	txn, abort := c.rng.IntN(3) == 0, c.rng.IntN(2) == 0
	o := batch.Plain(0, 0)
	if txn {
		o = idempotent(7, c.seq, true)
		c.seq += int32(len(records))
	}
	o.Codec = []batch.Codec{batch.None, batch.LZ4}[c.rng.IntN(2)]
	put := func(b batch.Batch) {
		if a := put(c.l, &Append{Batch: b, Epoch: c.l.leader}); a.Err != nil {
			c.t.Fatal(a.Err)
		}
	}
	put(keyed(o, c.now, records...))
	if txn {
		put(batch.EndTxnMarker(model.Producer{ID: 7}, !abort, 0, c.now))
	}
	c.mu.Lock()
	for _, r := range records {
		c.history = append(c.history, written{key: r.key, value: r.value, aborted: txn && abort})
	}
	if txn {
		c.history = append(c.history, written{control: true})
	}
	c.mu.Unlock()
	if err := c.l.Sync(context.Background()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cleanCrash) hook(op vfs.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watching || c.problem != nil {
		return
	}
	for _, r := range []*rand.Rand{nil, c.hookRng} {
		c.clones++
		clone := c.mem.CrashClone(r)
		// Power fails again while the folder is opened: before the n-th operation.
		var second atomic.Pointer[vfs.Mem]
		var n atomic.Int64
		again := rand.New(rand.NewPCG(c.hookRng.Uint64(), 3))
		n.Store(int64(again.IntN(40)))
		clone.OnOp(func(vfs.Op) {
			if n.Add(-1) == 0 {
				second.Store(clone.CrashClone(again))
			}
		})
		err := c.look(clone)
		clone.OnOp(nil)
		if mem := second.Load(); err == nil && mem != nil {
			c.clones++
			if err = c.look(mem); err != nil {
				err = fmt.Errorf("and again while opening: %w", err)
			}
		}
		if err != nil {
			c.problem = fmt.Errorf("power failure %d, before %v: %w", c.clones, op, err)
			return
		}
	}
}

// look opens a clone and checks it.
func (c *cleanCrash) look(mem *vfs.Mem) error {
	var end model.Offset
	for i, what := range []string{"after the power failure", "after a clean stop"} {
		f, err := OpenFolder(folderConfig(mem))
		if err != nil {
			return err
		}
		l, err := f.Open(testPart, testTopic, LogOptions{Config: c.cfg})
		if err == nil {
			err = c.check(l)
		}
		if i == 0 && err == nil {
			end = l.EndOffset()
			cl := f.NewCleaner(CleanerConfig{Memory: 16 * slotSize})
			var d Dirt
			d, err = cl.Look(l, compacting(), l.LastStable(end), time.UnixMilli(c.now+10_000))
			if err == nil && d.Due {
				_, err = cl.Clean(context.Background(), l, compacting(), d, time.UnixMilli(c.now+10_000))
			}
			err = errors.Join(err, f.Trim())
			if err == nil {
				if err = c.check(l); err != nil {
					err = fmt.Errorf("and a compaction: %w", err)
				}
			}
		}
		if cerr := f.Close(3); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (c *cleanCrash) check(l *Log) error {
	start := l.StartOffset()
	if l.EndOffset() != model.Offset(len(c.history)) || start < c.low || start > c.top {
		return fmt.Errorf("the log has [%d, %d), want from %d to %d up to %d", start, l.EndOffset(), c.low, c.top, len(c.history))
	}
	aborted, err := l.Aborted(start, l.EndOffset())
	if err != nil {
		return err
	}
	all, err := readGaps(l, start, l.EndOffset())
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, b := range all {
		skip := b.Transactional() && slices.ContainsFunc(aborted, func(t AbortedTxn) bool {
			return t.Producer == b.Producer().ID && t.First <= b.BaseOffset() && t.Last > b.LastOffset()
		})
		for r, err := range l.disk.codecs.Records(b, 0) {
			if err != nil {
				return err
			}
			w := c.history[r.Offset]
			if w.control != b.Control() || !w.control && (w.key != string(r.Key) || w.value != string(r.Value)) {
				return fmt.Errorf("record %d is %q=%q, written was %+v", r.Offset, r.Key, r.Value, w)
			}
			if w.aborted && !skip {
				return fmt.Errorf("record %d is aborted but passes for committed", r.Offset)
			}
			if r.Offset >= start && !skip && !b.Control() {
				fold(got, w)
			}
		}
	}
	want := map[string]string{}
	for _, w := range c.history[start:] {
		if !w.aborted && !w.control {
			fold(want, w)
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("from %d on a reader finds\n%v, want\n%v", start, got, want)
	}
	return nil
}

func fold(state map[string]string, w written) {
	if w.value == "" {
		delete(state, w.key)
		return
	}
	state[w.key] = w.value
}

// A compaction that fails leaves what was there; the disk that is full gets another try.
func TestFaultsDuringCompaction(t *testing.T) {
	for kind, pattern := range map[vfs.OpKind]string{
		vfs.OpCreate: "*.cleaned", vfs.OpWrite: "*.cleaned", vfs.OpSync: "*.cleaned", vfs.OpChtimes: "*.cleaned", vfs.OpRename: "*.swap",
	} {
		for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprint(kind, fault), func(t *testing.T) {
				mem := vfs.NewMem()
				in := vfs.Inject(mem)
				f := openFolder(t, in)
				l := openPart(t, f, LogConfig{Compact: true})
				for i := range 5 {
					lead(t, l, keyed(batch.Plain(0, 0), 10, kv{"a", fmt.Sprint(i)}, kv{"b", fmt.Sprint(i)}))
				}
				c := f.NewCleaner(CleanerConfig{})
				before := records(t, l)
				if err := l.do(func() error { return l.roll(l.EndOffset(), l.EndOffset()) }); err != nil {
					t.Fatal(err)
				}
				rule := in.Add(vfs.Rule{Kind: kind, Path: pattern, Err: fault})
				d, err := c.Look(l, compacting(), 10, time.UnixMilli(100))
				if err != nil || !d.Due {
					t.Fatal(d, err)
				}
				more, err := c.Clean(context.Background(), l, compacting(), d, time.UnixMilli(100))
				if more || err == nil || rule.Hits() == 0 {
					t.Fatalf("got further %v, error %v, %d hits", more, err, rule.Hits())
				}
				if got := records(t, l); !slices.Equal(got, before) {
					t.Errorf("the log has %q, want %q", got, before)
				}
				rule.Remove()
				if errors.Is(err, ErrFull) {
					if !cleanOnce(t, c, l, compacting(), 100) {
						t.Error("not tried again when there is room")
					}
					wantRecords(t, l, "8 a=4", "9 b=4")
					return
				}
				if f.Failed() == nil {
					t.Errorf("the folder lives on after %v", err)
				}
				again := openPart(t, openFolder(t, mem.CrashClone(nil)), LogConfig{Compact: true})
				if got := records(t, again); !slices.Equal(got, before) && len(got) != 2 {
					t.Errorf("after a restart the log has %q", got)
				}
			})
		}
	}
}

// Damage stops the compaction of that log until the next start, and of no other.
func TestADamagedLogIsNotCompacted(t *testing.T) {
	mem, f, l, c := cleanFixture(t)
	lead(t, l, keyed(batch.Plain(0, 0), 10, kv{"a", "1"}))
	lead(t, l, keyed(batch.Plain(0, 0), 10, kv{"a", "2"}))
	other, err := f.Open(model.TopicPartition{Topic: "other"}, testTopic, LogOptions{})
	if err != nil || other.SetLeaderEpoch(0) != nil {
		t.Fatal(err)
	}
	for _, log := range []*Log{l, other} {
		lead(t, log, keyed(batch.Plain(0, 0), 10, kv{"b", "1"}))
		lead(t, log, keyed(batch.Plain(0, 0), 10, kv{"b", "2"}))
		if err := log.do(func() error { return log.roll(log.EndOffset(), log.EndOffset()) }); err != nil {
			t.Fatal(err)
		}
	}
	file, err := mem.OpenFile(l.name(0, logSuffix), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{0xff}, 65); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	round := func() (bool, error) {
		return c.Round(context.Background(), slices.Values([]Candidate{
			{Log: l, Cleanup: compacting(), Stable: l.EndOffset()}, {Log: other, Cleanup: compacting(), Stable: other.EndOffset()},
		}))
	}
	if more, err := round(); !more || !errors.Is(err, batch.ErrCorrupt) {
		t.Errorf("got further %v, error %v", more, err)
	}
	wantRecords(t, other, "1 b=2")
	if more, err := round(); more || err != nil {
		t.Errorf("again: got further %v, error %v", more, err)
	}
	if f.Failed() != nil {
		t.Error("the folder failed")
	}
}
