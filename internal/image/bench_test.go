package image

import (
	"fmt"
	"runtime"
	"testing"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

func bigTopic(n int) model.UUID { return model.UUID{0: 'B', 1: byte(n >> 8), 2: byte(n)} }

// bigRecords are topics × partitions with three replicas on ten brokers.
func bigRecords(topics, partitions int) []record.Metadata {
	var recs []record.Metadata
	for t := range topics {
		id := bigTopic(t)
		recs = append(recs, &record.TopicRecord{Name: fmt.Sprintf("topic-%05d", t), TopicID: id})
		for p := range partitions {
			first := int32(t + p)
			replicas := []int32{first % 10, (first + 1) % 10, (first + 2) % 10}
			recs = append(recs, &record.PartitionRecord{
				PartitionID: int32(p), TopicID: id, Replicas: replicas, ISR: replicas, Leader: replicas[0],
				Directories: []model.UUID{{1}, {2}, {3}},
			})
		}
	}
	return recs
}

func build(tb testing.TB, recs []record.Metadata) *Image {
	i, _, err := Empty().Apply(0, 1, recs)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

// A change costs a copy of one path through two trees, however large they are; to
// look something up costs nothing.
func TestOneChangeAllocatesLittle(t *testing.T) {
	for _, shape := range []struct{ topics, partitions int }{{2_000, 10}, {1, 20_000}} {
		i := build(t, bigRecords(shape.topics, shape.partitions))
		r := record.NewPartitionChangeRecord()
		r.TopicID, r.PartitionID, r.ISR = bigTopic(shape.topics/2), int32(shape.partitions/2), []int32{0}
		recs := []record.Metadata{r}
		allocs := testing.AllocsPerRun(100, func() { i, _, _ = i.Apply(i.Offset()+1, 1, recs) })
		if allocs > 32 {
			t.Errorf("%d×%d: %v allocations for one change", shape.topics, shape.partitions, allocs)
		}
		allocs = testing.AllocsPerRun(100, func() {
			topic, _ := i.Topic("topic-00000")
			topic, _ = i.TopicByID(topic.ID)
			if _, ok := topic.Partition(3); !ok || i.Feature("group.version") != 0 {
				t.Fatal("lost")
			}
		})
		if allocs > 0 {
			t.Errorf("%d×%d: %v allocations for a lookup", shape.topics, shape.partitions, allocs)
		}
	}
}

// One PartitionChangeRecord on 100,000 partitions: what an ISR change costs every
// node. Bound below by copying three nodes of two trees, about 3 KB.
func BenchmarkApplyOneChange(b *testing.B) {
	for _, shape := range []struct{ topics, partitions int }{{10_000, 10}, {1, 100_000}} {
		b.Run(fmt.Sprintf("%dx%d", shape.topics, shape.partitions), func(b *testing.B) {
			i := build(b, bigRecords(shape.topics, shape.partitions))
			r := record.NewPartitionChangeRecord()
			r.TopicID, r.ISR = bigTopic(0), []int32{0}
			recs := []record.Metadata{r}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				r.TopicID, r.PartitionID = bigTopic(n%shape.topics), int32(n*7%shape.partitions)
				i, _, _ = i.Apply(i.Offset()+1, 1, recs)
			}
		})
	}
}

// All leaders of one broker in ten move in one Apply, found through the index:
// 10,000 changes in 100,000 partitions.
func BenchmarkFenceBroker(b *testing.B) {
	i := build(b, bigRecords(10_000, 10))
	b.ReportAllocs()
	for b.Loop() {
		var recs []record.Metadata
		for tp, p := range i.PartitionsOn(3) {
			if p.Leader == 3 {
				r := record.NewPartitionChangeRecord()
				r.TopicID, r.PartitionID, r.Leader = tp.ID, tp.Partition, int32(p.Replicas[1])
				recs = append(recs, r)
			}
		}
		if _, _, err := i.Apply(i.Offset()+1, 1, recs); err != nil || len(recs) != 10_000 {
			b.Fatal(len(recs), err)
		}
	}
}

// Iterating a snapshot of 100,000 partitions, and encoding it.
func BenchmarkSnapshot(b *testing.B) {
	i := build(b, bigRecords(10_000, 10))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = buf[:0]
		for r := range i.Records() {
			buf = record.AppendFramed(buf, r, r.HighestVersion())
		}
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

// Loading a snapshot of 100,000 partitions that is decoded already; the metric is
// the memory that the image keeps.
func BenchmarkLoad(b *testing.B) {
	for _, shape := range []struct{ topics, partitions int }{{10_000, 10}, {100_000, 1}} {
		b.Run(fmt.Sprintf("%dx%d", shape.topics, shape.partitions), func(b *testing.B) {
			src := build(b, bigRecords(min(shape.topics, 1<<16), shape.partitions))
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var i *Image
			for b.Loop() {
				var err error
				if i, err = Load(1, 1, src.Records()); err != nil {
					b.Fatal(err)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			parts := float64(src.NumTopics() * shape.partitions)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/parts, "B/partition")
			runtime.KeepAlive(i)
			runtime.KeepAlive(src)
		})
	}
}

// Finding a topic by name and a partition in it, among 10,000 topics.
func BenchmarkLookup(b *testing.B) {
	i := build(b, bigRecords(10_000, 10))
	names := []string{"topic-00007", "topic-04999", "topic-09999"}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		t, _ := i.Topic(names[n%3])
		if _, ok := t.Partition(3); !ok {
			b.Fatal("lost")
		}
	}
}
