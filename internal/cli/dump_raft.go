package cli

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

// Files of the quorum, in the metadata log's folder.
const (
	quorumFile    = "quorum-state"       // Kafka's
	raftStateFile = "ottla-quorum-state" // ours: see internal/quorum/state.go
	maxStateFile  = 1 << 20
)

// raftRow is an entry of the Raft log; see internal/quorum/entry.go.
type raftRow struct {
	Index int64  `json:"index"`
	Term  int32  `json:"term"`
	What  string `json:"what"`
	Bytes int    `json:"bytes"`
}

func (r raftRow) text() string {
	return fmt.Sprintf("entry %d of term %d: %s, %d bytes", r.Index, r.Term, r.What, r.Bytes)
}

// raftEntry prints an entry, and the metadata records that it will append.
func (p *logPrinter) raftEntry(h batch.Batch, r *batch.Record, show bool) error {
	row := raftRow{Index: int64(r.Offset) + 1, Term: int32(h.LeaderEpoch()), Bytes: len(r.Value)}
	switch {
	case len(r.Key) > 0:
		row.What = "membership"
	case len(r.Value) == 0:
		row.What = "begin of a term"
	default:
		row.What = "metadata"
	}
	if show {
		if err := p.emit(2, "entry", row); err != nil {
			return err
		}
	}
	if len(r.Key) > 0 {
		return nil
	}
	for data := r.Value; len(data) > 0; {
		n, err := batch.Peek(data)
		if err == nil && n > len(data) {
			err = fmt.Errorf("a batch of %d bytes where %d are left", n, len(data))
		}
		if err == nil {
			err = batch.Batch(data[:n]).Check()
		}
		if err != nil {
			return &storage.Damage{Pos: p.pos, Offset: r.Offset, What: fmt.Sprintf("entry %d does not hold record batches: %v", row.Index, err), Means: "the node stops when it applies the entry"}
		}
		if err := p.nested(data[:n], show); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// nested prints the records of a batch in an entry.
func (p *logPrinter) nested(b batch.Batch, show bool) error {
	for r, err := range p.codecs.Records(b, maxDumpBody) {
		if err != nil {
			return &storage.Damage{Pos: p.pos, Offset: model.NoOffset, What: err.Error(), Means: "the node stops when it applies the entry"}
		}
		if b.Control() {
			err = p.control(&r, show)
		} else {
			err = p.metadata(&r, show)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// quorumRow is Kafka's quorum-state: the fields of both its versions.
type quorumRow struct {
	Version        int    `json:"data_version"`
	LeaderID       int32  `json:"leaderId"`
	LeaderEpoch    int32  `json:"leaderEpoch"`
	VotedID        int32  `json:"votedId"`
	VotedDirectory string `json:"votedDirectoryId,omitempty"`
	ClusterID      string `json:"clusterId,omitempty"`
	AppliedOffset  int64  `json:"appliedOffset,omitempty"`
	CurrentVoters  []struct {
		ID int32 `json:"voterId"`
	} `json:"currentVoters,omitempty"`
}

func (r quorumRow) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d, ", r.LeaderEpoch)
	if r.LeaderID >= 0 {
		fmt.Fprintf(&b, "leader %d", r.LeaderID)
	} else {
		b.WriteString("no leader known")
	}
	if r.VotedID >= 0 {
		fmt.Fprintf(&b, ", voted for %d", r.VotedID)
		if r.VotedDirectory != "" {
			fmt.Fprintf(&b, " (directory %s)", r.VotedDirectory)
		}
	}
	for i, v := range r.CurrentVoters {
		b.WriteString([]string{", voters ", ","}[min(i, 1)])
		fmt.Fprint(&b, v.ID)
	}
	return b.String()
}

func (d *dumper) quorumState(path string, size int64) error {
	if err := d.heading("state of the metadata quorum", size); err != nil {
		return err
	}
	text, err := vfs.ReadFile(d.fs, path, maxStateFile)
	if err != nil {
		return err
	}
	row := quorumRow{LeaderID: -1, VotedID: -1}
	if err := json.Unmarshal(text, &row); err != nil {
		return d.fault(&storage.Damage{Pos: -1, What: fmt.Sprintf("not JSON: %v", err), Means: "a controller does not start on it: its vote is unknown"})
	}
	return d.emit(1, "quorum", row)
}

// raftStateRow is what a slot of ottla-quorum-state says first.
type raftStateRow struct {
	Slot     int    `json:"slot"`
	Sequence uint64 `json:"sequence"`
	Term     uint64 `json:"term"`
	Vote     string `json:"vote"`
	Commit   uint64 `json:"commit"`
}

func (r raftStateRow) text() string {
	return fmt.Sprintf("slot %d, written as number %d: term %d, vote for %s, commit index %d, CRC ok", r.Slot, r.Sequence, r.Term, r.Vote, r.Commit)
}

// raftState prints the two slots of ottla-quorum-state. The file is damaged if
// neither can be read; one always may be torn.
func (d *dumper) raftState(path string, size int64) error {
	if err := d.heading("Raft state, of the two slots the one with the larger number counts", size); err != nil {
		return err
	}
	all, err := vfs.ReadFile(d.fs, path, maxStateFile)
	if err != nil {
		return err
	}
	const slot = 16 << 10
	good := false
	for i := range 2 {
		row, err := raftSlot(i, all[min(i*slot, len(all)):min((i+1)*slot, len(all))])
		if err == nil {
			good = true
			err = d.emit(1, "raft", row)
		} else {
			err = d.note("slot %d: %v", i, err)
		}
		if err != nil {
			return err
		}
	}
	if good || len(all) == 0 {
		return nil
	}
	return d.fault(&storage.Damage{Pos: -1, What: "neither slot can be read", Means: "the votes given are unknown; the node must come back with a new directory id"})
}

func raftSlot(i int, b []byte) (raftStateRow, error) {
	const head, numbers = 20, 24
	be := binary.BigEndian
	switch {
	case len(strings.Trim(string(b), "\x00")) == 0:
		return raftStateRow{}, fmt.Errorf("never written")
	case len(b) < head+numbers || string(b[:4]) != "OQS1":
		return raftStateRow{}, fmt.Errorf("does not begin as it should")
	}
	n := be.Uint32(b[4:])
	if int64(n) > int64(len(b)-head) || n < numbers {
		return raftStateRow{}, fmt.Errorf("says it has %d bytes, %d to %d are possible", n, numbers, len(b)-head)
	}
	if sum := crc32.Checksum(b[12:head+n], crc32.MakeTable(crc32.Castagnoli)); sum != be.Uint32(b[8:]) {
		return raftStateRow{}, fmt.Errorf("has CRC %08x, its bytes give %08x", be.Uint32(b[8:]), sum)
	}
	r := raftStateRow{Slot: i, Sequence: be.Uint64(b[12:]), Term: be.Uint64(b[20:]), Vote: "nobody", Commit: be.Uint64(b[36:])}
	if v := be.Uint64(b[28:]); v != 0 {
		r.Vote = fmt.Sprintf("%016x", v)
	}
	return r, nil
}
