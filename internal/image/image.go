// Package image is the cluster's metadata at one offset of the metadata log: an
// immutable value that anyone may hold and read without locks.
//
// The one idea: an Image is a function of the log. Apply takes an image and the
// records that follow it and returns the next image and a Delta, which says what
// differs; the old image stays as it was. All maps are persistent trees (tree.go)
// that share what did not change, so a change costs O(log n), and holding an old
// image costs only what differs. Nothing else writes: the controller decides on
// an image, the quorum commits its records, and every node replays them here.
//
//	records ──Apply──▶ Image ──accessors──▶ controller, link, broker, api, console
//	                   Delta ─────────────▶ what to open, close, reload
//	Image ──Records──▶ a snapshot; applied to Empty it gives an equal image
//
// Apply follows the rules of Kafka's controller and brokers (KAFKA.md 7.2):
//
//   - All or nothing: a record that cannot follow the image fails the whole call.
//     That is never the fault of a user; the log and its reader disagree.
//   - INV-IMAGE-1: replaying Records() into Empty() gives an equal image.
//   - INV-IMAGE-2: a metadata transaction (KIP-868) shows nothing until its
//     EndTransactionRecord, and then everything, in one Delta.
//   - INV-IMAGE-3: each replica of each partition is in the index behind
//     PartitionsOn, and nothing else is.
//   - INV-IMAGE-4: a topic's configs go with the topic.
//
// Concurrency: Images, and everything that their accessors return, are safe to
// read from many goroutines and must never be changed, slices and maps included.
// Apply only reads its receiver. It keeps the records that it is given.
package image

import (
	"bytes"
	"cmp"
	"iter"
	"strconv"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// An Image is the cluster's metadata after one record of the log. It is
// immutable.
type Image struct {
	offset model.Offset
	epoch  model.Epoch

	brokers     tree[model.NodeID, *Broker]
	controllers tree[model.NodeID, *Controller]

	topics    tree[model.UUID, *Topic]     // the one place that holds topics
	names     tree[string, model.UUID]     // topic name → id
	colliders tree[nameKey, struct{}]      // topic names with '.' or '_', by CollisionKey
	onNode    tree[model.NodeID, replicas] // broker → the partitions that it holds

	configs  tree[ConfigResource, map[string]string] // no empty maps
	features tree[string, int16]                     // no level 0
	nextPID  int64                                   // first producer id that nobody has

	// Kept as the records that a snapshot writes.
	acls   tree[model.UUID, *record.AccessControlEntryRecord]
	scram  tree[scramKey, *record.UserScramCredentialRecord]
	quotas tree[quotaKey, *record.ClientQuotaRecord]
	tokens tree[string, *record.DelegationTokenRecord]

	txn *txn // the open metadata transaction, nil if none
}

// replicas are the partitions that one broker holds.
type replicas = tree[model.TopicIDPartition, struct{}]

// A nameKey orders topic names so that those that collide stand together.
type nameKey struct{ key, name string }

func cmpName(a, b nameKey) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.name, b.name))
}

func cmpUUID(a, b model.UUID) int { return bytes.Compare(a[:], b[:]) }

// cmpPartition orders the index behind PartitionsOn; most of the cost of loading
// an image is here.
func cmpPartition(a, b model.TopicIDPartition) int {
	if a.ID != b.ID {
		return bytes.Compare(a.ID[:], b.ID[:])
	}
	return cmp.Compare(a.Partition, b.Partition)
}

