package quorum

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// sim is a cluster of controllers in one process, in fake time, with a network
// that loses, delays and reorders, and disks that crash.
type sim struct {
	t     *testing.T
	nodes []*simNode
	tune  func(*Config)
	// snapshots counts those that were copied from one node to another.
	snapshots atomic.Int64

	mu      sync.Mutex
	rand    *rand.Rand
	cut     map[[2]int]bool
	loss    int // of 1000 frames
	leaders map[model.Epoch]model.NodeID
	acked   map[string]bool
}

type simNode struct {
	s  *sim
	id int
	fs *vfs.Mem
	// run is nil while the node is down. life grows with each start; a frame or an
	// answer of a life that has crashed does not count. Guarded by sim.mu.
	run  *testNode
	life int
	hw   model.Offset
}

func newSim(t *testing.T, seed uint64, size int) *sim {
	s := &sim{
		t: t, rand: rand.New(rand.NewPCG(seed, 42)), cut: map[[2]int]bool{},
		leaders: map[model.Epoch]model.NodeID{}, acked: map[string]bool{},
	}
	for i := range size {
		s.nodes = append(s.nodes, &simNode{s: s, id: i + 1, fs: vfs.NewMem()})
	}
	return s
}

func (s *sim) roll(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(n)
}

func (s *sim) start(n *simNode) {
	s.t.Helper()
	s.mu.Lock()
	n.life++
	seed := s.rand.Uint64()
	life := n.life
	fs := n.fs
	s.mu.Unlock()
	cfg := testConfig(fs, n.id, seed)
	cfg.Voters = nil
	for _, other := range s.nodes {
		cfg.Voters = append(cfg.Voters, voter(other.id))
	}
	cfg.Transport = &simTransport{s: s, n: n, life: life, fs: fs}
	if s.tune != nil {
		s.tune(&cfg)
	}
	run := startNode(s.t, cfg)
	s.mu.Lock()
	n.run, n.hw = run, -1
	s.mu.Unlock()
}

// crash ends a node at one of its next changes to its disk, and leaves what a
// power failure there may leave.
func (s *sim) crash(n *simNode) {
	s.t.Helper()
	s.mu.Lock()
	run, steps := n.run, s.rand.IntN(6)
	s.mu.Unlock()
	fs := n.fs
	crashed := make(chan *vfs.Mem, 1)
	die := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n.run != run {
			return
		}
		n.run = nil
		var luck *rand.Rand
		if s.rand.IntN(3) > 0 {
			luck = rand.New(rand.NewPCG(s.rand.Uint64(), 1))
		}
		crashed <- fs.CrashClone(luck)
	}
	var mu sync.Mutex
	fs.OnOp(func(vfs.Op) {
		mu.Lock()
		now := steps == 0
		steps--
		mu.Unlock()
		if now {
			die()
		}
	})
	time.Sleep(200 * time.Millisecond)
	die()
	fs.OnOp(nil)
	disk := <-crashed
	if err := run.kill(); err != nil {
		s.t.Errorf("node %d: %v", n.id, err)
	}
	_ = run.q.Close()
	s.mu.Lock()
	n.fs = disk
	s.mu.Unlock()
}

// alive gives a node's quorum if it runs.
func (s *sim) alive(n *simNode) *Quorum {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.run == nil {
		return nil
	}
	return n.run.q
}

// watch checks what must hold at every moment.
func (s *sim) watch() {
	for _, n := range s.nodes {
		q := s.alive(n)
		if q == nil {
			continue
		}
		st := q.Status()
		s.mu.Lock()
		if st.Leader != model.NoNode {
			if other, ok := s.leaders[st.Epoch]; ok && other != st.Leader {
				s.t.Errorf("nodes %d and %d lead in epoch %d", other, st.Leader, st.Epoch)
			}
			s.leaders[st.Epoch] = st.Leader
		}
		if st.HighWatermark >= 0 {
			if st.HighWatermark < n.hw {
				s.t.Errorf("high watermark of node %d went from %d to %d", n.id, n.hw, st.HighWatermark)
			}
			n.hw = st.HighWatermark
		}
		s.mu.Unlock()
	}
}

// do asks the leader, whoever it is; false if the outcome is unknown.
func (s *sim) do(ctx context.Context, req kmsg.Request) (kmsg.Response, bool) {
	for _, n := range s.nodes {
		q := s.alive(n)
		if q == nil || q.Status().Leader != model.NodeID(n.id) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		resp, err := q.Do(ctx, req, controller.Requester{})
		cancel()
		if err == nil && s.alive(n) == q {
			return resp, true
		}
		var not *NotLeaderError
		if err != nil && !errors.As(err, &not) && !errors.Is(err, ErrClosed) && ctx.Err() == nil {
			s.t.Errorf("node %d: %v", n.id, err)
		}
	}
	return nil, false
}

