package image

import (
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// A chooser draws a number from 0 to n-1: from rapid in property tests, from a
// seed where the same records are needed again.
type chooser func(n int) int

func choose[T any](pick chooser, from ...T) T { return from[pick(len(from))] }

func (pick chooser) id(letter string) model.UUID { return ids[letter+string('0'+rune(pick(10)))] }

func (pick chooser) flip() bool { return pick(2) == 0 }

// subset draws some of the ids, in a random order.
func (pick chooser) subset(list []int32) []int32 {
	out := []int32{}
	for _, v := range list {
		if pick(3) > 0 {
			at := pick(len(out) + 1)
			out = append(out[:at], append([]int32{v}, out[at:]...)...)
		}
	}
	return out
}

// replicas draws one or more brokers.
func (pick chooser) replicas() []int32 {
	if list := pick.subset(brokerIDs); len(list) > 0 {
		return list
	}
	return []int32{choose(pick, brokerIDs...)}
}

var brokerIDs = []int32{1, 2, 3, 4}

// record draws a record that can follow the image, for the most part.
func (pick chooser) record(i *Image, offset model.Offset) record.Metadata {
	switch pick(12) {
	case 0, 1:
		return pick.broker(i, offset)
	case 2, 3, 4, 5, 6:
		return pick.topic(i)
	case 7, 8:
		r := record.NewConfigRecord()
		r.ResourceType = choose(pick, TopicConfig, BrokerConfig, GroupConfig)
		r.ResourceName = choose(pick, "a", "b.x", "1", "")
		r.Name = choose(pick, "k1", "k2")
		if pick(3) > 0 {
			r.Value = new(choose(pick, "", "v1", "v2"))
		}
		return r
	case 9:
		return choose[record.Metadata](pick,
			&record.FeatureLevelRecord{Name: choose(pick, "group.version", "share.version"), FeatureLevel: int16(pick(2))},
			&record.ProducerIdsRecord{BrokerID: 1, BrokerEpoch: -1, NextProducerID: i.NextProducerID() + int64(1+pick(2))*1000},
			&record.NoOpRecord{})
	}
	return pick.security(i)
}

func (pick chooser) broker(i *Image, offset model.Offset) record.Metadata {
	id := choose(pick, brokerIDs...)
	b, ok := i.Broker(model.NodeID(id))
	if !ok || pick(6) == 0 {
		r := record.NewRegisterBrokerRecord()
		r.BrokerID, r.BrokerEpoch, r.IncarnationID = id, int64(offset), pick.id("I")
		r.Fenced, r.InControlledShutdown = pick.flip(), pick(5) == 0
		r.LogDirs = []model.UUID{ids["D1"], ids["D2"]}
		if pick.flip() {
			r.CordonedLogDirs = []model.UUID{ids["D2"]}
			r.Rack = new("r1")
		}
		r.EndPoints = []record.BrokerEndpoint{{Name: "PLAINTEXT", Host: "h", Port: uint16(9092 + pick(3))}}
		r.Features = []record.BrokerFeature{{Name: "metadata.version", MinSupportedVersion: 7, MaxSupportedVersion: 33}}
		return r
	}
	switch pick(8) {
	case 0:
		return &record.UnregisterBrokerRecord{BrokerID: id, BrokerEpoch: int64(b.Epoch)}
	case 1:
		return &record.FenceBrokerRecord{ID: id, Epoch: int64(b.Epoch)}
	case 2:
		return &record.UnfenceBrokerRecord{ID: id, Epoch: int64(b.Epoch)}
	case 3:
		if _, ok := i.Controller(9); ok {
			return &record.UnregisterControllerRecord{ControllerID: 9}
		}
		return &record.RegisterControllerRecord{
			ControllerID: 9, IncarnationID: pick.id("I"),
			EndPoints: []record.ControllerEndpoint{{Name: "CONTROLLER", Host: "h", Port: 9093}},
		}
	}
	r := record.NewBrokerRegistrationChangeRecord()
	r.BrokerID, r.BrokerEpoch = id, int64(b.Epoch)
	r.Fenced, r.InControlledShutdown = int8(pick(3)-1), int8(pick(2))
	if pick.flip() {
		r.LogDirs = []model.UUID{pick.id("D")}
		r.CordonedLogDirs = choose(pick, nil, []model.UUID{}, []model.UUID{ids["D1"]})
	}
	return r
}

func (pick chooser) topic(i *Image) record.Metadata {
	name := choose(pick, "a", "b.x", "b_x", "c")
	t, ok := i.Topic(name)
	if !ok {
		return &record.TopicRecord{Name: name, TopicID: pick.id("T")}
	}
	number := int32(pick(4))
	p, ok := t.Partition(number)
	switch {
	case pick(20) == 0:
		return &record.RemoveTopicRecord{TopicID: t.ID}
	case pick(20) == 0:
		return &record.ClearElrRecord{TopicName: choose(pick, name, "")}
	case !ok || pick(10) == 0:
		r := record.NewPartitionRecord()
		r.PartitionID, r.TopicID = number, t.ID
		r.Replicas = pick.replicas()
		r.ISR = pick.subset(r.Replicas)
		r.Leader = choose(pick, append(r.ISR, -1)...)
		r.LeaderEpoch, r.PartitionEpoch, r.LeaderRecoveryState = int32(pick(5)), int32(pick(5)), int8(pick(2))
		if pick.flip() {
			r.Directories = make([]model.UUID, len(r.Replicas))
			for n := range r.Directories {
				r.Directories[n] = pick.id("D")
			}
		}
		if pick.flip() {
			r.EligibleLeaderReplicas, r.LastKnownELR = pick.subset(r.Replicas), pick.subset(brokerIDs)
		}
		return r
	}
	return pick.change(t, number, p)
}

func (pick chooser) change(t *Topic, number int32, p *Partition) record.Metadata {
	r := record.NewPartitionChangeRecord()
	r.PartitionID, r.TopicID = number, t.ID
	replicas := ints(p.Replicas)
	if pick(4) == 0 {
		replicas = pick.replicas()
		r.Replicas = replicas
		r.AddingReplicas, r.RemovingReplicas = pick.subset(replicas), pick.subset(brokerIDs)
		if pick.flip() {
			r.Directories = p.DirsFor(nodes(replicas, nil))
		}
	}
	if pick.flip() {
		r.ISR = pick.subset(replicas)
	}
	if pick.flip() {
		r.Leader = choose(pick, append(replicas, -1, -2)...)
	}
	r.LeaderRecoveryState = int8(pick(3) - 1)
	if pick(4) == 0 {
		r.Directories = make([]model.UUID, len(replicas))
		for n := range r.Directories {
			r.Directories[n] = pick.id("D")
		}
	}
	if pick(3) == 0 {
		r.EligibleLeaderReplicas = pick.subset(replicas)
		r.LastKnownELR = pick.subset(brokerIDs)
	}
	return r
}

func (pick chooser) security(i *Image) record.Metadata {
	switch pick(4) {
	case 0:
		id := pick.id("A")
		if _, ok := i.ACL(id); ok {
			return &record.RemoveAccessControlEntryRecord{ID: id}
		}
		return &record.AccessControlEntryRecord{
			ID: id, ResourceType: 2, ResourceName: "a", PatternType: 3,
			Principal: "User:x", Host: "*", Operation: 3, PermissionType: 3,
		}
	case 1:
		name, mechanism := choose(pick, "x", "y"), int8(1+pick(2))
		if _, ok := i.ScramUser(name, mechanism); ok && pick.flip() {
			return &record.RemoveUserScramCredentialRecord{Name: name, Mechanism: mechanism}
		}
		return &record.UserScramCredentialRecord{
			Name: name, Mechanism: mechanism, Salt: []byte("salt"),
			StoredKey: []byte("stored"), ServerKey: []byte("server"), Iterations: int32(4096 + pick(3)),
		}
	case 2:
		user, client := record.EntityData{EntityType: "user", EntityName: new("u")}, record.EntityData{EntityType: "client-id"}
		return &record.ClientQuotaRecord{
			Entity: choose(pick, []record.EntityData{user}, []record.EntityData{client}, []record.EntityData{user, client}),
			Key:    choose(pick, "producer_byte_rate", "consumer_byte_rate"),
			Value:  float64(1 + pick(3)), Remove: pick(3) == 0,
		}
	}
	id := choose(pick, "t1", "t2")
	if _, ok := i.Token(id); ok && pick.flip() {
		return &record.RemoveDelegationTokenRecord{TokenID: id}
	}
	return &record.DelegationTokenRecord{
		Owner: "User:o", Requester: "User:r", Renewers: []string{"User:a"},
		IssueTimestamp: 1, MaxTimestamp: 30, ExpirationTimestamp: int64(10 + pick(3)), TokenID: id,
	}
}
