// Package node puts a node together: it turns a configuration into parts, starts
// them in order, and stops them in the reverse order. It has no rules of its
// own; read Open to see what a node consists of.
//
// Everything is passed down from here, the file system, the network, the clock's
// source of randomness, the logger, the metrics: nothing below is global, so ten
// nodes run in one process.
package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/api"
	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/link"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/quorum"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// Network is how a node listens. The zero Config uses the operating system's.
type Network interface {
	Listen(addr string) (net.Listener, error)
}

// Config is what a node is made of.
type Config struct {
	Settings *config.Config
	FS       vfs.FS       // nil: the operating system's
	Network  Network      // nil: the operating system's
	Log      *slog.Logger // nil: none
	// Seed makes ids and choices repeatable in tests; 0 draws a random one.
	Seed uint64
	// Progress, if not nil, is told how many logs are open while the node starts.
	Progress func(open, total int)
}

// Node is a running node.
type Node struct {
	cfg     Config
	rand    *mathrand.Rand // start-up only; parts get sources of their own
	metrics *metric.Registry
	codecs  *batch.Codecs

	clusterID model.UUID
	folders   []*storage.Folder // log.dirs, in order
	meta      *storage.Folder   // metadata.log.dir; one of folders, or by itself
	ports     []*port
	http      *httpServer
	budget    *wire.Budget    // of all ports together
	limits    [2]*wire.Limits // of the broker's ports together, of the controller's
	quorum    *quorum.Quorum
	link      *link.Link
	broker    *broker.Broker

	stop   context.CancelFunc // ends everything that runs
	runs   sync.WaitGroup
	failed chan error // the first part that failed
	once   sync.Once  // Close
	closed error
}

