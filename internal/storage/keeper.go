package storage

import (
	"container/heap"
	"sync"
	"time"
)

// keeper runs things later: unlinking, closing what is idle, flush.ms. It has one
// goroutine while anything is due, and none otherwise.
type keeper struct {
	mu      sync.Mutex
	tasks   taskHeap
	running bool
	stopped bool
	wake    chan struct{} // cap 1: the earliest task changed, or stop
	done    sync.WaitGroup
}

// task is something to do at a time.
type task struct {
	at time.Time
	do func()
}

type taskHeap []task

func (h taskHeap) Len() int           { return len(h) }
func (h taskHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h taskHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *taskHeap) Push(x any)        { *h = append(*h, x.(task)) }
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = task{}
	*h = old[:len(old)-1]
	return t
}

// after calls do once, d from now, on the keeper's goroutine; not at all if the
// keeper is stopped before.
func (k *keeper) after(d time.Duration, do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	heap.Push(&k.tasks, task{time.Now().Add(d), do})
	if k.running {
		select {
		case k.wake <- struct{}{}:
		default:
		}
		return
	}
	k.running = true
	k.wake = make(chan struct{}, 1)
	k.done.Add(1)
	go k.run()
}

func (k *keeper) run() {
	defer k.done.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		k.mu.Lock()
		if k.stopped || len(k.tasks) == 0 {
			k.running = false
			k.mu.Unlock()
			return
		}
		wait := time.Until(k.tasks[0].at)
		if wait <= 0 {
			t := heap.Pop(&k.tasks).(task)
			k.mu.Unlock()
			t.do()
			continue
		}
		k.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-k.wake:
		}
	}
}

// stop drops all tasks and waits for the one that runs.
func (k *keeper) stop() {
	k.mu.Lock()
	k.stopped = true
	k.tasks = nil
	if k.running {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	k.mu.Unlock()
	k.done.Wait()
}
