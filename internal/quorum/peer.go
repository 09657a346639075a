package quorum

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// A frame is one raft message between voters:
//
//	+------------+---------------+-------------------+-----------------+--------------------+
//	| version 1B | cluster id 16 | from directory 16 | to directory 16 | message (protobuf) |
//	+------------+---------------+-------------------+-----------------+--------------------+
//
// The ids are checked before the message is looked at: a frame of another
// cluster, or for a voter that had this address before, is refused.
const (
	frameVersion = 1
	frameHead    = 1 + 3*16
	// MaxFrame is how large a frame may be.
	MaxFrame = 64 << 20
)

func (q *Quorum) send(m *pb.Message) {
	to, ok := q.voterOf(m.GetTo())
	if !ok || q.cfg.Transport == nil {
		return
	}
	b := make([]byte, 0, frameHead+proto.Size(m))
	b = append(b, frameVersion)
	b = append(b, q.cfg.ClusterID[:]...)
	b = append(b, q.self.DirectoryID[:]...)
	b = append(b, to.DirectoryID[:]...)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		panic(fmt.Sprintf("BUG: raft message %s cannot be encoded: %v", m.GetType(), err))
	}
	q.cfg.Transport.Send(to, b, urgent(m.GetType()))
}

// urgent tells the messages that must not wait behind entries.
func urgent(t pb.MessageType) bool {
	switch t {
	case pb.MsgApp, pb.MsgSnap, pb.MsgProp:
		return false
	}
	return true
}

// Receive takes a frame from another voter. The error says why it is not one for
// this node; the connection it came on should be closed.
func (q *Quorum) Receive(frame []byte) error {
	if len(frame) < frameHead || len(frame) > MaxFrame || frame[0] != frameVersion {
		return fmt.Errorf("raft frame of %d bytes: version %d with a head of %d bytes is expected", len(frame), frameVersion, frameHead)
	}
	cluster, from, to := model.UUID(frame[1:17]), model.UUID(frame[17:33]), model.UUID(frame[33:49])
	if cluster != q.cfg.ClusterID || to != q.self.DirectoryID {
		return fmt.Errorf("raft frame for directory %s of cluster %s came to directory %s of cluster %s", to, cluster, q.self.DirectoryID, q.cfg.ClusterID)
	}
	m := &pb.Message{}
	if err := proto.Unmarshal(frame[frameHead:], m); err != nil {
		return fmt.Errorf("raft frame from %s: %w", from, err)
	}
	if m.Type == nil || m.GetFrom() != (Voter{DirectoryID: from}).raftID() || m.GetTo() != q.self.raftID() || raft.IsLocalMsg(m.GetType()) {
		return fmt.Errorf("raft frame from %s has message %s from %x to %x", from, m.GetType(), m.GetFrom(), m.GetTo())
	}
	q.inbox.fromPeer(m)
	return nil
}

// turnDelay is between the campaigns of voters that forget the same leader: time
// enough for the first to be elected, so that they do not split the vote.
const turnDelay = 50 * time.Millisecond

// Refused tells that a voter's address refuses connections: no process is there.
// If it leads, it is forgotten at once and an election begins, without waiting
// for the election timeout. The other voters may hear the same; they campaign one
// after another, in the order of Voters, until one leads.
func (q *Quorum) Refused(v Voter) {
	q.inbox.post(func() {
		c := &q.core
		if c.lead != v.raftID() || c.leading != nil || !c.isVoter(q.self) {
			return
		}
		q.cfg.Log.Info("the leader's address refuses connections", "leader", v.ID, "epoch", c.term)
		if err := c.node.ForgetLeader(); err != nil {
			return
		}
		turn := 0
		for _, o := range c.voters {
			if o.DirectoryID == q.self.DirectoryID {
				break
			}
			if o.DirectoryID != v.DirectoryID {
				turn++
			}
		}
		term := c.term
		time.AfterFunc(time.Duration(turn)*turnDelay, func() {
			q.inbox.post(func() {
				if s := c.node.BasicStatus(); s.Lead == raft.None && s.GetTerm() == term && s.RaftState == raft.StateFollower {
					_ = c.node.Campaign() // refused while a change of voters is not applied
				}
			})
		})
	})
}

