package node_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/vfs"
)

// Nothing in a node is global: many of them live in one process, on one network,
// each with its own disk, and none is left when they are closed.

// manyNodes starts n nodes on one network.
func manyNodes(t *testing.T, n int, disk func(i int) vfs.FS) []*fixture {
	t.Helper()
	network := memnet.New()
	nodes := make([]*fixture, n)
	for i := range nodes {
		nodes[i] = &fixture{t: t, fs: disk(i), net: network}
		host := fmt.Sprint("node-", i)
		nodes[i].node = open(t, nodes[i].fs, network, map[string]string{
			"node.id":   strconv.Itoa(i + 1),
			"listeners": fmt.Sprintf("PLAINTEXT://%s:9092,CONTROLLER://%s:9093", host, host),
		})
	}
	return nodes
}

func TestTenNodesInOneProcess(t *testing.T) {
	noLeaks(t)
	nodes := manyNodes(t, 10, func(int) vfs.FS { return vfs.NewMem() })
	var work sync.WaitGroup
	for i, f := range nodes {
		c := f.dial()
		work.Go(func() { useNode(t, c, i) })
	}
	work.Wait()
	clusters := map[string]bool{}
	for _, f := range nodes {
		clusters[f.node.ClusterID().String()] = true
		work.Go(f.stop)
	}
	work.Wait()
	if len(clusters) != len(nodes) {
		t.Errorf("%d clusters, want %d", len(clusters), len(nodes))
	}
}

// useNode produces to a topic that every node has, and reads back what is its own.
func useNode(t *testing.T, c client, i int) {
	id := c.create("t", 1)
	for k := range 20 {
		if p := c.produce("t", -1, build(plain(), fmt.Sprint(i, " ", k))); p.ErrorCode != 0 || p.BaseOffset != int64(k) {
			t.Errorf("node %d: error %d at %d", i, p.ErrorCode, p.BaseOffset)
			return
		}
	}
	got, _ := readAll(c, &topicLedger{name: "t", id: id})
	for k, v := range got {
		if v != fmt.Sprint(i, " ", k) {
			t.Errorf("node %d: %q at %d", i, v, k)
		}
	}
}

// An idle node sleeps: in an hour without clients it touches its disk as seldom
// as its checkpoints say, and an hour of fake time is nothing to compute.
func TestTenIdleNodesDoNothingForAnHour(t *testing.T) {
	var spent time.Duration
	synctest.Test(t, func(t *testing.T) {
		var ops atomic.Int64
		nodes := manyNodes(t, 10, func(int) vfs.FS {
			m := vfs.NewMem()
			m.OnOp(func(vfs.Op) { ops.Add(1) })
			return m
		})
		for i, f := range nodes {
			c := f.dial()
			useNode(t, c, i)
			c.c.Close()
		}
		time.Sleep(5 * time.Minute) // what the work left to do is done
		before := ops.Load()
		began := realTime()
		time.Sleep(time.Hour)
		spent = realTime() - began
		idle := (ops.Load() - before) / int64(len(nodes))
		t.Logf("an idle node changed its disk %d times in an hour", idle)
		if most := int64(120); idle > most {
			t.Errorf("an idle node changed its disk %d times in an hour, want at most %d", idle, most)
		}
		for i, f := range nodes {
			c := f.dial()
			if p := c.produce("t", -1, build(plain(), "after")); p.ErrorCode != 0 || p.BaseOffset != 20 {
				t.Errorf("node %d after an hour: error %d at %d", i, p.ErrorCode, p.BaseOffset)
			}
			c.c.Close()
			f.stop()
		}
	})
	t.Logf("ten hours of idle nodes took %v of processor time", spent)
}

// realTime is the processor time of this process; a bubble's clock is not real.
func realTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
