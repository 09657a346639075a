package image

import (
	"errors"
	"fmt"
	"slices"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// ErrInvalid means that a record cannot follow the image that it was applied to.
var ErrInvalid = errors.New("image: record cannot follow")

// A txn is a part of an open metadata transaction: the records of one Apply,
// linked newest first so that adding a part costs nothing for those before it.
type txn struct {
	before *txn
	base   model.Offset
	recs   []record.Metadata
}

// A builder makes the next image. Its trees belong to its edit, so everything in
// it may be changed in place until Apply publishes it.
type builder struct {
	Image
	edit  *edit
	delta *Delta
	// owned are the topics that this builder has made or copied. (Of configs, it
	// owns the maps of the resources in delta.Configs.)
	owned map[model.UUID]*Topic
}

// Apply returns the image after the records at offsets base, base+1, … of an
// epoch, and what differs. base may be larger than Offset()+1: the log has other
// records too. An error wraps ErrInvalid and names the record and its offset;
// the receiver is unchanged in any case. The records now belong to the image.
func (i *Image) Apply(base model.Offset, epoch model.Epoch, recs []record.Metadata) (*Image, *Delta, error) {
	if base <= i.offset {
		return nil, nil, fmt.Errorf("%w: records from offset %d, the image is at %d", ErrInvalid, base, i.offset)
	}
	b := &builder{Image: *i, edit: new(edit), delta: &Delta{From: i}}
	if err := b.applyAll(base, recs); err != nil {
		return nil, nil, err
	}
	b.offset = base + model.Offset(len(recs)) - 1
	b.epoch = epoch
	next := b.Image
	b.delta.To = &next
	b.delta.settle()
	return &next, b.delta, nil
}

// applyAll runs the records through the metadata transactions: those inside one
// wait for its end.
func (b *builder) applyAll(base model.Offset, recs []record.Metadata) error {
	from := 0 // the first record of this call that belongs to the open transaction
	for n, r := range recs {
		err := error(nil)
		switch r.(type) {
		case *record.BeginTransactionRecord:
			if b.txn != nil {
				err = errors.New("a transaction is open already")
				break
			}
			b.txn, from = &txn{}, n+1
		case *record.EndTransactionRecord:
			if b.txn == nil {
				err = errors.New("no transaction is open")
				break
			}
			b.hold(base, from, recs[:n])
			parts := b.txn
			b.txn = nil
			if err := b.applyParts(parts); err != nil {
				return err
			}
		case *record.AbortTransactionRecord:
			if b.txn == nil {
				err = errors.New("no transaction is open")
				break
			}
			b.txn = nil
		default:
			if b.txn == nil {
				err = b.apply(r)
			}
		}
		if err != nil {
			return recordError(base, n, r, err)
		}
	}
	if b.txn != nil {
		b.hold(base, from, recs)
	}
	return nil
}

// hold adds recs[from:] to the open transaction.
func (b *builder) hold(base model.Offset, from int, recs []record.Metadata) {
	if from < len(recs) {
		b.txn = &txn{before: b.txn, base: base + model.Offset(from), recs: slices.Clone(recs[from:])}
	}
}

// applyParts applies the records of a transaction, oldest first.
func (b *builder) applyParts(newest *txn) error {
	var parts []*txn
	for p := newest; p != nil; p = p.before {
		parts = append(parts, p)
	}
	for i := len(parts) - 1; i >= 0; i-- {
		for n, r := range parts[i].recs {
			if err := b.apply(r); err != nil {
				return recordError(parts[i].base, n, r, err)
			}
		}
	}
	return nil
}

func recordError(base model.Offset, n int, r record.Metadata, err error) error {
	return fmt.Errorf("%w: offset %d: %w: %s", ErrInvalid, base+model.Offset(n), err, r)
}

// apply replays one record.
func (b *builder) apply(r record.Metadata) error {
	switch r := r.(type) {
	case *record.TopicRecord:
		return b.createTopic(r)
	case *record.RemoveTopicRecord:
		return b.removeTopic(r)
	case *record.PartitionRecord:
		return b.setPartition(r)
	case *record.PartitionChangeRecord:
		return b.changePartition(r)
	case *record.ClearElrRecord:
		return b.clearELR(r)
	case *record.RegisterBrokerRecord:
		b.setBroker(newBroker(r))
	case *record.UnregisterBrokerRecord:
		return b.unregister(model.NodeID(r.BrokerID), model.BrokerEpoch(r.BrokerEpoch))
	case *record.FenceBrokerRecord:
		return b.fence(r.ID, r.Epoch, 1)
	case *record.UnfenceBrokerRecord:
		return b.fence(r.ID, r.Epoch, -1)
	case *record.BrokerRegistrationChangeRecord:
		return b.changeBroker(r)
	default:
		return b.applySetting(r)
	}
	return nil
}

// applySetting replays a record that concerns neither topics nor brokers.
func (b *builder) applySetting(r record.Metadata) error {
	switch r := r.(type) {
	case *record.RegisterControllerRecord:
		b.controllers = b.controllers.put(b.edit, model.NodeID(r.ControllerID), newController(r))
		b.delta.Controllers = true
	case *record.UnregisterControllerRecord:
		return b.unregisterController(model.NodeID(r.ControllerID))
	case *record.ConfigRecord:
		b.setConfig(r)
	case *record.FeatureLevelRecord:
		return b.setFeature(r)
	case *record.ProducerIdsRecord:
		return b.setProducerIDs(r)
	case *record.AccessControlEntryRecord:
		return b.addACL(r)
	case *record.RemoveAccessControlEntryRecord:
		return b.removeACL(r)
	case *record.UserScramCredentialRecord:
		b.scram = b.scram.put(b.edit, scramKey{r.Name, r.Mechanism}, r)
		b.delta.Scram = true
	case *record.RemoveUserScramCredentialRecord:
		return b.removeScram(r)
	case *record.ClientQuotaRecord:
		b.setQuota(r)
	case *record.DelegationTokenRecord:
		b.tokens = b.tokens.put(b.edit, r.TokenID, r)
		b.delta.Tokens = true
	case *record.RemoveDelegationTokenRecord:
		b.tokens = b.tokens.del(b.edit, r.TokenID)
		b.delta.Tokens = true
	case *record.NoOpRecord, *record.ZkMigrationStateRecord:
	default:
		return fmt.Errorf("record type %d is not one of an image", r.Type())
	}
	return nil
}
