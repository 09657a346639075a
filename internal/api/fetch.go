package api

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/wire"
)

// fetch is Fetch, key 1, versions 4 to 18: read batches from partitions, waiting
// for them if there are none. v7 sessions (KIP-227), v11 rack, v12 flexible and
// epochs of the last record (KIP-595), v13 topic ids, v15 replica state, v16
// leader hints (KIP-951). Rules: KAFKA.md 3.6.
//
// Preferred read replicas (KIP-392) are never named while there is one node.
func (c call) fetch() {
	f := c.s.fetches.Get().(*fetch)
	f.r = c.Request
	if !f.parse(c.Body, c.Version) {
		f.release()
		c.Close(fmt.Errorf("fetch version %d cannot be decoded", c.Version))
		return
	}
	f.start()
}

// fetch is one Fetch request being served. It is pooled. Between start and
// respond it belongs to one goroutine at a time: the one that won its poll.
type fetch struct {
	s   *Server
	r   *wire.Request
	ask fetchRequest

	session *session // nil without one
	items   []fetchItem
	byteCap int64 // MaxBytes, capped by the broker

	deadline time.Time
	timer    *time.Timer // armed while parked
	files    []wire.FilePart

	// turn counts who is done with a parking: the goroutine that parks, and the
	// event that ends it. The second of them goes on with the request.
	turn atomic.Int32
}

// fetchItem is one partition of the request, or of the session.
type fetchItem struct {
	key      partKey
	name     string // topic name as answered up to v12
	want     broker.Read
	max      int64
	where    *broker.Partition
	err      error
	slice    broker.Slice
	got      int64        // bytes in slice
	sess     *sessionPart // nil without a session
	answered bool         // stands in the answer
}

func newFetch(s *Server) *fetch { return &fetch{s: s} }

// start opens or continues the session, then looks for data.
func (f *fetch) start() {
	cap := int64(f.s.cfg.Settings.Int(config.FetchMaxBytes))
	f.byteCap = min(int64(f.ask.maxBytes), cap)
	if err := f.s.sessions.begin(f); err != nil {
		f.refuse(err)
		return
	}
	f.deadline = time.Now().Add(f.ask.maxWait)
	f.resolve()
	f.look()
}

// resolve finds the partitions of this node.
func (f *fetch) resolve() {
	img, byID := f.s.cfg.Image(), f.r.Version >= 13
	if f.session != nil { // for its parts' known
		f.session.mu.Lock()
		defer f.session.mu.Unlock()
	}
	for i := range f.items {
		it := &f.items[i]
		it.where, it.err = nil, nil
		topic, err := f.s.topic(img, byID, it.name, it.key.id)
		if err != nil {
			it.err = err
			if it.sess != nil && it.sess.known { // it was deleted meanwhile
				it.err = kerr.UnknownTopicOrPartition
			}
			continue
		}
		if byID && it.sess != nil {
			it.sess.known = true
		}
		if topic != nil {
			it.where = topic.Partition(it.key.partition)
		}
		if it.where == nil {
			it.err = missing(img, topic, it.key.partition)
		}
	}
}

// look reads what there is. It answers if that is enough or waiting is over,
// else it parks the request on all its partitions.
func (f *fetch) look() {
	for {
		bytes, urgent := f.read()
		wait := time.Until(f.deadline)
		if urgent || bytes >= min(int64(f.ask.minBytes), f.byteCap) || wait <= 0 || len(f.items) == 0 || f.s.ctx.Err() != nil || f.abandoned() {
			f.respond()
			return
		}
		f.drop()
		if f.park(min(wait, parkedMost)) {
			return
		}
	}
}

// parkedMost is after how long a parked request looks whether its client is still
// there: max.wait.ms may be weeks.
const parkedMost = 30 * time.Second

// abandoned reports whether the client is gone.
func (f *fetch) abandoned() bool {
	select {
	case <-f.r.Conn().Done():
		return true
	default:
		return false
	}
}

