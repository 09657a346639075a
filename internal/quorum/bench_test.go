package quorum

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/vfs"
)

func onDisk(b *testing.B) Config {
	b.Helper()
	cfg := testConfig(vfs.OS(), 1, 1)
	cfg.Dir = b.TempDir()
	cfg.Controller = testController(1)
	return cfg
}

func run(b *testing.B, cfg Config) *testNode {
	b.Helper()
	q, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &testNode{t: b, q: q, stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- q.Run(ctx) }()
	return n
}

// BenchmarkFirstStart is a new single node on the disk, from Open to a registered,
// unfenced broker. Its upper bound is the number of syncs in a row.
func BenchmarkFirstStart(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		cfg := onDisk(b)
		b.StartTimer()
		n := run(b, cfg)
		joinBroker(n, 1, 1)
		b.StopTimer()
		n.close()
		b.StartTimer()
	}
}

// BenchmarkDecision is one decision after another: a sync each.
func BenchmarkDecision(b *testing.B) {
	n := run(b, onDisk(b))
	defer n.close()
	alloc := kmsg.NewPtrAllocateProducerIDsRequest()
	alloc.BrokerID, alloc.BrokerEpoch = 1, joinBroker(n, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		do[*kmsg.AllocateProducerIDsResponse](n, alloc)
	}
}

// BenchmarkDecisionsTogether is 64 callers at once, which share syncs.
func BenchmarkDecisionsTogether(b *testing.B) {
	n := run(b, onDisk(b))
	defer n.close()
	alloc := kmsg.NewPtrAllocateProducerIDsRequest()
	alloc.BrokerID, alloc.BrokerEpoch = 1, joinBroker(n, 1, 1)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range b.N/64 + 1 {
				if _, err := n.q.Do(context.Background(), alloc, controller.Requester{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkHeartbeat is a request that changes nothing and finds nothing under way.
func BenchmarkHeartbeat(b *testing.B) {
	n := run(b, onDisk(b))
	defer n.close()
	hb := kmsg.NewPtrBrokerHeartbeatRequest()
	hb.BrokerID, hb.BrokerEpoch, hb.CurrentMetadataOffset = 1, joinBroker(n, 1, 1), 1<<40
	b.ReportAllocs()
	for b.Loop() {
		do[*kmsg.BrokerHeartbeatResponse](n, hb)
	}
}
