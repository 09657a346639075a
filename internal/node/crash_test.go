package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/node"
	"ottla.dev/ottla/internal/vfs"
)

// Power failures of a whole node. A scripted client works against a node on a
// disk in memory and keeps a ledger of what it was told. Before operations on
// the disk that the seed chooses, the test takes what a power failure would have
// left, and afterwards starts a node on each of them.
//
// CHECK 1: every record that was acked is at its offset with its value.
// CHECK 2: what else is there was sent, and an idempotent producer's records are
// there once and in order, also after it has sent the unacked batch again.
// CHECK 3: topics whose creation was acked exist with their id, those whose
// deletion was acked do not.
// CHECK 4: the node works: it takes records, topics and hands out new producer ids.
//
// OTTLA_SOAK=n runs n seeds and takes every operation's power failure; a failure
// names its seed and point, and OTTLA_SEED repeats that seed alone.

// crashProps make segments, snapshots and metadata small.
var crashProps = map[string]string{
	"log.flush.interval.messages":                     "1",
	"metadata.log.max.record.bytes.between.snapshots": "3000",
	"log.segment.delete.delay.ms":                     "1",
}

// ledger is what the client did and what it was told.
type ledger struct {
	topics map[string]*topicLedger // by name and birth: "name/n"
	ids    map[int64]bool          // producer ids that were given out
	lives  int
}

type topicLedger struct {
	name             string
	id               [16]byte // once the creation is acked
	created, deleted bool     // acked
	dying            bool     // deletion sent
	acked            []entry  // in order of offsets
	sent             map[string]bool
	producer         int64 // of the idempotent batches
	batches          int   // idempotent batches sent; all but perhaps the last are acked
	ackedBatches     int
}

type entry struct {
	offset int64
	value  string
}

func (l *ledger) clone() *ledger {
	c := &ledger{topics: map[string]*topicLedger{}, ids: maps.Clone(l.ids), lives: l.lives}
	for name, t := range l.topics {
		copied := *t
		copied.acked = t.acked[:len(t.acked):len(t.acked)]
		copied.sent = maps.Clone(t.sent)
		c.topics[name] = &copied
	}
	return c
}

// crashPoint is a power failure and what must have survived it: before says what
// was acked before the clone was taken, after what was sent until then.
type crashPoint struct {
	op            string
	disk          *vfs.Mem
	before, after *ledger
}

// crashRun is one seed.
type crashRun struct {
	t    *testing.T
	rng  *rand.Rand // of the driver
	mem  *vfs.Mem
	rate int // one power failure in so many operations

	mu     sync.Mutex
	hooked *rand.Rand // of the hook
	ledger *ledger
	points []crashPoint
	ops    int

	f     *fixture
	c     client
	birth int
}

func TestPowerFailuresOfANode(t *testing.T) {
	seeds, rate := []uint64{1, 2, 3, 4}, 20
	if s := os.Getenv("OTTLA_SOAK"); s != "" {
		n, _ := strconv.Atoi(s)
		seeds, rate = nil, 1
		for i := range n {
			seeds = append(seeds, uint64(i+1))
		}
	}
	if s := os.Getenv("OTTLA_SEED"); s != "" {
		n, _ := strconv.ParseUint(s, 10, 64)
		seeds, rate = []uint64{n}, 1
	}
	noLeaks(t)
	points, ops := 0, 0
	for _, seed := range seeds {
		p, o := runCrashes(t, seed, rate)
		points, ops = points+p, ops+o
		if t.Failed() {
			t.Fatalf("seed %d failed; OTTLA_SEED=%d repeats it", seed, seed)
		}
	}
	t.Logf("%d power failures in %d operations", points, ops)
}

func runCrashes(t *testing.T, seed uint64, rate int) (points, ops int) {
	r := &crashRun{
		t: t, mem: vfs.NewMem(), rate: rate,
		rng: rand.New(rand.NewPCG(seed, 1)), hooked: rand.New(rand.NewPCG(seed, 2)),
		ledger: &ledger{topics: map[string]*topicLedger{}, ids: map[int64]bool{}},
	}
	r.mem.OnOp(r.hook)
	r.live()
	for range 60 {
		r.step()
	}
	r.die()
	r.mem.OnOp(nil)
	for i, p := range r.points {
		if !t.Run(fmt.Sprintf("seed %d point %d before %s", seed, i, p.op), func(t *testing.T) { p.check(t, seed, uint64(i)) }) {
			break
		}
	}
	return len(r.points), r.ops
}

