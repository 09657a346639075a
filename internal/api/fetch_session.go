package api

import (
	"container/list"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/model"
)

// Fetch sessions (KIP-227): the broker remembers which partitions a reader
// wants, so that requests and answers carry only what changed.
//
//	epoch -1, id 0   no session
//	epoch -1, id n   close session n, answer in full
//	epoch  0         open a new one, answer in full with its id
//	epoch  k > 0     continue; k must be what the session expects, which then
//	                 grows by one, from 2^31-1 to 1

// idleEviction is how long a session must be unused before another may take its
// slot, Kafka's min.incremental.fetch.session.eviction.ms.
const idleEviction = 2 * time.Minute

// maxSessions bounds the memory of all sessions, in bytes as partCost counts
// them. Beyond it requests go without a session, as when all slots are taken.
const maxSessions = 128 << 20

// partCost is about what a session holds for a partition, besides its name.
const partCost = 300

// sessions is the cache of fetch sessions.
type sessions struct {
	slots  int
	random func() uint64

	mu   sync.Mutex
	held int64 // sum of the sessions' cost
	byID map[int32]*session
	used *list.List // of *session, least recently used first
}

// session is one reader's set of partitions.
type session struct {
	id    int32
	byIDs bool // topic ids (v13 and later) rather than names

	// Guarded by the cache's mu.
	last time.Time
	elem *list.Element
	cost int64 // of its partitions, in held

	mu    sync.Mutex
	epoch int32 // the next request's
	parts map[partKey]*sessionPart
	order *list.List // of *sessionPart: the order of service; who got data goes last
}

// sessionPart is one partition of a session.
type sessionPart struct {
	key   partKey // name is our own copy
	read  broker.Read
	max   int32
	elem  *list.Element
	high  model.Offset // as last told; NoOffset makes the next answer news
	start model.Offset
	known bool // the topic id led to a topic once
}

func newSessions(slots int, random func() uint64) *sessions {
	return &sessions{slots: slots, random: random, byID: make(map[int32]*session), used: list.New()}
}

// count is how many sessions there are.
func (c *sessions) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// begin finds the request's session and the partitions that it is about.
func (c *sessions) begin(f *fetch) error {
	q := &f.ask
	byIDs := f.r.Version >= 13
	if q.sessionEpoch == 0 || q.sessionEpoch == -1 {
		if q.sessionID != 0 {
			c.remove(q.sessionID)
		}
		f.items = f.items[:0]
		if q.sessionEpoch == 0 {
			if s := c.open(byIDs); s != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				if c.charge(s, s.update(q)) {
					f.session = s
					f.items = s.items(f.items)
					return nil
				}
				c.remove(s.id)
			}
		}
		f.items = direct(f.items, q.parts)
		return nil
	}
	s := c.touch(q.sessionID)
	if s == nil {
		return kerr.FetchSessionIDNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != q.sessionEpoch:
		return kerr.InvalidFetchSessionEpoch
	case s.byIDs != byIDs:
		return kerr.FetchSessionTopicIDError
	}
	if !c.charge(s, s.update(q)) {
		c.remove(s.id)
		return kerr.FetchSessionIDNotFound
	}
	if len(s.parts) == 0 { // the last partition was forgotten: the session ends
		c.remove(s.id)
		f.items = direct(f.items[:0], q.parts)
		return nil
	}
	f.session = s
	f.items = s.items(f.items[:0])
	return nil
}

// direct makes the items of a request without a session. A partition that is
// named again counts once, as it was named last.
func direct(items []fetchItem, parts []fetchPart) []fetchItem {
	const few = 8
	var seen map[partKey]int
	if len(parts) > few {
		seen = make(map[partKey]int)
	}
	for _, p := range parts {
		it := fetchItem{key: p.key, name: p.key.name, want: p.read, max: int64(p.max)}
		at, again := seen[p.key]
		if seen == nil {
			at = slices.IndexFunc(items, func(have fetchItem) bool { return have.key == p.key })
			again = at >= 0
		}
		switch {
		case again:
			items[at] = it
		default:
			if seen != nil {
				seen[p.key] = len(items)
			}
			items = append(items, it)
		}
	}
	return items
}

// charge books what a session's partitions take more, and tells whether there
// is room for it.
func (c *sessions) charge(s *session, more int64) bool {
	if more == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[s.id] != s {
		return true // it was evicted meanwhile and ends with this request
	}
	s.cost += more
	c.held += more
	return more < 0 || c.held <= maxSessions
}

// open makes a new session, nil if all slots are taken by busy ones.
func (c *sessions) open(byIDs bool) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byID) >= c.slots {
		oldest := c.used.Front()
		if oldest == nil || time.Since(oldest.Value.(*session).last) < idleEviction {
			return nil
		}
		c.removeLocked(oldest.Value.(*session))
	}
	s := &session{byIDs: byIDs, epoch: 0, parts: make(map[partKey]*sessionPart), order: list.New(), last: time.Now()}
	for s.id == 0 || c.byID[s.id] != nil {
		s.id = int32(c.random() & math.MaxInt32)
	}
	c.byID[s.id] = s
	s.elem = c.used.PushBack(s)
	return s
}

// touch finds a session and marks it used.
func (c *sessions) touch(id int32) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.byID[id]
	if s != nil {
		s.last = time.Now()
		c.used.MoveToBack(s.elem)
	}
	return s
}

func (c *sessions) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byID[id]; s != nil {
		c.removeLocked(s)
	}
}

func (c *sessions) removeLocked(s *session) {
	delete(c.byID, s.id)
	c.used.Remove(s.elem)
	c.held -= s.cost
}

// update takes over what the request says and moves on to the next epoch. It
// returns by how much the session's cost grew. The caller holds s.mu.
func (s *session) update(q *fetchRequest) (more int64) {
	if s.epoch == math.MaxInt32 {
		s.epoch = 0
	}
	s.epoch++
	for _, p := range q.parts {
		have := s.parts[p.key]
		if have == nil {
			key := p.key
			key.name = strings.Clone(key.name)
			have = &sessionPart{key: key, high: model.NoOffset, start: model.NoOffset}
			have.elem = s.order.PushBack(have)
			s.parts[key] = have
			more += partCost + int64(len(key.name))
		}
		have.read, have.max = p.read, p.max
	}
	for _, key := range q.forget {
		if have := s.parts[key]; have != nil {
			s.order.Remove(have.elem)
			delete(s.parts, have.key)
			more -= partCost + int64(len(key.name))
		}
	}
	for _, p := range s.parts { // isolation and replica are the request's, not the partition's
		p.read.Committed, p.read.Replica = q.committed, q.replica
	}
	return more
}

// items lists the session's partitions in the order of service. The caller
// holds s.mu.
func (s *session) items(items []fetchItem) []fetchItem {
	for e := s.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*sessionPart)
		items = append(items, fetchItem{key: p.key, name: p.key.name, want: p.read, max: int64(p.max), sess: p})
	}
	return items
}

// choose marks the items that stand in the answer and remembers what they tell.
func (s *session) choose(items []fetchItem, incremental bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range items {
		it := &items[i]
		p, sl := it.sess, &it.slice
		news := it.got > 0 || sl.Err != nil || sl.Diverges || p.high != sl.High || p.start != sl.Start
		it.answered = news || !incremental
		p.high, p.start = sl.High, sl.Start
		if sl.Err != nil {
			p.high = model.NoOffset // the recovery is news
		}
		if it.got > 0 && s.parts[p.key] == p {
			s.order.MoveToBack(p.elem)
		}
	}
}
