package storage

import (
	"slices"
	"sort"

	"ottla.dev/ottla/internal/model"
)

// epochStart says that the records from start on were written in epoch, up to
// the next epochStart's start.
type epochStart struct {
	epoch model.Epoch
	start model.Offset
}

// epochs is a log's history of leader epochs, ascending in both fields. It is
// what followers and consumers compare to find where two logs part (KIP-101).
type epochs []epochStart

// latest is the epoch of the last entry.
func (e epochs) latest() (model.Epoch, bool) {
	if len(e) == 0 {
		return model.NoEpoch, false
	}
	return e[len(e)-1].epoch, true
}

// assign notes that epoch begins at start and reports whether that changed
// anything. An older or equal epoch changes nothing. An epoch that got no record
// (its start is not below the new one's) is replaced.
func (e *epochs) assign(epoch model.Epoch, start model.Offset) bool {
	if last, ok := e.latest(); epoch < 0 || ok && epoch <= last {
		return false
	}
	e.cutEnd(start)
	*e = append(*e, epochStart{epoch, start})
	return true
}

// end answers OffsetForLeaderEpoch: the largest epoch not above the one asked
// for that has an entry, and the offset where it ends. NoEpoch and NoOffset if
// the epoch is unknown here or newer than all (KAFKA.md 3.8).
func (e epochs) end(asked model.Epoch, logEnd model.Offset) (model.Epoch, model.Offset) {
	last, ok := e.latest()
	switch {
	case !ok || asked == model.NoEpoch || asked > last:
		return model.NoEpoch, model.NoOffset
	case asked == last:
		return asked, logEnd
	}
	next := sort.Search(len(e), func(i int) bool { return e[i].epoch > asked })
	if next == 0 { // older than all that is left: the log begins after it
		return asked, e[0].start
	}
	return e[next-1].epoch, e[next].start
}

// at is the epoch in which offset was written.
func (e epochs) at(offset model.Offset) (model.Epoch, bool) {
	next := sort.Search(len(e), func(i int) bool { return e[i].start > offset })
	if next == 0 {
		return model.NoEpoch, false
	}
	return e[next-1].epoch, true
}

// cutEnd forgets what begins at end or after it and reports whether there was any.
func (e *epochs) cutEnd(end model.Offset) bool {
	keep := sort.Search(len(*e), func(i int) bool { return (*e)[i].start >= end })
	if keep == len(*e) {
		return false
	}
	*e = slices.Delete(*e, keep, len(*e))
	return true
}

// cutStart forgets epochs that end at start or before it; the epoch that holds
// start now begins there. It reports whether anything changed.
func (e *epochs) cutStart(start model.Offset) bool {
	next := sort.Search(len(*e), func(i int) bool { return (*e)[i].start > start })
	if next == 0 || next == 1 && (*e)[0].start == start {
		return false
	}
	*e = slices.Delete(*e, 0, next-1)
	(*e)[0].start = start
	return true
}
