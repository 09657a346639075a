package image

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// A Topic is one topic of an image. It is immutable.
type Topic struct {
	Name string
	ID   model.UUID

	parts tree[int32, *Partition]
}

// NumPartitions counts the partitions.
func (t *Topic) NumPartitions() int { return t.parts.len() }

// Partition returns a partition by its number.
func (t *Topic) Partition(p int32) (*Partition, bool) { return t.parts.get(p) }

// Partitions yields the partitions by number.
func (t *Topic) Partitions() iter.Seq2[int32, *Partition] { return t.parts.all() }

func newTopic(name string, id model.UUID) *Topic {
	return &Topic{Name: name, ID: id, parts: newTree[int32, *Partition](cmp.Compare)}
}

// A Partition is one partition of a topic. It is immutable; slices may share
// memory with each other and with other versions.
type Partition struct {
	Replicas       []model.NodeID // brokers that hold it, the preferred leader first
	ISR            []model.NodeID // replicas in sync with the leader
	Removing       []model.NodeID // replicas that a reassignment takes away
	Adding         []model.NodeID // replicas that a reassignment adds
	ELR            []model.NodeID // not in sync, yet hold all committed records (KIP-966)
	LastKnownELR   []model.NodeID // the last ones in sync before all was lost (KIP-966)
	Dirs           []model.UUID   // log folder of each replica; len(Dirs) == len(Replicas)
	Leader         model.NodeID   // -1: none
	LeaderEpoch    model.Epoch    // grows with each election
	PartitionEpoch int32          // grows with each change
	RecoveryState  int8           // 0 recovered, 1 recovering after an unclean election
}

// Dir is the log folder of the replica on a broker; false if it has none.
func (p *Partition) Dir(id model.NodeID) (model.UUID, bool) {
	i := slices.Index(p.Replicas, id)
	if i < 0 {
		return model.ZeroUUID, false
	}
	return p.Dirs[i], true
}

// equal reports whether two partitions are the same in every field.
func (p *Partition) equal(o *Partition) bool {
	return p == o || p.Leader == o.Leader && p.LeaderEpoch == o.LeaderEpoch &&
		p.PartitionEpoch == o.PartitionEpoch && p.RecoveryState == o.RecoveryState &&
		slices.Equal(p.Replicas, o.Replicas) && slices.Equal(p.ISR, o.ISR) &&
		slices.Equal(p.Removing, o.Removing) && slices.Equal(p.Adding, o.Adding) &&
		slices.Equal(p.ELR, o.ELR) && slices.Equal(p.LastKnownELR, o.LastKnownELR) &&
		slices.Equal(p.Dirs, o.Dirs)
}

// newPartition builds a partition from its record. A record of a cluster that
// knows no folder ids, from before metadata.version 17, gives zero ids.
func newPartition(r *record.PartitionRecord) (*Partition, error) {
	if r.PartitionID < 0 {
		return nil, fmt.Errorf("partition number %d, want 0 or more", r.PartitionID)
	}
	if err := checkRecovery(r.LeaderRecoveryState); err != nil {
		return nil, err
	}
	p := &Partition{
		Replicas:       nodes(r.Replicas, nil),
		Removing:       nodes(r.RemovingReplicas, nil),
		Adding:         nodes(r.AddingReplicas, nil),
		ELR:            nodes(r.EligibleLeaderReplicas, nil),
		LastKnownELR:   nodes(r.LastKnownELR, nil),
		Dirs:           r.Directories,
		Leader:         model.NodeID(r.Leader),
		LeaderEpoch:    model.Epoch(r.LeaderEpoch),
		PartitionEpoch: r.PartitionEpoch,
		RecoveryState:  r.LeaderRecoveryState,
	}
	p.ISR = nodes(r.ISR, p.Replicas)
	switch len(p.Dirs) {
	case len(p.Replicas):
	case 0:
		p.Dirs = make([]model.UUID, len(p.Replicas))
	default:
		return nil, dirsError(len(p.Dirs), len(p.Replicas))
	}
	return p, nil
}

// Values of a PartitionChangeRecord's fields that leave things as they are.
const (
	leaderNoChange   = -2
	recoveryNoChange = -1
)

