package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Whatever brokers and users do, and in whatever order:
//
//	C1  every decision can be applied to the image it was made on
//	C2  a leader is in the ISR, active, and its folder is online
//	C3  ISR and ELR are replicas, have no member in common, and nobody twice
//	C4  nobody fenced or leaving is in sync, unless the ISR is kept as a memory
//	    (no leader, eligible leader replicas off)
//	C5  epochs never fall; a change of the leader raises the leader epoch, every
//	    change raises the partition epoch
//	C6  a leader that was not in sync nor eligible before is "recovering"
//	C7  there is no leader only if nobody may lead
//	C8  replaying all records gives the same image
//	C9  a reassignment ends once all that it adds are in sync; while it runs, its
//	    lists are replicas and have no member in common
func TestWhateverHappensTheInvariantsHold(t *testing.T) {
	t.Run("ELR", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { history(t, Config{}) })
	})
	t.Run("no ELR", func(t *testing.T) {
		cfg := Config{Features: []feature.Level{{Name: feature.MetadataVersion, Level: feature.MetadataLatest}}}
		rapid.Check(t, func(t *rapid.T) { history(t, cfg) })
	})
}

func history(t *rapid.T, cfg Config) {
	w := newWorld(cfg)
	w.play(t, "activate")
	const brokers, topics = 5, 4
	for id := 1; id <= brokers; id++ {
		w.play(t, fmt.Sprintf("register %d rack=r%d dir=%da dir=%db", id, id%2, id, id))
	}
	broker := rapid.IntRange(1, brokers)
	topic := rapid.IntRange(0, topics-1)
	partition := func() string {
		return fmt.Sprintf("t%d/%d", topic.Draw(t, "topic"), rapid.IntRange(0, 2).Draw(t, "partition"))
	}
	members := func() string {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(rapid.SliceOfNDistinct(broker, 1, brokers, rapid.ID[int]).Draw(t, "members")), " ", ","), "[]")
	}
	ops := []func() string{
		func() string { return fmt.Sprintf("beat %d", broker.Draw(t, "broker")) },
		func() string { return fmt.Sprintf("beat %d", broker.Draw(t, "broker")) },
		func() string { return fmt.Sprintf("beat %d fence", broker.Draw(t, "broker")) },
		func() string { return fmt.Sprintf("beat %d shutdown", broker.Draw(t, "broker")) },
		func() string {
			id := broker.Draw(t, "broker")
			return fmt.Sprintf("beat %d offline=%d%s", id, id, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "dir"))
		},
		func() string {
			id := broker.Draw(t, "broker")
			previous := int64(-1)
			if b, ok := w.img.Broker(model.NodeID(id)); ok && rapid.Bool().Draw(t, "clean") {
				previous = int64(b.Epoch)
			}
			return fmt.Sprintf("register %d rack=r%d dir=%da dir=%db previous=%d local", id, id%2, id, id, previous)
		},
		func() string { return fmt.Sprintf("unregister %d", broker.Draw(t, "broker")) },
		func() string {
			return fmt.Sprintf("create t%d partitions=%d rf=%d", topic.Draw(t, "topic"), rapid.IntRange(1, 3).Draw(t, "partitions"), rapid.IntRange(1, 4).Draw(t, "rf"))
		},
		func() string {
			return fmt.Sprintf("create t%d partitions=3 rf=3 config=min.insync.replicas:2 config=unclean.leader.election.enable:%t", topic.Draw(t, "topic"), rapid.Bool().Draw(t, "unclean"))
		},
		func() string { return fmt.Sprintf("delete t%d", topic.Draw(t, "topic")) },
		func() string { return fmt.Sprintf("isr %d %s to=%s", broker.Draw(t, "broker"), partition(), members()) },
		func() string { // of the leader, which is more often right
			tp := partition()
			leader := 1
			if p := w.partition(tp); p != nil && p.Leader > 0 {
				leader = int(p.Leader)
			}
			return fmt.Sprintf("isr %d %s to=%s recovery=%d", leader, tp, members(), rapid.IntRange(0, 1).Draw(t, "recovery"))
		},
		func() string {
			return fmt.Sprintf("elect type=%d %s", rapid.IntRange(0, 1).Draw(t, "type"), partition())
		},
		func() string {
			if rapid.IntRange(0, 4).Draw(t, "cancel") == 0 {
				return "reassign " + partition()
			}
			return fmt.Sprintf("reassign %s to=%s", partition(), members())
		},
		func() string { return "sleep 5s" },
		func() string { return "tick" },
		func() string {
			id := broker.Draw(t, "broker")
			return fmt.Sprintf("dirs %d %s to=%d%s", id, partition(), id, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "dir"))
		},
		func() string {
			return fmt.Sprintf("config 2:t%d set=min.insync.replicas:%d", topic.Draw(t, "topic"), rapid.IntRange(1, 3).Draw(t, "min"))
		},
		func() string {
			return fmt.Sprintf("add t%d count=%d", topic.Draw(t, "topic"), rapid.IntRange(1, 4).Draw(t, "count"))
		},
	}
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		line := ops[rapid.IntRange(0, len(ops)-1).Draw(t, "op")]()
		before := w.img
		out := w.play(t, line) // C1
		checkImage(t, before, w.img, line+"\n"+out)
	}
	w.checkReplay(t) // C8
}

