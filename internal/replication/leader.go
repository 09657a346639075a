// Package replication holds the rules by which a partition's replicas agree, as
// pure state machines: no clock, no I/O, no locks. The broker feeds them what
// happened (the log grew, a disk flushed, a follower fetched) and acts on what
// they conclude. Rules: KAFKA.md 6 and DESIGN.md section 5, "Durable, precisely".
package replication

import (
	"slices"

	"ottla.dev/ottla/internal/model"
)

// Leader is the leader's view of one partition in one leader epoch. It is not
// safe for concurrent use; the partition's lock guards it.
//
// INV-REPL-1: the high watermark never goes back within a Leader.
// INV-REPL-2: everything below the high watermark is flushed here and was
// reported durable by every member of the maximal ISR.
type Leader struct {
	self model.NodeID

	// isr is the set that acks and the high watermark wait for: the ISR that the
	// controller knows together with members whose addition is in flight.
	isr []model.NodeID

	// replicas is the assignment; len(replicas) is the replication factor.
	replicas []model.NodeID

	// minISR is min.insync.replicas. The high watermark stands still while the
	// ISR is smaller than min(minISR, replication factor) (KIP-966).
	minISR int

	// end and flushed are the local log's: flushed <= end.
	end, flushed model.Offset

	// fetched has, per follower, the offset of its last fetch: all below it is
	// durable there. A follower not in the map has not fetched in this epoch.
	fetched map[model.NodeID]model.Offset

	high model.Offset
}

// NewLeader starts an epoch with what the local log and the last known high
// watermark say.
func NewLeader(self model.NodeID, replicas, isr []model.NodeID, minISR int, end, flushed, high model.Offset) *Leader {
	l := &Leader{self: self, replicas: replicas, isr: isr, minISR: minISR, end: end, flushed: flushed, high: min(high, flushed)}
	l.advance()
	return l
}

// High is the high watermark: consumers see what is below it.
func (l *Leader) High() model.Offset { return l.high }

// Local reports how far the local log reaches and how far it is flushed. It
// tells whether the high watermark moved.
func (l *Leader) Local(end, flushed model.Offset) bool {
	l.end, l.flushed = max(l.end, end), max(l.flushed, flushed)
	return l.advance()
}

// Fetched reports a follower's fetch from offset. It tells whether the high
// watermark moved.
func (l *Leader) Fetched(follower model.NodeID, offset model.Offset) bool {
	if l.fetched == nil {
		l.fetched = make(map[model.NodeID]model.Offset, len(l.replicas)-1)
	}
	l.fetched[follower] = offset
	return l.advance()
}

// SetISR takes another assignment or maximal ISR of the same leader epoch, or
// another min.insync.replicas. It tells whether the high watermark moved.
func (l *Leader) SetISR(replicas, isr []model.NodeID, minISR int) bool {
	l.replicas, l.isr, l.minISR = replicas, isr, minISR
	return l.advance()
}

// EnoughISR reports whether acks=all may be accepted: the ISR has at least
// min.insync.replicas members (of the replicas there are).
func (l *Leader) EnoughISR() bool { return len(l.isr) >= min(l.minISR, len(l.replicas)) }

func (l *Leader) advance() bool {
	if !l.EnoughISR() || !slices.Contains(l.isr, l.self) {
		return false
	}
	high := l.flushed
	for _, id := range l.isr {
		if id == l.self {
			continue
		}
		at, ok := l.fetched[id]
		if !ok {
			return false
		}
		high = min(high, at)
	}
	if high <= l.high {
		return false
	}
	l.high = high
	return true
}