// change is the partition after a PartitionChangeRecord.
func (p *Partition) change(r *record.PartitionChangeRecord) (*Partition, error) {
	next := *p
	if r.Replicas != nil {
		next.Replicas = nodes(r.Replicas, p.Replicas)
	}
	if err := next.changeDirs(r.Directories); err != nil {
		return nil, err
	}
	if r.ISR != nil {
		next.ISR = nodes(r.ISR, next.Replicas)
	}
	if r.RemovingReplicas != nil {
		next.Removing = nodes(r.RemovingReplicas, nil)
	}
	if r.AddingReplicas != nil {
		next.Adding = nodes(r.AddingReplicas, nil)
	}
	if r.EligibleLeaderReplicas != nil {
		next.ELR = nodes(r.EligibleLeaderReplicas, nil)
	}
	if r.LastKnownELR != nil {
		next.LastKnownELR = nodes(r.LastKnownELR, nil)
	}
	if r.Leader != leaderNoChange {
		next.Leader = model.NodeID(r.Leader)
		next.LeaderEpoch++
	}
	if r.LeaderRecoveryState != recoveryNoChange {
		if err := checkRecovery(r.LeaderRecoveryState); err != nil {
			return nil, err
		}
		next.RecoveryState = r.LeaderRecoveryState
	}
	next.PartitionEpoch++
	return &next, nil
}

// changeDirs sets the folders as a PartitionChangeRecord says them, by Kafka's
// rules: null keeps the list as it is, by position even where the replicas are
// new; empty means that no place is known. Who writes a record with new replicas
// must say their folders, see DirsFor.
func (p *Partition) changeDirs(dirs []model.UUID) error {
	known := slices.ContainsFunc(p.Dirs, func(id model.UUID) bool { return id != model.ZeroUUID })
	switch {
	case len(dirs) > 0:
		p.Dirs = dirs
	case dirs != nil, len(p.Dirs) != len(p.Replicas) && !known:
		p.Dirs = make([]model.UUID, len(p.Replicas)) // also before metadata.version 17
	}
	if len(p.Dirs) != len(p.Replicas) {
		return dirsError(len(p.Dirs), len(p.Replicas))
	}
	return nil
}

// DirsFor are the folders that a record with new replicas says: those that stay
// keep theirs, the others are free to choose.
func (p *Partition) DirsFor(replicas []model.NodeID) []model.UUID {
	dirs := make([]model.UUID, len(replicas))
	for i, id := range replicas {
		dir, ok := p.Dir(id)
		if !ok {
			dir = model.DirUnassigned
		}
		dirs[i] = dir
	}
	return dirs
}

func checkRecovery(state int8) error {
	if state != 0 && state != 1 {
		return fmt.Errorf("leader recovery state %d, want 0 or 1", state)
	}
	return nil
}

func dirsError(dirs, replicas int) error {
	return fmt.Errorf("%d log folders for %d replicas", dirs, replicas)
}

// nodes converts a list of ids. Where it equals like, like is returned: most
// partitions have all replicas in sync, and then the two lists are one.
func nodes(list []int32, like []model.NodeID) []model.NodeID {
	if len(list) == 0 {
		return nil
	}
	if slices.EqualFunc(list, like, func(a int32, b model.NodeID) bool { return model.NodeID(a) == b }) {
		return like
	}
	ids := make([]model.NodeID, len(list))
	for i, id := range list {
		ids[i] = model.NodeID(id)
	}
	return ids
}

func ints(list []model.NodeID) []int32 {
	if len(list) == 0 {
		return nil
	}
	ids := make([]int32, len(list))
	for i, id := range list {
		ids[i] = int32(id)
	}
	return ids
}

// record is the partition as a snapshot writes it.
func (p *Partition) record(topic model.UUID, number int32) *record.PartitionRecord {
	return &record.PartitionRecord{
		PartitionID:            number,
		TopicID:                topic,
		Replicas:               ints(p.Replicas),
		ISR:                    ints(p.ISR),
		RemovingReplicas:       ints(p.Removing),
		AddingReplicas:         ints(p.Adding),
		Leader:                 int32(p.Leader),
		LeaderRecoveryState:    p.RecoveryState,
		LeaderEpoch:            int32(p.LeaderEpoch),
		PartitionEpoch:         p.PartitionEpoch,
		Directories:            p.Dirs,
		EligibleLeaderReplicas: ints(p.ELR),
		LastKnownELR:           ints(p.LastKnownELR),
	}
}
