package group

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// world drives a machine as a Shard would, with a log that takes everything.
type world struct {
	t      tb
	cfg    Config
	m      *Machine
	img    *image.Image
	now    time.Time
	rand   *rand.Rand
	log    []entry
	timers map[string]time.Time
	last   coord.Token
	parked map[coord.Token]func(kmsg.Response)
	topics int

	names map[string]string // member id → name in the script
	alias string            // the group that is meant if none is named
	out   strings.Builder
}

type entry struct {
	by     model.Producer
	r      coord.Record
	marker bool // of a transaction, that has committed
	commit bool
}

func newWorld(t tb) *world {
	w := &world{
		t: t, img: image.Empty(), now: time.Unix(1000, 0), rand: rand.New(rand.NewPCG(1, 2)), names: map[string]string{},
		cfg: Config{
			InitialDelay: 3 * time.Second, MinSession: 6 * time.Second, MaxSession: 30 * time.Minute, MaxSize: 3, MaxMetadata: 10,
			OffsetsRetention: 7 * 24 * time.Hour, OffsetsCheck: 10 * time.Minute,
		},
	}
	w.load()
	return w
}

// load is a failover: all that waits is forgotten and the log is read.
func (w *world) load() {
	w.m, w.timers, w.parked = w.replayed(), map[string]time.Time{}, map[coord.Token]func(kmsg.Response){}
	w.take(w.m.Loaded(w.env()), nil)
}

func (w *world) replayed() *Machine {
	m := New(w.cfg)
	for i, e := range w.log {
		if e.marker {
			m.EndTxn(e.by, e.commit)
		} else {
			m.Replay(model.Offset(i), 0, e.by, e.r)
		}
	}
	return m
}

func (w *world) env() coord.Env { return coord.Env{Now: w.now, Image: w.img, Rand: w.rand} }

func (w *world) take(r coord.Result, done func(kmsg.Response)) {
	if r.Response != nil && done != nil {
		done(r.Response)
	}
	for _, wake := range r.Wake {
		if done := w.parked[wake.Token]; done != nil {
			delete(w.parked, wake.Token)
			done(wake.Response)
		}
	}
	for _, rec := range r.Records {
		w.append(entry{by: model.NoProducer, r: rec})
		fmt.Fprintf(&w.out, "  %s\n", w.named(show(rec)))
	}
	for _, t := range r.Timers {
		if delete(w.timers, t.Key); !t.At.IsZero() {
			w.timers[t.Key] = t.At
		}
	}
}

func (w *world) append(e entry) {
	w.log = append(w.log, e)
	w.m.Replay(model.Offset(len(w.log)-1), 0, e.by, e.r)
}

func (w *world) do(req kmsg.Request, version int16, done func(kmsg.Response)) {
	req.SetVersion(version)
	w.last++
	t := w.last
	r := w.m.Handle(w.env(), t, req, coord.Client{ID: "cl", Host: "/h"})
	if r.Response == nil {
		w.parked[t] = done
	}
	w.take(r, done)
}

// advance lets time go by; timers fire when they are due.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		key := ""
		for _, k := range slices.Sorted(maps.Keys(w.timers)) {
			if !w.timers[k].After(end) && (key == "" || w.timers[k].Before(w.timers[key])) {
				key = k
			}
		}
		if key == "" {
			w.now = end
			return
		}
		w.now = later(w.now, w.timers[key])
		delete(w.timers, key)
		w.take(w.m.Timeout(w.env(), key), nil)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// change applies metadata records and tells the machine.
func (w *world) change(recs ...record.Metadata) {
	img, delta, err := w.img.Apply(w.img.Offset()+1, 1, recs)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	w.img = img
	w.take(w.m.Changed(w.env(), delta), nil)
}

func (w *world) create(name string, partitions int) []record.Metadata {
	w.topics++
	t := record.NewTopicRecord()
	t.Name, t.TopicID = name, model.UUID{15: byte(w.topics)}
	recs := []record.Metadata{t}
	for p := range partitions {
		r := record.NewPartitionRecord()
		r.TopicID, r.PartitionID = t.TopicID, int32(p)
		recs = append(recs, r)
	}
	return recs
}

// check is INV-COORD-1: the log makes the same hard state.
func (w *world) check() {
	w.t.Helper()
	again := w.replayed()
	if live, log := hard(w.m), hard(again); !reflect.DeepEqual(live, log) {
		w.t.Errorf("the machine has\n%s\nits log gives\n%s", strings.Join(live, "\n"), strings.Join(log, "\n"))
	}
	for id, g := range w.m.groups {
		if g.classic.state != empty && g.classic.state != stable || again.groups[id] == nil {
			continue
		}
		if live, log := settled(g), settled(again.groups[id]); live != log {
			w.t.Errorf("the machine has\n%s\nits log gives\n%s", live, log)
		}
	}
}

// hard lists what must survive a failover. A rebalance under way need not: of a
// group in one, the offsets only.
func hard(m *Machine) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[id]
		out = append(out, fmt.Sprintf("%s offsets=%v pending=%v", id, g.offsets.topics, g.offsets.pending))
	}
	return out
}

// settled describes the membership of a group that is not in a rebalance.
func settled(g *group) string {
	c := &g.classic
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s type=%q gen=%d protocol=%q leader=%q", g.id, c.state, c.protocolType, c.generation, c.protocol, c.leader)
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		fmt.Fprintf(&b, " %s(%v %v %v %s %s %q %q)", id, text(m.instance), m.session, m.rebalance, m.clientID, m.clientHost, m.metadata(c.protocol), m.assignment)
	}
	return b.String()
}

// named shows names for member ids.
func (w *world) named(s string) string {
	for id, name := range w.names {
		s = strings.ReplaceAll(s, id, name)
	}
	return s
}

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// show is a record as text.
func show(r coord.Record) string {
	if r.Key[1] == 2 {
		var k kmsg.GroupMetadataKey
		_ = k.ReadFrom(r.Key)
		if r.Value == nil {
			return "group " + k.Group + " gone"
		}
		var v kmsg.GroupMetadataValue
		_ = v.ReadFrom(r.Value)
		s := fmt.Sprintf("group %s v%d type=%q gen=%d protocol=%s leader=%s", k.Group, v.Version, v.ProtocolType, v.Generation, text(v.Protocol), text(v.Leader))
		for _, m := range v.Members {
			s += fmt.Sprintf(" %s=%q", m.MemberID, m.Assignment)
			if m.InstanceID != nil {
				s += "(" + *m.InstanceID + ")"
			}
		}
		return s
	}
	var k kmsg.OffsetCommitKey
	_ = k.ReadFrom(r.Key)
	if r.Value == nil {
		return fmt.Sprintf("offset %s %s-%d gone", k.Group, k.Topic, k.Partition)
	}
	var v kmsg.OffsetCommitValue
	_ = v.ReadFrom(r.Value)
	s := fmt.Sprintf("offset %s %s-%d v%d = %d", k.Group, k.Topic, k.Partition, v.Version, v.Offset)
	if v.Version >= 3 && v.LeaderEpoch >= 0 {
		s += " epoch=" + strconv.Itoa(int(v.LeaderEpoch))
	}
	if v.Metadata != "" {
		s += fmt.Sprintf(" metadata=%q", v.Metadata)
	}
	if v.Version == 1 {
		s += fmt.Sprintf(" expires=%d", v.ExpireTimestamp)
	}
	return s
}

func code(c int16) string {
	if err := kerr.TypedErrorForCode(c); err != nil {
		return err.Message
	}
	return "ok"
}
