package quorum

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/vfs"
)

var testCodecs = batch.NewCodecs()

func TestSingleVoterDecidesAndSurvivesRestart(t *testing.T) {
	fs := vfs.NewMem()
	n := startNode(t, testConfig(fs, 1, 1))
	epoch := joinBroker(n, 1, 1)
	resp := do[*kmsg.CreateTopicsResponse](n, createTopics("a", "b"))
	for _, topic := range resp.Topics {
		if topic.ErrorCode != 0 {
			t.Fatalf("create %s: %d", topic.Topic, topic.ErrorCode)
		}
	}
	img := n.q.Metadata().Image()
	b, ok := img.Broker(1)
	if !ok || int64(b.Epoch) != epoch || b.Fenced {
		t.Fatalf("broker %+v, registered with epoch %d", b, epoch)
	}
	if hw := n.q.Metadata().HighWatermark(); hw != img.Offset()+1 {
		t.Fatalf("high watermark %d, image at %d", hw, img.Offset())
	}
	want := dump(img)
	if got := dump(rebuilt(t, n.q.Metadata())); got != want {
		t.Fatalf("image from the log:\n%s\nlive image:\n%s", got, want)
	}
	n.close()

	n = startNode(t, testConfig(fs, 1, 2))
	defer n.close()
	// The new process of the same node takes the place of the old one at once.
	if again := joinBroker(n, 1, 2); again <= epoch {
		t.Fatalf("epoch %d after %d", again, epoch)
	}
	if got := topicNames(n.q.Metadata().Image()); fmt.Sprint(got) != "[a b]" {
		t.Fatalf("topics %v", got)
	}
	if got := n.q.Status(); got.Leader != 1 || !got.Active || got.Epoch != 2 {
		t.Fatalf("status %+v", got)
	}
}

