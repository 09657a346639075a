package broker

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// ErrNoCoordinator means that the internal topic of a coordinator is not there.
var ErrNoCoordinator = errors.New("the coordinator's topic does not exist yet")

// coordinators are the Shards of this node: one for each partition of an
// internal topic that it leads, in the epoch in which it leads.
type coordinators struct {
	// machines has what to run on which topic; never changed after New.
	machines map[string]func() coord.Machine

	mu     sync.Mutex
	shards map[model.TopicPartition]*shard
}

type shard struct {
	*coord.Shard
	epoch model.Epoch
}

// Coordinator finds who decides about a group or transactional id, by the topic
// that keeps its state.
func (b *Broker) Coordinator(topic, id string) (*coord.Shard, error) {
	t, ok := b.Image().Topic(topic)
	if !ok {
		return nil, ErrNoCoordinator
	}
	return b.CoordinatorOf(model.TopicPartition{Topic: topic, Partition: CoordinatorPartition(id, t.NumPartitions())})
}

// CoordinatorOf is Coordinator by partition.
func (b *Broker) CoordinatorOf(tp model.TopicPartition) (*coord.Shard, error) {
	b.coord.mu.Lock()
	defer b.coord.mu.Unlock()
	if s := b.coord.shards[tp]; s != nil {
		return s.Shard, nil
	}
	return nil, coord.ErrNotCoordinator
}

// Coordinators lists the Shards of a topic that this node runs.
func (b *Broker) Coordinators(topic string) []*coord.Shard {
	b.coord.mu.Lock()
	defer b.coord.mu.Unlock()
	var out []*coord.Shard
	for tp, s := range b.coord.shards {
		if tp.Topic == topic {
			out = append(out, s.Shard)
		}
	}
	return out
}

// CoordinatorPartition is where Kafka keeps the state of an id among n
// partitions: Java's hash of the string, without its sign (KAFKA.md 8).
func CoordinatorPartition(id string, n int) int32 {
	var h int32
	for _, r := range id { // Java hashes UTF-16 code units
		if r >= 0x10000 {
			r -= 0x10000
			h = 31*h + (0xd800 + r>>10)
			r = 0xdc00 + r&0x3ff
		}
		h = 31*h + r
	}
	if h == -1<<31 {
		h = 0
	}
	return max(h, -h) % int32(n)
}

// coordinate starts and ends the Shard of a partition as its role says. Called
// by the metadata goroutine.
func (b *Broker) coordinate(p *Partition) {
	machine := b.coord.machines[p.Topic.Name]
	if machine == nil {
		return
	}
	r := p.role.Load()
	b.coord.mu.Lock()
	have := b.coord.shards[p.Name()]
	if have != nil && r.Leading && have.epoch == r.Epoch {
		b.coord.mu.Unlock()
		return
	}
	if have != nil {
		delete(b.coord.shards, p.Name())
	}
	if r.Leading {
		b.coord.shards[p.Name()] = &shard{epoch: r.Epoch, Shard: coord.NewShard(coord.ShardConfig{
			Machine:    machine,
			Log:        shardLog{p},
			Epoch:      r.Epoch,
			Image:      b.Image,
			Now:        time.Now,
			Rand:       rand.New(rand.NewPCG(b.cfg.Rand.Uint64(), b.cfg.Rand.Uint64())),
			Codecs:     b.cfg.Codecs,
			BatchBytes: max(16<<10, int(p.Topic.Settings().MaxMessageBytes)/2),
			Logger:     b.cfg.Log.With("partition", p.Name().String()),
		})}
	}
	b.coord.mu.Unlock()
	if have != nil {
		have.Close()
	}
}

// stopCoordinators ends all Shards.
func (b *Broker) stopCoordinators() {
	b.coord.mu.Lock()
	all := b.coord.shards
	b.coord.shards = make(map[model.TopicPartition]*shard)
	b.coord.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
}

// tellCoordinators hands them what is new in the metadata.
func (b *Broker) tellCoordinators(d *image.Delta) {
	b.coord.mu.Lock()
	defer b.coord.mu.Unlock()
	for _, s := range b.coord.shards {
		s.Changed(d)
	}
}

// Decide asks a coordinator. It makes Shard.Do fit callers that found none.
func Decide(s *coord.Shard, err error, req kmsg.Request, who coord.Client, done func(kmsg.Response, error)) {
	if err != nil {
		done(nil, err)
		return
	}
	s.Do(req, who, done)
}

// shardLog is a partition as a coordinator sees it.
type shardLog struct{ p *Partition }

// Append appends batches; see coord.Log.
func (l shardLog) Append(batches []batch.Batch, epoch model.Epoch, written func(model.Offset, error), committed func(error)) {
	left := len(batches)
	var mu sync.Mutex
	var failed error
	var told bool
	one := func(end model.Offset, err error) {
		mu.Lock()
		left--
		if err != nil && failed == nil {
			failed = err
		}
		last := left == 0 && !told
		told = told || last
		err = failed
		mu.Unlock()
		if last {
			written(end, err)
		}
	}
	appends := make([]*storage.Append, len(batches))
	for i, b := range batches {
		w := NewWrite(nil)
		inFile := false
		w.Written = func(w *Write) { inFile = true; one(w.End, nil) }
		w.Finish = func(w *Write) {
			switch {
			case !inFile:
				one(w.End, w.Err)
			case i == len(batches)-1:
				mu.Lock()
				whole := failed == nil
				mu.Unlock()
				if whole {
					committed(w.Err)
				}
			}
		}
		w.p, w.Acks, w.Batch, w.Epoch, w.Append.Err = l.p, AcksAll, b, epoch, nil
		appends[i] = &w.Append
	}
	l.p.log.AppendAll(appends...)
}

// Committed waits for the high watermark; see coord.Log.
func (l shardLog) Committed(offset model.Offset, f func(error)) {
	p := l.p
	w := NewWrite(func(w *Write) { f(w.Err) })
	w.p, w.Acks, w.End = p, AcksAll, offset
	p.mu.Lock()
	switch {
	case p.lead == nil:
		p.mu.Unlock()
		f(ErrNotLeader)
	case p.lead.High() >= offset:
		p.mu.Unlock()
		f(nil)
	default:
		p.onHigh.push(w)
		p.mu.Unlock()
	}
}

// Read reads whole batches; see coord.Log.
func (l shardLog) Read(from model.Offset, size int64) ([]byte, error) {
	chunk, err := l.p.log.Read(from, l.p.log.EndOffset(), size, true)
	if err != nil {
		return nil, err
	}
	defer chunk.Close()
	data := make([]byte, chunk.Len())
	if len(data) > 0 {
		_, err = chunk.ReadAt(data, 0)
	}
	return data, err
}

// Start is where the log begins.
func (l shardLog) Start() model.Offset { return l.p.log.StartOffset() }

// End is where the log ends.
func (l shardLog) End() model.Offset { return l.p.log.EndOffset() }
