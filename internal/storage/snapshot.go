package storage

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"ottla.dev/ottla/internal/model"
)

// A producer snapshot (NNN.snapshot) is the state of all producers after the
// records below offset NNN, so that opening a log need not read it from its
// beginning. Big endian:
//
//	 0  version int16 = 1
//	 2  crc     uint32  CRC-32C of all that follows
//	 6  count   int32
//	10  count times 46 bytes:
//	    0  producerId       int64
//	    8  producerEpoch    int16
//	   10  lastSequence     int32   -1 = no batch in this epoch
//	   14  lastOffset       int64   of that batch, -1
//	   22  offsetDelta      int32   of that batch, 0
//	   26  timestamp        int64
//	   34  coordinatorEpoch int32   -1 = no marker
//	   38  txnFirstOffset   int64   -1 = no open transaction
//
// Only the last batch of a producer is kept: after a restart an older copy is
// refused, not recognised. Not synced before the recovery point passes it (D2);
// a torn one fails its checksum, and an older one serves.
const (
	snapshotHeader = 10
	snapshotEntry  = 46

	// maxSnapshot bounds what is read: ten million producers.
	maxSnapshot = snapshotHeader + 10_000_000*snapshotEntry
)

// appendSnapshot encodes the state, producers by id.
func appendSnapshot(dst []byte, ps *producers) []byte {
	at := len(dst)
	dst = append(dst, 0, 1, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(ps.byID)))
	ids := make([]int64, 0, len(ps.byID))
	for id := range ps.byID {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(a, b) })
	for _, id := range ids {
		p := ps.byID[id]
		s := span{last: -1, lastSeq: -1}
		if last := p.lastSpan(); last != nil {
			s = *last
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(id))
		dst = binary.BigEndian.AppendUint16(dst, uint16(p.epoch))
		dst = binary.BigEndian.AppendUint32(dst, uint32(s.lastSeq))
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.last))
		dst = binary.BigEndian.AppendUint32(dst, uint32(s.delta))
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.timestamp))
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.coordinator))
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.txn))
	}
	crc := crc32.Checksum(dst[at+6:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(dst[at+2:], crc)
	return dst
}

// parseSnapshot decodes a snapshot.
func parseSnapshot(b []byte) (*producers, error) {
	if len(b) < snapshotHeader {
		return nil, fmt.Errorf("%w: producer snapshot of %d bytes", errCorrupt, len(b))
	}
	if v := binary.BigEndian.Uint16(b); v != 1 {
		return nil, fmt.Errorf("%w: producer snapshot has version %d, only 1 is known", errCorrupt, v)
	}
	want := binary.BigEndian.Uint32(b[2:])
	if got := crc32.Checksum(b[6:], crc32.MakeTable(crc32.Castagnoli)); got != want {
		return nil, fmt.Errorf("%w: producer snapshot has CRC %08x but its bytes give %08x", errCorrupt, want, got)
	}
	count := int64(binary.BigEndian.Uint32(b[6:]))
	if count*snapshotEntry != int64(len(b)-snapshotHeader) {
		return nil, fmt.Errorf("%w: producer snapshot of %d bytes says it has %d entries", errCorrupt, len(b), count)
	}
	ps := &producers{}
	if count == 0 {
		return ps, nil
	}
	ps.byID = make(map[int64]*producer, count)
	for e := b[snapshotHeader:]; len(e) > 0; e = e[snapshotEntry:] {
		p := newProducer()
		p.epoch = int16(binary.BigEndian.Uint16(e[8:]))
		p.timestamp = int64(binary.BigEndian.Uint64(e[26:]))
		p.coordinator = int32(binary.BigEndian.Uint32(e[34:]))
		p.txn = max(model.Offset(binary.BigEndian.Uint64(e[38:])), model.NoOffset)
		s := span{
			lastSeq:   int32(binary.BigEndian.Uint32(e[10:])),
			last:      model.Offset(binary.BigEndian.Uint64(e[14:])),
			delta:     int32(binary.BigEndian.Uint32(e[22:])),
			timestamp: p.timestamp,
		}
		if s.last >= 0 {
			if s.lastSeq < 0 || s.delta < 0 {
				return nil, fmt.Errorf("%w: producer snapshot has sequence %d and delta %d", errCorrupt, s.lastSeq, s.delta)
			}
			p.push(s)
		}
		ps.byID[int64(binary.BigEndian.Uint64(e))] = p
	}
	ps.reopen()
	return ps, nil
}
