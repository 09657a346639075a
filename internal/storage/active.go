package storage

import "ottla.dev/ottla/internal/model"

// OnActive reports whether the record at offset is, or will be, in the active
// segment. A reader elsewhere gets no more than the rest of its segment at once,
// however much the log has behind it.
func (l *Log) OnActive(offset model.Offset) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.findLocked(offset) == len(l.segments)-1
}
