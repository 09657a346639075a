package image

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"slices"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Records yields the image as records in a fixed order, as a snapshot holds
// them: metadata.version, the other features, brokers, controllers, each topic
// with its partitions, configs, quotas, producer ids, ACLs, SCRAM credentials,
// tokens. Applied to Empty they give an equal image. The records of an open
// transaction are not in it. The records share memory with the image: never
// change them.
func (i *Image) Records() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		for _, part := range []iter.Seq[record.Metadata]{
			i.featureRecords(),
			i.memberRecords(),
			i.topicRecords(),
			i.configRecords(),
			records(i.Quotas()),
			i.producerRecords(),
			records(i.ACLs()),
			records(i.ScramUsers()),
			records(i.Tokens()),
		} {
			for r := range part {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// records widens a sequence of one record type.
func records[R record.Metadata](seq iter.Seq[R]) iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		for r := range seq {
			if !yield(r) {
				return
			}
		}
	}
}

// featureRecords says metadata.version first: it decides how the rest is written.
func (i *Image) featureRecords() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		level := i.Feature(feature.MetadataVersion)
		if level != 0 && !yield(&record.FeatureLevelRecord{Name: feature.MetadataVersion, FeatureLevel: level}) {
			return
		}
		for name, level := range i.Features() {
			if name != feature.MetadataVersion && !yield(&record.FeatureLevelRecord{Name: name, FeatureLevel: level}) {
				return
			}
		}
	}
}

func (i *Image) memberRecords() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		for b := range i.Brokers() {
			if !yield(b.record()) {
				return
			}
		}
		for c := range i.Controllers() {
			if !yield(c.record()) {
				return
			}
		}
	}
}

func (i *Image) topicRecords() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		for t := range i.Topics() {
			if !yield(&record.TopicRecord{Name: t.Name, TopicID: t.ID}) {
				return
			}
			for n, p := range t.Partitions() {
				if !yield(p.record(t.ID, n)) {
					return
				}
			}
		}
	}
}

func (i *Image) configRecords() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		for res, m := range i.Configs() {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				value := m[key]
				if !yield(&record.ConfigRecord{ResourceType: res.Type, ResourceName: res.Name, Name: key, Value: &value}) {
					return
				}
			}
		}
	}
}

func (i *Image) producerRecords() iter.Seq[record.Metadata] {
	return func(yield func(record.Metadata) bool) {
		if i.nextPID > 0 {
			yield(&record.ProducerIdsRecord{BrokerID: -1, BrokerEpoch: -1, NextProducerID: i.nextPID})
		}
	}
}

// loadBatch is how many records of a snapshot are applied at a time.
const loadBatch = 1024

// Load makes the image of a snapshot: the state after the record at an offset of
// an epoch. Errors wrap ErrInvalid; offsets in them count the snapshot's records.
func Load(offset model.Offset, epoch model.Epoch, recs iter.Seq[record.Metadata]) (*Image, error) {
	b := &builder{Image: *Empty(), edit: new(edit)}
	part, base := make([]record.Metadata, 0, loadBatch), model.Offset(0)
	flush := func() error {
		b.delta, b.owned = &Delta{}, nil // nobody asks; keep them small
		err := b.applyAll(base, part)
		base += model.Offset(len(part))
		part = part[:0]
		return err
	}
	for r := range recs {
		if part = append(part, r); len(part) == loadBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if b.txn != nil {
		return nil, fmt.Errorf("%w: the snapshot ends inside a transaction", ErrInvalid)
	}
	image := b.Image
	image.offset, image.epoch = offset, epoch
	return &image, nil
}

// sameRecord reports whether two records of one type say the same.
func sameRecord[R record.Metadata](a, b R) bool {
	v := a.HighestVersion()
	return bytes.Equal(a.Append(nil, v), b.Append(nil, v))
}
