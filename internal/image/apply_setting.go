package image

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

func (b *builder) setBroker(next *Broker) {
	b.brokers = b.brokers.put(b.edit, next.ID, next)
	b.delta.broker(next.ID)
}

// life returns the broker of an id whose registration has an epoch.
func (b *builder) life(id model.NodeID, epoch model.BrokerEpoch) (*Broker, error) {
	have, ok := b.brokers.get(id)
	if !ok {
		return nil, fmt.Errorf("broker %d is not registered", id)
	}
	if have.Epoch != epoch {
		return nil, fmt.Errorf("broker %d has the epoch %d, the record says %d", id, have.Epoch, epoch)
	}
	return have, nil
}

func (b *builder) unregister(id model.NodeID, epoch model.BrokerEpoch) error {
	if _, err := b.life(id, epoch); err != nil {
		return err
	}
	b.brokers = b.brokers.del(b.edit, id)
	b.delta.broker(id)
	return nil
}

// fence replays the older form of a registration change: 1 fences, -1 unfences.
func (b *builder) fence(id int32, epoch int64, fenced int8) error {
	r := record.NewBrokerRegistrationChangeRecord()
	r.BrokerID, r.BrokerEpoch, r.Fenced = id, epoch, fenced
	return b.changeBroker(r)
}

func (b *builder) changeBroker(r *record.BrokerRegistrationChangeRecord) error {
	have, err := b.life(model.NodeID(r.BrokerID), model.BrokerEpoch(r.BrokerEpoch))
	if err != nil {
		return err
	}
	next, err := have.change(r)
	if err != nil {
		return err
	}
	b.setBroker(next)
	return nil
}

func (b *builder) unregisterController(id model.NodeID) error {
	if _, ok := b.controllers.get(id); !ok {
		return fmt.Errorf("controller %d is not registered", id)
	}
	b.controllers = b.controllers.del(b.edit, id)
	b.delta.Controllers = true
	return nil
}

// setConfig sets or deletes one key. The map of a resource is copied once in the
// life of a builder, which is when delta.Configs does not have it yet.
func (b *builder) setConfig(r *record.ConfigRecord) {
	res := ConfigResource{r.ResourceType, r.ResourceName}
	m := b.Config(res)
	if r.Value == nil && m == nil {
		return
	}
	if !b.delta.config(res) || m == nil {
		m = maps.Clone(m)
	}
	switch {
	case r.Value == nil:
		delete(m, r.Name)
	case m == nil:
		m = map[string]string{r.Name: *r.Value}
	default:
		m[r.Name] = *r.Value
	}
	if len(m) == 0 {
		b.configs = b.configs.del(b.edit, res)
		return
	}
	b.configs = b.configs.put(b.edit, res, m)
}

func (b *builder) setFeature(r *record.FeatureLevelRecord) error {
	switch {
	case r.FeatureLevel < 0:
		return fmt.Errorf("feature %s has the level %d, want 0 or more", r.Name, r.FeatureLevel)
	case b.Feature(r.Name) == r.FeatureLevel:
		return nil
	case r.FeatureLevel == 0:
		b.features = b.features.del(b.edit, r.Name)
	default:
		b.features = b.features.put(b.edit, r.Name, r.FeatureLevel)
	}
	b.delta.Features = true
	return nil
}

func (b *builder) setProducerIDs(r *record.ProducerIdsRecord) error {
	if r.NextProducerID < b.nextPID {
		return fmt.Errorf("next producer id goes back from %d to %d", b.nextPID, r.NextProducerID)
	}
	b.delta.ProducerIDs = b.delta.ProducerIDs || r.NextProducerID != b.nextPID
	b.nextPID = r.NextProducerID
	return nil
}

func (b *builder) addACL(r *record.AccessControlEntryRecord) error {
	if _, ok := b.acls.get(r.ID); ok {
		return fmt.Errorf("an access control entry has the id %s already", r.ID)
	}
	b.acls = b.acls.put(b.edit, r.ID, r)
	b.delta.ACLs = true
	return nil
}

func (b *builder) removeACL(r *record.RemoveAccessControlEntryRecord) error {
	if _, ok := b.acls.get(r.ID); !ok {
		return fmt.Errorf("no access control entry has the id %s", r.ID)
	}
	b.acls = b.acls.del(b.edit, r.ID)
	b.delta.ACLs = true
	return nil
}

func (b *builder) removeScram(r *record.RemoveUserScramCredentialRecord) error {
	key := scramKey{r.Name, r.Mechanism}
	if _, ok := b.scram.get(key); !ok {
		return fmt.Errorf("user %q has no credential for mechanism %d", r.Name, r.Mechanism)
	}
	b.scram = b.scram.del(b.edit, key)
	b.delta.Scram = true
	return nil
}

// setQuota sets or removes one limit. The record is kept with its entity's parts
// in order, so that a snapshot does not depend on who wrote it.
func (b *builder) setQuota(r *record.ClientQuotaRecord) {
	kept := *r
	kept.Entity = slices.SortedFunc(slices.Values(r.Entity), func(x, y record.EntityData) int {
		return cmp.Compare(x.EntityType, y.EntityType)
	})
	key := quotaKeyOf(&kept)
	if r.Remove {
		b.quotas = b.quotas.del(b.edit, key)
	} else {
		b.quotas = b.quotas.put(b.edit, key, &kept)
	}
	b.delta.Quotas = true
}
