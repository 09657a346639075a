package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
)

// Records of __consumer_offsets (KAFKA.md 8.1). Keys begin with an int16 that is
// the record's type; values with their version.
//
//	key 0, 1  OffsetCommit   group, topic, partition → offset, epoch, metadata, …
//	key 2     GroupMetadata  group → generation, protocol, members and assignments
//
// Apache Kafka 4.4 writes OffsetCommit values in version 4 (1 with an explicit
// retention) and GroupMetadata values in version 3.
const (
	groupValueVersion  = 3
	offsetValueVersion = 4
	retentionVersion   = 1
)

func groupKey(id string) []byte {
	return (&kmsg.GroupMetadataKey{Version: 2, Group: id}).AppendTo(nil)
}

func offsetKey(id, topic string, partition int32) []byte {
	return (&kmsg.OffsetCommitKey{Version: 1, Group: id, Topic: topic, Partition: partition}).AppendTo(nil)
}

// writeGroup records the generation as it is.
func (d *decision) writeGroup() {
	c := &d.g.classic
	v := kmsg.NewGroupMetadataValue()
	v.Version = groupValueVersion
	v.ProtocolType, v.Generation, v.CurrentStateTimestamp = c.protocolType, c.generation, d.Now.UnixMilli()
	if len(c.members) > 0 {
		protocol, leader := c.protocol, c.leader
		v.Protocol, v.Leader = &protocol, &leader
	}
	for _, m := range c.ordered() {
		vm := kmsg.NewGroupMetadataValueMember()
		vm.MemberID, vm.InstanceID, vm.ClientID, vm.ClientHost = m.id, m.instance, m.clientID, m.clientHost
		vm.RebalanceTimeoutMillis, vm.SessionTimeoutMillis = millis(m.rebalance), millis(m.session)
		vm.Subscription, vm.Assignment = m.metadata(c.protocol), m.assignment
		if vm.Subscription == nil {
			vm.Subscription = []byte{}
		}
		if vm.Assignment == nil {
			vm.Assignment = []byte{}
		}
		v.Members = append(v.Members, vm)
	}
	d.record(groupKey(d.g.id), v.AppendTo(nil))
}

// writeEmpty records that the group exists, with a membership that has not been
// through a rebalance.
func (d *decision) writeEmpty() {
	v := kmsg.NewGroupMetadataValue()
	v.Version, v.CurrentStateTimestamp = groupValueVersion, d.Now.UnixMilli()
	d.record(groupKey(d.g.id), v.AppendTo(nil))
}

// replayGroup takes a GroupMetadata record. While the machine is live the members
// are there already, and may be newer than the record.
func (m *Machine) replayGroup(r coord.Record) {
	var key kmsg.GroupMetadataKey
	if key.ReadFrom(r.Key) != nil {
		return
	}
	if r.Value == nil {
		if g := m.groups[key.Group]; g != nil {
			g.classic = newClassic()
			if g.offsets.empty() {
				delete(m.groups, g.id)
			}
		}
		return
	}
	v := kmsg.NewGroupMetadataValue()
	if v.ReadFrom(r.Value) != nil {
		return
	}
	g := m.make(key.Group)
	if m.live {
		return
	}
	c := newClassic()
	c.pending = g.classic.pending
	c.protocolType, c.generation, c.since = v.ProtocolType, v.Generation, v.CurrentStateTimestamp
	if v.Protocol != nil {
		c.protocol = *v.Protocol
	}
	for _, vm := range v.Members {
		c.add(&member{
			id: vm.MemberID, instance: vm.InstanceID, clientID: vm.ClientID, clientHost: vm.ClientHost,
			session: time.Duration(vm.SessionTimeoutMillis) * time.Millisecond, rebalance: time.Duration(vm.RebalanceTimeoutMillis) * time.Millisecond,
			protocols:  []kmsg.JoinGroupRequestProtocol{{Name: c.protocol, Metadata: vm.Subscription}},
			assignment: vm.Assignment, synced: true,
		})
	}
	if len(c.members) > 0 {
		c.state = stable
	}
	if v.Leader != nil && c.members[*v.Leader] != nil {
		c.leader = *v.Leader
	}
	g.classic = c
}
