package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

// A job is something for the writer, done in the order of submission.
type job struct {
	// append is raft's MsgStorageAppend: entries, term, vote, commit, snapshot.
	append *pb.Message
	// snapshot is a snapshot that was written here and shall count from now on.
	snapshot *snapshotJob
	// kafka is what Kafka's quorum-state shall say.
	kafka *kafkaState
}

// writer is the goroutine between raft and the disk. Everything that queued up
// while it was syncing is written with one sync (group commit).
type writer struct {
	fs    vfs.FS
	dir   string
	rlog  *raftLog
	meta  *MetadataLog
	file  *stateFile
	st    state // the content of file, or what it will be
	send  func(*pb.Message)
	inbox *inbox
	self  uint64
	conf  *pb.ConfState
	keep  uint64 // Config.KeepEntries
	log   *slog.Logger
	// onInstall runs on the loop goroutine when a received snapshot has become the
	// begin of both logs.
	onInstall func(SnapshotID, position)
	// onAdopt runs there when a snapshot that was made here counts.
	onAdopt func(SnapshotID)

	ready chan struct{} // room for one
	mu    sync.Mutex
	jobs  []job
}

func (w *writer) submit(j job) {
	w.mu.Lock()
	w.jobs = append(w.jobs, j)
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *writer) take() []job {
	w.mu.Lock()
	defer w.mu.Unlock()
	jobs := w.jobs
	w.jobs = nil
	return jobs
}

// run works until ctx ends. What was submitted before is done first, though no
// longer than the disk has room.
func (w *writer) run(ctx context.Context) error {
	for {
		jobs := w.take()
		if len(jobs) > 0 {
			if err := w.do(ctx, jobs); err != nil {
				return err
			}
			continue
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			return w.do(ctx, w.take())
		}
	}
}

// do writes a list of jobs. A snapshot, made here or received, ends a group.
func (w *writer) do(ctx context.Context, jobs []job) error {
	var group []*pb.Message
	for _, j := range jobs {
		switch {
		case j.append != nil && raft.IsEmptySnap(j.append.GetSnapshot()):
			group = append(group, j.append)
			continue
		case j.append != nil:
			group = append(group, j.append)
			if err := w.group(ctx, group); err != nil {
				return err
			}
		default:
			if err := w.group(ctx, group); err != nil {
				return err
			}
			if err := w.other(j); err != nil {
				return err
			}
		}
		group = group[:0]
	}
	return w.group(ctx, group)
}

func (w *writer) other(j job) error {
	if j.kafka != nil {
		if err := j.kafka.write(w.fs, w.dir, false); err != nil {
			w.log.Warn("cannot write Kafka's quorum-state", "error", err)
		}
		return nil
	}
	if err := w.adopt(j.snapshot); err != nil {
		return err
	}
	w.inbox.post(func() { w.onAdopt(j.snapshot.id) })
	return nil
}

// group writes some MsgStorageAppend, of which only the last may have a snapshot,
// and then delivers their responses. State goes first: the log never has an entry
// of a term that the state does not know (Q1).
func (w *writer) group(ctx context.Context, msgs []*pb.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	var entries []*pb.Entry
	old := w.st
	for _, m := range msgs {
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			w.st.term, w.st.vote, w.st.commit = m.GetTerm(), m.GetVote(), m.GetCommit()
		}
	}
	durable := w.st.term != old.term || w.st.vote != old.vote
	if durable || w.st.commit != old.commit {
		if err := w.file.write(&w.st, durable); err != nil {
			return err
		}
	}
	for _, m := range msgs {
		if len(m.GetEntries()) == 0 {
			continue
		}
		if n := len(entries); n > 0 && entries[n-1].GetIndex()+1 != m.GetEntries()[0].GetIndex() {
			if err := w.append(ctx, entries); err != nil {
				return err
			}
			entries = nil
		}
		entries = append(entries, m.GetEntries()...)
	}
	if err := w.append(ctx, entries); err != nil {
		return err
	}
	var events []func()
	if s := msgs[len(msgs)-1].GetSnapshot(); !raft.IsEmptySnap(s) {
		event, err := w.install(s)
		if err != nil {
			return err
		}
		events = append(events, event)
	}
	var local []*pb.Message
	for _, m := range msgs {
		for _, r := range m.GetResponses() {
			if r.GetTo() == w.self {
				local = append(local, r)
			} else {
				w.send(r)
			}
		}
	}
	if len(local) > 0 || len(events) > 0 {
		w.inbox.fromWriter(local, events...)
	}
	return nil
}

