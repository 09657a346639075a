package quorum

import (
	"fmt"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

const (
	// batchBytes and batchRecords end a batch of metadata records.
	batchBytes   = 1 << 20
	batchRecords = 10000
)

// kraftVersion is the level of kraft.version that the metadata log states:
// voters are named by their directory ids (KIP-853).
const kraftVersion = 1

// A writer of metadata batches: records in, the bytes of Kafka's batches out.
type batcher struct {
	b     *batch.Builder
	epoch model.Epoch
	now   int64 // ms, the timestamp of all records
	next  model.Offset
	open  bool // b has records
	value []byte
	out   []byte
}

func newBatcher(c *batch.Codecs, base model.Offset, epoch model.Epoch, now int64) *batcher {
	return &batcher{b: c.NewBuilder(batch.Plain(base, epoch)), epoch: epoch, now: now, next: base}
}

// add puts records at the next offsets, in the versions of a metadata.version.
func (w *batcher) add(recs []record.Metadata, metadataVersion int16) error {
	for _, r := range recs {
		if w.open && (w.b.Len() >= batchRecords || w.b.Size() >= batchBytes) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		if !w.open {
			w.b.Reset(batch.Plain(w.next, w.epoch))
			w.open = true
		}
		w.value = record.AppendFramed(w.value[:0], r, record.MetadataVersionOf(r.Type(), metadataVersion))
		w.b.Add(w.now, nil, w.value)
		w.next++
	}
	return nil
}

// controls puts a batch of control records at the next offsets.
func (w *batcher) controls(recs ...controlRecord) error {
	if err := w.flush(); err != nil {
		return err
	}
	opts := batch.Plain(w.next, w.epoch)
	opts.Control = true
	w.b.Reset(opts)
	for _, r := range recs {
		w.b.Add(w.now, batch.ControlKey(r.typ), r.value)
		w.next++
	}
	w.open = true
	return w.flush()
}

// size is about how many bytes there are so far.
func (w *batcher) size() int {
	if w.open {
		return len(w.out) + w.b.Size()
	}
	return len(w.out)
}

// flush completes the batch under way.
func (w *batcher) flush() error {
	if !w.open {
		return nil
	}
	b, err := w.b.Build()
	if err != nil {
		return fmt.Errorf("metadata batch at offset %d: %w", w.next, err)
	}
	w.out = append(w.out, b...)
	w.open = false
	return nil
}

type controlRecord struct {
	typ   batch.ControlType
	value []byte
}

// leaderChange is the record that begins each epoch of the metadata log. Apache
// Kafka 4.4 writes version 0, without directory ids, and 4.3's dump tool reads no other.
func leaderChange(leader Voter, voters []Voter) controlRecord {
	m := record.NewLeaderChangeMessage()
	m.Version, m.LeaderID = 0, int32(leader.ID)
	for _, v := range voters {
		m.Voters = append(m.Voters, record.LeaderChangeVoter{VoterID: int32(v.ID)})
	}
	// Raft does not say who gave its vote; the leader certainly did.
	m.GrantingVoters = []record.LeaderChangeVoter{{VoterID: int32(leader.ID)}}
	return controlRecord{batch.LeaderChange, m.Append(nil, 0)}
}

// votersRecords are the records that name the voters, in the log and in snapshots.
func votersRecords(voters []Voter) []controlRecord {
	k := record.NewKRaftVersionRecord()
	k.KRaftVersion = kraftVersion
	v := record.NewVotersRecord()
	for _, voter := range voters {
		v.Voters = append(v.Voters, record.VotersRecordVoter{
			VoterID: int32(voter.ID), VoterDirectoryID: voter.DirectoryID,
			Endpoints:           []record.VotersRecordEndpoint{{Name: voter.Listener, Host: voter.Host, Port: voter.Port}},
			KRaftVersionFeature: record.KRaftVersionFeature{MinSupportedVersion: 0, MaxSupportedVersion: kraftVersion},
		})
	}
	return []controlRecord{{batch.KRaftVersion, k.Append(nil, 0)}, {batch.KRaftVoters, v.Append(nil, 0)}}
}

// decodeBatch gives a batch's metadata records; none for a control batch.
func decodeBatch(c *batch.Codecs, b batch.Batch) ([]record.Metadata, error) {
	if b.Control() {
		return nil, nil
	}
	recs := make([]record.Metadata, 0, min(b.Count(), batchRecords))
	for r, err := range c.Records(b, maxSnapshotBatch) {
		if err != nil {
			return nil, fmt.Errorf("metadata batch at offset %d: %w", b.BaseOffset(), err)
		}
		m, _, err := record.DecodeFramed(r.Value)
		if err != nil {
			return nil, fmt.Errorf("metadata record at offset %d: %w", r.Offset, err)
		}
		recs = append(recs, m)
	}
	return recs, nil
}
