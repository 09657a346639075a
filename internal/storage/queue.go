package storage

import "sync"

// queue is what waits for a log's writer. Whoever pushes into an idle queue
// becomes the writer and must drain it.
type queue struct {
	mu         sync.Mutex
	head, tail *Append
	busy       bool // somebody drains
}

// push adds the list from first to last and reports whether the caller must drain.
func (q *queue) push(first, last *Append) bool {
	last.next = nil
	q.mu.Lock()
	if q.tail == nil {
		q.head = first
	} else {
		q.tail.next = first
	}
	q.tail = last
	drain := !q.busy
	q.busy = true
	q.mu.Unlock()
	return drain
}

// take removes everything; nil ends the caller's time as the writer.
func (q *queue) take() *Append {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.head
	q.head, q.tail = nil, nil
	if list == nil {
		q.busy = false
	}
	return list
}
