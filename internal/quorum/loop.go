package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"golang.org/x/sync/errgroup"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

const (
	// electionTicks is an election timeout in ticks; the leader sends heartbeats
	// every tick.
	electionTicks = 10
	// snapshotTicks is how long the leader waits for a voter that was told to take a
	// snapshot before it tries again.
	snapshotTicks = 5 * electionTicks
)

// core is what the loop goroutine owns.
type core struct {
	node   *raft.RawNode
	voters []Voter
	conf   *pb.ConfState
	// readdressed is set while the log may have other addresses of the voters.
	readdressed bool

	role raft.StateType
	term uint64
	lead uint64 // raft id, 0 for unknown

	applied position
	img     *image.Image
	end     model.Offset // of the metadata log
	last    int64        // timestamp of its last batch, ms
	moved   time.Time    // when something was appended to it last

	leading *leading // nil unless this node leads
	waiting []*call  // not decided yet

	snapshots snapshotting
	fetching  bool           // a snapshot is being copied from another voter
	incoming  *incoming      // a copied snapshot on its way through raft, else nil
	told      map[uint64]int // voters sent a snapshot, and ticks since
}

// incoming is a snapshot whose file is here and which raft may accept or refuse.
type incoming struct {
	id         SnapshotID
	img        *image.Image
	offered    bool // raft has seen it
	installing bool // raft has accepted it; the writer makes it count
}

// snapshotting is when snapshots were and will be made.
type snapshotting struct {
	newest SnapshotID
	bytes  int64 // appended behind it
	at     time.Time
	// running is set from when one is begun until the writer has made it count, so
	// that nobody cleans up around a half-made one.
	running bool
}

// Run takes part in the quorum until ctx ends (nil) or something fails for good.
// It must be called once.
func (q *Quorum) Run(ctx context.Context) error {
	defer close(q.done)
	g, gctx := errgroup.WithContext(ctx)
	wctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g.Go(func() error {
		// The writer outlives the loop: what was handed to it is written.
		if err := q.writer.run(wctx); err != nil {
			return fmt.Errorf("quorum writer: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		err := q.loop(gctx, g)
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return nil
		}
		return err
	})
	err := g.Wait()
	for _, c := range append(q.core.waiting, q.inbox.close()...) {
		c.done <- answer{err: ErrClosed}
	}
	if l := q.core.leading; l != nil {
		l.fail(ErrClosed)
	}
	return err
}

// loop is the goroutine that owns the raft node.
func (q *Quorum) loop(ctx context.Context, g *errgroup.Group) (err error) {
	defer func() {
		// raft panics when its storage cannot be read; that is no bug but a disk.
		if p := recover(); p != nil {
			if err = q.rlog.failure(); err == nil {
				panic(p)
			}
		}
	}()
	c := &q.core
	var ticks <-chan time.Time
	if len(c.voters) > 1 {
		t := time.NewTicker(q.cfg.ElectionTimeout / electionTicks)
		defer t.Stop()
		ticks = t.C
	} else if c.isVoter(q.self) {
		if err := c.node.Campaign(); err != nil {
			return fmt.Errorf("campaigning as the only voter: %w", err)
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if err := q.turn(ctx, g); err != nil {
			return err
		}
		timer.Reset(q.wait())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.inbox.ready:
		case <-ticks:
			c.node.Tick()
			q.watchSnapshots()
			q.tell()
		case <-timer.C:
		}
	}
}

// turn handles everything that there is to do now.
func (q *Quorum) turn(ctx context.Context, g *errgroup.Group) error {
	c := &q.core
	m := q.inbox.take()
	for _, f := range m.events {
		f()
	}
	for _, msg := range m.local {
		if msg.GetType() == pb.MsgSnap && c.incoming != nil {
			c.incoming.offered = true
		}
		if err := q.step(msg); err != nil {
			return err
		}
	}
	for _, msg := range m.peers {
		if msg.GetType() == pb.MsgSnap && q.fetchSnapshot(ctx, g, msg) {
			continue
		}
		if err := q.step(msg); err != nil {
			return err
		}
	}
	c.waiting = append(c.waiting, m.calls...)
	for {
		q.follow()
		if err := q.ready(ctx); err != nil {
			return err
		}
		q.follow()
		if err := q.lead(g); err != nil {
			return err
		}
		if !c.node.HasReady() {
			break
		}
	}
	if i := c.incoming; i != nil && i.offered && !i.installing {
		c.incoming = nil // raft has no need of it any more
	}
	return nil
}

// step gives raft a message. What raft refuses in a message from the network is
// not this node's failure.
func (q *Quorum) step(m *pb.Message) error {
	err := q.core.node.Step(m)
	if err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrStepLocalMsg) {
		return fmt.Errorf("raft message %s from %x: %w", m.GetType(), m.GetFrom(), err)
	}
	return nil
}

