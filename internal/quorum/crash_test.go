package quorum

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/vfs"
)

// A crash is what the disk may hold after a power failure, and what had been
// answered before it.
type crash struct {
	op       string
	disk     *vfs.Mem
	answered []string // topics
	nextPID  int64    // producer ids below it were given out
}

// crashes runs a workload on a fresh disk and crashes it at every change of the
// disk from the first answer on.
func crashes(t *testing.T, cfg Config, seed uint64, work func(n *testNode, answered func(topic string, nextPID int64))) []crash {
	t.Helper()
	fs := vfs.NewMem()
	cfg.FS = fs
	var (
		mu   sync.Mutex
		done []string
		pid  int64
		out  []crash
		r    = rand.New(rand.NewPCG(seed, 7))
		step int
	)
	fs.OnOp(func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		c := crash{op: fmt.Sprintf("%d: %s", step, op), answered: slices.Clone(done), nextPID: pid}
		step++
		var luck *rand.Rand // nil: only what was synced survives
		if step%3 != 0 {
			luck = r
		}
		c.disk = fs.CrashClone(luck)
		out = append(out, c)
	})
	n := startNode(t, cfg)
	work(n, func(topic string, nextPID int64) {
		mu.Lock()
		defer mu.Unlock()
		if topic != "" {
			done = append(done, topic)
		}
		pid = max(pid, nextPID)
	})
	n.close()
	return out
}

// check opens what a crash left and holds it against what was answered.
func (c *crash) check(t *testing.T, cfg Config) {
	t.Helper()
	cfg.FS = c.disk
	n, err := tryStart(t, cfg)
	if err != nil {
		t.Fatalf("crash at %s: %v", c.op, err)
	}
	defer n.close()
	joinBroker(n, 1, 99) // commits all that the crash left
	m := n.q.Metadata()
	img := m.Image()
	have := topicNames(img)
	for _, topic := range c.answered {
		if _, ok := slices.BinarySearch(have, topic); !ok {
			t.Fatalf("crash at %s: topic %s was answered and is lost; there are %v", c.op, topic, have)
		}
	}
	if img.NextProducerID() < c.nextPID {
		t.Fatalf("crash at %s: producer ids below %d were given out, now %d is next", c.op, c.nextPID, img.NextProducerID())
	}
	if live, log := dump(img), dump(rebuilt(t, m)); live != log {
		t.Fatalf("crash at %s: live image\n%s\nfrom the log\n%s", c.op, live, log)
	}
}

// again crashes the recovery from a crash at every change that it makes.
func (c *crash) again(t *testing.T, cfg Config, seed uint64) []crash {
	t.Helper()
	var (
		mu  sync.Mutex
		out []crash
		r   = rand.New(rand.NewPCG(seed, 8))
	)
	c.disk.OnOp(func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		next := crash{op: c.op + ", then " + op.String(), disk: c.disk.CrashClone(r), answered: c.answered, nextPID: c.nextPID}
		out = append(out, next)
	})
	c.check(t, cfg)
	c.disk.OnOp(nil)
	return out
}

func TestNoAnsweredDecisionIsLostInACrashDuringRecovery(t *testing.T) {
	cfg := testConfig(nil, 1, 1)
	cfg.SnapshotBytes, cfg.SegmentBytes = 1200, 2000
	list := crashes(t, cfg, 3, func(n *testNode, answered func(string, int64)) {
		joinBroker(n, 1, 1)
		for i := range 5 {
			name := fmt.Sprint("topic-", i)
			do[*kmsg.CreateTopicsResponse](n, createTopics(name))
			answered(name, 0)
		}
	})
	count := 0
	for i := range list {
		if i%7 != 0 {
			continue
		}
		for j, c := range list[i].again(t, cfg, uint64(i)) {
			if j%3 == 0 {
				c.check(t, cfg)
				count++
			}
		}
	}
	t.Logf("%d crashes", count)
}

func TestNoAnsweredDecisionIsLostInACrash(t *testing.T) {
	cfg := testConfig(nil, 1, 1)
	list := crashes(t, cfg, 1, func(n *testNode, answered func(string, int64)) {
		joinBroker(n, 1, 1)
		for i := range 12 {
			name := fmt.Sprint("topic-", i)
			do[*kmsg.CreateTopicsResponse](n, createTopics(name))
			answered(name, 0)
		}
	})
	for i := range list {
		list[i].check(t, cfg)
	}
	t.Logf("%d crashes", len(list))
}

func TestNoAnsweredDecisionIsLostInACrashDuringSnapshots(t *testing.T) {
	cfg := testConfig(nil, 1, 1)
	cfg.SnapshotBytes, cfg.SegmentBytes = 1200, 2000
	list := crashes(t, cfg, 2, func(n *testNode, answered func(string, int64)) {
		epoch := joinBroker(n, 1, 1)
		alloc := kmsg.NewPtrAllocateProducerIDsRequest()
		alloc.BrokerID, alloc.BrokerEpoch = 1, epoch
		for range 30 {
			r := do[*kmsg.AllocateProducerIDsResponse](n, alloc)
			answered("", r.ProducerIDStart+int64(r.ProducerIDLen))
		}
	})
	for i := range list {
		list[i].check(t, cfg)
	}
	t.Logf("%d crashes", len(list))
}
