// Package quorum keeps the cluster's metadata log: controllers agree on it with
// Raft, and the one that leads decides with internal/controller. It is the only
// importer of go.etcd.io/raft.
//
// The one idea: there are two logs. Raft has a log of its own, which may be cut
// and is synced before anything is answered. What is committed there is appended
// to __cluster_metadata-0 as Kafka's record batches: all that brokers, observers
// and Kafka's tools see, never cut, without a sync of its own, since it can be
// rebuilt from the Raft log behind the newest snapshot.
//
//	Do ─▶ calls ─▶ controller.Handle ─▶ Propose ─▶ raft ─▶ writer: Raft log, sync
//	                 on the speculative               │             │
//	                 image and offset                 ▼             ▼ to other voters
//	answer ◀─ publish ◀─ image, metadata log ◀─── committed entries
//
// Files, all in the folder __cluster_metadata-0 of the metadata log's folder:
//
//	*.log, *.index …               the metadata log, Kafka's
//	<end>-<epoch>.checkpoint       snapshots, Kafka's (snapshot.go)
//	quorum-state                   Kafka's, written for its tools
//	ottla-quorum-state             what Raft must not forget (state.go)
//	raft/                          the Raft log (entry.go)
//
// raft/ lies inside, not beside: Kafka takes every folder in log.dirs for a
// partition and puts the whole disk offline if the name is none, but inside of a
// partition's folder it looks at files only, by suffix, and skips the others.
//
// Rules; each was found by trying it wrong:
//
//	Q1  Term and vote are durable before a message of that term leaves; entries
//	    before they are acknowledged. The commit index is written with them and,
//	    when it alone moves, unsynced; on load it is clamped to the log, and
//	    raised to what the metadata log proves.
//	Q2  A voter's Raft id is made of its directory id: a voter that lost its disk
//	    is another voter, and its old votes stay given.
//	Q3  A leader commits a LeaderChange batch of its own term before it decides.
//	Q4  A decision is made and proposed in one step of one goroutine, in one term.
//	    When the term ends, the speculation on top of it is dropped and those who
//	    wait for an answer get ErrNotLeader: the outcome is unknown to them.
//	Q5  The offsets a decision predicted are asserted when it is applied.
//	Q6  The high watermark is -1 until an entry of the leader's own term is
//	    committed, and never falls below one that was told.
//	Q7  A snapshot counts from when the state file names it; only then are the
//	    logs trimmed and older snapshots removed.
//
// Idle cost: Kafka appends a NoOpRecord every 500 ms so that the high watermark
// moves. Nothing but its own lag metrics needs that, and each would cost a sync
// here, so it is done only while somebody fetches over the network (Observe). A
// single voter runs no ticks either: an idle node wakes for broker sessions only.
//
// Limits: the voters of a quorum are those it began with. An entry that changes
// them is refused when it is applied, so that no later version's log is misread;
// who introduces them must make the commit index durable first (Q1). A new quorum
// of several voters must be given the directory ids of all.
//
// Concurrency: the loop goroutine owns the RawNode, the controller and everything
// that is applied. The writer goroutine owns the Raft log's writing side and the
// state file. A snapshot is written by a goroutine of its own from an immutable
// image. Everyone else goes through inbox, status and MetadataLog.
package quorum

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.etcd.io/raft/v3"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

var (
	// ErrCorrupt: a file of the quorum is not what was written.
	ErrCorrupt = errors.New("corrupt quorum data")
	// ErrForeign: the folder has a metadata log that this package did not write.
	ErrForeign = errors.New("metadata log without Ottla's quorum state")
	// ErrBusy: more requests wait for a decision than the controller takes.
	ErrBusy = errors.New("controller queue is full")
	// ErrClosed: the quorum has stopped.
	ErrClosed = errors.New("quorum is closed")
)

// NotLeaderError is the answer of a controller that does not lead, or lost the
// lead before a decision was known to be committed: it may have been made or not.
type NotLeaderError struct {
	Leader model.NodeID // -1 if unknown
	Epoch  model.Epoch
}

// ErrNotLeader matches every NotLeaderError.
var ErrNotLeader = errors.New("not the active controller")

