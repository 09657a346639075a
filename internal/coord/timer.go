package coord

import (
	"container/heap"
	"time"
)

// timers are a machine's timers: a heap by time and an index by key.
type timers struct {
	heap  timerHeap
	byKey map[string]*timer
}

type timer struct {
	Timer
	at int // in the heap; -1 when it has fired and is being decided
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].At.Before(h[j].At) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *timerHeap) Push(x any)        { t := x.(*timer); t.at = len(*h); *h = append(*h, t) }
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.at = -1
	return t
}

// set sets, moves or (zero At) cancels a timer.
func (ts *timers) set(t Timer) {
	if ts.byKey == nil {
		ts.byKey = make(map[string]*timer)
	}
	have := ts.byKey[t.Key]
	switch {
	case t.At.IsZero():
		if have != nil {
			heap.Remove(&ts.heap, have.at)
			delete(ts.byKey, t.Key)
		}
	case have != nil:
		have.At = t.At
		heap.Fix(&ts.heap, have.at)
	default:
		have = &timer{Timer: t}
		ts.byKey[t.Key] = have
		heap.Push(&ts.heap, have)
	}
}

// due takes the timer out if it is set and its time has come.
func (ts *timers) due(key string, now time.Time) bool {
	t := ts.byKey[key]
	if t == nil || t.At.After(now) {
		return false
	}
	heap.Remove(&ts.heap, t.at)
	delete(ts.byKey, key)
	return true
}

// next is when the earliest timer ends; zero if there is none.
func (ts *timers) next() time.Time {
	if len(ts.heap) == 0 {
		return time.Time{}
	}
	return ts.heap[0].At
}

// keysDue lists the timers that have ended by now, earliest first.
func (ts *timers) keysDue(now time.Time) []string {
	var keys []string
	var rest []*timer
	for len(ts.heap) > 0 && !ts.heap[0].At.After(now) {
		t := heap.Pop(&ts.heap).(*timer)
		keys, rest = append(keys, t.Key), append(rest, t)
	}
	for _, t := range rest {
		heap.Push(&ts.heap, t)
	}
	return keys
}

// wakeAtLocked arms the alarm for the earliest timer. Called when the goroutine
// is about to rest.
func (s *Shard) wakeAtLocked() {
	at := s.timers.next()
	if at.IsZero() {
		if s.alarm != nil {
			s.alarm.Stop()
		}
		return
	}
	wait := max(0, at.Sub(s.cfg.Now()))
	if s.alarm == nil {
		s.alarm = time.AfterFunc(wait, s.ring)
		return
	}
	s.alarm.Reset(wait)
}

// ring queues the timers that have ended.
func (s *Shard) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy || s.closed != nil {
		return // the goroutine looks at the timers when it rests
	}
	for _, key := range s.timers.keysDue(s.cfg.Now()) {
		s.pushLocked(event{timeout: key})
	}
	if !s.busy { // the alarm was early by the clock
		s.wakeAtLocked()
	}
}