// hook takes a power failure now and then.
func (r *crashRun) hook(op vfs.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	if r.hooked.IntN(r.rate) > 0 {
		return
	}
	p := crashPoint{op: strings.ReplaceAll(fmt.Sprintf("%s %s", op.Kind, op.Path), "/", "|"), before: r.ledger.clone()}
	p.disk = r.mem.CrashClone(r.hooked)
	p.after = p.before // the ledger is under mu: nothing was sent or acked meanwhile
	r.points = append(r.points, p)
}

// note changes the ledger.
func (r *crashRun) note(f func(l *ledger)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.ledger)
}

// life starts a node with ids of its own; two lives must not draw the same.
func life(t *testing.T, disk vfs.FS, seed uint64, props map[string]string) *fixture {
	t.Helper()
	all := config.Default()
	maps.Copy(all, map[string]string{"log.dirs": "/data", "ottla.http.listener": ""})
	maps.Copy(all, props)
	settings, _, err := config.Load(all)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, fs: disk, net: memnet.New()}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f.node, err = node.Open(ctx, node.Config{Settings: settings, FS: disk, Network: f.net, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Seed: seed})
	if err != nil {
		t.Fatalf("starting the node: %v", err)
	}
	return f
}

func (r *crashRun) live() {
	r.note(func(l *ledger) { l.lives++ })
	r.f = life(r.t, r.mem, r.rng.Uint64(), crashProps)
	r.c = r.f.dial()
}

func (r *crashRun) die() {
	r.c.c.Close()
	r.f.stop()
}

func (r *crashRun) step() {
	live := r.alive()
	switch n := r.rng.IntN(100); {
	case len(live) == 0 || n < 8 && len(live) < 4:
		r.create()
	case n < 12 && len(live) > 1:
		r.remove(live[r.rng.IntN(len(live))])
	case n < 15:
		r.die()
		r.live()
	case n < 55:
		r.idempotent(live[r.rng.IntN(len(live))])
	default:
		r.plain(live[r.rng.IntN(len(live))])
	}
}

// alive lists the topics that can be produced to, in order.
func (r *crashRun) alive() (out []*topicLedger) {
	for _, key := range slices.Sorted(maps.Keys(r.ledger.topics)) {
		if t := r.ledger.topics[key]; !t.dying {
			out = append(out, t)
		}
	}
	return out
}

func (r *crashRun) create() {
	r.birth++
	t := &topicLedger{name: fmt.Sprint("topic-", r.rng.IntN(6)), sent: map[string]bool{}}
	for _, have := range r.alive() {
		if have.name == t.name {
			return
		}
	}
	r.note(func(l *ledger) { l.topics[fmt.Sprintf("%s/%d", t.name, r.birth)] = t })
	id := r.c.create(t.name, 1, "internal.segment.bytes", "2000", "index.interval.bytes", "300")
	ids := do[*kmsg.InitProducerIDResponse](r.c, kmsg.NewPtrInitProducerIDRequest(), 5)
	if ids.ErrorCode != 0 {
		r.t.Fatalf("producer id: error %d", ids.ErrorCode)
	}
	r.note(func(l *ledger) {
		if l.ids[ids.ProducerID] {
			r.t.Errorf("producer id %d was given out twice", ids.ProducerID)
		}
		l.ids[ids.ProducerID] = true
		t.id, t.created, t.producer = id, true, ids.ProducerID
	})
}

func (r *crashRun) remove(t *topicLedger) {
	r.note(func(*ledger) { t.dying = true })
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 10000
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.TopicID = t.id
	req.Topics = append(req.Topics, rt)
	if code := do[*kmsg.DeleteTopicsResponse](r.c, req, 6).Topics[0].ErrorCode; code != 0 {
		r.t.Fatalf("deleting %s: error %d", t.name, code)
	}
	r.note(func(*ledger) { t.deleted = true })
}

func (r *crashRun) plain(t *topicLedger) {
	var values []string
	for range 1 + r.rng.IntN(3) {
		values = append(values, fmt.Sprintf("plain %d %s", len(t.sent)+len(values), strings.Repeat("x", r.rng.IntN(600))))
	}
	r.send(t, values, plain())
}