// Open starts a node and returns when it serves clients. ctx bounds the start
// only. On an error nothing is left running, listening or locked.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, metrics: metric.New(), codecs: batch.NewCodecs(), failed: make(chan error, 8)}
	n.defaults()
	s := cfg.Settings
	n.budget = wire.NewBudget(requestBudget(s))
	for i := range n.limits {
		n.limits[i] = wire.NewLimits(wire.LimitsConfig{
			MaxConns:       int(s.Int(config.MaxConnections)),
			MaxConnsPerIP:  int(s.Int(config.MaxConnectionsPerIP)),
			PerIPOverrides: s.PerIPOverrides(),
		})
	}
	if !s.IsBroker() || !s.IsController() {
		return nil, errors.New("process.roles: only broker,controller together is supported: a node that is one of them alone needs a cluster, which is not there yet")
	}
	if v := s.Voters(); len(v) > 1 {
		return nil, fmt.Errorf("controller.quorum.voters: %d controllers are named, but only one is supported yet", len(v))
	}
	for _, step := range []func(context.Context) error{
		n.listen,      // first: a taken port is the commonest mistake
		n.openFolders, // then the folders' locks and identities
		n.startQuorum, // the metadata log
		n.startBroker, // follows it, opens the partitions
		n.unfence,     // the cluster counts on it
		n.serve,       // clients, which wait in the sockets' backlog, are let in
	} {
		if err := step(ctx); err != nil {
			n.Close(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	return n, nil
}

// requestBudget is queued.max.request.bytes, 64 MiB where Kafka has no bound.
func requestBudget(s *config.Config) int64 {
	if n := s.Long(config.QueuedMaxRequestBytes); n > 0 {
		return n
	}
	return 64 << 20
}

func (n *Node) defaults() {
	if n.cfg.FS == nil {
		n.cfg.FS = vfs.OS()
	}
	if n.cfg.Network == nil {
		n.cfg.Network = osNetwork{}
	}
	if n.cfg.Log == nil {
		n.cfg.Log = slog.New(slog.DiscardHandler)
	}
	seed := n.cfg.Seed
	if seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		seed = binary.LittleEndian.Uint64(b[:])
	}
	n.rand = mathrand.New(mathrand.NewPCG(seed, uint64(n.cfg.Settings.NodeID())))
}

// source makes a generator for one part, which will be its only user.
func (n *Node) source() *mathrand.Rand {
	return mathrand.New(mathrand.NewPCG(n.rand.Uint64(), n.rand.Uint64()))
}

// run keeps a part going until the node stops; its failure is the node's.
func (n *Node) run(ctx context.Context, name string, f func(context.Context) error) {
	n.runs.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.Error("a part of the node failed; the node stops", "part", name, "error", err)
			select {
			case n.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

// Failed gives the error of a part that ended by itself. The node must be closed then.
func (n *Node) Failed() <-chan error { return n.failed }

func (n *Node) startQuorum(context.Context) error {
	s := n.cfg.Settings
	incarnation := model.RandomUUID(n.rand.Uint64)
	ctl := controller.New(controller.Config{
		NodeID:            s.NodeID(),
		ClusterID:         n.clusterID,
		Incarnation:       incarnation,
		Endpoints:         n.endpoints(s.ControllerListeners()),
		Supported:         features(),
		NumPartitions:     s.Int(config.NumPartitions),
		ReplicationFactor: int16(s.Int(config.DefaultReplicationFactor)),
		MinInsync:         s.Int(config.MinInsyncReplicas),
		UncleanElection:   s.Bool(config.UncleanLeaderElectionEnable),
		TopicDeletionOff:  !s.Bool(config.DeleteTopicEnable),
		SessionTimeout:    millis(s.Int(config.BrokerSessionTimeoutMs)),
		Configs:           n.configs(),
	})
	q, err := quorum.Open(n.quorumConfig(ctl))
	if err != nil {
		return err
	}
	n.quorum = q
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.run(ctx, "quorum", q.Run)
	return nil
}

func (n *Node) quorumConfig(ctl *controller.Controller) quorum.Config {
	s := n.cfg.Settings
	self := quorum.Voter{ID: s.NodeID(), DirectoryID: n.meta.ID()}
	if eps := n.endpoints(s.ControllerListeners()); len(eps) > 0 {
		self.Listener, self.Host, self.Port = eps[0].Name, eps[0].Host, eps[0].Port
	}
	return quorum.Config{
		FS:               n.cfg.FS,
		Dir:              n.meta.Path(),
		NodeID:           s.NodeID(),
		DirectoryID:      n.meta.ID(),
		ClusterID:        n.clusterID,
		Voters:           []quorum.Voter{self},
		Controller:       ctl,
		ElectionTimeout:  millis(s.Int(config.ControllerQuorumElectionTimeoutMs)),
		SnapshotBytes:    s.Long(config.MetadataLogMaxRecordBytesBetweenSnapshots),
		SnapshotInterval: time.Duration(s.Long(config.MetadataLogMaxSnapshotIntervalMs)) * time.Millisecond,
		MaxIdle:          millis(s.Int(config.MetadataMaxIdleIntervalMs)),
		SegmentBytes:     s.Int(config.MetadataLogSegmentBytes),
		Rand:             n.source(),
		Codecs:           n.codecs,
		Metrics:          n.metrics,
		Log:              n.cfg.Log,
	}
}

// startBroker registers the broker and opens its partitions.
func (n *Node) startBroker(ctx context.Context) error {
	s := n.cfg.Settings
	n.broker = broker.New(broker.Config{
		NodeID:     s.NodeID(),
		Settings:   s,
		Folders:    n.folders,
		Codecs:     n.codecs,
		Controller: n,
		Rand:       n.source(),
		Metrics:    n.metrics,
		Log:        n.cfg.Log,
		Machines:   map[string]func() coord.Machine{model.OffsetsTopic: n.groups()},
		Progress:   n.cfg.Progress,
	})
	n.link = link.New(link.Config{
		Registration:    n.registration(),
		Controller:      n,
		Source:          n.quorum.Metadata(),
		Follower:        n.broker,
		Heartbeat:       millis(s.Int(config.BrokerHeartbeatIntervalMs)),
		RegisterTimeout: millis(s.Int(config.InitialBrokerRegistrationTimeoutMs)),
		Log:             n.cfg.Log,
	})
	run, cancel := context.WithCancel(context.Background())
	stopQuorum := n.stop
	n.stop = func() { cancel(); stopQuorum() }
	n.run(run, "link", n.link.Run)
	if err := n.await(ctx, n.link.Loaded(), "the broker's partitions to open"); err != nil {
		return err
	}
	for _, f := range n.folders {
		n.run(run, "housekeeping of "+f.Path(), func(ctx context.Context) error { return n.broker.Housekeep(ctx, f) })
		n.run(run, "compaction in "+f.Path(), func(ctx context.Context) error { return n.broker.CleanLogs(ctx, f) })
	}
	return nil
}

// unfence has the controller give the broker its leaderships. It comes before the
// first client is served: one that comes with the port could find no leaders, and
// no broker to put its topic on.
func (n *Node) unfence(ctx context.Context) error {
	n.link.Serve()
	if err := n.await(ctx, n.link.Running(), "the controller to unfence the broker"); err != nil {
		return err
	}
	return n.link.Caught(ctx)
}

func (n *Node) serve(context.Context) error {
	settings := n.cfg.Settings
	for _, p := range n.ports {
		p.api = api.NewServer(api.Config{
			NodeID:       settings.NodeID(),
			ClusterID:    n.clusterID,
			Settings:     settings,
			Broker:       n.broker,
			Controller:   n.link,
			Image:        n.broker.Image,
			OnController: p.controller,
			Rand:         n.source(),
			Log:          n.cfg.Log,
		})
		p.start(n)
	}
	n.http.setReady(true)
	return nil
}

func (n *Node) await(ctx context.Context, done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	case err := <-n.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
	}
}

// Do asks the active controller, which is this node's. It makes Node a
// link.Controller.
func (n *Node) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return n.quorum.Do(ctx, req, controller.Requester{Local: true, Principal: "User:ANONYMOUS"})
}

// Image is the metadata of this moment.
func (n *Node) Image() *image.Image { return n.broker.Image() }

// shutdownGrace is how long connections may take for what they have started.
const shutdownGrace = 5 * time.Second

// Close stops the node: it leaves the cluster, lets requests in work finish,
// flushes and closes the logs. A clean stop makes the next start need no
// recovery. ctx bounds the waiting, not the closing of files.
func (n *Node) Close(ctx context.Context) error {
	n.once.Do(func() { n.closed = n.close(ctx) })
	return n.closed
}

func (n *Node) close(ctx context.Context) error {
	var errs []error
	n.http.setReady(false)
	grace, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	if n.link != nil && isClosed(n.link.Running()) {
		if err := n.link.Leave(grace); err != nil {
			n.cfg.Log.Warn("stopping without the controller's leave", "error", err)
		}
	}
	for _, p := range n.ports {
		p.close(grace)
	}
	if n.stop != nil {
		n.stop()
	}
	n.runs.Wait()
	if n.broker != nil {
		errs = append(errs, n.broker.Close())
	} else {
		for _, f := range n.folders {
			errs = append(errs, f.Close(0))
		}
	}
	if n.quorum != nil {
		errs = append(errs, n.quorum.Close())
	}
	if n.meta != nil && !n.shared() {
		errs = append(errs, n.meta.Close(0))
	}
	n.http.close()
	return errors.Join(errs...)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func millis(n int32) time.Duration { return time.Duration(n) * time.Millisecond }