func (e *NotLeaderError) Error() string {
	if e.Leader == model.NoNode {
		return fmt.Sprintf("not the active controller; none is known in epoch %d", e.Epoch)
	}
	return fmt.Sprintf("not the active controller; node %d is in epoch %d", e.Leader, e.Epoch)
}

// Is makes every NotLeaderError ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// A Voter is a controller that takes part in the quorum.
type Voter struct {
	ID model.NodeID
	// DirectoryID is the id of the folder that holds its Raft log.
	DirectoryID model.UUID
	// Listener, Host and Port are where the others reach it.
	Listener string
	Host     string
	Port     uint16
}

// raftID is the voter as raft knows it (Q2).
func (v Voter) raftID() uint64 {
	h := fnv.New64a()
	h.Write(v.DirectoryID[:])
	id := h.Sum64()
	if id == raft.None || raft.IsLocalMsgTarget(id) {
		return 1 << 63
	}
	return id
}

// Transport carries frames between voters. It is nil where there is one voter.
type Transport interface {
	// Send takes a frame for a voter. It must not block and may lose frames or
	// change their order. Urgent frames (heartbeats, votes) must not wait behind
	// others. The frame belongs to the transport.
	Send(to Voter, frame []byte, urgent bool)
	// Snapshot opens a snapshot that another voter has.
	Snapshot(ctx context.Context, from Voter, id SnapshotID) (io.ReadCloser, error)
}

// Config is what a quorum is made of. FS, Dir, NodeID, DirectoryID, ClusterID,
// Voters, Controller and Rand must be set.
type Config struct {
	FS vfs.FS
	// Dir is metadata.log.dir. It exists, durably, and the caller holds its lock.
	Dir         string
	NodeID      model.NodeID
	DirectoryID model.UUID
	ClusterID   model.UUID
	// Voters of a new quorum, all with their directory ids. A quorum that has state
	// knows its own and ignores these.
	Voters     []Voter
	Transport  Transport
	Controller *controller.Controller

	// ElectionTimeout is controller.quorum.election.timeout.ms, 0 means 1 s.
	ElectionTimeout time.Duration
	// SnapshotBytes is metadata.log.max.record.bytes.between.snapshots, 0 means 20 MiB.
	SnapshotBytes int64
	// SnapshotInterval is metadata.log.max.snapshot.interval.ms, 0 means 1 h.
	SnapshotInterval time.Duration
	// KeepEntries is how many applied entries stay in the Raft log behind a snapshot,
	// so that a voter that is a little behind does not need it; 0 means 1000.
	KeepEntries int
	// MaxIdle is metadata.max.idle.interval.ms: how long the high watermark may stand
	// still while others fetch, 0 for ever.
	MaxIdle time.Duration
	// SegmentBytes is metadata.log.segment.bytes, 0 means 1 GiB as in Kafka. The Raft
	// log's segments are smaller, so that trimming gives space back.
	SegmentBytes int32

	Now     func() time.Time // nil means time.Now
	Rand    *rand.Rand       // of the loop goroutine alone
	Codecs  *batch.Codecs    // nil means its own
	Metrics *metric.Registry
	Log     *slog.Logger
}