func TestFirstRecordsAreThoseOfKafka(t *testing.T) {
	n := startNode(t, testConfig(vfs.NewMem(), 1, 1))
	defer n.close()
	joinBroker(n, 1, 1)
	data, err := n.q.Metadata().Read(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = eachBatch(data, func(b batch.Batch) error {
		if b.LeaderEpoch() != 1 || b.Codec() != batch.None {
			t.Errorf("batch at %d: epoch %d, codec %s", b.BaseOffset(), b.LeaderEpoch(), b.Codec())
		}
		for r, err := range testCodecs.Records(b, 1<<20) {
			if err != nil {
				return err
			}
			if b.Control() {
				typ, err := batch.ParseControlKey(r.Key)
				if err != nil {
					return err
				}
				got = append(got, fmt.Sprint(r.Offset, " ", typ))
			}
		}
		recs, err := decodeBatch(testCodecs, b)
		for i, r := range recs {
			got = append(got, fmt.Sprintf("%d type %d", int(b.BaseOffset())+i, r.Type()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"0 LEADER_CHANGE", "1 KRAFT_VERSION", "2 KRAFT_VOTERS",
		"3 type 23", "4 type 12", "5 type 12", "6 type 4", "7 type 12", "8 type 12", "9 type 12", "10 type 12", "11 type 24",
		"12 type 27", "13 type 0", "14 type 17",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("records\n%q\nexpected\n%q", got, want)
	}
}

func TestManyRequestsShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		n := startNode(t, testConfig(fs, 1, 1))
		joinBroker(n, 1, 1)
		const count = 500
		var syncs atomic.Int32
		fs.OnOp(func(op vfs.Op) {
			if op.Kind == vfs.OpSync && strings.Contains(op.Path, "/raft/") {
				syncs.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
		var wg sync.WaitGroup
		for i := range count {
			wg.Go(func() {
				resp, err := n.q.Do(context.Background(), createTopics(fmt.Sprintf("topic-%d", i)), controller.Requester{})
				if err != nil || resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
					t.Errorf("topic %d: %v %+v", i, err, resp)
				}
			})
		}
		wg.Wait()
		fs.OnOp(nil)
		if got := syncs.Load(); got > 3 {
			t.Errorf("%d requests took %d syncs", count, got)
		}
		if got := n.q.Metadata().Image().NumTopics(); got != count {
			t.Errorf("%d topics", got)
		}
		n.close()
	})
}

func TestNextLeadsAFollowerThroughEveryImage(t *testing.T) {
	n := startNode(t, testConfig(vfs.NewMem(), 1, 1))
	defer n.close()
	m := n.q.Metadata()
	ctx, cancel := within(t)
	defer cancel()
	img := image.Empty()
	topics := map[string]bool{}
	joinBroker(n, 1, 1)
	go func() {
		for i := range 20 {
			do[*kmsg.CreateTopicsResponse](n, createTopics(fmt.Sprint("t", i)))
		}
	}()
	for len(topics) < 20 {
		if err := m.Wait(ctx, img.Offset()+1); err != nil {
			t.Fatal(err)
		}
		next, delta, err := m.Next(img, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if delta == nil {
			delta = image.Diff(img, next)
		}
		for _, d := range delta.Topics {
			if d.Created {
				topics[d.Name] = true
			}
		}
		img = next
	}
	if got := dump(img); got != dump(rebuilt(t, m)) {
		t.Errorf("image differs from the log's:\n%s", got)
	}
}

func TestSnapshotsTrimTheLogs(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs, 1, 1)
	cfg.SnapshotBytes, cfg.SegmentBytes = 20_000, 10_000
	n := startNode(t, cfg)
	epoch := joinBroker(n, 1, 1)
	alloc := kmsg.NewPtrAllocateProducerIDsRequest()
	alloc.BrokerID, alloc.BrokerEpoch = 1, epoch
	for range 3000 {
		do[*kmsg.AllocateProducerIDsResponse](n, alloc)
	}
	m := n.q.Metadata()
	eventually(t, "the log is trimmed", func() bool { return m.StartOffset() > 0 })
	if n.q.rlog.trim.index == 0 {
		t.Error("the Raft log is not trimmed")
	}
	var snap *SnapshotError
	if _, err := m.Read(0, 1000); !errors.As(err, &snap) {
		t.Errorf("reading what was trimmed: %v", err)
	}
	want := dump(m.Image())
	if got := dump(rebuilt(t, m)); got != want {
		t.Errorf("from snapshot and log:\n%s\nlive:\n%s", got, want)
	}
	n.close()
	q, err := Open(func() Config { c := cfg; c.Controller = testController(1); return c }())
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(q.Metadata().Image()); got != want {
		t.Errorf("after reopening:\n%s\nbefore:\n%s", got, want)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func TestMetadataLogIsRebuiltWhenItIsLost(t *testing.T) {
	fs := vfs.NewMem()
	n := startNode(t, testConfig(fs, 1, 1))
	joinBroker(n, 1, 1)
	do[*kmsg.CreateTopicsResponse](n, createTopics("a", "b", "c"))
	want := dump(n.q.Metadata().Image())
	end := n.q.Metadata().HighWatermark()
	data, err := n.q.Metadata().Read(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	n.close()
	for _, suffix := range []string{".log", ".index", ".timeindex"} {
		if err := fs.Remove("/data/__cluster_metadata-0/00000000000000000000" + suffix); err != nil {
			t.Fatal(err)
		}
	}
	n = startNode(t, testConfig(fs, 1, 2))
	defer n.close()
	ctx, cancel := within(t)
	defer cancel()
	if err := n.q.Metadata().Wait(ctx, end); err != nil {
		t.Fatal(err)
	}
	again, err := n.q.Metadata().Read(0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(data) {
		t.Error("the rebuilt log has other bytes")
	}
	if got := topicNames(n.q.Metadata().Image()); len(got) != 3 {
		t.Errorf("topics %v; before:\n%s", got, want)
	}
}

func TestDoTellsWhyThereIsNoAnswer(t *testing.T) {
	n := startNode(t, testConfig(vfs.NewMem(), 1, 1))
	joinBroker(n, 1, 1)
	ctx, cancel := within(t)
	defer cancel()
	_, err := n.q.Do(ctx, kmsg.NewPtrFetchRequest(), controller.Requester{})
	var unsupported *controller.UnsupportedError
	if !errors.As(err, &unsupported) {
		t.Errorf("a Fetch is decided: %v", err)
	}
	gone, stop := context.WithCancel(ctx)
	stop()
	if _, err := n.q.Do(gone, createTopics("x"), controller.Requester{}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	n.close()
	if _, err := n.q.Do(ctx, createTopics("y"), controller.Requester{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestNewAddressesOfVotersGoToTheLog(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs, 1, 1)
	n := startNode(t, cfg)
	joinBroker(n, 1, 1)
	n.close()
	cfg.Voters[0].Port = 19093
	n = startNode(t, cfg)
	joinBroker(n, 1, 1)
	if got := n.q.Status().Voters[0].Port; got != 19093 {
		t.Errorf("voter's port %d", got)
	}
	n.close()
	n = startNode(t, cfg)
	joinBroker(n, 1, 2)
	defer n.close()
	data, err := n.q.Metadata().Read(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var voters []string // epoch and port of each Voters record
	err = eachBatch(data, func(b batch.Batch) error {
		if !b.Control() {
			return nil
		}
		for r, err := range testCodecs.Records(b, 1<<20) {
			if err != nil {
				return err
			}
			if typ, err := batch.ParseControlKey(r.Key); err != nil || typ != batch.KRaftVoters {
				continue
			}
			var v record.VotersRecord
			if err := v.Read(r.Value, 0); err != nil {
				return err
			}
			voters = append(voters, fmt.Sprint(b.LeaderEpoch(), ":", v.Voters[0].Endpoints[0].Port))
		}
		return nil
	})
	if err != nil || fmt.Sprint(voters) != "[1:9093 2:19093]" {
		t.Errorf("voters records %v, %v", voters, err)
	}
}

func TestForeignMetadataLogIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/data/__cluster_metadata-0", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFileSync(fs, "/data/__cluster_metadata-0/00000000000000000000.log", []byte("something"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, testConfig(fs, 1, 1)); !errors.Is(err, ErrForeign) {
		t.Fatalf("opened: %v", err)
	}
}

func TestVoterWithAnotherDirectoryIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	startNode(t, testConfig(fs, 1, 1)).close()
	cfg := testConfig(fs, 1, 1)
	cfg.DirectoryID = model.UUID{9}
	cfg.Voters[0].DirectoryID = cfg.DirectoryID
	if _, err := tryStart(t, cfg); err == nil {
		t.Fatal("a node with another directory id took over the votes of this one")
	}
}
