// Package model is Ottla's vocabulary: the ids, offsets and epochs that every
// other package speaks of. It has types and their text forms, no behaviour and
// no imports of ours, so anything may import it.
//
// An offset is not a file position and an epoch is not a version: the types are
// distinct so that the compiler refuses to mix them.
package model

import "fmt"

// NodeID names a node (broker, controller or both), Kafka's node.id. Valid ids are >= 0.
type NodeID int32

// NoNode is the id that stands for "none", for example the leader of an offline partition.
const NoNode NodeID = -1

// Offset is a record's position in a partition, from 0. It is never reused and never changes.
type Offset int64

// NoOffset stands for "unknown" wherever Kafka's protocol writes -1.
const NoOffset Offset = -1

// Epoch is a leader epoch: it grows each time a partition (or the metadata
// quorum, where it is the Raft term) may have got another leader.
type Epoch int32

// NoEpoch stands for "unknown" wherever Kafka's protocol writes -1.
const NoEpoch Epoch = -1

// BrokerEpoch is the metadata offset of a broker's registration record. It
// identifies one life of a broker process.
type BrokerEpoch int64

// TopicPartition names a partition by topic name.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String gives the name of the partition's folder: topic-partition.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// TopicIDPartition names a partition by topic id; unlike a TopicPartition it
// never means a later topic of the same name.
type TopicIDPartition struct {
	ID        UUID
	Partition int32
}

// String gives id:partition.
func (tp TopicIDPartition) String() string { return fmt.Sprintf("%s:%d", tp.ID, tp.Partition) }

// Producer is one life of an idempotent or transactional producer. ID -1 means
// a plain producer without sequence numbers.
type Producer struct {
	ID    int64
	Epoch int16
}

// NoProducer is the Producer of plain batches.
var NoProducer = Producer{ID: -1, Epoch: -1}

// Names of the topics that Kafka keeps for itself.
const (
	MetadataTopic   = "__cluster_metadata"
	OffsetsTopic    = "__consumer_offsets"
	TxnTopic        = "__transaction_state"
	ShareStateTopic = "__share_group_state"
)

// InternalTopic reports whether Kafka marks the topic as internal in Metadata
// answers (KAFKA.md 3.9).
func InternalTopic(name string) bool {
	return name == OffsetsTopic || name == TxnTopic || name == ShareStateTopic
}