// partition finds "topic/number".
func (w *world) partition(tp string) *image.Partition {
	name, number, _ := strings.Cut(tp, "/")
	topic, ok := w.img.Topic(name)
	if !ok {
		return nil
	}
	p, _ := topic.Partition(ints(number)[0])
	return p
}

func checkImage(t *rapid.T, before, after *image.Image, what string) {
	elr := after.Feature(feature.EligibleLeaderVersion) > 0
	for topic := range after.Topics() {
		old, _ := before.TopicByID(topic.ID)
		for id, p := range topic.Partitions() {
			fail := func(rule, format string, args ...any) {
				t.Fatalf("%s: %s-%d: %s\n%+v\nafter %s", rule, topic.Name, id, fmt.Sprintf(format, args...), *p, what)
			}
			may := func(r model.NodeID) bool { return active(after, r) && onlineDir(after, p, r) }
			if p.Leader != noLeader && (!slices.Contains(p.ISR, p.Leader) || !may(p.Leader)) {
				fail("C2", "leader %d", p.Leader)
			}
			if !subset(p.ISR, p.Replicas) || !subset(p.ELR, p.Replicas) || hasTwice(append(slices.Clone(p.ISR), p.ELR...)) {
				fail("C3", "isr %v elr %v", p.ISR, p.ELR)
			}
			for _, r := range p.ISR {
				if !active(after, r) && (elr || p.Leader != noLeader) {
					fail("C4", "%d is in sync", r)
				}
			}
			if !subset(p.Adding, p.Replicas) || !subset(p.Removing, p.Replicas) || hasTwice(append(slices.Clone(p.Adding), p.Removing...)) {
				fail("C9", "adding %v removing %v", p.Adding, p.Removing)
			}
			if p.Leader == noLeader {
				eligible := p.ISR
				if elr && len(eligible) == 0 {
					eligible = p.ELR
				}
				if slices.ContainsFunc(eligible, may) {
					fail("C7", "no leader")
				}
			}
			if old == nil {
				continue
			}
			was, ok := old.Partition(id)
			if !ok {
				continue
			}
			if strings.HasPrefix(what, "isr ") && p.PartitionEpoch != was.PartitionEpoch && len(p.Adding)+len(p.Removing) > 0 &&
				subset(p.Adding, p.ISR) && len(without(p.ISR, p.Removing...)) > 0 {
				fail("C9", "not ended; was %+v", *was)
			}
			changed := p.Leader != was.Leader
			if p.LeaderEpoch < was.LeaderEpoch || p.PartitionEpoch < was.PartitionEpoch || changed && p.LeaderEpoch == was.LeaderEpoch ||
				!slices.Equal(p.ISR, was.ISR) && p.PartitionEpoch == was.PartitionEpoch {
				fail("C5", "was %+v", *was)
			}
			if changed && p.Leader != noLeader && p.RecoveryState != recovering && !slices.Contains(was.ISR, p.Leader) && !slices.Contains(was.ELR, p.Leader) {
				fail("C6", "was %+v", *was)
			}
		}
	}
}