// read takes data for all partitions in order. urgent means that there is an
// answer which must not wait: an error, or data of a segment that will not grow.
func (f *fetch) read() (bytes int64, urgent bool) {
	left := f.byteCap
	first := true
	for i := range f.items {
		it := &f.items[i]
		it.got = 0
		it.slice = broker.Slice{High: model.NoOffset, Stable: model.NoOffset, Start: model.NoOffset, Err: it.err}
		if it.err != nil {
			urgent = true
			continue
		}
		it.want.MaxBytes = max(0, min(it.max, left))
		it.want.MinOne = first
		it.slice = it.where.Read(it.want)
		if it.slice.Err != nil || it.slice.Diverges {
			urgent = true
			continue
		}
		if it.got = it.slice.Chunk.Len(); it.got > 0 {
			first = false
			bytes += it.got
			left -= it.got
			urgent = urgent || !it.where.Log().OnActive(it.want.Offset)
		}
	}
	return bytes, urgent
}

// drop lets go of what read took.
func (f *fetch) drop() {
	for i := range f.items {
		if f.items[i].got > 0 {
			f.items[i].slice.Chunk.Close()
			f.items[i].got = 0
		}
	}
}

// park makes the request wait on its partitions and on the clock. It reports
// false if an event came while it was still parking: look again.
func (f *fetch) park(wait time.Duration) bool {
	f.detach()
	poll := &broker.Poll{}
	poll.Fire = func() { go f.wake(poll) }
	f.turn.Store(0)
	f.timer = time.AfterFunc(wait, func() {
		if poll.Cancel() {
			f.wake(poll)
		}
	})
	for i := range f.items {
		it := &f.items[i]
		it.where.Park(poll, &it.slice)
	}
	if f.s.ctx.Err() != nil && poll.Cancel() { // closed while parking: nobody will wake us
		f.turn.Add(1)
	}
	if f.turn.Add(1) == 1 {
		return true
	}
	f.unpark(poll)
	return false
}

// detach lets go of the request's body, so that a thousand waiting consumers hold
// none of the memory that requests in work share.
func (f *fetch) detach() {
	for i := range f.items {
		if it := &f.items[i]; it.sess == nil {
			it.name = strings.Clone(it.name)
			it.key.name = it.name
		}
	}
	f.ask.drop()
	f.r.Release()
}

// wake goes on after a partition or the clock called.
func (f *fetch) wake(poll *broker.Poll) {
	if f.turn.Add(1) == 1 {
		return // park has not finished; it will see this
	}
	f.unpark(poll)
	f.look()
}

func (f *fetch) unpark(poll *broker.Poll) {
	f.timer.Stop()
	for i := range f.items {
		f.items[i].where.Unpark(poll)
	}
}

// refuse answers an error for the whole request.
func (f *fetch) refuse(err error) {
	f.items = f.items[:0]
	f.r.Reply(f.encode(f.r.Buffer(64), code(err), 0, f.s.cfg.Image()))
	f.release()
}

// respond answers with what read took.
func (f *fetch) respond() {
	id := int32(0)
	if f.session != nil {
		id = f.session.id
	}
	f.choose()
	b := f.encode(f.r.Buffer(f.sizeHint()), 0, id, f.s.cfg.Image())
	f.r.Reply(b, f.files...)
	f.release()
}

// choose marks what stands in the answer: everything in a full one, in an
// incremental one what is new (KIP-227).
func (f *fetch) choose() {
	if f.session == nil {
		for i := range f.items {
			f.items[i].answered = true
		}
		return
	}
	f.session.choose(f.items, f.ask.sessionEpoch > 0)
}

// release gives the request back to the pool.
func (f *fetch) release() {
	clear(f.items)
	clear(f.files)
	f.files = f.files[:0]
	f.ask.drop()
	if cap(f.items) > keptPartitions {
		f.items = nil
	}
	f.items, f.r, f.session, f.timer = f.items[:0], nil, nil, nil
	f.s.fetches.Put(f)
}

// leaderHint is where a client should go instead, if the error says so.
func (it *fetchItem) leaderHint(img *image.Image, listener string) (node model.NodeID, epoch model.Epoch, ep image.Endpoint, ok bool) {
	if it.where == nil || it.slice.Role == nil {
		return model.NoNode, model.NoEpoch, ep, false
	}
	switch code(it.slice.Err) {
	case kerr.NotLeaderForPartition.Code, kerr.FencedLeaderEpoch.Code:
	default:
		return model.NoNode, model.NoEpoch, ep, false
	}
	role := it.slice.Role
	ep, _ = endpoint(img, role.Leader, listener)
	return role.Leader, role.Epoch, ep, true
}
