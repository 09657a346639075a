package batch

import (
	"encoding/binary"
	"fmt"

	"ottla.dev/ottla/internal/model"
)

// ControlType says what a control record is about. It lies in the record's key.
type ControlType int16

// The control records that Kafka has.
const (
	Abort ControlType = iota
	Commit
	LeaderChange
	SnapshotHeader
	SnapshotFooter
	KRaftVersion
	KRaftVoters
)

// String names the type as Kafka's dump tool does.
func (t ControlType) String() string {
	names := [...]string{"ABORT", "COMMIT", "LEADER_CHANGE", "SNAPSHOT_HEADER", "SNAPSHOT_FOOTER", "KRAFT_VERSION", "KRAFT_VOTERS"}
	if t < 0 || int(t) >= len(names) {
		return fmt.Sprintf("control type %d", int16(t))
	}
	return names[t]
}

// ControlKey encodes the key of a control record:
//
//	version int16 = 0 | type int16
func ControlKey(t ControlType) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(t))
}

// ParseControlKey reads a control record's key. Types that are not known here are
// returned as they are: a reader skips them. A later version may only add fields,
// so the first two are read from any.
func ParseControlKey(key []byte) (ControlType, error) {
	if len(key) < 4 {
		return 0, fmt.Errorf("%w: control record key has %d bytes, at least 4 are needed", ErrInvalid, len(key))
	}
	if v := int16(binary.BigEndian.Uint16(key)); v < 0 {
		return 0, fmt.Errorf("%w: control record key has version %d", ErrInvalid, v)
	}
	return ControlType(binary.BigEndian.Uint16(key[2:])), nil
}

// EndTxnValue encodes the value of an Abort or Commit record:
//
//	version int16 = 0 | coordinatorEpoch int32
func EndTxnValue(coordinatorEpoch int32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(coordinatorEpoch))
}

// ParseEndTxnValue reads the coordinator epoch of an Abort or Commit record.
func ParseEndTxnValue(value []byte) (coordinatorEpoch int32, err error) {
	if len(value) < 6 {
		return 0, fmt.Errorf("%w: end of transaction record has %d bytes, at least 6 are needed", ErrInvalid, len(value))
	}
	if v := int16(binary.BigEndian.Uint16(value)); v < 0 {
		return 0, fmt.Errorf("%w: end of transaction record has version %d", ErrInvalid, v)
	}
	return int32(binary.BigEndian.Uint32(value[2:])), nil
}

// EndTxnMarker builds the batch that ends a producer's transaction on a partition:
// one control record, transactional, without a sequence number. now is in
// milliseconds.
func EndTxnMarker(p model.Producer, commit bool, coordinatorEpoch int32, now int64) Batch {
	t := Abort
	if commit {
		t = Commit
	}
	var b Builder
	b.Reset(BuilderOptions{Epoch: model.NoEpoch, Producer: p, Sequence: -1, Transactional: true, Control: true})
	b.Add(now, ControlKey(t), EndTxnValue(coordinatorEpoch))
	return b.plain()
}