func (r *crashRun) idempotent(t *topicLedger) {
	value := idempotentValue(t.batches)
	r.note(func(*ledger) { t.batches++ })
	r.send(t, []string{value}, t.options(t.batches-1))
	r.note(func(*ledger) { t.ackedBatches = t.batches })
}

func idempotentValue(n int) string {
	return fmt.Sprintf("idempotent %d %s", n, strings.Repeat("y", n*37%400))
}

func (t *topicLedger) options(sequence int) batch.BuilderOptions {
	o := plain()
	o.Producer, o.Sequence = model.Producer{ID: t.producer}, int32(sequence)
	return o
}

func (r *crashRun) send(t *topicLedger, values []string, o batch.BuilderOptions) {
	r.note(func(*ledger) {
		for _, v := range values {
			t.sent[v] = true
		}
	})
	acks := int16(-1)
	if r.rng.IntN(3) == 0 {
		acks = 1 // with a flush after each message it is as good
	}
	p := r.c.produce(t.name, acks, build(o, values...))
	if p.ErrorCode != 0 {
		r.t.Fatalf("produce to %s: error %d", t.name, p.ErrorCode)
	}
	r.note(func(*ledger) {
		for i, v := range values {
			t.acked = append(t.acked, entry{p.BaseOffset + int64(i), v})
		}
	})
}

// check starts a node on what the power failure left.
func (p crashPoint) check(t *testing.T, seed, point uint64) {
	f := life(t, p.disk, seed<<32|point<<1|1, crashProps)
	defer f.stop()
	c := f.dial()
	defer c.c.Close()
	p.checkTopics(c)
	for _, topic := range p.before.topics {
		if topic.created && !topic.dying {
			checkRecords(c, topic)
		}
	}
	ids := do[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 5)
	if ids.ErrorCode != 0 || p.before.ids[ids.ProducerID] {
		t.Errorf("producer id %d, error %d: given out before", ids.ProducerID, ids.ErrorCode)
	}
	c.create("after", 1)
	if got := c.produce("after", -1, build(plain(), "fresh")); got.ErrorCode != 0 || got.BaseOffset != 0 {
		t.Errorf("a new topic: error %d, base offset %d", got.ErrorCode, got.BaseOffset)
	}
}

func (p crashPoint) checkTopics(c client) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil
	there := map[[16]byte]string{}
	for _, t := range do[*kmsg.MetadataResponse](c, req, 12).Topics {
		there[t.TopicID] = *t.Topic
	}
	known := map[[16]byte]bool{}
	unacked := 0
	for _, t := range p.before.topics {
		name, ok := there[t.id]
		known[t.id] = true
		switch {
		case !t.created:
			unacked++
		case t.deleted && ok:
			c.t.Errorf("topic %s is back after its deletion was acked", name)
		case !t.dying && (!ok || name != t.name):
			c.t.Errorf("topic %s is lost (there is %q under its id)", t.name, name)
		}
	}
	for id, name := range there {
		if !known[id] {
			if unacked--; unacked < 0 {
				c.t.Errorf("topic %s was never made", name)
			}
		}
	}
}

func checkRecords(c client, t *topicLedger) {
	if t.batches > 0 { // the last batch again: it may be there or not, and must be once
		last := t.batches - 1
		p := c.produce(t.name, -1, build(t.options(last), idempotentValue(last)))
		if p.ErrorCode != 0 {
			c.t.Errorf("%s: sending batch %d again (%d acked): %v", t.name, last, t.ackedBatches, kerr.ErrorForCode(p.ErrorCode))
		}
	}
	got, high := readAll(c, t)
	if high != int64(len(got)) {
		c.t.Errorf("%s: high watermark %d, %d records", t.name, high, len(got))
	}
	for _, e := range t.acked {
		if e.offset >= int64(len(got)) || got[e.offset] != e.value {
			c.t.Fatalf("%s: the acked record of offset %d is not there: %d records", t.name, e.offset, len(got))
		}
	}
	batches := 0
	for i, v := range got {
		if !t.sent[v] {
			c.t.Errorf("%s: offset %d has %.30q, which was never sent", t.name, i, v)
		}
		if strings.HasPrefix(v, "idempotent") {
			if v != idempotentValue(batches) {
				c.t.Errorf("%s: offset %d has %.20q where batch %d should be", t.name, i, v, batches)
			}
			batches++
		}
	}
	if batches != t.batches {
		c.t.Errorf("%s: %d idempotent batches, want %d", t.name, batches, t.batches)
	}
	if p := c.produce(t.name, 1, build(plain(), "fresh")); p.ErrorCode != 0 || p.BaseOffset != high {
		c.t.Errorf("%s: a new record: error %d at offset %d, want %d", t.name, p.ErrorCode, p.BaseOffset, high)
	}
}

