package image

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

func drawn(t *rapid.T) chooser {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
}

// grow draws records one by one, each to follow the image with those before it,
// and applies them in batches. It returns all images and deltas, and the records.
func grow(t *rapid.T, count int) (images []*Image, deltas []*Delta, recs []record.Metadata) {
	pick := drawn(t)
	images = []*Image{Empty()}
	now := Empty() // with every record so far
	var batch []record.Metadata
	for range count {
		r := pick.record(now, now.Offset()+1)
		next, _, err := now.Apply(now.Offset()+1, 3, []record.Metadata{r})
		if err != nil {
			continue
		}
		now = next
		batch, recs = append(batch, r), append(recs, r)
		if pick(3) == 0 {
			last := images[len(images)-1]
			image, delta, err := last.Apply(last.Offset()+1, 3, batch)
			if err != nil {
				t.Fatalf("records accepted one by one are refused together: %v", err)
			}
			if a, b := dump(image), dump(now); a != b {
				t.Fatalf("one by one and together differ\n%s\n%s", a, b)
			}
			images, deltas, batch = append(images, image), append(deltas, delta), nil
		}
	}
	return images, deltas, recs
}

// facts is what an image's accessors say, by the thing that they say it of. It is
// made without the code that makes deltas.
type facts struct {
	topics     map[model.UUID]string
	partitions map[model.TopicIDPartition]string
	brokers    map[model.NodeID]string
	configs    map[ConfigResource]string
}

func factsOf(i *Image) facts {
	f := facts{map[model.UUID]string{}, map[model.TopicIDPartition]string{}, map[model.NodeID]string{}, map[ConfigResource]string{}}
	for topic := range i.Topics() {
		f.topics[topic.ID] = topic.Name
		for n, p := range topic.Partitions() {
			f.partitions[model.TopicIDPartition{ID: topic.ID, Partition: n}] = p.record(topic.ID, n).String()
		}
	}
	for b := range i.Brokers() {
		f.brokers[b.ID] = b.record().String()
	}
	for res, m := range i.Configs() {
		f.configs[res] = fmt.Sprint(m)
	}
	return f
}

// changed lists the keys whose values differ.
func changed[K comparable](a, b map[K]string) map[K]struct{} {
	out := map[K]struct{}{}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out[k] = struct{}{}
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out[k] = struct{}{}
		}
	}
	return out
}

// checkDelta compares a delta with what the two images say.
func checkDelta(t *rapid.T, what string, d *Delta) {
	t.Helper()
	from, to := factsOf(d.From), factsOf(d.To)
	want := &Delta{Topics: map[model.UUID]*TopicDelta{}}
	for id := range changed(from.topics, to.topics) {
		_, now := to.topics[id]
		want.Topics[id] = &TopicDelta{Name: to.topics[id] + from.topics[id], Created: now, Deleted: !now}
		if from.topics[id] != "" && now {
			want.Topics[id] = &TopicDelta{Name: to.topics[id]}
		}
	}
	for tp := range changed(from.partitions, to.partitions) {
		if want.Topics[tp.ID] == nil {
			want.Topics[tp.ID] = &TopicDelta{Name: to.topics[tp.ID]}
		}
		want.Topics[tp.ID].touch(tp.Partition)
	}
	want.Brokers = changed(from.brokers, to.brokers)
	want.Configs = changed(from.configs, to.configs)
	got := *d
	got.Features, got.Controllers, got.ProducerIDs = false, false, false
	got.ACLs, got.Scram, got.Quotas, got.Tokens = false, false, false, false
	if a, b := dumpDelta(&got), dumpDelta(want); a != b {
		t.Fatalf("%s says\n%s\nbut the images\n%s", what, a, b)
	}
}

// checkFlags demands that a flag is set where something differs.
func checkFlags(t *rapid.T, what string, d *Delta) {
	t.Helper()
	exact := Diff(d.From, d.To)
	for _, f := range [][2]bool{
		{exact.Features, d.Features},
		{exact.Controllers, d.Controllers},
		{exact.ProducerIDs, d.ProducerIDs},
		{exact.ACLs, d.ACLs},
		{exact.Scram, d.Scram},
		{exact.Quotas, d.Quotas},
		{exact.Tokens, d.Tokens},
	} {
		if f[0] && !f[1] {
			t.Fatalf("%s misses a flag of\n%s\nit says\n%s", what, dumpDelta(exact), dumpDelta(d))
		}
	}
}

