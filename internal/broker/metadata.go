package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// Resource types of configs (KAFKA.md 3.12).
const (
	topicResource  = 2
	brokerResource = 4
)

// Load takes the first image: it opens the log of every partition that the
// image puts here, several at a time per folder, and marks logs of partitions
// that are not ours as strays. Called once, before requests arrive.
func (b *Broker) Load(img *image.Image) error {
	b.image.Store(img)
	t := new(table)
	type job struct {
		topic *image.Topic
		index int32
		part  *image.Partition
	}
	var jobs []job
	for topic := range img.Topics() {
		for index, part := range topic.Partitions() {
			if slices.Contains(part.Replicas, b.cfg.NodeID) {
				jobs = append(jobs, job{topic, index, part})
			}
		}
	}
	if err := b.markStrays(img); err != nil {
		return err
	}
	parts := make([]*Partition, len(jobs))
	topics := make([]*Topic, len(jobs))
	for i, j := range jobs { // topics first, one object each
		if i > 0 && topics[i-1].ID == j.topic.ID {
			topics[i] = topics[i-1]
			continue
		}
		topics[i] = b.newTopic(img, j.topic.Name, j.topic.ID)
		t.put(topics[i])
	}
	workers := max(1, int(b.cfg.Settings.Int(config.NumRecoveryThreadsPerDataDir))*len(b.cfg.Folders))
	var wg sync.WaitGroup
	var next, opened atomic.Int64
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
				parts[i] = b.open(topics[i], jobs[i].index, jobs[i].part)
				if n := opened.Add(1); b.cfg.Progress != nil {
					b.cfg.Progress(int(n), len(jobs))
				}
			}
		})
	}
	wg.Wait()
	for i, p := range parts {
		topics[i].setPartition(jobs[i].index, p)
		b.assume(p, jobs[i].part)
	}
	b.topics.Store(t)
	b.reportRecovered()
	return nil
}

// Apply takes the next image. Called by the metadata goroutine, in order.
func (b *Broker) Apply(img *image.Image, d *image.Delta) {
	t := b.topics.Load().clone()
	for id, change := range d.Topics { // first: another topic may have the name already
		if change.Deleted {
			b.drop(t, id)
		}
	}
	for id, change := range d.Topics {
		topic, ok := img.TopicByID(id)
		if change.Deleted || !ok {
			continue
		}
		for index := range change.Partitions {
			part, _ := topic.Partition(index)
			b.change(t, img, topic, index, part)
		}
	}
	for res := range d.Configs {
		switch res.Type {
		case topicResource:
			if topic, ok := t.byName.Get(res.Name); ok {
				b.reconfigure(topic, img)
			}
		case brokerResource:
			t.byName.Scan(func(_ string, topic *Topic) bool {
				b.reconfigure(topic, img)
				return true
			})
		}
	}
	b.topics.Store(t)
	b.image.Store(img)
	b.tellCoordinators(d)
	b.reportRecovered()
}

func (b *Broker) newTopic(img *image.Image, name string, id model.UUID) *Topic {
	topic := &Topic{Name: name, ID: id, codecs: b.cfg.Codecs}
	topic.parts.Store(new([]*Partition))
	topic.settings.Store(newSettings(b.effective(img, name)))
	return topic
}

// effective is a topic's configuration: its own values over this broker's.
func (b *Broker) effective(img *image.Image, topic string) config.Topic {
	return b.cfg.Settings.Topic(img.Config(image.ConfigResource{Type: topicResource, Name: topic}))
}

func (b *Broker) logConfig(t config.Topic) storage.LogConfig {
	return logConfig(t, int64(b.cfg.Settings.Int(config.ProducerIDExpirationMs)))
}

func (b *Broker) reconfigure(topic *Topic, img *image.Image) {
	s := newSettings(b.effective(img, topic.Name))
	topic.settings.Store(s)
	it, ok := img.TopicByID(topic.ID)
	for _, p := range *topic.parts.Load() {
		if p == nil || p.log == nil {
			continue
		}
		p.log.SetConfig(b.logConfig(s.Topic))
		if !ok {
			continue
		}
		if part, ok := it.Partition(p.Index); ok { // min.insync.replicas may have changed
			b.assume(p, part)
		}
	}
}

// change brings one partition to what the image says.
func (b *Broker) change(t *table, img *image.Image, topic *image.Topic, index int32, part *image.Partition) {
	hosted, _ := t.byID.Get(string(topic.ID[:]))
	var p *Partition
	if hosted != nil {
		p = hosted.Partition(index)
	}
	if !slices.Contains(part.Replicas, b.cfg.NodeID) {
		if p != nil {
			hosted.setPartition(index, nil)
			b.remove(p)
		}
		return
	}
	if hosted == nil {
		hosted = b.newTopic(img, topic.Name, topic.ID)
		t.put(hosted)
	}
	if p == nil {
		p = b.open(hosted, index, part)
		hosted.setPartition(index, p)
	}
	b.assume(p, part)
}

