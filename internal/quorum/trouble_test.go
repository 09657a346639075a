package quorum

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

func TestAFullDiskDelaysDecisionsAndLosesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		n := startNode(t, testConfig(fs, 1, 1))
		joinBroker(n, 1, 1)
		fs.SetSpace(1)
		var answered atomic.Int32
		done := make(chan struct{})
		const count = 40
		go func() {
			defer close(done)
			for i := range count {
				req := createTopics(fmt.Sprint("t", i))
				req.Topics[0].NumPartitions = 100
				resp, err := n.q.Do(context.Background(), req, controller.Requester{})
				if err != nil || resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
					t.Errorf("topic %d: %v %+v", i, err, resp)
				}
				answered.Add(1)
			}
		}()
		time.Sleep(5 * time.Second)
		if got := answered.Load(); got == count {
			t.Error("everything was decided on a full disk")
		} else if st := n.q.Status(); !st.Active {
			t.Errorf("status %+v", st)
		}
		fs.SetSpace(1 << 30)
		<-done
		if got := n.q.Metadata().Image().NumTopics(); got != count {
			t.Errorf("%d topics of %d", got, count)
		}
		n.close()
	})
}

func TestAFailedSyncEndsTheQuorum(t *testing.T) {
	fs := vfs.Inject(vfs.NewMem())
	n := startNode(t, testConfig(fs, 1, 1))
	joinBroker(n, 1, 1)
	fs.Add(vfs.Rule{Kind: vfs.OpSync, Path: "/data/__cluster_metadata-0/raft/*.log", Err: syscall.EIO})
	ctx, cancel := within(t)
	defer cancel()
	if resp, err := n.q.Do(ctx, createTopics("x"), controller.Requester{}); !errors.Is(err, ErrClosed) {
		t.Errorf("answered %v, %v after a failed sync", resp, err)
	}
	if err := <-n.done; !errors.Is(err, storage.ErrFailed) {
		t.Errorf("run ended with %v", err)
	}
	_ = n.q.Close()
}

func TestAnIdleNodeWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		cfg := testConfig(fs, 1, 1)
		cfg.MaxIdle = 500 * time.Millisecond
		n := startNode(t, cfg)
		epoch := joinBroker(n, 1, 1)
		hb := kmsg.NewPtrBrokerHeartbeatRequest()
		hb.BrokerID, hb.BrokerEpoch, hb.CurrentMetadataOffset = 1, epoch, 1<<40
		live := func() {
			for range 60 {
				do[*kmsg.BrokerHeartbeatResponse](n, hb)
				time.Sleep(2 * time.Second)
			}
		}
		live() // until the storage has put the logs to rest
		var ops []string
		fs.OnOp(func(op vfs.Op) { ops = append(ops, op.String()) })
		end := n.q.Metadata().HighWatermark()
		live()
		fs.OnOp(nil)
		if len(ops) > 0 {
			t.Errorf("%d changes of the disk: %q", len(ops), ops)
		}
		if got := n.q.Metadata().HighWatermark(); got != end {
			t.Errorf("high watermark went from %d to %d", end, got)
		}
		n.close()
	})
}

func TestAnObserverSeesTheHighWatermarkMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(vfs.NewMem(), 1, 1)
		cfg.MaxIdle = 500 * time.Millisecond
		n := startNode(t, cfg)
		joinBroker(n, 1, 1)
		m := n.q.Metadata()
		from := m.HighWatermark()
		for range 20 {
			n.q.Observe(7, model.UUID{7}, m.HighWatermark())
			time.Sleep(500 * time.Millisecond)
		}
		moved := m.HighWatermark() - from
		if moved < 15 || moved > 21 {
			t.Errorf("moved by %d in 20 intervals", moved)
		}
		if o := n.q.Observers(); len(o) != 1 || o[0].ID != 7 || o[0].CaughtUp.IsZero() {
			t.Errorf("observers %+v", o)
		}
		time.Sleep(time.Minute) // the observer is gone
		from = m.HighWatermark()
		time.Sleep(time.Minute)
		if moved := m.HighWatermark() - from; moved > 1 { // the session of the silent broker
			t.Errorf("moved by %d without observers", moved)
		}
		n.close()
	})
}

func TestSnapshotsComeByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(vfs.NewMem(), 1, 1)
		cfg.SnapshotInterval = time.Hour
		n := startNode(t, cfg)
		joinBroker(n, 1, 1)
		time.Sleep(50 * time.Minute)
		if id, ok := n.q.Metadata().LatestSnapshot(); ok {
			t.Errorf("snapshot %s too early", id)
		}
		time.Sleep(20 * time.Minute)
		first, ok := n.q.Metadata().LatestSnapshot()
		if !ok {
			t.Fatal("no snapshot")
		}
		time.Sleep(3 * time.Hour) // nothing happens: none is due
		if id, _ := n.q.Metadata().LatestSnapshot(); id != first {
			t.Errorf("snapshot %s after %s although nothing changed", id, first)
		}
		snap, err := n.q.Metadata().OpenSnapshot(first)
		if err != nil {
			t.Fatal(err)
		}
		var broken error
		found := map[int16]bool{}
		for r := range snapshotRecords(snap, snap.Size, testCodecs, &broken) {
			found[r.Type()] = true
		}
		if broken != nil || !found[record.TypeFeatureLevel] || !found[record.TypeRegisterBroker] {
			t.Errorf("snapshot with %v: %v", found, broken)
		}
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
		info, err := cfg.FS.Stat(snapshotName(n.q.dir, first))
		if err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		n.close()
	})
}

// A leader whose address refuses connections is replaced without waiting for an
// election timeout.
func TestARefusedLeaderIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, 3)
		for _, n := range s.nodes {
			s.start(n)
		}
		leader := func() *simNode {
			for _, n := range s.nodes {
				if q := s.alive(n); q != nil && q.Status().Active {
					return n
				}
			}
			return nil
		}
		for leader() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		old := leader()
		s.crash(old) // takes 200 ms
		begin := time.Now()
		for _, n := range s.nodes {
			if q := s.alive(n); q != nil {
				q.Refused(voter(old.id))
			}
		}
		for leader() == nil {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("a new leader after %v", took)
		}
		s.settle()
	})
}

func TestCallsWithoutALeaderWaitAndThenLearnWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 4, 3)
		s.start(s.nodes[0])
		errs := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		go func() {
			_, err := s.nodes[0].run.q.Do(ctx, createTopics("x"), controller.Requester{})
			errs <- err
		}()
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("alone of three: %v", err)
		}
		cancel()
		s.start(s.nodes[1])
		s.start(s.nodes[2])
		time.Sleep(10 * time.Second)
		for _, n := range s.nodes {
			st := n.run.q.Status()
			_, err := n.run.q.Do(context.Background(), createTopics(fmt.Sprint("t", n.id)), controller.Requester{})
			var not *NotLeaderError
			if st.Leader == model.NodeID(n.id) {
				if err != nil {
					t.Errorf("leader: %v", err)
				}
			} else if !errors.As(err, &not) || not.Leader != st.Leader || not.Epoch != st.Epoch {
				t.Errorf("node %d: %v, leader is %d in epoch %d", n.id, err, st.Leader, st.Epoch)
			}
		}
		s.settle()
	})
}
