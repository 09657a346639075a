package quorum

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

var testCluster = model.UUID{1, 2, 3}

// dirID is the directory id of a test node.
func dirID(node int) model.UUID { return model.UUID{0: 0xd1, 15: byte(node)} }

func voter(node int) Voter {
	return Voter{ID: model.NodeID(node), DirectoryID: dirID(node), Listener: "CONTROLLER", Host: fmt.Sprintf("c%d", node), Port: 9093}
}

// A testNode is one quorum on a file system, running.
type testNode struct {
	t    testing.TB
	q    *Quorum
	stop context.CancelFunc
	done chan error
}

func testConfig(fs vfs.FS, node int, seed uint64) Config {
	cfg := Config{
		FS: fs, Dir: "/data", NodeID: model.NodeID(node), DirectoryID: dirID(node), ClusterID: testCluster,
		Voters: []Voter{voter(node)},
		Rand:   rand.New(rand.NewPCG(seed, uint64(node))),
		Log:    slog.New(slog.DiscardHandler),
	}
	if os.Getenv("OTTLA_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return cfg
}

func testController(node int) *controller.Controller {
	var supported []image.FeatureRange
	for _, r := range feature.Supported() {
		supported = append(supported, image.FeatureRange{Name: r.Name, Min: r.Min, Max: r.Max})
	}
	return controller.New(controller.Config{
		NodeID: model.NodeID(node), ClusterID: testCluster, Incarnation: model.UUID{0: 0xcc, 15: byte(node)},
		Endpoints: []image.Endpoint{{Name: "CONTROLLER", Host: fmt.Sprintf("c%d", node), Port: 9093}},
		Supported: supported,
	})
}

// startNode opens and runs a quorum.
func startNode(t testing.TB, cfg Config) *testNode {
	t.Helper()
	n, err := tryStart(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t testing.TB, cfg Config) (*testNode, error) {
	if cfg.Controller == nil {
		cfg.Controller = testController(int(cfg.NodeID))
	}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := cfg.FS.SyncDir("/"); err != nil {
		return nil, err
	}
	q, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &testNode{t: t, q: q, stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- q.Run(ctx) }()
	return n, nil
}

// kill ends the goroutines without closing anything in order.
func (n *testNode) kill() error {
	n.stop()
	return <-n.done
}

func (n *testNode) close() {
	n.t.Helper()
	if err := n.kill(); err != nil {
		n.t.Errorf("run: %v", err)
	}
	if err := n.q.Close(); err != nil {
		n.t.Errorf("close: %v", err)
	}
}

func within(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// do asks for a decision and fails the test if there is none.
func do[R kmsg.Response](n *testNode, req kmsg.Request) R {
	n.t.Helper()
	ctx, cancel := within(n.t)
	defer cancel()
	resp, err := n.q.Do(ctx, req, controller.Requester{Local: true})
	if err != nil {
		n.t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	return resp.(R)
}

func registration(broker int, life byte) *kmsg.BrokerRegistrationRequest {
	req := kmsg.NewPtrBrokerRegistrationRequest()
	req.Version = 4
	req.BrokerID = int32(broker)
	req.ClusterID = testCluster.String()
	req.IncarnationID = model.UUID{0: 0xbb, 1: life, 15: byte(broker)}
	req.LogDirs = [][16]byte{{0: 0xdd, 15: byte(broker)}}
	req.Listeners = []kmsg.BrokerRegistrationRequestListener{{Name: "PLAINTEXT", Host: "b", Port: 9092}}
	for _, r := range feature.Supported() {
		req.Features = append(req.Features, kmsg.BrokerRegistrationRequestFeature{Name: r.Name, MinSupportedVersion: r.Min, MaxSupportedVersion: r.Max})
	}
	return req
}

// joinBroker registers and unfences a broker and gives its epoch.
func joinBroker(n *testNode, broker int, life byte) int64 {
	n.t.Helper()
	reg := do[*kmsg.BrokerRegistrationResponse](n, registration(broker, life))
	if reg.ErrorCode != 0 {
		n.t.Fatalf("registration: %d", reg.ErrorCode)
	}
	hb := kmsg.NewPtrBrokerHeartbeatRequest()
	hb.BrokerID, hb.BrokerEpoch = int32(broker), reg.BrokerEpoch
	hb.CurrentMetadataOffset = int64(n.q.Metadata().Image().Offset())
	if resp := do[*kmsg.BrokerHeartbeatResponse](n, hb); resp.ErrorCode != 0 || resp.IsFenced || !resp.IsCaughtUp {
		n.t.Fatalf("heartbeat: %+v", resp)
	}
	return reg.BrokerEpoch
}

func createTopics(names ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 7
	for _, name := range names {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, 1
		req.Topics = append(req.Topics, topic)
	}
	return req
}

// dump is an image as text: its snapshot's records, one a line.
func dump(img *image.Image) string {
	var b strings.Builder
	fmt.Fprintf(&b, "offset %d epoch %d\n", img.Offset(), img.Epoch())
	for r := range img.Records() {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// rebuilt is the image as an observer makes it: the newest snapshot if the log
// does not go back to the begin, then every batch.
func rebuilt(t testing.TB, m *MetadataLog) *image.Image {
	t.Helper()
	img := image.Empty()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if time.Now().After(deadline) {
			t.Fatal("the log cannot be read to its end")
		}
		data, err := m.Read(img.Offset()+1, 1<<20)
		if snap, ok := err.(*SnapshotError); ok {
			loaded, _, err := loadSnapshot(m.fs, snapshotName(m.dir, snap.ID), testCodecs, snap.ID)
			if errors.Is(err, fs.ErrNotExist) {
				continue // replaced by a newer one meanwhile
			}
			if err != nil {
				t.Fatal(err)
			}
			img = loaded
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			return img
		}
		if img, _, err = replay(testCodecs, img, data); err != nil {
			t.Fatal(err)
		}
	}
}

// topicNames lists the topics of an image.
func topicNames(img *image.Image) []string {
	var out []string
	for topic := range img.Topics() {
		out = append(out, topic.Name)
	}
	slices.Sort(out)
	return out
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