// append writes entries; while the disk is full it waits for room: nothing can be
// decided meanwhile, and nothing is lost.
func (w *writer) append(ctx context.Context, entries []*pb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	return whileFull(ctx, w.log, func() error { return w.rlog.append(entries) })
}

// whileFull repeats f while the disk is full.
func whileFull(ctx context.Context, log *slog.Logger, f func() error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := f()
		if !errors.Is(err, storage.ErrFull) {
			return err
		}
		log.Error("metadata cannot be written, waiting for free space", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// adopt makes a snapshot that was written here count, then trims the logs and
// removes what nobody needs (Q7).
func (w *writer) adopt(j *snapshotJob) error {
	if j.id.End <= w.st.snapshot.End {
		return nil
	}
	before := w.st.snapshot
	trim := w.st.trim
	if j.at.index > w.keep {
		p := position{index: j.at.index - w.keep}
		term, err := w.rlog.Term(p.index)
		if err == nil && p.index > trim.index {
			p.term = term
			trim = p
		}
	}
	w.st.snapshot, w.st.at, w.st.trim = j.id, j.at, trim
	if err := w.file.write(&w.st, true); err != nil {
		return err
	}
	w.rlog.setSnapshot(j.id, j.at, w.conf)
	w.meta.setSnapshot(j.id)
	if err := w.rlog.trimTo(trim); err != nil {
		return err
	}
	// The metadata log stays readable from the snapshot before this one, so that an
	// observer that is in the middle of it can go on.
	if err := w.meta.log.AdvanceStart(before.End); err != nil {
		return fmt.Errorf("trimming the metadata log to offset %d: %w", before.End, err)
	}
	return cleanSnapshots(w.fs, w.dir, before, j.id)
}

// install replaces everything by a snapshot that was received. The event that it
// returns is for the loop goroutine.
func (w *writer) install(s *pb.Snapshot) (func(), error) {
	id, err := parseSnapshotID(s.GetData())
	if err != nil {
		return nil, err
	}
	at := position{s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()}
	w.st.snapshot, w.st.at, w.st.trim = id, at, at
	w.st.commit = max(w.st.commit, at.index)
	if err := w.file.write(&w.st, true); err != nil {
		return nil, err
	}
	if err := w.rlog.reset(at); err != nil {
		return nil, err
	}
	if err := w.meta.log.TruncateAll(id.End); err != nil {
		return nil, fmt.Errorf("emptying the metadata log at offset %d: %w", id.End, err)
	}
	w.rlog.setSnapshot(id, at, w.conf)
	w.meta.setSnapshot(id)
	return func() { w.onInstall(id, at) }, nil
}

// kafkaState is Kafka's quorum-state, data version 1 (KAFKA.md 7.3). It is for
// Kafka's tools and for a later return to Kafka; Ottla reads state.go's file.
type kafkaState struct {
	leader   model.NodeID
	epoch    model.Epoch
	voted    model.NodeID
	votedDir model.UUID
}

func (k *kafkaState) json() []byte {
	return fmt.Appendf(nil, `{"leaderId":%d,"leaderEpoch":%d,"votedId":%d,"votedDirectoryId":%q,"data_version":1}`,
		k.leader, k.epoch, k.voted, k.votedDir.String())
}

// write replaces the file. Unless durable is asked for it is not synced: after a
// crash it may be old or empty, and nobody but a tool looks at it.
func (k *kafkaState) write(fsys vfs.FS, dir string, durable bool) error {
	name := join(dir, "quorum-state")
	if durable {
		return vfs.WriteFileSync(fsys, name, k.json(), 0o644)
	}
	f, err := fsys.OpenFile(name+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(k.json(), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.Rename(name+".tmp", name)
}