// A delta, a sum of deltas and a difference say exactly what differs.
func TestDeltasSayWhatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images, deltas, _ := grow(t, rapid.IntRange(0, 60).Draw(t, "count"))
		var sum *Delta
		for _, d := range deltas {
			checkDelta(t, "Apply", d)
			checkFlags(t, "Apply", d)
		}
		for n, d := range deltas {
			sum = sum.Merge(d)
			if n > 0 {
				checkDelta(t, "Merge", sum)
				checkFlags(t, "Merge", sum)
			}
		}
		a, b := images[rapid.IntRange(0, len(images)-1).Draw(t, "a")], images[rapid.IntRange(0, len(images)-1).Draw(t, "b")]
		checkDelta(t, "Diff", Diff(a, b))
		if !Diff(a, a).Empty() {
			t.Fatal("an image differs from itself")
		}
	})
}

// INV-IMAGE-1: a snapshot, replayed, is the image again; and old images stay as
// they were when newer ones are made of them.
func TestSnapshotReplaysToAnEqualImage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images := []*Image{Empty()}
		dumps := []string{dump(Empty())}
		grown, _, _ := grow(t, rapid.IntRange(0, 80).Draw(t, "count"))
		for _, i := range grown {
			images, dumps = append(images, i), append(dumps, dump(i))
		}
		// Two futures of one image do not meet.
		base := images[len(images)/2]
		base.Apply(base.Offset()+1, 9, []record.Metadata{&record.TopicRecord{Name: "other", TopicID: ids["A0"]}})
		for n, i := range images {
			if got := dump(i); got != dumps[n] {
				t.Fatalf("an old image changed from\n%s\nto\n%s", dumps[n], got)
			}
			checkIndex(t, i)
			loaded, err := Load(i.Offset(), i.Epoch(), i.Records())
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(loaded); got != dumps[n] {
				t.Fatalf("snapshot\n%s\nreplays to\n%s", dumps[n], got)
			}
			if d := Diff(i, loaded); !d.Empty() {
				t.Fatalf("a replayed snapshot differs in\n%s", dumpDelta(d))
			}
			checkIndex(t, loaded)
			again, _, err := Empty().Apply(0, 0, slices.Collect(i.Records()))
			if err != nil || dump(again.At(i.Offset(), i.Epoch())) != dumps[n] {
				t.Fatalf("Apply of a snapshot: %v", err)
			}
		}
	})
}

// checkIndex holds PartitionsOn and the names against the topics (INV-IMAGE-3).
func checkIndex(t *rapid.T, i *Image) {
	t.Helper()
	want := map[model.NodeID]map[model.TopicIDPartition]*Partition{}
	names := []string{}
	for topic := range i.Topics() {
		names = append(names, topic.Name)
		if byID, ok := i.TopicByID(topic.ID); !ok || byID != topic {
			t.Fatalf("topic %s is not found by id", topic.Name)
		}
		for n, p := range topic.Partitions() {
			if len(p.Dirs) != len(p.Replicas) {
				t.Fatalf("%d folders for %d replicas", len(p.Dirs), len(p.Replicas))
			}
			for _, id := range p.Replicas {
				if want[id] == nil {
					want[id] = map[model.TopicIDPartition]*Partition{}
				}
				want[id][model.TopicIDPartition{ID: topic.ID, Partition: n}] = p
			}
		}
	}
	for _, id := range brokerIDs {
		node := model.NodeID(id)
		if got := maps.Collect(i.PartitionsOn(node)); !maps.Equal(got, want[node]) || i.NumPartitionsOn(node) != len(want[node]) {
			t.Fatalf("broker %d holds %v, the index says %v", id, want[node], got)
		}
	}
	if !slices.IsSorted(names) || len(names) != i.NumTopics() {
		t.Fatalf("topics by name: %v, %d in all", names, i.NumTopics())
	}
	_, dot := i.Topic("b.x")
	other, collides := i.CollidingTopic("b_x")
	if collides != dot || collides && other != "b.x" {
		t.Fatalf("b_x collides with %q %v, b.x exists: %v", other, collides, dot)
	}
}