// follow notices changes of role, term and leader.
func (q *Quorum) follow() {
	c := &q.core
	s := c.node.BasicStatus()
	term, vote, lead := s.GetTerm(), s.GetVote(), s.SoftState.Lead
	if s.RaftState == c.role && term == c.term && lead == c.lead {
		return
	}
	wasTerm := c.term
	c.role, c.term, c.lead = s.RaftState, term, lead
	if c.leading != nil && (s.RaftState != raft.StateLeader || term != c.leading.term) {
		c.leading.fail(q.notLeader()) // Q4
		c.leading = nil
	}
	if c.leading == nil && s.RaftState == raft.StateLeader {
		c.leading = &leading{term: term}
		q.meta.setKnown(false) // Q6, until the LeaderChange is committed
		q.cfg.Log.Info("leads the metadata quorum", "node", q.self.ID, "epoch", term)
	}
	q.learn()
	if term != wasTerm || lead != raft.None {
		k := &kafkaState{leader: q.nodeOf(lead), epoch: epochOf(term), voted: model.NoNode}
		if lead == raft.None {
			if v, ok := q.voterOf(vote); ok {
				k.voted, k.votedDir = v.ID, v.DirectoryID
			}
		}
		q.writer.submit(job{kafka: k})
	}
	q.tell()
}

// learn lets a follower tell the high watermark when what it has applied, before a
// restart or with a snapshot, reaches into the leader's term (Q6).
func (q *Quorum) learn() {
	if c := &q.core; c.role == raft.StateFollower && c.lead != raft.None && c.applied.term == c.term {
		q.meta.setKnown(true)
	}
}

func (c *core) isVoter(v Voter) bool { return slices.Contains(c.conf.GetVoters(), v.raftID()) }

func (q *Quorum) voterOf(id uint64) (Voter, bool) {
	for _, v := range q.core.voters {
		if v.raftID() == id {
			return v, true
		}
	}
	return Voter{}, false
}

func (q *Quorum) nodeOf(id uint64) model.NodeID {
	if v, ok := q.voterOf(id); ok {
		return v.ID
	}
	return model.NoNode
}

func (q *Quorum) notLeader() error {
	e := &NotLeaderError{Leader: q.nodeOf(q.core.lead), Epoch: epochOf(q.core.term)}
	if e.Leader == q.self.ID {
		e.Leader = model.NoNode // it leads again, in another term, but not for this caller
	}
	return e
}

// tell publishes the status.
func (q *Quorum) tell() {
	c := &q.core
	s := &Status{Leader: q.nodeOf(c.lead), Epoch: epochOf(c.term), Voters: c.voters, Applied: c.applied.index}
	if l := c.leading; l != nil {
		s.Active = l.phase == active
		s.Progress = make([]uint64, len(c.voters))
		c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			for i, v := range c.voters {
				if v.raftID() == id {
					s.Progress[i] = pr.Match
				}
			}
		})
	}
	q.status.Store(s)
}

// ready takes what raft wants done, once.
func (q *Quorum) ready(ctx context.Context) error {
	c := &q.core
	for c.node.HasReady() {
		rd := c.node.Ready()
		holdVotes(rd.Messages)
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				if !raft.IsEmptySnap(m.GetSnapshot()) {
					if c.incoming == nil {
						return errors.New("BUG: raft took a snapshot that was not fetched")
					}
					c.incoming.installing = true
				}
				q.writer.submit(job{append: m})
			case raft.LocalApplyThread:
				if err := q.apply(ctx, m.GetEntries()); err != nil {
					return err
				}
				for _, r := range m.GetResponses() {
					if err := q.step(r); err != nil {
						return err
					}
				}
			case raft.None: // held back
			default:
				q.send(m)
			}
		}
		q.follow()
	}
	return nil
}

// holdVotes lets requests for votes leave only when their term is durable (Q1).
// Raft itself would send them at once, since it counts its own vote later.
func holdVotes(msgs []*pb.Message) {
	last := len(msgs) - 1
	for last >= 0 && msgs[last].GetTo() == raft.LocalApplyThread {
		last--
	}
	if last < 0 || msgs[last].GetTo() != raft.LocalAppendThread {
		return
	}
	for i, m := range msgs[:last] {
		if m.GetType() == pb.MsgVote {
			msgs[last].Responses = append(msgs[last].Responses, m)
			msgs[i] = &pb.Message{To: new(raft.None)} // nobody
		}
	}
}

// wait is how long the loop may sleep.
func (q *Quorum) wait() time.Duration {
	c := &q.core
	now := q.cfg.Now()
	next := now.Add(time.Hour)
	if l := c.leading; l != nil && l.phase == active {
		if t := q.cfg.Controller.Next(); !t.IsZero() && t.Before(next) {
			next = t
		}
		if q.cfg.MaxIdle > 0 && q.observed(now, q.observeFor()) {
			if t := c.moved.Add(q.cfg.MaxIdle); t.Before(next) {
				next = t
			}
		}
	}
	if s := &c.snapshots; !s.running && c.end > s.newest.End {
		if t := s.at.Add(q.cfg.SnapshotInterval); t.Before(next) {
			next = t
		}
	}
	// Never a busy loop, whatever a clock does.
	return max(next.Sub(now), time.Millisecond)
}

// observeFor is how long after its last Fetch an observer keeps NoOps coming.
func (q *Quorum) observeFor() time.Duration { return max(10*q.cfg.MaxIdle, 5*time.Second) }
