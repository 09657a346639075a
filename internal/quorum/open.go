package quorum

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

const (
	metadataFolder = model.MetadataTopic + "-0"
	raftFolder     = "raft"
	// raftSegment is the size of the Raft log's segments: what one entry may have at
	// most, and the step in which trimming gives space back.
	raftSegment = MaxFrame
)

// Open reads what is on disk and brings it into one state: the newest snapshot
// that counts, the metadata log behind it, and of the Raft log what is behind
// that. A folder without anything becomes the first state of a new quorum with
// cfg.Voters. Run then takes part.
func Open(cfg Config) (*Quorum, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	q := &Quorum{
		cfg: cfg, dir: join(cfg.Dir, metadataFolder),
		done:      make(chan struct{}),
		observers: make(map[observerKey]Observer),
	}
	q.inbox.ready = make(chan struct{}, 1)
	if err := q.open(); err != nil {
		return nil, fmt.Errorf("metadata log in %s: %w", q.dir, errors.Join(err, q.closeFiles()))
	}
	return q, nil
}

func (q *Quorum) open() error {
	cfg := &q.cfg
	raftDir := join(q.dir, raftFolder)
	if err := cfg.FS.MkdirAll(raftDir, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{cfg.Dir, q.dir} {
		if err := cfg.FS.SyncDir(dir); err != nil {
			return err
		}
	}
	file, st, found, err := openState(cfg.FS, q.dir)
	if err != nil {
		return err
	}
	q.writer = &writer{
		fs: cfg.FS, dir: q.dir, file: file, inbox: &q.inbox, log: cfg.Log,
		send: q.send, onInstall: q.onInstall, onAdopt: q.onAdopt, ready: make(chan struct{}, 1), keep: uint64(cfg.KeepEntries),
	}
	if !found {
		if err := q.checkEmpty(); err != nil {
			return err
		}
		st = state{voters: slices.Clone(cfg.Voters)}
	}
	q.core.readdressed = readdress(st.voters, cfg.Voters)
	if err := q.findSelf(st.voters); err != nil {
		return err
	}
	if err := q.openLogs(raftDir); err != nil {
		return err
	}
	if err := q.load(&st); err != nil {
		return err
	}
	// Whatever the load found is made the state before Raft sends anything.
	if err := file.write(&st, true); err != nil {
		return err
	}
	return q.start(&st)
}

// checkEmpty refuses a metadata log that another program wrote: without its state
// file nobody can tell which votes this node has given.
func (q *Quorum) checkEmpty() error {
	list, err := q.cfg.FS.ReadDir(q.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".log") || strings.HasSuffix(e.Name(), checkpointSuffix) {
			f, err := q.cfg.FS.Stat(join(q.dir, e.Name()))
			if err != nil {
				return err
			}
			if f.Size() > 0 {
				return fmt.Errorf("%w: %s is there but not %s", ErrForeign, e.Name(), stateName)
			}
		}
	}
	return nil
}

// readdress takes over the addresses that the configuration gives to voters that
// are in force, and tells whether any is new. Who they are does not change: that
// is a matter of the log.
func readdress(inForce, configured []Voter) bool {
	changed := false
	for i, v := range inForce {
		for _, n := range configured {
			if n.DirectoryID == v.DirectoryID && n.ID == v.ID && n != v {
				inForce[i], changed = n, true
			}
		}
	}
	return changed
}

// findSelf finds this node among the voters, or is an observer of them.
func (q *Quorum) findSelf(voters []Voter) error {
	q.self = Voter{ID: q.cfg.NodeID, DirectoryID: q.cfg.DirectoryID}
	for _, v := range voters {
		if v.DirectoryID == q.cfg.DirectoryID {
			if v.ID != q.cfg.NodeID {
				return fmt.Errorf("directory %s belongs to voter %d, but node.id is %d", v.DirectoryID, v.ID, q.cfg.NodeID)
			}
			q.self = v
			return nil
		}
	}
	return fmt.Errorf("directory %s of node %d is not among the voters %v: a voter with a new disk is a new voter and must be added", q.cfg.DirectoryID, q.cfg.NodeID, voters)
}