// maybeSnapshot begins to write a snapshot when it is time.
func (q *Quorum) maybeSnapshot(g *errgroup.Group) {
	c := &q.core
	s := &c.snapshots
	now := q.cfg.Now()
	due := s.bytes >= q.cfg.SnapshotBytes || s.bytes > 0 && now.Sub(s.at) >= q.cfg.SnapshotInterval
	if s.running || c.fetching || c.incoming != nil || !due || c.end <= s.newest.End || c.img.InTransaction() {
		return
	}
	j := &snapshotJob{
		id: SnapshotID{c.end, c.img.Epoch()}, at: c.applied, img: c.img,
		voters: c.voters, last: c.last, now: now.UnixMilli(),
	}
	s.running, s.bytes, s.at = true, 0, now
	g.Go(func() error {
		size, err := writeSnapshot(q.cfg.FS, q.dir, q.cfg.Codecs, j)
		if err != nil {
			// The logs still have everything. A broken disk will tell in the writer.
			q.cfg.Log.Error("cannot write a snapshot of the metadata", "error", err)
		} else {
			q.cfg.Log.Info("snapshot of the metadata", "snapshot", j.id.String(), "bytes", size)
			q.writer.submit(job{snapshot: j})
			return nil
		}
		q.inbox.post(func() { s.running = false })
		return nil
	})
}

// fetchSnapshot gets the file of a snapshot that the leader offers, and only then
// lets raft see the message. false means that raft may see it at once.
func (q *Quorum) fetchSnapshot(ctx context.Context, g *errgroup.Group, m *pb.Message) bool {
	c := &q.core
	id, err := parseSnapshotID(m.GetSnapshot().GetData())
	from, ok := q.voterOf(m.GetFrom())
	if m.GetSnapshot().GetMetadata().GetIndex() <= c.node.BasicStatus().GetCommit() {
		return false // raft will say that it needs none
	}
	if err != nil || !ok || c.fetching || c.incoming != nil || c.snapshots.running {
		return true // dropped; the leader asks again
	}
	c.fetching = true
	g.Go(func() error {
		img, err := q.download(ctx, from, id)
		if err != nil {
			q.cfg.Log.Warn("cannot fetch a snapshot of the metadata", "snapshot", id.String(), "from", from.ID, "error", err)
		}
		q.inbox.post(func() {
			c.fetching = false
			if err == nil {
				c.incoming = &incoming{id: id, img: img}
				q.inbox.fromWriter([]*pb.Message{m})
			}
		})
		return nil
	})
	return true
}

// download copies a snapshot's file from another voter, checks that it is whole
// and gives it its name.
func (q *Quorum) download(ctx context.Context, from Voter, id SnapshotID) (*image.Image, error) {
	r, err := q.cfg.Transport.Snapshot(ctx, from, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	name := snapshotName(q.dir, id)
	if err := removeIfThere(q.cfg.FS, name+partSuffix); err != nil {
		return nil, err
	}
	f, err := q.cfg.FS.OpenFile(name+partSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, 0), r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	img, _, err := loadSnapshot(q.cfg.FS, name+partSuffix, q.cfg.Codecs, id)
	if err != nil {
		return nil, err
	}
	return img, publish(q.cfg.FS, q.dir, name)
}

// onInstall takes over the image of a snapshot that raft accepted and the writer
// has made the begin of both logs.
func (q *Quorum) onInstall(id SnapshotID, at position) {
	c := &q.core
	if c.incoming == nil || c.incoming.id != id {
		panic(fmt.Sprintf("BUG: raft took snapshot %s, which was not fetched", id))
	}
	img := c.incoming.img
	c.incoming = nil
	c.img, c.end, c.applied = img, id.End, at
	c.snapshots = snapshotting{newest: id, at: q.cfg.Now()}
	c.moved = q.cfg.Now()
	delta := image.Diff(q.meta.Image(), img)
	q.cfg.Controller.Replay(delta)
	q.meta.publish(img, nil, id.End)
	q.learn()
}

// onAdopt notes that a snapshot that was made here counts.
func (q *Quorum) onAdopt(id SnapshotID) {
	s := &q.core.snapshots
	s.running = false
	if id.End > s.newest.End {
		s.newest = id
	}
}

// watchSnapshots makes the leader try again where a voter was told to take a
// snapshot and nothing came of it.
func (q *Quorum) watchSnapshots() {
	c := &q.core
	if c.leading == nil {
		clear(c.told)
		return
	}
	var late []uint64
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if pr.State != tracker.StateSnapshot {
			delete(c.told, id)
			return
		}
		if c.told[id]++; c.told[id] > snapshotTicks {
			late = append(late, id)
		}
	})
	for _, id := range late {
		delete(c.told, id)
		c.node.ReportSnapshot(id, raft.SnapshotFailure)
	}
}
