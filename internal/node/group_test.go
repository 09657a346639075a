package node_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla.dev/ottla/internal/vfs"
)

// groupProps make groups quick, and what is confirmed survive a power failure.
var groupProps = map[string]string{
	"offsets.topic.replication.factor": "1",
	"offsets.topic.num.partitions":     "4",
	"group.initial.rebalance.delay.ms": "0",
	"group.min.session.timeout.ms":     "100",
	"log.flush.interval.messages":      "1",
}

// kgo makes a franz-go client of the node.
func (f *fixture) kgo(opts ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	addr := f.node.Addr("PLAINTEXT")
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers("node:9092"),
		kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) { return f.net.Dial(ctx, "10.0.0.1", addr) }),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return cl
}

// fillTopic produces n records with the values from, from+1, … to a topic's partitions
// in turn.
func fillTopic(t *testing.T, cl *kgo.Client, topic string, partitions, from, n int) {
	t.Helper()
	var records []*kgo.Record
	for i := from; i < from+n; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Append(nil, i)})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// member is a consumer of a group: what it has and what it got.
type member struct {
	cl   *kgo.Client
	done chan struct{}

	mu    sync.Mutex
	parts map[int32]bool
	got   map[string]int // value → times
}

func (f *fixture) consume(group, topic string, opts ...kgo.Opt) *member {
	f.t.Helper()
	m := &member{done: make(chan struct{}), parts: map[int32]bool{}, got: map[string]int{}}
	m.cl = f.kgo(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(100 * time.Millisecond), kgo.SessionTimeout(5 * time.Second), kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.AutoCommitInterval(100 * time.Millisecond), kgo.AutoCommitMarks(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, a map[string][]int32) { m.note(a[topic], true) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, r map[string][]int32) {
			_ = cl.CommitMarkedOffsets(ctx)
			m.note(r[topic], false)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, r map[string][]int32) { m.note(r[topic], false) }),
	}, opts...)...)
	go func() {
		defer close(m.done)
		for {
			fetches := m.cl.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				m.mu.Lock()
				m.got[string(r.Value)]++
				m.mu.Unlock()
				m.cl.MarkCommitRecords(r)
			})
		}
	}()
	return m
}

func (m *member) note(parts []int32, has bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range parts {
		if has {
			m.parts[p] = true
		} else {
			delete(m.parts, p)
		}
	}
}

func (m *member) has() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.parts))
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// close commits what was read and leaves the group.
func (m *member) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := m.cl.CommitMarkedOffsets(ctx); err != nil {
		t.Errorf("the last commit: %v", err)
	}
	m.cl.Close()
	<-m.done
}

// await polls until ok or a minute has passed.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute there is not: %s", what)
		}
	}
}

func TestConsumersShareTheirTopic(t *testing.T) {
	const parts = 6
	fs := vfs.NewMem()
	f := life(t, fs, 1, groupProps)
	c := f.dial()
	c.create("t", parts)
	producer := f.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	a := f.consume("g", "t")
	await(t, "one member with all partitions", func() bool { return len(a.has()) == parts })
	b := f.consume("g", "t")
	await(t, "two members with half of them each", func() bool {
		return len(a.has()) == parts/2 && len(b.has()) == parts/2
	})
	if all := append(a.has(), b.has()...); len(slices.Compact(slices.Sorted(slices.Values(all)))) != parts {
		t.Errorf("the members have %v", all)
	}
	fillTopic(t, producer, "t", parts, 0, 60)
	await(t, "60 records", func() bool { return a.count()+b.count() == 60 })
	if a.count() != 30 || b.count() != 30 {
		t.Errorf("the members got %d and %d records", a.count(), b.count())
	}

	b.close(t)
	await(t, "one member with all partitions again", func() bool { return len(a.has()) == parts })
	fillTopic(t, producer, "t", parts, 60, 12)
	await(t, "72 records", func() bool { return a.count()+b.count() == 72 })
	for v, n := range b.got {
		if a.got[v] > 0 || n > 1 {
			t.Errorf("record %s was read twice", v)
		}
	}
	crash := func() vfs.FS { return fs.CrashClone(nil) }

	// The power fails after a commit was confirmed: the group goes on from there.
	if err := a.cl.CommitMarkedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := crash()
	t.Run("crash", func(t *testing.T) { resume(t, life(t, disk, 2, groupProps), parts) })

	a.close(t)
	producer.Close()
	c.c.Close()
	f.stop()
	t.Run("restart", func(t *testing.T) { resume(t, life(t, fs, 3, groupProps), parts) })
}