// readAll reads a partition from its beginning.
func readAll(c client, t *topicLedger) (got []string, high int64) {
	c.t.Helper()
	for {
		p := do[*kmsg.FetchResponse](c, fetchRequest("", t.id, int64(len(got))), 13).Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			c.t.Fatalf("%s: reading at %d: error %d", t.name, len(got), p.ErrorCode)
		}
		if high = p.HighWatermark; int64(len(got)) >= high {
			return got, high
		}
		more := values(c.t, p.RecordBatches, int64(len(got)))
		if len(more) == 0 {
			c.t.Fatalf("%s: nothing at %d although the high watermark is %d", t.name, len(got), high)
		}
		got = append(got, more...)
	}
}

// A clean stop leaves .kafka_cleanshutdown with the broker's epoch, and the next
// start reads no log through; after an unclean one it does, and all is there.
func TestACleanStopNeedsNoRecovery(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	f := life(t, mem, 1, nil)
	c := f.dial()
	id := c.create("t", 1)
	for range 100 {
		c.produce("t", -1, build(plain(), strings.Repeat("x", 5000)))
	}
	c.c.Close()
	unclean := mem.CrashClone(nil)
	f.stop()
	text, err := vfs.ReadFile(mem, "/data/.kafka_cleanshutdown", 1000)
	if err != nil {
		t.Fatalf("after a clean stop: %v", err)
	}
	if !strings.Contains(string(text), "brokerEpoch") {
		t.Errorf(".kafka_cleanshutdown is %q", text)
	}
	for name, disk := range map[string]*vfs.Mem{"clean": mem, "unclean": unclean} {
		in := vfs.Inject(disk)
		reads := in.Add(vfs.Rule{Kind: vfs.OpRead, Path: "/data/t-0/*.log", Delay: time.Nanosecond})
		f := life(t, in, 2, nil)
		if scanned := reads.Hits() > 20; scanned != (name == "unclean") {
			t.Errorf("%s: %d reads of the log while starting", name, reads.Hits())
		}
		if _, err := disk.Stat("/data/.kafka_cleanshutdown"); err == nil {
			t.Errorf("%s: the mark of a clean stop is there while the node runs", name)
		}
		c := f.dial()
		if p := one(do[*kmsg.FetchResponse](c, fetchRequest("", id, 0), 13)); p.HighWatermark != 100 {
			t.Errorf("%s: high watermark %d, want 100", name, p.HighWatermark)
		}
		c.c.Close()
		f.stop()
	}
}

// KAFKA.md 17 trap 6: snapshots keep only the last batch of each producer, so
// after a restart only that one is recognised as a duplicate.
func TestDuplicatesAreRecognisedAfterARestart(t *testing.T) {
	noLeaks(t)
	for _, clean := range []bool{true, false} {
		mem := vfs.NewMem()
		f := life(t, mem, 1, nil)
		c := f.dial()
		topic := &topicLedger{name: "t", producer: do[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 5).ProducerID}
		topic.id = c.create("t", 1)
		for i := range 4 {
			if p := c.produce("t", -1, build(topic.options(i), idempotentValue(i))); p.ErrorCode != 0 {
				t.Fatalf("error %d", p.ErrorCode)
			}
		}
		c.c.Close()
		var disk vfs.FS = mem
		if !clean {
			disk = mem.CrashClone(nil)
		}
		f.stop()
		f = life(t, disk, 2, nil)
		c = f.dial()
		if p := c.produce("t", -1, build(topic.options(3), idempotentValue(3))); p.ErrorCode != 0 || p.BaseOffset != 3 {
			t.Errorf("clean %v: the last batch again: error %d at %d, want offset 3", clean, p.ErrorCode, p.BaseOffset)
		}
		if p := c.produce("t", -1, build(topic.options(5), "gap")); p.ErrorCode != kerr.OutOfOrderSequenceNumber.Code {
			t.Errorf("clean %v: a gap: error %d", clean, p.ErrorCode)
		}
		if p := c.produce("t", -1, build(topic.options(4), idempotentValue(4))); p.ErrorCode != 0 || p.BaseOffset != 4 {
			t.Errorf("clean %v: the next batch: error %d at %d, want offset 4", clean, p.ErrorCode, p.BaseOffset)
		}
		c.c.Close()
		f.stop()
	}
}

