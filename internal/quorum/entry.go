package quorum

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// An entry of the Raft log is one batch with one record, so that cutting the log
// at any index is cutting it at a batch:
//
//	base offset = index − 1, leader epoch = term
//	key   null for a normal entry, else one byte: the entry's type
//	value the entry's data, null for none
//
// The data of a normal entry is what it appends to the metadata log: Kafka record
// batches, one behind another, with the offsets they will have there. The entry
// that each new leader begins its term with has none.

// appendEntry encodes one entry behind dst with b, which it resets.
func appendEntry(dst []byte, b *batch.Builder, e *pb.Entry, now int64) ([]byte, error) {
	if e.GetTerm() > 1<<31-1 {
		return dst, fmt.Errorf("raft term %d does not fit a leader epoch", e.GetTerm())
	}
	b.Reset(batch.Plain(model.Offset(e.GetIndex())-1, model.Epoch(e.GetTerm())))
	var key []byte
	if e.GetType() != pb.EntryNormal {
		key = []byte{byte(e.GetType())}
	}
	data := e.GetData()
	if len(data) == 0 {
		data = nil
	}
	b.Add(now, key, data)
	out, err := b.Build()
	if err != nil {
		return dst, fmt.Errorf("raft entry %d of %d bytes: %w", e.GetIndex(), len(data), err)
	}
	return append(dst, out...), nil
}

// decodeEntry reads one entry; the bytes of its data are its own.
func decodeEntry(c *batch.Codecs, b batch.Batch) (*pb.Entry, error) {
	var e *pb.Entry
	for r, err := range c.Records(b, int64(len(b))) {
		if err != nil {
			return nil, fmt.Errorf("raft entry at offset %d: %w", b.BaseOffset(), err)
		}
		if e != nil || len(r.Key) > 1 || b.LeaderEpoch() < 0 {
			return nil, fmt.Errorf("%w: the batch at offset %d of the raft log is not one entry", ErrCorrupt, b.BaseOffset())
		}
		e = &pb.Entry{Index: new(uint64(r.Offset) + 1), Term: new(uint64(b.LeaderEpoch())), Type: pb.EntryNormal.Enum()}
		if len(r.Key) == 1 {
			e.Type = pb.EntryType(r.Key[0]).Enum()
		}
		if len(r.Value) > 0 {
			e.Data = append([]byte(nil), r.Value...)
		}
	}
	if e == nil {
		return nil, fmt.Errorf("%w: the batch at offset %d of the raft log has no entry", ErrCorrupt, b.BaseOffset())
	}
	return e, nil
}

// eachBatch walks over whole batches that lie one behind another; it checks
// their lengths and checksums.
func eachBatch(data []byte, f func(batch.Batch) error) error {
	for len(data) > 0 {
		n, err := batch.Peek(data)
		if err != nil {
			return err
		}
		if n > len(data) {
			return fmt.Errorf("%w: batch of %d bytes where %d are left", ErrCorrupt, n, len(data))
		}
		b := batch.Batch(data[:n:n])
		if err := b.Check(); err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
