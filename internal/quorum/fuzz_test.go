package quorum

import (
	"bytes"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/vfs"
)

func FuzzRaftEntry(f *testing.F) {
	for _, e := range []*pb.Entry{
		{Index: new(uint64(1)), Term: new(uint64(1)), Type: pb.EntryNormal.Enum()},
		{Index: new(uint64(7)), Term: new(uint64(3)), Type: pb.EntryNormal.Enum(), Data: []byte("data")},
		{Index: new(uint64(8)), Term: new(uint64(3)), Type: pb.EntryConfChange.Enum(), Data: []byte{1}},
	} {
		b, err := appendEntry(nil, testCodecs.NewBuilder(batch.Plain(0, 0)), e, 5)
		if err != nil {
			f.Fatal(err)
		}
		got, err := decodeEntry(testCodecs, b)
		if err != nil || !proto.Equal(got, e) {
			f.Fatalf("%v was written, %v read: %v", e, got, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := batch.Peek(b); err != nil || n != len(b) || batch.Batch(b).Check() != nil {
			return
		}
		e, err := decodeEntry(testCodecs, b)
		if err == nil && (e.GetIndex() != uint64(batch.Batch(b).BaseOffset())+1 && batch.Batch(b).LastOffsetDelta() == 0) {
			t.Fatalf("entry %d in the batch at %d", e.GetIndex(), batch.Batch(b).BaseOffset())
		}
	})
}

func FuzzFrame(f *testing.F) {
	q := &Quorum{self: voter(1), cfg: testConfig(nil, 1, 1)}
	q.inbox.ready = make(chan struct{}, 1)
	frame := append([]byte{frameVersion}, testCluster[:]...)
	from, to := dirID(2), dirID(1)
	frame = append(append(frame, from[:]...), to[:]...)
	m := &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(voter(2).raftID()), To: new(voter(1).raftID()), Term: new(uint64(4))}
	frame, err := proto.MarshalOptions{}.MarshalAppend(frame, m)
	if err != nil {
		f.Fatal(err)
	}
	if err := q.Receive(frame); err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(frame[:frameHead])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		q.inbox.take()
		if err := q.Receive(b); err != nil {
			return
		}
		for _, m := range q.inbox.take().peers {
			if m.GetTo() != q.self.raftID() {
				t.Fatalf("message for %x", m.GetTo())
			}
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	img, _, err := image.Empty().Apply(0, 1, []record.Metadata{
		&record.FeatureLevelRecord{Name: "metadata.version", FeatureLevel: 33},
		&record.ProducerIdsRecord{BrokerID: 1, NextProducerID: 5000},
	})
	if err != nil {
		f.Fatal(err)
	}
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d", 0o755); err != nil {
		f.Fatal(err)
	}
	id := SnapshotID{End: 2, Epoch: 1}
	if _, err := writeSnapshot(fs, "/d", testCodecs, &snapshotJob{id: id, img: img, voters: []Voter{voter(1)}}); err != nil {
		f.Fatal(err)
	}
	whole, err := vfs.ReadFile(fs, snapshotName("/d", id), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var broken error
		count := 0
		for range snapshotRecords(bytes.NewReader(b), int64(len(b)), testCodecs, &broken) {
			count++
		}
		if bytes.Equal(b, whole) != (broken == nil) && bytes.HasPrefix(whole, b) {
			t.Fatalf("%d records of a snapshot of %d of %d bytes: %v", count, len(b), len(whole), broken)
		}
	})
}