// open makes the partition and its log. A partition whose log cannot be had is
// dead from the start: it answers ErrFolder.
func (b *Broker) open(topic *Topic, index int32, part *image.Partition) *Partition {
	p := &Partition{Topic: topic, Index: index, self: b.cfg.NodeID}
	p.role.Store(&Role{Leader: model.NoNode, Epoch: model.NoEpoch})
	folder, err := b.place(p.Name(), part)
	if err == nil {
		p.log, err = folder.Open(p.Name(), topic.ID, storage.LogOptions{Config: b.logConfig(topic.Settings().Topic), Notify: p})
	}
	if err == nil {
		if high, ok := folder.HighWatermark(p.Name()); ok {
			p.high.Store(int64(min(max(high, p.log.StartOffset()), p.log.EndOffset())))
		}
	}
	if err != nil {
		b.cfg.Log.Error("log cannot be opened; the partition is offline here", "partition", p.Name().String(), "error", err)
		p.role.Store(&Role{Leader: model.NoNode, Epoch: part.LeaderEpoch, Dead: fmt.Errorf("%w: %w", ErrFolder, err)})
	}
	return p
}

// place finds the folder of a partition: the one the controller names, the one
// that has it already, or the one with the fewest partitions.
func (b *Broker) place(tp model.TopicPartition, part *image.Partition) (*storage.Folder, error) {
	if i := slices.Index(part.Replicas, b.cfg.NodeID); i >= 0 && i < len(part.Dirs) {
		for _, f := range b.cfg.Folders {
			if f.ID() == part.Dirs[i] {
				return f, f.Failed()
			}
		}
	}
	for _, f := range b.cfg.Folders {
		if f.Has(tp) {
			return f, f.Failed()
		}
	}
	var best *storage.Folder
	for _, f := range b.cfg.Folders {
		if f.Failed() == nil && (best == nil || f.Count() < best.Count()) {
			best = f
		}
	}
	if best == nil {
		return nil, errors.New("no log folder is usable")
	}
	return best, nil
}

// assume gives the partition the role that the image has for it.
func (b *Broker) assume(p *Partition, part *image.Partition) {
	if p.role.Load().Dead != nil {
		return
	}
	r := &Role{Leader: part.Leader, Epoch: part.LeaderEpoch, Version: part.PartitionEpoch, Replicas: part.Replicas, ISR: part.ISR}
	if err := p.setRole(r, int(p.Topic.Settings().MinInsync)); err != nil {
		b.cfg.Log.Error("cannot take the leadership", "partition", p.Name().String(), "epoch", part.LeaderEpoch, "error", err)
		p.retire(fmt.Errorf("%w: %w", ErrFolder, err))
	} else if r.Leading && part.RecoveryState == recovering {
		b.unsound[p] = part
	}
	b.coordinate(p)
}

// drop forgets a deleted topic and deletes its logs.
func (b *Broker) drop(t *table, id model.UUID) {
	topic, ok := t.byID.Get(string(id[:]))
	if !ok {
		return
	}
	t.remove(topic)
	for _, p := range *topic.parts.Load() {
		if p != nil {
			b.remove(p)
		}
	}
}

func (b *Broker) remove(p *Partition) {
	p.retire(ErrGone)
	b.coordinate(p)
	if p.log == nil {
		return
	}
	folder := p.log.Folder()
	if folder == nil {
		return
	}
	if err := folder.Delete(p.log); err != nil {
		b.cfg.Log.Error("cannot delete the log", "partition", p.Name().String(), "error", err)
	}
}

// markStrays renames logs that the image does not put here, so that a wrong
// image can be mended: nothing is deleted.
func (b *Broker) markStrays(img *image.Image) error {
	for _, f := range b.cfg.Folders {
		for _, d := range f.Partitions() {
			if d.Stray || strings.HasPrefix(d.TopicPartition.Topic, model.MetadataTopic) {
				continue
			}
			if b.ours(img, d) {
				continue
			}
			b.cfg.Log.Warn("log of a partition that is not placed here; kept as a stray", "folder", f.Path(), "partition", d.TopicPartition.String())
			if err := f.MarkStray(d.TopicPartition); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Broker) ours(img *image.Image, d storage.PartitionDir) bool {
	topic, ok := img.Topic(d.TopicPartition.Topic)
	if !ok || d.TopicID != model.ZeroUUID && topic.ID != d.TopicID {
		return false
	}
	part, ok := topic.Partition(d.TopicPartition.Partition)
	return ok && slices.Contains(part.Replicas, b.cfg.NodeID)
}
