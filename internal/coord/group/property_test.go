package group

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/model"
)

// client is a member that behaves: it joins, syncs, beats and commits, and now
// and then it is silent, leaves or changes its protocols.
type client struct {
	w         *world
	name      string
	id        string
	instance  *string
	protocols []string
	gen       int32 // of the last join, 0 before
	asked     bool  // waits for an answer
	joined    bool  // has an answer and must sync
	synced    bool
	leads     bool
	others    []string
	silent    bool
	old       bool // joins without asking for an id first
	highest   int32
}

// history is what the clients were told.
type history struct {
	assigned map[string]string // generation → assignment
	leader   map[int32]string
	commits  map[int32]int64 // acknowledged
}

func (c *client) join(h *history) {
	if c.asked {
		return
	}
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.InstanceID, r.ProtocolType = "g", c.id, c.instance, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10000, 20000
	version := int16(9)
	if c.old {
		version = 3
	}
	for _, p := range c.protocols {
		jp := kmsg.NewJoinGroupRequestProtocol()
		jp.Name, jp.Metadata = p, []byte("meta "+p)
		r.Protocols = append(r.Protocols, jp)
	}
	c.asked, c.joined, c.synced = true, false, false
	asked := c.id
	c.w.do(r, version, func(resp kmsg.Response) {
		c.asked = false
		j := resp.(*kmsg.JoinGroupResponse)
		switch code(j.ErrorCode) {
		case "MEMBER_ID_REQUIRED":
			c.id = j.MemberID
		case "ok":
			if asked == c.id { // not when it has been replaced
				c.id = j.MemberID
			}
			if j.Generation < c.highest {
				c.w.t.Errorf("%s was in generation %d and is in %d", c.name, c.highest, j.Generation)
			}
			c.gen, c.highest, c.joined, c.leads = j.Generation, j.Generation, true, j.LeaderID == j.MemberID && !j.SkipAssignment
			c.others = nil
			for _, m := range j.Members {
				c.others = append(c.others, m.MemberID)
			}
			if c.leads && len(j.Members) > 0 {
				if was := h.leader[j.Generation]; was != "" && was != c.name {
					c.w.t.Errorf("generation %d is led by %s and %s", j.Generation, was, c.name)
				}
				h.leader[j.Generation] = c.name
			}
		case "UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID":
			c.id = ""
		}
	})
}

func (c *client) sync(h *history) {
	if c.asked || !c.joined {
		return
	}
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation = "g", c.id, c.instance, c.gen
	if c.leads {
		for _, id := range c.others {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = id, fmt.Appendf(nil, "gen %d by %s", c.gen, c.name)
			r.GroupAssignment = append(r.GroupAssignment, a)
		}
	}
	c.asked = true
	gen := c.gen
	c.w.do(r, 5, func(resp kmsg.Response) {
		c.asked = false
		s := resp.(*kmsg.SyncGroupResponse)
		switch code(s.ErrorCode) {
		case "ok":
			c.synced = true
			key := fmt.Sprint(gen)
			if was, ok := h.assigned[key]; ok && was != string(s.MemberAssignment) {
				c.w.t.Errorf("generation %d has two assignments: %q and %q", gen, was, s.MemberAssignment)
			}
			h.assigned[key] = string(s.MemberAssignment)
		case "UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID":
			c.id, c.joined = "", false
		default:
			c.joined = false
		}
	})
}

func (c *client) beat() {
	if c.asked || !c.synced {
		return
	}
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation = "g", c.id, c.instance, c.gen
	c.w.do(r, 4, func(resp kmsg.Response) {
		switch code(resp.(*kmsg.HeartbeatResponse).ErrorCode) {
		case "ok":
		case "UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID":
			c.id, c.joined, c.synced = "", false, false
		default:
			c.joined, c.synced = false, false
		}
	})
}

func (c *client) commit(h *history, p int32, at int64) {
	if c.asked || !c.joined {
		return
	}
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation = "g", c.id, c.instance, c.gen
	t, rp := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	t.Topic, rp.Partition, rp.Offset = "t", p, at
	t.Partitions = append(t.Partitions, rp)
	r.Topics = append(r.Topics, t)
	c.w.do(r, 9, func(resp kmsg.Response) {
		if resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode == 0 {
			h.commits[p] = at
		}
	})
}

// step is what a client does next by itself.
func (c *client) step(h *history) {
	switch {
	case c.silent || c.asked:
	case !c.joined:
		c.join(h)
	case !c.synced:
		c.sync(h)
	default:
		c.beat()
	}
}

// leave forgets the membership; a static member's too.
func (c *client) leave() {
	if c.asked || c.id == "" {
		return
	}
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Group = "g"
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID, m.InstanceID = c.id, c.instance
	r.Members = append(r.Members, m)
	c.w.do(r, 5, func(kmsg.Response) {})
	c.id, c.joined, c.synced = "", false, false
}