// Empty returns the image before the first record: offset -1.
func Empty() *Image {
	return &Image{
		offset:      model.NoOffset,
		epoch:       model.NoEpoch,
		brokers:     newTree[model.NodeID, *Broker](cmp.Compare),
		controllers: newTree[model.NodeID, *Controller](cmp.Compare),
		topics:      newTree[model.UUID, *Topic](cmpUUID),
		names:       newTree[string, model.UUID](cmp.Compare),
		colliders:   newTree[nameKey, struct{}](cmpName),
		onNode:      newTree[model.NodeID, replicas](cmp.Compare),
		configs:     newTree[ConfigResource, map[string]string](cmpResource),
		features:    newTree[string, int16](cmp.Compare),
		acls:        newTree[model.UUID, *record.AccessControlEntryRecord](cmpUUID),
		scram:       newTree[scramKey, *record.UserScramCredentialRecord](cmpScram),
		quotas:      newTree[quotaKey, *record.ClientQuotaRecord](cmpQuota),
		tokens:      newTree[string, *record.DelegationTokenRecord](cmp.Compare),
	}
}

// Offset is the offset of the last record applied, those of an open transaction
// included; -1 for the empty image.
func (i *Image) Offset() model.Offset { return i.offset }

// Epoch is the epoch of the last record applied; -1 for the empty image.
func (i *Image) Epoch() model.Epoch { return i.epoch }

// At returns the same metadata at another place of the log: behind records that
// are not metadata, as the quorum's own.
func (i *Image) At(offset model.Offset, epoch model.Epoch) *Image {
	next := *i
	next.offset, next.epoch = offset, epoch
	return &next
}

// InTransaction reports whether a metadata transaction is open.
func (i *Image) InTransaction() bool { return i.txn != nil }

// Broker returns a registered broker.
func (i *Image) Broker(id model.NodeID) (*Broker, bool) { return i.brokers.get(id) }

// Brokers yields the registered brokers by id, fenced ones included.
func (i *Image) Brokers() iter.Seq[*Broker] { return values(i.brokers) }

// NumBrokers counts the registered brokers, fenced ones included.
func (i *Image) NumBrokers() int { return i.brokers.len() }

// Controller returns a registered controller.
func (i *Image) Controller(id model.NodeID) (*Controller, bool) { return i.controllers.get(id) }

// Controllers yields the registered controllers by id.
func (i *Image) Controllers() iter.Seq[*Controller] { return values(i.controllers) }

// Topic returns the topic of a name.
func (i *Image) Topic(name string) (*Topic, bool) {
	id, ok := i.names.get(name)
	if !ok {
		return nil, false
	}
	return i.topics.get(id)
}

// TopicByID returns the topic of an id.
func (i *Image) TopicByID(id model.UUID) (*Topic, bool) { return i.topics.get(id) }

// Topics yields all topics by name.
func (i *Image) Topics() iter.Seq[*Topic] { return i.TopicsFrom("") }

// TopicsFrom yields the topics whose name is the given one or larger, by name.
func (i *Image) TopicsFrom(name string) iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for _, id := range i.names.from(name) {
			if t, ok := i.topics.get(id); ok && !yield(t) {
				return
			}
		}
	}
}

// NumTopics counts the topics.
func (i *Image) NumTopics() int { return i.topics.len() }

// CollidingTopic returns another topic whose name differs from this one only in
// '.' and '_'; their metrics would have the same name (KAFKA.md 3.11).
func (i *Image) CollidingTopic(name string) (string, bool) {
	key := model.CollisionKey(name)
	for k := range i.colliders.from(nameKey{key: key}) {
		if k.key != key {
			break
		}
		if k.name != name {
			return k.name, true
		}
	}
	return "", false
}

// PartitionsOn yields the partitions that have a replica on a broker, by topic
// id and number. It costs O(partitions on that broker).
func (i *Image) PartitionsOn(id model.NodeID) iter.Seq2[model.TopicIDPartition, *Partition] {
	return func(yield func(model.TopicIDPartition, *Partition) bool) {
		held, ok := i.onNode.get(id)
		if !ok {
			return
		}
		var t *Topic // that of the partition before: they come by topic
		for tp := range held.all() {
			if t == nil || t.ID != tp.ID {
				t, _ = i.topics.get(tp.ID)
			}
			if p, ok := t.Partition(tp.Partition); ok && !yield(tp, p) {
				return
			}
		}
	}
}

