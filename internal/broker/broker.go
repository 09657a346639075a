// Package broker drives the parts of a broker that own state on this node: the
// partitions that it hosts, what they wait for, and its block of producer ids.
// The rules are elsewhere and pure (replication, storage's log); this package
// holds the locks, the wake-ups and the order of things.
//
// The one idea: a Partition joins a log (storage), a role (from the metadata
// image) and the replication state, and everything that waits on it, a produce
// for its ack or a long poll for data, is parked on the partition itself and
// woken by the event it waits for: the log grew, a disk flushed, the high
// watermark moved, the role changed. Nothing polls and nothing has a goroutine
// or a timer per partition.
//
// Concurrency: the metadata side (Load, Apply) is called by one goroutine. The
// table of topics is an immutable snapshot behind an atomic pointer, so finding
// a partition takes no lock. A Partition has one mutex, held for a few
// instructions and never across I/O; storage calls back without locks.
// Requests reach a partition only through the api package.
package broker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/metric"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// Controller is how the broker asks the active controller; node supplies it.
type Controller interface {
	Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
}

// Config is what a Broker is made of. All fields are required but Progress and Metrics.
type Config struct {
	NodeID     model.NodeID
	Settings   *config.Config
	Folders    []*storage.Folder // opened, in the order of log.dirs
	Codecs     *batch.Codecs     // shared by the node
	Controller Controller
	Rand       *rand.Rand       // used by the metadata goroutine only
	Metrics    *metric.Registry // may be nil
	Log        *slog.Logger

	// Machines has, for each internal topic that keeps a coordinator's state, what
	// makes its machines.
	Machines map[string]func() coord.Machine

	// Progress, if not nil, is told how many of the logs are open while Load runs.
	Progress func(open, total int)
}

// Broker is the state of one broker. Make one with New, then Load an image once.
type Broker struct {
	cfg Config

	// image is the newest image that the partitions follow.
	image atomic.Pointer[image.Image]

	// topics has the topics with a partition here. Replaced by the metadata
	// goroutine, read by all.
	topics atomic.Pointer[table]

	// epoch is this life's registration offset, 0 until registered.
	epoch atomic.Int64

	ids   producerIDs
	coord coordinators

	// unsound are partitions that this node has come to lead and that the
	// metadata calls recovering. Owned by the metadata goroutine.
	unsound map[*Partition]*image.Partition

	// cleaning has a place for each folder that may be compacted at a time; pace
	// is what all of them share.
	cleaning chan struct{}
	pace     *storage.Pace
}

// New makes a broker that hosts nothing yet.
func New(cfg Config) *Broker {
	b := &Broker{
		unsound:  make(map[*Partition]*image.Partition),
		cfg:      cfg,
		cleaning: make(chan struct{}, max(1, cfg.Settings.Int(config.LogCleanerThreads))),
		pace:     storage.NewPace(cfg.Settings.Float(config.LogCleanerIOMaxBytesPerSecond)),
	}
	b.ids.broker = b
	b.coord.machines = cfg.Machines
	b.coord.shards = make(map[model.TopicPartition]*shard)
	b.image.Store(image.Empty())
	b.topics.Store(new(table))
	return b
}

// Image is the metadata that the broker has taken on.
func (b *Broker) Image() *image.Image { return b.image.Load() }

// NodeID is this node's id.
func (b *Broker) NodeID() model.NodeID { return b.cfg.NodeID }

// SetEpoch tells which registration this life has; link calls it.
func (b *Broker) SetEpoch(e model.BrokerEpoch) { b.epoch.Store(int64(e)) }

// Epoch is the epoch that SetEpoch gave, 0 before.
func (b *Broker) Epoch() model.BrokerEpoch { return model.BrokerEpoch(b.epoch.Load()) }

// Topic finds a topic that has a partition here, nil if there is none.
func (b *Broker) Topic(name string) *Topic {
	t, _ := b.topics.Load().byName.Get(name)
	return t
}

// TopicByID is Topic by id.
func (b *Broker) TopicByID(id model.UUID) *Topic {
	t, _ := b.topics.Load().byID.Get(string(id[:]))
	return t
}

// Close flushes and closes all logs and their folders, so that the next start
// needs no recovery. Nothing may be in flight any more.
func (b *Broker) Close() error {
	b.stopCoordinators()
	var errs []error
	for _, f := range b.cfg.Folders {
		if f.Failed() == nil {
			errs = append(errs, f.CheckpointHighWatermarks(b.highs(f)))
		}
		errs = append(errs, f.Close(b.Epoch()))
	}
	return errors.Join(errs...)
}

// highs lists the high watermarks of the partitions in a folder.
func (b *Broker) highs(f *storage.Folder) iter.Seq2[model.TopicPartition, model.Offset] {
	return func(yield func(model.TopicPartition, model.Offset) bool) {
		for p := range b.hosted(f) {
			if !yield(p.Name(), p.High()) {
				return
			}
		}
	}
}

// hosted lists the partitions that have their logs in a folder.
func (b *Broker) hosted(f *storage.Folder) iter.Seq[*Partition] {
	return func(yield func(*Partition) bool) {
		b.topics.Load().byName.Scan(func(_ string, t *Topic) bool {
			for _, p := range *t.parts.Load() {
				if p != nil && p.log != nil && p.log.Folder() == f && !yield(p) {
					return false
				}
			}
			return true
		})
	}
}