func TestMembersAlwaysComeToAnAgreement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.cfg.MaxSize = 10
		w.cfg.InitialDelay = time.Duration(rapid.IntRange(0, 1).Draw(t, "delay")) * w.cfg.InitialDelay
		w.load()
		w.change(w.create("t", 4)...)
		h := &history{assigned: map[string]string{}, leader: map[int32]string{}, commits: map[int32]int64{}}
		var all []*client
		for i := range rapid.IntRange(1, 5).Draw(t, "members") {
			c := &client{w: w, name: fmt.Sprint("m", i), protocols: []string{"range"}}
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 1:
				c.instance = &c.name
			case 2:
				c.old = true
			}
			all = append(all, c)
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			c := all[rapid.IntRange(0, len(all)-1).Draw(t, "who")]
			switch rapid.IntRange(0, 11).Draw(t, "what") {
			case 0:
				c.silent = !c.silent
			case 1:
				c.leave()
			case 2:
				if !c.asked {
					c.protocols = append([]string{"range"}, rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, "protocols")...)
					c.joined = false
				}
			case 3:
				if !c.asked && c.instance != nil { // a restart: the id is lost
					c.id, c.joined = "", false
				}
			case 4:
				w.advance(time.Duration(rapid.IntRange(1, 15000).Draw(t, "ms")) * time.Millisecond)
			case 5:
				c.commit(h, int32(rapid.IntRange(0, 3).Draw(t, "partition")), rapid.Int64Range(0, 99).Draw(t, "offset"))
			case 6:
				if rapid.IntRange(0, 3).Draw(t, "failover") == 0 {
					w.failover(all)
					clear(h.leader) // a generation that was not settled comes again
				}
			default:
				c.step(h)
			}
			w.check()
		}
		// All behave from now on, but for the silent ones.
		for range 40 {
			for range 4 {
				for _, c := range all {
					c.step(h)
				}
			}
			w.advance(2 * time.Second)
		}
		w.check()
		for p, at := range h.commits {
			if got := w.replayed().groups["g"].offsets.topics["t"][p].offset; got != at {
				t.Errorf("partition %d: committed %d, the log has %d", p, at, got)
			}
		}
		live := 0
		for _, c := range all {
			if c.silent {
				continue
			}
			live++
			if m := w.m.groups["g"].classic.members[c.id]; !c.synced || m == nil || c.gen != w.m.groups["g"].classic.generation {
				t.Errorf("%s is not in the group: %+v", c.name, c)
			}
		}
		if live == 0 {
			return
		}
		g := w.m.groups["g"]
		if g.classic.state != stable || len(g.classic.members) != live {
			t.Errorf("%d of %d members, %s", len(g.classic.members), live, g.classic.state)
		}
	})
}

// failover loads the log elsewhere; who waits is told to ask again.
func (w *world) failover(all []*client) {
	w.load()
	for _, c := range all {
		if c.asked {
			c.asked, c.joined = false, false
		}
		c.highest = 0 // the generation under way was not written
	}
}

func TestCommitsWithoutMembersSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.change(w.create("t", 4)...)
		want := map[string]int64{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			group, p := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "group"), rapid.IntRange(0, 3).Draw(t, "partition")
			key := fmt.Sprint(group, p)
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				w.play(fmt.Sprintf("forget t/%d group=%s", p, group))
				delete(want, key)
			case 1:
				w.play("reload")
			case 2:
				w.play("delete group=" + group)
				maps.DeleteFunc(want, func(k string, _ int64) bool { return k[:1] == group })
			default:
				at := rapid.Int64Range(-3, 1<<40).Draw(t, "offset")
				w.play(fmt.Sprintf("commit t/%d:%d group=%s", p, at, group))
				want[key] = at
			}
			w.check()
			got := map[string]int64{}
			for id, g := range w.m.groups {
				for p, o := range g.offsets.topics["t"] {
					got[fmt.Sprint(id, p)] = o.offset
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("offsets %v, want %v", got, want)
			}
		}
	})
}

// FuzzReplay: whatever the log has, a machine loads it and goes on.
func FuzzReplay(f *testing.F) {
	w := newWorld(f)
	w.change(w.create("t", 1)...)
	for _, line := range []string{"join A v=3", "sleep 3s", "sync A gen=1 A", "commit t/0:1 member=A gen=1", "commit t/0:1 group=h v=4 retention=1h", "leave A"} {
		w.play(line)
	}
	for _, e := range w.log {
		f.Add(e.r.Key, e.r.Value, int64(-1))
		f.Add(e.r.Key, e.r.Value, int64(7))
	}
	f.Add([]byte{0, 2, 0, 1, 'g'}, []byte(nil), int64(-1))
	f.Fuzz(func(t *testing.T, key, value []byte, producer int64) {
		w := newWorld(t)
		by := model.Producer{ID: max(producer, -1)}
		if len(value) == 0 {
			value = nil
		}
		w.log = append(w.log, entry{by: by, r: coord.Record{Key: slices.Clone(key), Value: slices.Clone(value)}}, entry{by: by, marker: true, commit: true})
		w.load()
		w.check()
		for id := range w.m.groups {
			for _, line := range []string{"describe", "fetch", "beat x", "leave x", "join J v=3", "sleep 1h", "delete"} {
				w.group(id, line)
			}
		}
		w.play("list")
		w.check()
	})
}

// group plays a line about a group whose id may not fit in a line.
func (w *world) group(id, line string) {
	w.alias = id
	w.play(line)
	w.alias = ""
}