// broker keeps broker 1 in the cluster.
func (s *sim) broker(ctx context.Context) {
	var epoch int64
	for ctx.Err() == nil {
		hb := kmsg.NewPtrBrokerHeartbeatRequest()
		hb.BrokerID, hb.BrokerEpoch, hb.CurrentMetadataOffset = 1, epoch, 1<<40
		if resp, ok := s.do(ctx, hb); ok && resp.(*kmsg.BrokerHeartbeatResponse).ErrorCode != 0 {
			if resp, ok := s.do(ctx, registration(1, 1)); ok {
				if r := resp.(*kmsg.BrokerRegistrationResponse); r.ErrorCode == 0 {
					epoch = r.BrokerEpoch
				} else {
					s.t.Errorf("registration: %d", r.ErrorCode)
				}
				continue
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// client creates topics one after another.
func (s *sim) client(ctx context.Context, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		topic := fmt.Sprintf("%s-%d", name, i)
		if resp, ok := s.do(ctx, createTopics(topic)); ok && resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode == 0 {
			s.mu.Lock()
			s.acked[topic] = true
			s.mu.Unlock()
		}
		time.Sleep(time.Duration(s.roll(600)) * time.Millisecond)
	}
}

// faults makes trouble for a while and then lets go.
func (s *sim) faults(d time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		n := s.nodes[s.roll(len(s.nodes))]
		switch s.roll(6) {
		case 0: // a node is cut off
			s.isolate(n, true)
		case 1: // one pair
			s.mu.Lock()
			s.cut[[2]int{n.id, s.rand.IntN(len(s.nodes)) + 1}] = true // one way
			s.mu.Unlock()
		case 2:
			s.mu.Lock()
			s.loss = s.rand.IntN(300)
			s.mu.Unlock()
		case 3:
			if s.alive(n) != nil {
				s.crash(n)
			}
		default:
			s.heal()
		}
		for i := 0; i < s.roll(30); i++ {
			time.Sleep(100 * time.Millisecond)
			s.watch()
		}
		for _, n := range s.nodes {
			if s.alive(n) == nil && s.roll(2) == 0 {
				s.start(n)
			}
		}
	}
}

func (s *sim) isolate(n *simNode, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.nodes {
		s.cut[[2]int{n.id, o.id}], s.cut[[2]int{o.id, n.id}] = cut, cut
	}
}

func (s *sim) heal() {
	s.mu.Lock()
	clear(s.cut)
	s.loss = 0
	s.mu.Unlock()
}

// settle ends all trouble and holds the nodes against each other and against what
// was answered.
func (s *sim) settle() {
	s.t.Helper()
	s.heal()
	for _, n := range s.nodes {
		if s.alive(n) == nil {
			s.start(n)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, ok := s.do(ctx, createTopics("last")); ok {
			break
		}
		if ctx.Err() != nil {
			s.t.Fatal("no decision within a minute after the last fault")
		}
		time.Sleep(100 * time.Millisecond)
		s.watch()
	}
	same := func() bool {
		a := s.nodes[0].run.q.Metadata()
		for _, n := range s.nodes[1:] {
			if b := n.run.q.Metadata(); b.HighWatermark() != a.HighWatermark() || b.HighWatermark() < 0 {
				return false
			}
		}
		return true
	}
	for !same() {
		if ctx.Err() != nil {
			for _, n := range s.nodes {
				s.t.Logf("node %d: %+v applied %v", n.id, n.run.q.Status(), n.run.q.core.applied)
			}
			s.t.Fatal("the nodes do not come to the same end within a minute")
		}
		time.Sleep(100 * time.Millisecond)
	}
	first := s.nodes[0].run.q.Metadata()
	want := dump(first.Image())
	for topic := range s.acked {
		if _, ok := first.Image().Topic(topic); !ok {
			s.t.Errorf("topic %s was answered and is lost", topic)
		}
	}
	for _, n := range s.nodes {
		m := n.run.q.Metadata()
		if got := dump(m.Image()); got != want {
			s.t.Errorf("node %d has\n%s\nnode 1\n%s", n.id, got, want)
		}
		if got := dump(rebuilt(s.t, m)); got != want {
			s.t.Errorf("the log of node %d gives\n%s\nnode 1 has\n%s", n.id, got, want)
		}
		from := max(m.StartOffset(), first.StartOffset())
		a, err1 := first.Read(from, 100<<20)
		b, err2 := m.Read(from, 100<<20)
		if err := errors.Join(err1, err2); err != nil {
			s.t.Error(err)
		}
		k := min(len(a), len(b)) // segments differ, so chunks may
		if !bytes.Equal(a[:k], b[:k]) {
			s.t.Errorf("metadata logs of nodes 1 and %d differ behind offset %d", n.id, from)
		}
	}
	for _, n := range s.nodes {
		n.run.close()
	}
	time.Sleep(time.Minute) // frames on their way arrive nowhere
}

// simTransport is one life of one node in the network.
type simTransport struct {
	s    *sim
	n    *simNode
	life int
	fs   *vfs.Mem
	up   bool // the node was seen running in this life; guarded by sim.mu
}

func (tr *simTransport) Send(to Voter, frame []byte, urgent bool) {
	tr.checkDurable(frame)
	s := tr.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if tr.n.life != tr.life || s.cut[[2]int{tr.n.id, int(to.ID)}] || s.rand.IntN(1000) < s.loss {
		return
	}
	delay := time.Duration(s.rand.IntN(10)) * time.Millisecond
	target := s.nodes[to.ID-1]
	if tr.n.run == nil && tr.n.fs == tr.fs && tr.up {
		return // its disk has crashed, the process only does not know yet
	}
	tr.up = tr.up || tr.n.run != nil
	time.AfterFunc(delay, func() {
		if q := s.alive(target); q != nil {
			if err := q.Receive(frame); err != nil {
				s.t.Errorf("frame from %d to %d: %v", tr.n.id, to.ID, err)
			}
		}
	})
}

// checkDurable holds a message against the sender's disk: what it promises must
// survive a power failure (Q1).
func (tr *simTransport) checkDurable(frame []byte) {
	m := &pb.Message{}
	if err := proto.Unmarshal(frame[frameHead:], m); err != nil {
		tr.s.t.Error(err)
		return
	}
	switch m.GetType() {
	case pb.MsgVote, pb.MsgVoteResp, pb.MsgAppResp:
	default:
		return
	}
	if m.GetType() == pb.MsgAppResp && tr.s.roll(100) > 0 {
		return // each check costs a copy of the disk
	}
	_, st, _, err := openState(tr.fs.CrashClone(nil), "/data/"+metadataFolder)
	if err != nil {
		tr.s.t.Errorf("node %d: %v", tr.n.id, err)
		return
	}
	if st.term < m.GetTerm() {
		tr.s.t.Errorf("node %d sends %s of term %d, durable is term %d", tr.n.id, m.GetType(), m.GetTerm(), st.term)
	}
	if m.GetType() == pb.MsgVoteResp && !m.GetReject() && st.term == m.GetTerm() && st.vote != m.GetTo() {
		tr.s.t.Errorf("node %d votes for %x, durable is a vote for %x", tr.n.id, m.GetTo(), st.vote)
	}
}

func (tr *simTransport) Snapshot(_ context.Context, from Voter, id SnapshotID) (io.ReadCloser, error) {
	tr.s.mu.Lock()
	cut := tr.s.cut[[2]int{tr.n.id, int(from.ID)}] || tr.s.cut[[2]int{int(from.ID), tr.n.id}]
	tr.s.mu.Unlock()
	q := tr.s.alive(tr.s.nodes[from.ID-1])
	if cut || q == nil {
		return nil, errors.New("not reachable")
	}
	snap, err := q.Metadata().OpenSnapshot(id)
	if err != nil {
		return nil, err
	}
	tr.s.snapshots.Add(1)
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(snap, 0, snap.Size), snap}, nil
}

func simSeeds(t *testing.T) []uint64 {
	if s := os.Getenv("OTTLA_SIM_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{n}
	}
	var out []uint64
	n, _ := strconv.Atoi(os.Getenv("OTTLA_SIM_SEEDS"))
	for i := range max(n, 4) {
		out = append(out, uint64(i)+1)
	}
	return out
}

// runSim plays one seed; a failure names the command that plays it again.
func runSim(t *testing.T, seed uint64, tune func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("again: OTTLA_SIM_SEED=%d go test -run '%s' ./internal/quorum", seed, t.Name())
			}
		}()
		s := newSim(t, seed, 3)
		s.tune = tune
		for _, n := range s.nodes {
			s.start(n)
		}
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.broker(ctx) })
		for i := range 3 {
			wg.Go(func() { s.client(ctx, fmt.Sprint("client", i)) })
		}
		s.faults(40 * time.Second)
		s.heal()
		stop()
		wg.Wait()
		s.settle()
		t.Logf("%d topics answered, %d epochs with a leader, %d snapshots copied", len(s.acked), len(s.leaders), s.snapshots.Load())
	})
}

func TestThreeVotersLoseNothingInPartitionsAndCrashes(t *testing.T) {
	for _, seed := range simSeeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runSim(t, seed, nil) })
	}
}

func TestThreeVotersWithSnapshots(t *testing.T) {
	for _, seed := range simSeeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			runSim(t, seed, func(c *Config) { c.SnapshotBytes, c.SegmentBytes, c.KeepEntries = 5_000, 3_000, 3 })
		})
	}
}