func (q *Quorum) openLogs(raftDir string) error {
	cfg := &q.cfg
	q.disk = storage.NewSyncer(storage.SyncerConfig{
		FS: cfg.FS, Path: cfg.Dir, Syncs: 2, Open: 64, Codecs: cfg.Codecs, Metrics: cfg.Metrics, Log: cfg.Log, Now: cfg.Now,
	})
	options := func(segment int32) storage.LogOptions {
		return storage.LogOptions{
			NoProducers: true,
			Config: storage.LogConfig{
				SegmentBytes: segment, SegmentMs: 1<<62 - 1,
				// Synced when asked: each group of Raft entries once, the metadata log never.
				FlushMessages: storage.Never, FlushMs: storage.Never, DeleteDelayMs: -1,
			},
		}
	}
	rlog, err := storage.OpenLog(raftDir, options(raftSegment), q.disk)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	q.rlog = &raftLog{
		log: rlog, codecs: cfg.Codecs, build: cfg.Codecs.NewBuilder(batch.Plain(0, 0)),
		now: func() int64 { return cfg.Now().UnixMilli() },
	}
	o := options(cfg.SegmentBytes)
	o.TopicID = model.OneUUID // as Kafka's partition.metadata says
	mlog, err := storage.OpenLog(q.dir, o, q.disk)
	if err != nil {
		return err
	}
	q.meta = &MetadataLog{log: mlog, fs: cfg.FS, dir: q.dir, changed: make(chan struct{})}
	q.writer.rlog, q.writer.meta = q.rlog, q.meta
	return nil
}

// load fills core and the logs' memory from disk and corrects st: terms and
// commit to what the logs prove, the logs to what st says was trimmed.
func (q *Quorum) load(st *state) error {
	c := &q.core
	c.voters = st.voters
	c.conf = &pb.ConfState{}
	for _, v := range c.voters {
		c.conf.Voters = append(c.conf.Voters, v.raftID())
	}
	if err := q.loadMetadata(st); err != nil {
		return err
	}
	applied, dataEnd, err := q.scanRaft(st)
	if err != nil {
		return err
	}
	if dataEnd < c.end {
		return fmt.Errorf("%w: the metadata log ends at offset %d but the Raft log, which was synced before, at %d", ErrCorrupt, c.end, dataEnd)
	}
	c.applied = applied
	// The metadata log only ever gets what is committed.
	st.commit = min(max(st.commit, applied.index), q.rlog.last)
	if n := len(q.rlog.terms); n > 0 {
		st.term = max(st.term, q.rlog.terms[n-1].term)
	}
	now := q.cfg.Now()
	c.moved = now
	c.snapshots.newest, c.snapshots.at = st.snapshot, now
	if err := cleanSnapshots(q.cfg.FS, q.dir, q.keptSnapshots(st)...); err != nil {
		return err
	}
	q.meta.img, q.meta.last, q.meta.snapshot = c.img, c.end, st.snapshot
	return nil
}

// keptSnapshots are the newest one and the one that the metadata log begins at.
func (q *Quorum) keptSnapshots(st *state) []SnapshotID {
	keep := []SnapshotID{st.snapshot}
	list, err := q.cfg.FS.ReadDir(q.dir)
	if err != nil {
		return keep
	}
	for _, e := range list {
		if id, ok := parseSnapshotName(e.Name()); ok && id.End == q.meta.log.StartOffset() && id.End < st.snapshot.End {
			keep = append(keep, id)
		}
	}
	return keep
}

