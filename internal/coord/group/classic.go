package group

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
)

// state is where a classic group stands.
type state int8

const (
	empty state = iota
	preparing
	completing
	stable
)

// String gives Kafka's word for the state.
func (s state) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// classic is the membership of a classic group.
type classic struct {
	state        state
	since        int64 // when state was entered, milliseconds; of the last record after a load
	protocolType string
	generation   int32
	protocol     string // chosen by vote for the generation, "" if none
	leader       string // member id, "" if none

	members map[string]*member
	static  map[string]string // instance id → member id
	order   int               // joins so far, for member.joined

	// pending are member ids that were handed out and have not come back.
	pending map[string]bool

	// The first rebalance of an empty group waits for more members: until there
	// was none new for a while, at most for remaining.
	initial   bool
	newcomers bool
	remaining time.Duration
}

func newClassic() classic {
	return classic{members: make(map[string]*member), static: make(map[string]string), pending: make(map[string]bool)}
}

// member is one member of a classic group.
type member struct {
	id         string
	instance   *string // group.instance.id of a static member
	clientID   string
	clientHost string
	session    time.Duration
	rebalance  time.Duration
	joined     int // place in the order of joins: the first becomes leader
	protocols  []kmsg.JoinGroupRequestProtocol
	assignment []byte

	// join and sync are the requests that wait for an answer, 0 if none.
	join, sync coord.Token
	isNew      bool // has not been through a rebalance yet
	synced     bool // has asked for its assignment in this generation
}

func (c *classic) to(s state, now time.Time) { c.state, c.since = s, now.UnixMilli() }

// add makes m a member.
func (c *classic) add(m *member) {
	c.order++
	m.joined = c.order
	if len(c.members) == 0 || c.leader == "" {
		c.leader = m.id
	}
	c.members[m.id] = m
	if m.instance != nil {
		c.static[*m.instance] = m.id
	}
}

// remove takes a member out; another leads if it did.
func (c *classic) remove(m *member) {
	delete(c.members, m.id)
	if m.instance != nil && c.static[*m.instance] == m.id {
		delete(c.static, *m.instance)
	}
	if c.leader == m.id {
		c.leader = ""
		if first := c.ordered(); len(first) > 0 {
			c.leader = first[0].id
		}
	}
}

// ordered gives the members in the order in which they joined.
func (c *classic) ordered() []*member {
	all := make([]*member, 0, len(c.members))
	for _, m := range c.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return a.joined - b.joined })
	return all
}

// rebalanceTimeout is the longest of the members'.
func (c *classic) rebalanceTimeout() time.Duration {
	var longest time.Duration
	for _, m := range c.members {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// supports reports whether a member with these protocols could join: all
// members must support one of them, its own former self too.
func (c *classic) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if c.state == empty {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == c.protocolType && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return c.common(p.Name) })
}

// accepts reports whether the group has room for a member (KAFKA.md 8.2). During
// a rebalance those who wait count, so that a group that has become too large
// refuses the last to come.
func (c *classic) accepts(id string, size int) bool {
	m := c.members[id]
	switch c.state {
	case empty:
		return true
	case preparing:
		return m != nil && m.join != 0 || c.waiting() < size
	}
	return m != nil || len(c.members) < size
}

// waiting counts the members that have joined and wait for the barrier.
func (c *classic) waiting() int {
	n := 0
	for _, m := range c.members {
		if m.join != 0 {
			n++
		}
	}
	return n
}

// synced reports whether every member has asked for its assignment.
func (c *classic) synced() bool {
	for _, m := range c.members {
		if !m.synced {
			return false
		}
	}
	return true
}

// common reports whether every member supports a protocol.
func (c *classic) common(name string) bool {
	for _, m := range c.members {
		if !slices.ContainsFunc(m.protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return p.Name == name }) {
			return false
		}
	}
	return true
}

// vote chooses the protocol: of those that all support, each member votes for the
// first of its own list; ties go to the name that comes first.
func (c *classic) vote() string {
	votes := make(map[string]int)
	for _, m := range c.members {
		for _, p := range m.protocols {
			if c.common(p.Name) {
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	for name, n := range votes {
		if n > votes[best] || n == votes[best] && name < best {
			best = name
		}
	}
	return best
}

// metadata is the member's for a protocol.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// same reports whether a rejoin brings nothing new.
func (m *member) same(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b kmsg.JoinGroupRequestProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// subscribed reports whether a member of a consumer group has subscribed to a
// topic; known is false if that cannot be told.
func (g *group) subscribed(topic string) (yes, known bool) {
	c := &g.classic
	if c.protocolType != "consumer" {
		return false, false
	}
	for _, m := range c.members {
		var sub kmsg.ConsumerMemberMetadata
		if len(m.protocols) == 0 {
			return false, false
		}
		meta := m.metadata(c.protocol)
		if meta == nil {
			meta = m.protocols[0].Metadata
		}
		if err := sub.ReadFrom(meta); err != nil {
			return false, false
		}
		if slices.Contains(sub.Topics, topic) {
			return true, true
		}
	}
	return false, true
}
