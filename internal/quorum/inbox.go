package quorum

import (
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/controller"
)

const (
	// maxCalls bounds the requests that wait for a decision.
	maxCalls = 10000
	// maxPeerMessages bounds the messages of other voters that wait; raft repeats
	// what it needs, so the rest may be lost.
	maxPeerMessages = 4096
)

// A call is one request that waits for its answer.
type call struct {
	req  kmsg.Request
	who  controller.Requester
	done chan answer // room for one; at most one is sent
	gone atomic.Bool // nobody waits any more
}

type answer struct {
	resp kmsg.Response
	err  error
}

// inbox is how others reach the loop goroutine. Nothing in it blocks.
type inbox struct {
	ready chan struct{} // room for one: there is something to look at

	mu     sync.Mutex
	calls  []*call
	peers  []*pb.Message // from other voters, may be dropped
	local  []*pb.Message // from the writer, never dropped
	events []func()      // run on the loop goroutine
	closed bool
}

func (b *inbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) call(c *call) error {
	b.mu.Lock()
	switch {
	case b.closed:
		b.mu.Unlock()
		return ErrClosed
	case len(b.calls) >= maxCalls:
		b.mu.Unlock()
		return ErrBusy
	}
	b.calls = append(b.calls, c)
	b.mu.Unlock()
	b.wake()
	return nil
}

func (b *inbox) fromPeer(m *pb.Message) {
	b.mu.Lock()
	if len(b.peers) < maxPeerMessages {
		b.peers = append(b.peers, m)
	}
	b.mu.Unlock()
	b.wake()
}

// fromWriter delivers what the writer has done; events run before the messages.
func (b *inbox) fromWriter(msgs []*pb.Message, events ...func()) {
	b.mu.Lock()
	b.local = append(b.local, msgs...)
	b.events = append(b.events, events...)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) post(f func()) { b.fromWriter(nil, f) }

// mail is what one look into the inbox finds.
type mail struct {
	calls        []*call
	peers, local []*pb.Message
	events       []func()
}

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := mail{b.calls, b.peers, b.local, b.events}
	b.calls, b.peers, b.local, b.events = nil, nil, nil, nil
	return m
}

// close refuses calls from now on and returns those that wait.
func (b *inbox) close() []*call {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	calls := b.calls
	b.calls = nil
	return calls
}
