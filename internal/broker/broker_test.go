package broker

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

// world is a broker on a disk in memory, with metadata as the test says.
type world struct {
	t   *testing.T
	b   *Broker
	img *image.Image
	mem *vfs.Mem
}

func newWorld(t *testing.T, props map[string]string) *world {
	t.Helper()
	all := config.Default()
	maps.Copy(all, props)
	settings, _, err := config.Load(all)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, img: image.Empty(), mem: vfs.NewMem()}
	src := rand.New(rand.NewPCG(1, 2))
	f, err := storage.OpenFolder(storage.FolderConfig{
		FS: w.mem, Path: "/data", ClusterID: model.UUID{1}, NodeID: 1,
		NewID: func() model.UUID { return model.RandomUUID(src.Uint64) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.b = New(Config{
		NodeID: 1, Settings: settings, Folders: []*storage.Folder{f}, Codecs: batch.NewCodecs(),
		Rand: rand.New(rand.NewPCG(3, 4)), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err := w.b.Load(w.img); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.b.Close() })
	return w
}

// apply gives the broker these records as one step.
func (w *world) apply(recs ...record.Metadata) {
	w.t.Helper()
	next, delta, err := w.img.Apply(w.img.Offset()+1, 1, recs)
	if err != nil {
		w.t.Fatal(err)
	}
	w.img = next
	w.b.Apply(next, delta)
}

func topicRecord(name string, id model.UUID) record.Metadata {
	return &record.TopicRecord{Name: name, TopicID: id}
}

// partitionRecord is partition 0 with node 1 as its leader.
func partitionRecord(id model.UUID, epoch int32, replicas ...int32) record.Metadata {
	r := record.NewPartitionRecord()
	r.PartitionID, r.TopicID, r.Replicas, r.ISR, r.Leader, r.LeaderEpoch, r.PartitionEpoch = 0, id, replicas, replicas, replicas[0], epoch, epoch
	r.Directories = make([]model.UUID, len(replicas))
	return r
}

func plainBatch() []byte {
	b := batch.NewCodecs().NewBuilder(batch.Plain(0, model.NoEpoch))
	b.Add(time.Now().UnixMilli(), nil, []byte("x"))
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return out
}

// A broker that is behind gets the end of a topic and the beginning of another with
// its name in one step.
func TestATopicMadeAgainInOneStepWorks(t *testing.T) {
	w := newWorld(t, nil)
	id := model.UUID{9}
	w.apply(topicRecord("t", id), partitionRecord(id, 0, 1))
	for i := range 20 { // a step's topics come in no order
		next := model.UUID{10, byte(i)}
		w.apply(&record.RemoveTopicRecord{TopicID: id}, topicRecord("t", next), partitionRecord(next, 0, 1))
		id = next
		topic := w.b.Topic("t")
		if topic == nil || topic.ID != id {
			t.Fatalf("round %d: the name leads to %+v", i, topic)
		}
		if _, err := topic.Partition(0).Lead(model.NoEpoch); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// A request's time may run out while its batch is being written: it counts for the
// wait that comes after.
func TestAWriteGivenUpWhileItIsOnItsWayToTheDiskEnds(t *testing.T) {
	w := newWorld(t, nil)
	id := model.UUID{9}
	w.apply(topicRecord("t", id), partitionRecord(id, 0, 1, 2)) // node 2 never fetches
	p := w.b.Topic("t").Partition(0)
	done := make(chan error, 2)
	wr := NewWrite(func(w *Write) { done <- w.Err })
	wr.Acks = AcksAll
	wr.Written = func(w *Write) { w.Abandon(ErrTimeout) } // not parked yet
	p.Write(wr, plainBatch(), time.Now().UnixMilli())
	select {
	case err := <-done:
		if err != ErrTimeout {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the write waits for ever")
	}
	wr.Written = nil // and may be used again
	p.Write(wr, plainBatch(), time.Now().UnixMilli())
	wr.Abandon(ErrTimeout)
	if err := <-done; err != ErrTimeout {
		t.Fatal(err)
	}
	if len(done) != 0 {
		t.Fatal("finished twice")
	}
}

// A fetch that read before the leadership went and parks after must not sleep on.
func TestParkingAfterARoleChangeFiresAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	id := model.UUID{9}
	w.apply(topicRecord("t", id), partitionRecord(id, 0, 1, 2))
	p := w.b.Topic("t").Partition(0)
	saw := p.Read(Read{MaxBytes: 1, Replica: -1, Epoch: model.NoEpoch, LastEpoch: model.NoEpoch})
	change := record.NewPartitionChangeRecord()
	change.PartitionID, change.TopicID = 0, id
	change.Leader = 2
	w.apply(change)
	fired := make(chan struct{})
	p.Park(&Poll{Fire: func() { close(fired) }}, &saw)
	select {
	case <-fired:
	default:
		t.Fatal("the poll is parked, although its answer is another by now")
	}
}

// What a coordinator is told of an append that failed in part: that, and nothing more.
func TestACoordinatorsAppendThatFailsInPartIsNotCommitted(t *testing.T) {
	w := newWorld(t, nil)
	id := model.UUID{9}
	w.apply(topicRecord("t", id), partitionRecord(id, 0, 1))
	p := w.b.Topic("t").Partition(0)
	var written []error
	log := shardLog{p}
	log.Append([]batch.Batch{{1, 2, 3}, plainBatch()}, 0,
		func(_ model.Offset, err error) { written = append(written, err) },
		func(error) { t.Error("told that it is committed") })
	if err := p.log.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	landed := make(chan error, 1) // after what waited before it
	log.Append([]batch.Batch{plainBatch(), plainBatch()}, 0, func(model.Offset, error) {}, func(err error) { landed <- err })
	if err := <-landed; err != nil {
		t.Fatal(err)
	}
	if len(written) != 1 || written[0] == nil {
		t.Fatalf("written: %v, want one error", written)
	}
}