// INV-IMAGE-2: the same records inside a transaction, cut into batches anywhere,
// show nothing before its end and then give the same image and delta.
func TestTransactionsTakeEffectAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images, _, recs := grow(t, rapid.IntRange(1, 40).Draw(t, "count"))
		_ = images
		plain, want, err := Empty().Apply(0, 3, recs)
		if err != nil {
			t.Fatal(err)
		}
		whole := append(append([]record.Metadata{record.NewBeginTransactionRecord()}, recs...), record.NewEndTransactionRecord())
		i := Empty()
		for len(whole) > 0 {
			n := rapid.IntRange(1, len(whole)).Draw(t, "cut")
			next, d, err := i.Apply(i.Offset()+1, 3, whole[:n])
			if err != nil {
				t.Fatal(err)
			}
			i, whole = next, whole[n:]
			switch {
			case len(whole) > 0 && (!d.Empty() || len(slices.Collect(i.Records())) > 0 || !i.InTransaction()):
				t.Fatalf("an open transaction shows\n%s\n%s", dumpDelta(d), dump(i))
			case len(whole) == 0 && dumpDelta(d) != dumpDelta(want):
				t.Fatalf("the end of the transaction says\n%s\nwant\n%s", dumpDelta(d), dumpDelta(want))
			}
		}
		if a, b := dump(i.At(0, 0)), dump(plain.At(0, 0)); a != b {
			t.Fatalf("with a transaction\n%s\nwithout\n%s", a, b)
		}
	})
}

// Readers of an older image need no locks while newer ones are made of it; run
// with -race.
func TestReadersRunBesideApply(t *testing.T) {
	i := Empty()
	apply := func(recs ...record.Metadata) {
		next, _, err := i.Apply(i.Offset()+1, 0, recs)
		if err != nil {
			t.Fatal(err)
		}
		i = next
	}
	for n := range byte(8) {
		id := model.UUID{0: 'R', 1: n}
		apply(&record.TopicRecord{Name: "r" + strings.Repeat("x", int(n)), TopicID: id})
		for p := range int32(40) {
			apply(&record.PartitionRecord{PartitionID: p, TopicID: id, Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1})
		}
	}
	var wg sync.WaitGroup
	for round := range 50 {
		old, want := i, dump(i)
		wg.Go(func() {
			if got := dump(old); got != want {
				t.Errorf("an image changed while it was read")
			}
			for range old.PartitionsOn(2) {
			}
		})
		for topic := range old.Topics() {
			for p := range topic.Partitions() {
				if int(p)%7 == round%7 {
					r := record.NewPartitionChangeRecord()
					r.PartitionID, r.TopicID, r.Leader = p, topic.ID, 2
					r.Replicas = []int32{2, int32(round % 5)}
					apply(r, &record.ConfigRecord{ResourceType: TopicConfig, ResourceName: topic.Name, Name: "k", Value: new("v")})
				}
			}
		}
	}
	wg.Wait()
}

// A record before the image's offset cannot follow, and At moves an image on.
func TestApplyRefusesThePast(t *testing.T) {
	i, _, err := Empty().Apply(5, 1, []record.Metadata{record.NewNoOpRecord(), record.NewNoOpRecord()})
	if err != nil || i.Offset() != 6 || i.Epoch() != 1 {
		t.Fatalf("offset %d epoch %d: %v", i.Offset(), i.Epoch(), err)
	}
	if _, _, err := i.Apply(6, 1, nil); err == nil {
		t.Error("records from the image's own offset are accepted")
	}
	if _, _, err := i.At(9, 2).Apply(9, 2, nil); err == nil {
		t.Error("At does not move the image")
	}
	if _, err := Load(9, 1, slices.Values([]record.Metadata{record.NewBeginTransactionRecord()})); err == nil {
		t.Error("a snapshot that ends inside a transaction is accepted")
	}
}

// A broker that had not said which folders are cordoned, and then says none:
// the records differ, so the delta names it.
func TestCordonedNullAndEmptyDiffer(t *testing.T) {
	said := &record.RegisterBrokerRecord{BrokerID: 1, CordonedLogDirs: []model.UUID{}}
	was, _, err := Empty().Apply(0, 1, []record.Metadata{&record.RegisterBrokerRecord{BrokerID: 1}})
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := was.Apply(1, 1, []record.Metadata{said})
	if _, ok := d.Brokers[1]; err != nil || !ok {
		t.Errorf("the delta names brokers %v, want 1; error %v", d.Brokers, err)
	}
}
