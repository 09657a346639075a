package compat_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const killPartitions = 3

// A ledger is what the clients of one topic were told while the broker was
// killed under them. Values are unique: a partition's own count in the order sent.
type ledger struct {
	topic string
	once  bool // an idempotent producer: every record exactly once and in order

	mu     sync.Mutex
	sent   [killPartitions]int64            // values handed to the client, so far
	acked  [killPartitions]map[int64]int64  // offset → count, for acknowledged records
	read   [killPartitions]map[int64]uint64 // offset → fingerprint of the value that a consumer saw
	faults []string                         // what a client was told that it may never be told
}

func newLedger(topic string, once bool) *ledger {
	l := &ledger{topic: topic, once: once}
	for p := range killPartitions {
		l.acked[p], l.read[p] = map[int64]int64{}, map[int64]uint64{}
	}
	return l
}

func (l *ledger) fault(format string, args ...any) { // l.mu is held
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *ledger) ackedTotal() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acked {
		n += len(a)
	}
	return n
}

// next makes the next record of a partition.
func (l *ledger) next(p int32, rng *rand.Rand) (*kgo.Record, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := l.sent[p]
	l.sent[p]++
	pad := bytes.Repeat([]byte{'.'}, rng.IntN(2000))
	return &kgo.Record{Topic: l.topic, Partition: p, Value: fmt.Appendf(nil, "%d %s", count, pad)}, count
}

// produce sends until ctx ends, then waits until everything sent is answered.
func (l *ledger) produce(ctx context.Context, cl *kgo.Client, rng *rand.Rand) error {
	for ctx.Err() == nil {
		r, count := l.next(rng.Int32N(killPartitions), rng)
		cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				if l.once {
					l.fault("record %d of partition %d was given up: %v", count, r.Partition, err)
				}
				return
			}
			if other, ok := l.acked[r.Partition][r.Offset]; ok {
				l.fault("%d and %d were both acknowledged at offset %d of partition %d", other, count, r.Offset, r.Partition)
			}
			l.acked[r.Partition][r.Offset] = count
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return cl.Flush(flush)
}

// consume reads until ctx ends and remembers what stood where.
func (l *ledger) consume(ctx context.Context, cl *kgo.Client) {
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			l.mu.Lock()
			defer l.mu.Unlock()
			mark := fingerprint(r.Value)
			if before, ok := l.read[r.Partition][r.Offset]; ok && before != mark {
				l.fault("offset %d of partition %d changed its value", r.Offset, r.Partition)
			}
			l.read[r.Partition][r.Offset] = mark
		})
	}
}

func fingerprint(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// A held record is one that a partition holds at the end.
type held struct {
	offset, count int64
	mark          uint64
}

// verify compares what the partitions hold, in order, with what was promised.
func (l *ledger) verify(logs [killPartitions][]held) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, log := range logs {
		at := map[int64]held{}
		last := int64(-1)
		for _, h := range log {
			at[h.offset] = h
			if l.once && h.count != last+1 {
				l.fault("partition %d, offset %d: record %d follows record %d", p, h.offset, h.count, last)
			}
			last = h.count
		}
		if l.once && last != l.sent[p]-1 {
			l.fault("partition %d ends with record %d of %d", p, last, l.sent[p])
		}
		for offset, count := range l.acked[p] {
			if h, ok := at[offset]; !ok || h.count != count {
				l.fault("partition %d: record %d was acknowledged at offset %d, which holds %+v", p, count, offset, h)
			}
		}
		for offset, mark := range l.read[p] {
			if h, ok := at[offset]; !ok || h.mark != mark {
				l.fault("partition %d: a consumer read at offset %d what is not there any more", p, offset)
			}
		}
	}
	return l.faults
}

func TestKillMinusNineLosesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d rounds", seed, run.rounds)
	b := newBroker(t, "log.segment.bytes=4194304", "log.retention.ms=-1")
	ledgers := []*ledger{newLedger("once", true), newLedger("atleastonce", false)}
	producing, stopProducing := context.WithCancel(context.Background())
	consuming, stopConsuming := context.WithCancel(context.Background())
	defer stopProducing()
	var producers, consumers sync.WaitGroup
	defer consumers.Wait()
	defer stopConsuming()
	for i, l := range ledgers {
		b.createTopic(t, l.topic, killPartitions)
		opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2 * time.Millisecond), kgo.MaxBufferedRecords(500), kgo.ProduceRequestTimeout(5 * time.Second)}
		if !l.once {
			opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()), kgo.MaxProduceRequestsInflightPerBroker(5))
		}
		producer := newClient(t, b.addr, opts...)
		defer producer.Close()
		producers.Go(func() {
			if err := l.produce(producing, producer, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
				t.Errorf("%s: not everything was answered: %v", l.topic, err)
			}
		})
		consumer := newClient(t, b.addr, kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		defer consumer.Close()
		consumers.Go(func() { l.consume(consuming, consumer) })
	}

	rng := rand.New(rand.NewPCG(seed, 99))
	var down time.Duration
	for range run.rounds {
		awaitAcks(t, ledgers, 200+rng.IntN(3000))
		b.kill()
		began := time.Now()
		b.start(t)
		down += time.Since(began)
	}
	awaitAcks(t, ledgers, 200)
	stopProducing()
	producers.Wait()
	t.Logf("killed %d times, mean time to serve again %v", run.rounds, (down / time.Duration(max(1, run.rounds))).Round(time.Millisecond))
	stopConsuming()
	consumers.Wait()

	check := func(when string) {
		t.Helper()
		for _, l := range ledgers {
			faults := l.verify(readHeld(t, b.addr, l.topic))
			for _, f := range faults[:min(len(faults), 20)] {
				t.Errorf("%s, %s: %s", when, l.topic, f)
			}
			l.faults = nil
		}
	}
	check("after the last kill")
	b.stop(t)
	dumpAll(t, b.data())
	b.start(t)
	check("after a clean stop")
	b.stop(t)
	for _, l := range ledgers {
		t.Logf("%s: %v sent, %d acknowledged", l.topic, l.sent, l.ackedTotal())
	}
}

// awaitAcks waits until each ledger has n more acknowledged records than now.
func awaitAcks(t *testing.T, ledgers []*ledger, n int) {
	t.Helper()
	for _, l := range ledgers {
		want := l.ackedTotal() + n
		eventually(t, 2*time.Minute, func() error {
			if got := l.ackedTotal(); got < want {
				return fmt.Errorf("%s: %d records acknowledged, waiting for %d", l.topic, got, want)
			}
			return nil
		})
	}
}

func readHeld(t *testing.T, addr, topic string) (logs [killPartitions][]held) {
	t.Helper()
	readTopic(t, addr, topic, func(r *kgo.Record) {
		h := held{offset: r.Offset, mark: fingerprint(r.Value)}
		if _, err := fmt.Sscan(string(r.Value[:min(len(r.Value), 20)]), &h.count); err != nil {
			t.Errorf("%s-%d, offset %d: %v", topic, r.Partition, r.Offset, err)
		}
		logs[r.Partition] = append(logs[r.Partition], h)
	})
	return logs
}

// The ledger must be able to find what it is there to find.
func TestKillLedgerFindsEachFault(t *testing.T) {
	three := []held{{0, 0, 10}, {1, 1, 11}, {2, 2, 12}}
	for name, c := range map[string]struct {
		log   []held
		fault bool
	}{
		"all there":       {three, false},
		"lost at the end": {three[:2], true},
		"lost":            {[]held{three[0], three[2]}, true},
		"twice":           {append(three[:3:3], held{3, 2, 12}), true},
		"out of order":    {[]held{{0, 1, 11}, {1, 0, 10}, {2, 2, 12}}, true},
		"changed":         {[]held{three[0], {1, 1, 99}, three[2]}, true},
	} {
		l := newLedger("t", true)
		l.sent[0] = 3
		l.acked[0] = map[int64]int64{0: 0, 1: 1, 2: 2}
		l.read[0] = map[int64]uint64{0: 10, 1: 11}
		faults := l.verify([killPartitions][]held{c.log})
		if (len(faults) > 0) != c.fault {
			t.Errorf("%s: faults %q", name, faults)
		}
	}
}