func (c *Config) complete() error {
	switch {
	case c.FS == nil, c.Dir == "", c.Controller == nil, c.Rand == nil:
		return errors.New("quorum: FS, Dir, Controller and Rand must be set")
	case c.NodeID < 0 || c.DirectoryID == model.ZeroUUID || c.ClusterID == model.ZeroUUID:
		return fmt.Errorf("quorum: node %d, directory %s, cluster %s: all three must be set", c.NodeID, c.DirectoryID, c.ClusterID)
	}
	seen := map[uint64]bool{}
	for _, v := range c.Voters {
		if v.DirectoryID == model.ZeroUUID || seen[v.raftID()] {
			return fmt.Errorf("quorum: voter %d has directory id %s, which must be set and its own", v.ID, v.DirectoryID)
		}
		seen[v.raftID()] = true
	}
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = time.Second
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 20 << 20
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = time.Hour
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 1 << 30
	}
	if c.KeepEntries == 0 {
		c.KeepEntries = 1000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Codecs == nil {
		c.Codecs = batch.NewCodecs()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Quorum is one controller's part in the quorum. Open it, Run it, Close it.
type Quorum struct {
	cfg  Config
	self Voter
	dir  string // the metadata log's folder

	disk   *storage.Syncer
	rlog   *raftLog
	meta   *MetadataLog
	writer *writer
	inbox  inbox
	status atomic.Pointer[Status]
	core   core // of the loop goroutine
	done   chan struct{}

	observersMu sync.Mutex
	observers   map[observerKey]Observer // who fetched lately; guarded by observersMu
}

// Status is the quorum as this node sees it.
type Status struct {
	Leader model.NodeID // -1 if unknown
	Epoch  model.Epoch
	// Active is set when this node leads and has begun to decide.
	Active        bool
	HighWatermark model.Offset
	Voters        []Voter
	// Applied is the Raft index of the last entry applied here. Progress has, on the
	// leader, each voter's last known Raft index, in the order of Voters; it is as old
	// as the last tick.
	Applied  uint64
	Progress []uint64
}

// Status is what was true a moment ago.
func (q *Quorum) Status() Status {
	s := *q.status.Load()
	s.HighWatermark = q.meta.HighWatermark()
	return s
}

// Metadata is the committed log.
func (q *Quorum) Metadata() *MetadataLog { return q.meta }

// An Observer is a broker or controller that fetches the metadata log from this
// node over the network.
type Observer struct {
	ID          model.NodeID
	DirectoryID model.UUID
	Offset      model.Offset // that it asked for last
	Fetched     time.Time
	CaughtUp    time.Time // when it last asked for the end
}

type observerKey struct {
	id  model.NodeID
	dir model.UUID
}

// observerLife is how long an observer that does not fetch is remembered.
const observerLife = 5 * time.Minute

// Observe notes a Fetch of the metadata log from the network. While there are
// such observers the leader keeps the high watermark moving.
func (q *Quorum) Observe(id model.NodeID, dir model.UUID, offset model.Offset) {
	now := q.cfg.Now()
	q.observersMu.Lock()
	k := observerKey{id, dir}
	o, known := q.observers[k]
	if !known {
		for k, old := range q.observers {
			if now.Sub(old.Fetched) > observerLife {
				delete(q.observers, k)
			}
		}
	}
	o.ID, o.DirectoryID, o.Offset, o.Fetched = id, dir, offset, now
	if offset >= q.meta.end() {
		o.CaughtUp = now
	}
	q.observers[k] = o
	q.observersMu.Unlock()
	if !known {
		q.inbox.wake() // the loop may have stopped writing NoOps
	}
}

// Observers lists who fetched lately, for DescribeQuorum.
func (q *Quorum) Observers() []Observer {
	now := q.cfg.Now()
	q.observersMu.Lock()
	defer q.observersMu.Unlock()
	var out []Observer
	for _, o := range q.observers {
		if now.Sub(o.Fetched) <= observerLife {
			out = append(out, o)
		}
	}
	return out
}

// observed reports whether anybody fetched within d.
func (q *Quorum) observed(now time.Time, d time.Duration) bool {
	q.observersMu.Lock()
	defer q.observersMu.Unlock()
	for _, o := range q.observers {
		if now.Sub(o.Fetched) <= d {
			return true
		}
	}
	return false
}

// Do has the active controller decide a request and returns its response when
// the decision, and all it was based on, is committed. On a controller that does
// not lead the error is a *NotLeaderError; while no leader is known it waits for
// one until ctx ends.
func (q *Quorum) Do(ctx context.Context, req kmsg.Request, who controller.Requester) (kmsg.Response, error) {
	c := &call{req: req, who: who, done: make(chan answer, 1)}
	if err := q.inbox.call(c); err != nil {
		return nil, err
	}
	select {
	case a := <-c.done:
		return a.resp, a.err
	case <-ctx.Done():
		c.gone.Store(true)
		return nil, fmt.Errorf("waiting for the controller: %w", ctx.Err())
	case <-q.done:
		select {
		case a := <-c.done:
			return a.resp, a.err
		default:
			return nil, ErrClosed
		}
	}
}

// epochOf is a Raft term as a leader epoch.
func epochOf(term uint64) model.Epoch {
	if term > math.MaxInt32 {
		panic(fmt.Sprintf("BUG: raft term %d is no leader epoch", term))
	}
	return model.Epoch(term)
}
