package api

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/storage"
)

// codes maps what lower packages say to what Kafka says; first match wins. It is
// the only such place.
var codes = []struct {
	is   error
	code *kerr.Error
}{
	{broker.ErrNotLeader, kerr.NotLeaderForPartition},
	{storage.ErrFenced, kerr.NotLeaderForPartition},
	{broker.ErrFencedEpoch, kerr.FencedLeaderEpoch},
	{broker.ErrUnknownEpoch, kerr.UnknownLeaderEpoch},
	{broker.ErrGone, kerr.UnknownTopicOrPartition},
	{broker.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{broker.ErrTooFewAfterAppend, kerr.NotEnoughReplicasAfterAppend},
	{broker.ErrTimeout, kerr.RequestTimedOut},
	{broker.ErrFolder, kerr.KafkaStorageError},
	{broker.ErrTooLarge, kerr.MessageTooLarge},
	{broker.ErrPolicy, kerr.PolicyViolation},
	{batch.ErrTooLarge, kerr.MessageTooLarge},
	{batch.ErrTimestamp, kerr.InvalidTimestamp},
	{batch.ErrCodec, kerr.UnsupportedCompressionType},
	{batch.ErrInvalid, kerr.InvalidRecord},
	{batch.ErrCorrupt, kerr.CorruptMessage},
	{batch.ErrShort, kerr.CorruptMessage},
	{storage.ErrInvalid, kerr.InvalidRecord},
	{storage.ErrSequence, kerr.OutOfOrderSequenceNumber},
	{storage.ErrProducerEpoch, kerr.InvalidProducerEpoch},
	{storage.ErrTxnState, kerr.InvalidTxnState},
	{storage.ErrCoordinatorEpoch, kerr.TransactionCoordinatorFenced},
	{storage.ErrMessageTooLarge, kerr.MessageTooLarge},
	{storage.ErrTooLarge, kerr.RecordListTooLarge},
	{storage.ErrOutOfRange, kerr.OffsetOutOfRange},
	{storage.ErrFull, kerr.KafkaStorageError},
	{storage.ErrFailed, kerr.KafkaStorageError},
	{storage.ErrClosed, kerr.NotLeaderForPartition},
	{coord.ErrLoading, kerr.CoordinatorLoadInProgress},
	{coord.ErrNotCoordinator, kerr.NotCoordinator},
	{broker.ErrNoCoordinator, kerr.NotCoordinator},
	{coord.ErrFailed, kerr.CoordinatorNotAvailable},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.BrokerNotAvailable},
}

// code is Kafka's error code for err, 0 for nil.
func code(err error) int16 {
	if err == nil {
		return 0
	}
	var k *kerr.Error
	if errors.As(err, &k) {
		return k.Code
	}
	for _, c := range codes {
		if errors.Is(err, c.is) {
			return c.code.Code
		}
	}
	return kerr.UnknownServerError.Code
}

// text gives an error's words for protocol fields that carry a message.
func text(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}