// Placement is even: each broker of a rack leads and follows as often as the
// others, give or take what does not divide, and no rack has two replicas while
// another has none.
func TestPlacementIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(Config{})
		w.play(t, "activate")
		racks, each := rapid.IntRange(1, 4).Draw(t, "racks"), rapid.IntRange(1, 4).Draw(t, "brokers per rack")
		rackOf := map[model.NodeID]int{}
		for id := 1; id <= racks*each; id++ {
			rackOf[model.NodeID(id)] = id % racks
			w.play(t, fmt.Sprintf("register %d rack=r%d", id, id%racks))
			w.play(t, fmt.Sprintf("beat %d", id))
		}
		rf := rapid.IntRange(1, racks*each).Draw(t, "rf")
		rounds := rapid.IntRange(1, 5).Draw(t, "rounds")
		w.play(t, fmt.Sprintf("create t partitions=%d rf=%d", racks*each*rounds, rf))
		topic, ok := w.img.Topic("t")
		if !ok {
			t.Fatal("not created")
		}
		leads, holds := map[model.NodeID]int{}, map[model.NodeID]int{}
		for id, p := range topic.Partitions() {
			leads[p.Leader]++
			inRack := map[int]int{}
			for _, r := range p.Replicas {
				holds[r]++
				inRack[rackOf[r]]++
			}
			if hasTwice(p.Replicas) || len(p.Replicas) != rf {
				t.Fatalf("partition %d: %v", id, p.Replicas)
			}
			most, least := 0, rf
			for k := range racks {
				most, least = max(most, inRack[k]), min(least, inRack[k])
			}
			if most-least > 1 {
				t.Fatalf("partition %d: racks %v", id, inRack)
			}
		}
		for id := range rackOf {
			if leads[id] != rounds {
				t.Errorf("broker %d leads %d partitions, expected %d: %v", id, leads[id], rounds, leads)
			}
		}
	})
}

func TestSilenceEndsASessionOnlyOnce(t *testing.T) {
	w := newWorld(Config{SessionTimeout: 3 * time.Second})
	w.play(t, "activate")
	w.play(t, "register 1")
	w.play(t, "beat 1")
	if next := w.c.Next(); !next.Equal(w.now.Add(3 * time.Second)) {
		t.Errorf("next tick at %v", next)
	}
	w.now = w.now.Add(3 * time.Second)
	first := w.c.Tick(w.env())
	if len(first) != 1 {
		t.Fatalf("%d decisions", len(first))
	}
	// The decision is dropped: it is repeated, but not at once.
	if again := w.c.Tick(w.env()); len(again) != 0 {
		t.Errorf("%d decisions at once", len(again))
	}
	w.now = w.c.Next()
	if again := w.c.Tick(w.env()); len(again) != 1 {
		t.Errorf("%d decisions later", len(again))
	}
	if err := w.commit(first[0]); err != nil {
		t.Fatal(err)
	}
	w.now = w.c.Next()
	if again := w.c.Tick(w.env()); len(again) != 0 || !w.c.Next().IsZero() {
		t.Errorf("%d decisions about a fenced broker, next tick at %v", len(again), w.c.Next())
	}
}

func TestAStandstillOfTheControllerFencesNobodyAtOnce(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	w.play(t, "register 1")
	w.play(t, "register 2")
	w.play(t, "beat 1")
	w.play(t, "beat 2")
	w.now = w.now.Add(time.Minute) // the process was stopped, heartbeats and all
	if r := w.c.Tick(w.env()); len(r) != 0 {
		t.Fatalf("fenced for silence that nobody could break: %v", r[0].Records)
	}
	w.play(t, "beat 1")
	w.now = w.c.Next()
	if r := w.c.Tick(w.env()); len(r) != 1 || len(r[0].Records) != 1 || r[0].Records[0].(*record.BrokerRegistrationChangeRecord).BrokerID != 2 {
		t.Fatalf("broker 2 stays silent: %v", r)
	}
	// A second standstill does not save it again.
	w.now = w.now.Add(time.Minute)
	if r := w.c.Tick(w.env()); len(r) != 1 {
		t.Fatalf("%d decisions", len(r))
	}
}

func TestANewControllerGivesEveryBrokerAnotherSession(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	w.play(t, "register 1")
	w.play(t, "beat 1")
	other := newWorld(Config{})
	other.img, other.now, other.live, other.log = w.img, w.now.Add(time.Hour), w.live, w.log
	other.play(t, "activate")
	if out := other.play(t, "tick"); !strings.Contains(out, "nothing") {
		t.Errorf("fenced at once:\n%s", out)
	}
	if out := other.play(t, "register 1"); !strings.Contains(out, "101") {
		t.Errorf("taken over although it may live:\n%s", out)
	}
	// From the same process the folders prove that the old life is over.
	if out := other.play(t, "register 1 local"); !strings.Contains(out, "NONE") {
		t.Errorf("a node that restarts waits for its own session:\n%s", out)
	}
	if out := other.play(t, "register 1 local dir=1b"); !strings.Contains(out, "101") {
		t.Errorf("another folder proves nothing:\n%s", out)
	}
}