// A failed fsync is final: the kernel may have dropped the pages. The folder's
// partitions answer KAFKA_STORAGE_ERROR, and what could not be made durable is
// not acked.
func TestAFailedSyncTakesThePartitionsOffline(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	disk := vfs.Inject(mem)
	f := life(t, disk, 1, map[string]string{"log.dirs": "/data,/more", "metadata.log.dir": "/meta"})
	c := f.dial()
	c.create("t", 8)
	send := func(partition int32, value string) int16 {
		req := produceRequest("t", [16]byte{}, -1, build(plain(), value))
		req.Topics[0].Partitions[0].Partition = partition
		req.TimeoutMillis = 5000
		return do[*kmsg.ProduceResponse](c, req, 12).Topics[0].Partitions[0].ErrorCode
	}
	for p := range int32(8) {
		if code := send(p, "fine"); code != 0 {
			t.Fatalf("partition %d: error %d", p, code)
		}
	}
	bad := disk.Add(vfs.Rule{Kind: vfs.OpSync, Path: "/data/t-*/*.log", Err: syscall.EIO, Times: 1})
	lost := map[int32]bool{}
	for p := range int32(8) {
		if code := send(p, "lost"); code == kerr.KafkaStorageError.Code {
			lost[p] = true
		} else if code != 0 {
			t.Errorf("partition %d: error %d", p, code)
		}
	}
	if bad.Hits() != 1 {
		t.Fatalf("%d syncs failed", bad.Hits())
	}
	if len(lost) == 0 || len(lost) == 8 {
		t.Fatalf("%d of 8 partitions are offline, want those of one folder of two", len(lost))
	}
	for p := range int32(8) { // it stays so, and the others go on
		want := int16(0)
		if lost[p] {
			want = kerr.KafkaStorageError.Code
		}
		if code := send(p, "again"); code != want {
			t.Errorf("partition %d: error %d, want %d", p, code, want)
		}
		fetch := fetchRequest("t", [16]byte{}, 0)
		fetch.Topics[0].Partitions[0].Partition = p
		if code := one(do[*kmsg.FetchResponse](c, fetch, 12)).ErrorCode; code != want {
			t.Errorf("reading partition %d: error %d, want %d", p, code, want)
		}
	}
	c.c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = f.node.Close(ctx) // it says that the folder has failed
}

// A full disk is an error that the client may try again after, not the end of
// the folder.
func TestAFullDiskIsSurvived(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	f := life(t, mem, 1, nil)
	c := f.dial()
	id := c.create("t", 1)
	big := strings.Repeat("z", 100_000)
	if p := c.produce("t", -1, build(plain(), big)); p.ErrorCode != 0 {
		t.Fatalf("error %d", p.ErrorCode)
	}
	total, _, err := mem.Space("/data")
	if err != nil {
		t.Fatal(err)
	}
	_, usable, _ := mem.Space("/data")
	mem.SetSpace(total - usable + 250_000)
	full := 0
	acked := 1
	for range 10 {
		switch p := c.produce("t", -1, build(plain(), big)); p.ErrorCode {
		case 0:
			acked++
		case kerr.KafkaStorageError.Code:
			full++
		default:
			t.Errorf("error %d, want one that is tried again", p.ErrorCode)
		}
	}
	if full == 0 {
		t.Error("nothing was refused although the disk is full")
	}
	mem.SetSpace(total)
	deadline := time.Now().Add(20 * time.Second)
	for {
		p := c.produce("t", -1, build(plain(), "after"))
		if p.ErrorCode == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with room again: error %d", p.ErrorCode)
		}
		time.Sleep(10 * time.Millisecond)
	}
	got, _ := readAll(c, &topicLedger{name: "t", id: id})
	if n := len(got); n < acked+1 || got[n-1] != "after" {
		t.Errorf("%d records, %d were acked", n, acked+1)
	}
	c.c.Close()
	f.stop()
}