// NumPartitionsOn counts the replicas on a broker.
func (i *Image) NumPartitionsOn(id model.NodeID) int {
	held, _ := i.onNode.get(id)
	return held.len()
}

// Config returns the configs set on a resource, nil if there are none. The map
// is shared: never change it.
func (i *Image) Config(r ConfigResource) map[string]string {
	m, _ := i.configs.get(r)
	return m
}

// Configs yields all resources that have configs set, by type and name.
func (i *Image) Configs() iter.Seq2[ConfigResource, map[string]string] { return i.configs.all() }

// Feature is the finalized level of a feature, 0 if it is off.
func (i *Image) Feature(name string) int16 {
	level, _ := i.features.get(name)
	return level
}

// Features yields the finalized features that are on, by name.
func (i *Image) Features() iter.Seq2[string, int16] { return i.features.all() }

// NextProducerID is the first producer id that was not yet given to a broker.
func (i *Image) NextProducerID() int64 { return i.nextPID }

// ACLs yields the access control entries by id.
func (i *Image) ACLs() iter.Seq[*record.AccessControlEntryRecord] { return values(i.acls) }

// ACL returns the access control entry of an id.
func (i *Image) ACL(id model.UUID) (*record.AccessControlEntryRecord, bool) { return i.acls.get(id) }

// ScramUsers yields the SCRAM credentials by user and mechanism.
func (i *Image) ScramUsers() iter.Seq[*record.UserScramCredentialRecord] { return values(i.scram) }

// ScramUser returns a user's credential for a mechanism: 1 SCRAM-SHA-256, 2
// SCRAM-SHA-512.
func (i *Image) ScramUser(name string, mechanism int8) (*record.UserScramCredentialRecord, bool) {
	return i.scram.get(scramKey{name, mechanism})
}

// Quotas yields the client quotas, one record for each limit.
func (i *Image) Quotas() iter.Seq[*record.ClientQuotaRecord] { return values(i.quotas) }

// Tokens yields the delegation tokens by id.
func (i *Image) Tokens() iter.Seq[*record.DelegationTokenRecord] { return values(i.tokens) }

// Token returns the delegation token of an id.
func (i *Image) Token(id string) (*record.DelegationTokenRecord, bool) { return i.tokens.get(id) }

func values[K, V any](t tree[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range t.all() {
			if !yield(v) {
				return
			}
		}
	}
}

// A ConfigResource is something that has configs.
type ConfigResource struct {
	Type int8   // one of the constants below
	Name string // for brokers the id in decimal, or "" for all brokers
}

// Types of ConfigResource, Kafka's numbers (KAFKA.md 3.12).
const (
	TopicConfig         int8 = 2
	BrokerConfig        int8 = 4
	ClientMetricsConfig int8 = 16
	GroupConfig         int8 = 32
)

func cmpResource(a, b ConfigResource) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
}

type scramKey struct {
	name      string
	mechanism int8
}

func cmpScram(a, b scramKey) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.mechanism, b.mechanism))
}

// A quotaKey names one limit of one entity.
type quotaKey struct{ entity, key string }

func cmpQuota(a, b quotaKey) int {
	return cmp.Or(cmp.Compare(a.entity, b.entity), cmp.Compare(a.key, b.key))
}

// quotaKeyOf spells an entity whose parts are in order; lengths keep different
// entities apart, '-' stands for the default of a type.
func quotaKeyOf(r *record.ClientQuotaRecord) quotaKey {
	var b []byte
	for _, part := range r.Entity {
		b = appendPart(b, part.EntityType)
		if part.EntityName != nil {
			b = appendPart(b, *part.EntityName)
		} else {
			b = append(b, '-')
		}
	}
	return quotaKey{string(b), r.Key}
}

// appendPart appends a string with its length before it.
func appendPart(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	return append(append(b, ':'), s...)
}