// loadMetadata makes the image of the snapshot and the metadata log behind it. A
// log that does not connect to the snapshot begins anew at its end.
func (q *Quorum) loadMetadata(st *state) error {
	c, log := &q.core, q.meta.log
	c.img, c.end = image.Empty(), st.snapshot.End
	if st.snapshot.End > 0 {
		img, _, err := loadSnapshot(q.cfg.FS, snapshotName(q.dir, st.snapshot), q.cfg.Codecs, st.snapshot)
		if err != nil {
			return err
		}
		c.img = img
	}
	if log.EndOffset() < c.end || log.StartOffset() > c.end {
		if err := log.TruncateAll(c.end); err != nil {
			return err
		}
	}
	for c.end < log.EndOffset() {
		at := c.end
		err := readLog(log, c.end, log.EndOffset(), 4<<20, func(b batch.Batch) error {
			if b.BaseOffset() != c.end {
				return fmt.Errorf("%w: batch at offset %d of the metadata log, expected %d", ErrCorrupt, b.BaseOffset(), c.end)
			}
			img, _, err := replayBatch(q.cfg.Codecs, c.img, b)
			if err != nil {
				return err
			}
			c.img, c.end, c.last = img, b.NextOffset(), b.MaxTimestamp()
			c.snapshots.bytes += int64(len(b))
			return nil
		})
		if err == nil && c.end == at {
			err = fmt.Errorf("%w: nothing at offset %d of the metadata log, which ends at %d", ErrCorrupt, at, log.EndOffset())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scanRaft learns the terms of all entries and finds the last one that the
// metadata log has wholly. dataEnd is the offset behind the last entry's data.
func (q *Quorum) scanRaft(st *state) (applied position, dataEnd model.Offset, err error) {
	l := q.rlog
	l.conf = q.core.conf
	if err := q.connectRaft(st); err != nil {
		return applied, 0, err
	}
	applied, dataEnd = st.at, st.snapshot.End
	start := model.Offset(l.trim.index)
	for at := start; at < l.log.EndOffset(); {
		from := at
		err := readLog(l.log, at, l.log.EndOffset(), 4<<20, func(b batch.Batch) error {
			e, err := decodeEntry(q.cfg.Codecs, b)
			if err != nil {
				return err
			}
			if e.GetIndex() != uint64(at)+1 || len(l.terms) > 0 && l.terms[len(l.terms)-1].term > e.GetTerm() {
				return fmt.Errorf("%w: raft entry %d of term %d where entry %d was expected", ErrCorrupt, e.GetIndex(), e.GetTerm(), at+1)
			}
			at++
			l.enterLocked(e)
			l.evictLocked()
			if len(e.GetData()) == 0 {
				return nil
			}
			end, err := endOf(e.GetData())
			if err != nil {
				return fmt.Errorf("raft entry %d: %w", e.GetIndex(), err)
			}
			dataEnd = max(dataEnd, end)
			if end <= q.core.end && e.GetIndex() > applied.index {
				applied = position{e.GetIndex(), e.GetTerm()}
			}
			return nil
		})
		if err == nil && at == from {
			err = fmt.Errorf("%w: no raft entry at %d, the log ends at %d", ErrCorrupt, at+1, l.log.EndOffset())
		}
		if err != nil {
			return applied, 0, err
		}
	}
	return applied, dataEnd, nil
}

// connectRaft brings the Raft log to what the state says was given up. A crash
// may have come between the state and the log.
func (q *Quorum) connectRaft(st *state) error {
	l := q.rlog
	trim := model.Offset(st.trim.index)
	l.trim, l.last = st.trim, st.trim.index
	start, end := l.log.StartOffset(), l.log.EndOffset()
	connected := start <= trim && trim <= end
	if connected && start < trim {
		// The entry before the first is there: it must be the one that was given up.
		connected = false
		err := readLog(l.log, trim-1, trim, 1, func(b batch.Batch) error {
			connected = b.BaseOffset() == trim-1 && uint64(b.LeaderEpoch()) == st.trim.term
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !connected {
		if start > trim && st.trim != st.at {
			return fmt.Errorf("%w: the Raft log begins at entry %d, expected %d", ErrCorrupt, start+1, trim+1)
		}
		return l.reset(st.trim)
	}
	return l.log.AdvanceStart(trim)
}

// endOf is the offset behind an entry's last batch.
func endOf(data []byte) (model.Offset, error) {
	end := model.NoOffset
	for at := 0; at < len(data); {
		n, err := batch.Peek(data[at:])
		if err != nil {
			return end, err
		}
		if n > len(data)-at {
			return end, fmt.Errorf("%w: batch of %d bytes where %d are left", ErrCorrupt, n, len(data)-at)
		}
		end = batch.Batch(data[at : at+n]).NextOffset()
		at += n
	}
	return end, nil
}

// start makes the raft node. It sends nothing before Run.
func (q *Quorum) start(st *state) error {
	c := &q.core
	c.told = map[uint64]int{}
	q.writer.st, q.writer.conf, q.writer.self = *st, c.conf, q.self.raftID()
	q.rlog.hard = &pb.HardState{Term: new(st.term), Vote: new(st.vote), Commit: new(st.commit)}
	if st.snapshot.End > 0 {
		q.rlog.setSnapshot(st.snapshot, st.at, c.conf)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID:           q.self.raftID(),
		ElectionTick: electionTicks, HeartbeatTick: 1,
		Storage: q.rlog, Applied: c.applied.index,
		AsyncStorageWrites: true,
		MaxSizePerMsg:      1 << 20, MaxCommittedSizePerReady: 16 << 20, MaxInflightMsgs: 256,
		CheckQuorum: true, PreVote: true,
		DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLogger{q.cfg.Log.With("part", "raft", "node", q.self.ID)},
	})
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	c.node = node
	c.term = st.term
	q.tell()
	q.measure()
	return nil
}

// measure registers what the quorum tells about itself.
func (q *Quorum) measure() {
	m := q.cfg.Metrics
	m.GaugeFunc("ottla_quorum_epoch", "Epoch of the metadata quorum as this node knows it.", func() float64 { return float64(q.status.Load().Epoch) })
	m.GaugeFunc("ottla_quorum_leader", "Node that leads the metadata quorum, -1 if unknown.", func() float64 { return float64(q.status.Load().Leader) })
	m.GaugeFunc("ottla_metadata_end_offset", "Offset behind the last metadata record applied.", func() float64 { return float64(q.meta.end()) })
	m.GaugeFunc("ottla_metadata_snapshot_offset", "End offset of the newest metadata snapshot.", func() float64 {
		id, _ := q.meta.LatestSnapshot()
		return float64(id.End)
	})
}

// Close makes everything durable and gives the files back. Run must have ended.
func (q *Quorum) Close() error {
	c := &q.core
	k := &kafkaState{leader: q.nodeOf(c.lead), epoch: epochOf(c.term), voted: model.NoNode}
	err := k.write(q.cfg.FS, q.dir, true)
	return errors.Join(err, q.closeFiles())
}

func (q *Quorum) closeFiles() error {
	var errs []error
	if q.rlog != nil {
		errs = append(errs, q.rlog.log.Close())
	}
	if q.meta != nil {
		errs = append(errs, q.meta.log.Close())
	}
	if q.disk != nil {
		q.disk.Close()
	}
	if q.writer != nil {
		if err := q.writer.file.f.Sync(); err != nil { // the commit index
			errs = append(errs, err)
		}
		errs = append(errs, q.writer.file.close())
	}
	return errors.Join(errs...)
}

// raftLogger passes raft's messages on. Raft's own Info is of interest only to
// who debugs it.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any)                   {}
func (l raftLogger) Debugf(format string, v ...any)   {}
func (l raftLogger) Info(v ...any)                    { l.log.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any)    { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l raftLogger) Warning(v ...any)                 { l.log.Warn(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l raftLogger) Error(v ...any)                   { l.log.Error(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any)   { l.log.Error(fmt.Sprintf(format, v...)) }
func (l raftLogger) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }

var _ raft.Logger = raftLogger{}