// resume consumes with the group on another life of the node, which has 72 records
// that are committed.
func resume(t *testing.T, f *fixture, parts int) {
	f.t = t
	defer f.stop()
	producer := f.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	m := f.consume("g", "t")
	fillTopic(t, producer, "t", parts, 100, 12)
	await(t, "12 records", func() bool { return m.count() >= 12 })
	m.close(t)
	for v, n := range m.got {
		if len(v) < 3 || n != 1 {
			t.Errorf("record %s came %d times", v, n)
		}
	}
}

// A static member that comes back before its session ends takes its place again,
// and nobody else notices.
func TestAStaticMemberComesBack(t *testing.T) {
	f := start(t, nil, groupProps)
	c := f.dial()
	c.create("t", 2)
	a := f.consume("g", "t", kgo.InstanceID("i"))
	await(t, "one member with both partitions", func() bool { return len(a.has()) == 2 })
	b := f.consume("g", "t", kgo.InstanceID("j"))
	await(t, "two members with one partition each", func() bool { return len(a.has()) == 1 && len(b.has()) == 1 })
	had := b.has()
	b.cl.Close() // a static member does not leave
	<-b.done
	b = f.consume("g", "t", kgo.InstanceID("j"))
	await(t, "its partition", func() bool { return slices.Equal(b.has(), had) })
	if len(a.has()) != 1 {
		t.Errorf("the other member has %v", a.has())
	}
	a.close(t)
	b.close(t)
}

func TestGroupsAreAdministered(t *testing.T) {
	f := start(t, nil, groupProps)
	c := f.dial()
	c.create("t", 2)
	producer := f.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	fillTopic(t, producer, "t", 2, 0, 10)
	adm, ctx := kadm.NewClient(producer), t.Context()

	m := f.consume("g", "t")
	await(t, "10 records", func() bool { return m.count() == 10 })
	described, err := adm.DescribeGroups(ctx, "g")
	if g := described["g"]; err != nil || g.State != "Stable" || g.ProtocolType != "consumer" || len(g.Members) != 1 || g.Members[0].ClientHost != "/10.0.0.1" {
		t.Errorf("described: %+v, %v", g, err)
	}
	if assigned := described.AssignedPartitions(); len(assigned["t"]) != 2 {
		t.Errorf("assigned: %v", assigned)
	}
	listed, err := adm.ListGroups(ctx, "stable")
	if _, ok := listed["g"]; err != nil || !ok {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if _, err := adm.DeleteGroup(ctx, "g"); err != kerr.NonEmptyGroup {
		t.Errorf("deleting a group with a member: %v", err)
	}
	var reset kadm.Offsets
	reset.AddOffset("t", 0, 2, -1)
	if out, err := adm.CommitOffsets(ctx, "g", reset); err != nil || out.Error() == nil {
		t.Errorf("committing for a group with members: %v, %v", out, err)
	}
	m.close(t)

	if out, err := adm.CommitOffsets(ctx, "g", reset); err != nil || out.Error() != nil {
		t.Fatal(err, out.Error())
	}
	offsets, err := adm.FetchOffsets(ctx, "g")
	if err != nil || offsets["t"][0].At != 2 || offsets["t"][1].At != 5 {
		t.Errorf("offsets: %v, %v", offsets, err)
	}
	lag, err := adm.Lag(ctx, "g")
	if err != nil || lag["g"].Lag.Total() != 3 {
		t.Errorf("lag: %+v, %v", lag["g"], err)
	}
	m = f.consume("g", "t")
	await(t, "the 3 records since the reset", func() bool { return m.count() == 3 })
	m.close(t)

	var gone kadm.TopicsSet
	gone.Add("t", 1)
	if out, err := adm.DeleteOffsets(ctx, "g", gone); err != nil || out.Error() != nil {
		t.Errorf("deleting an offset: %v, %v", out, err)
	}
	if offsets, err = adm.FetchOffsets(ctx, "g"); err != nil || len(offsets["t"]) != 1 {
		t.Errorf("offsets: %v, %v", offsets, err)
	}
	// Deleted with its topic.
	if _, err := adm.DeleteTopics(ctx, "t"); err != nil {
		t.Fatal(err)
	}
	await(t, "no offset", func() bool {
		offsets, err := adm.FetchOffsets(ctx, "g")
		return err == nil && len(offsets) == 0
	})
	if _, err := adm.DeleteGroup(ctx, "g"); err != nil {
		t.Errorf("deleting the group: %v", err)
	}
	if listed, err = adm.ListGroups(ctx); err != nil || len(listed) != 0 {
		t.Errorf("listed: %v, %v", listed, err)
	}
}
