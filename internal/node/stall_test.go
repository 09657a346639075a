package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/node"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// stallPatience is how long a reader may get nothing while there is something:
// far beyond any wait that the readers ask for.
const stallPatience = 30 * time.Second

// stallTime is how long producers go on; OTTLA_STALL_SECONDS makes it longer.
func stallTime() time.Duration {
	if s, err := strconv.Atoi(os.Getenv("OTTLA_STALL_SECONDS")); err == nil {
		return time.Duration(s) * time.Second
	}
	return 1500 * time.Millisecond
}

// Readers of all kinds reach the end of what producers write, whatever the two
// sides do at the same time: no fetch stays without an answer, and none is empty
// while there is something to read.
func TestReadersNeverStall(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		f := start(t, nil, nil)
		stress(t, func() client { return f.dial() })
	})
	t.Run("over TCP", func(t *testing.T) {
		n := openTCP(t)
		stress(t, func() client {
			c, err := wire.Dial(context.Background(), new(net.Dialer).DialContext, n.Addr("PLAINTEXT"), wire.ClientConfig{ClientID: "test"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return client{t, c}
		})
	})
}

// openTCP opens a node on loopback sockets and a real disk, where sendfile works.
func openTCP(t *testing.T) *node.Node {
	t.Helper()
	props := config.Default()
	props["log.dirs"] = t.TempDir()
	props["ottla.http.listener"] = ""
	props["listeners"] = "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"
	settings, _, err := config.Load(props)
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(context.Background(), node.Config{Settings: settings, FS: vfs.OS(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// stressed is a topic with the ends of its partitions as acks told them.
type stressed struct {
	name string
	id   [16]byte
	ends []atomic.Int64
}

func stress(t *testing.T, dial func() client) {
	c := dial()
	topics := []*stressed{
		{name: "rolls", ends: make([]atomic.Int64, 3)}, // many segments
		{name: "one", ends: make([]atomic.Int64, 2)},
		{name: "idle", ends: make([]atomic.Int64, 2)}, // hardly ever written
	}
	for i, topic := range topics {
		size := "1073741824"
		if i == 0 {
			size = "1048576"
		}
		topic.id = c.create(topic.name, int32(len(topic.ends)), "segment.bytes", size)
	}
	sizes := []int{10, 1000, 20_000, 70_000, 300_000, 900_000}
	batches := make([][]byte, len(sizes))
	for i, n := range sizes {
		batches[i] = build(plain(), "a", string(make([]byte, n)), "c")
	}
	stop := make(chan struct{})
	var producers, readers sync.WaitGroup
	for i := range 3 {
		c, r := dial(), rand.New(rand.NewPCG(1, uint64(i)))
		producers.Go(func() { stressProduce(t, c, r, topics, batches, stop) })
	}
	for i := range 8 {
		rd := &stallReader{t: t, c: dial(), topics: topics, r: rand.New(rand.NewPCG(2, uint64(i))), version: []int16{18, 13, 12, 7}[i%4], sessions: i != 7}
		rd.maxBytes = []int32{50 << 20, 1 << 20, 100_000, 1, 50 << 20, 2 << 20, 300_000, 50 << 20}[i]
		rd.partBytes = []int32{1 << 20, 1 << 20, 50_000, 1, 10 << 20, 1000, 1 << 20, 1 << 20}[i]
		rd.minBytes = []int32{1, 1, 1, 0, 200_000, 1 << 20, 100 << 20, 1}[i]
		rd.wait = []int32{500, 0, 100, 50, 500, 2, 5, 500}[i]
		readers.Go(func() { rd.run(i, stop) })
	}
	<-time.After(stallTime()) // how long the load lasts
	close(stop)
	producers.Wait()
	readers.Wait()
}

func stressProduce(t *testing.T, c client, r *rand.Rand, topics []*stressed, batches [][]byte, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		topic := topics[r.IntN(2)]
		if r.IntN(50) == 0 {
			topic = topics[2]
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = int16(1-2*r.IntN(2)), 10000
		rt := kmsg.NewProduceRequestTopic()
		rt.TopicID = topic.id
		for p := range topic.ends {
			if r.IntN(2) == 0 {
				rp := kmsg.NewProduceRequestTopicPartition()
				rp.Partition, rp.Records = int32(p), batches[min(r.IntN(len(batches)), r.IntN(len(batches)))]
				rt.Partitions = append(rt.Partitions, rp)
			}
		}
		if len(rt.Partitions) == 0 {
			continue
		}
		req.Topics = append(req.Topics, rt)
		resp, err := c.try(req, 13)
		if err != nil {
			t.Errorf("produce: %v", err)
			return
		}
		for _, p := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				t.Errorf("produce to %s-%d: error %d", topic.name, p.Partition, p.ErrorCode)
				return
			}
			for end := p.BaseOffset + 3; ; {
				if have := topic.ends[p.Partition].Load(); have >= end || topic.ends[p.Partition].CompareAndSwap(have, end) {
					break
				}
			}
		}
		if r.IntN(30) == 0 { // readers catch up and park
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		}
	}
}

// stallReader reads all partitions as a Kafka consumer does, with an incremental fetch
// session (KIP-227) unless sessions is false.
type stallReader struct {
	t                   *testing.T
	c                   client
	topics              []*stressed
	r                   *rand.Rand
	version             int16
	sessions            bool
	maxBytes, partBytes int32
	minBytes, wait      int32

	at        map[[2]int]int64 // offset to read next by topic and partition
	told      map[[2]int]int64 // what the session has
	session   int32
	epoch     int32
	progress  time.Time // when there was news last, or nothing to read
	requested int
}

func (rd *stallReader) run(i int, stop chan struct{}) {
	rd.at, rd.told = make(map[[2]int]int64), make(map[[2]int]int64)
	rd.progress = time.Now()
	done := func() bool {
		select {
		case <-stop:
		default:
			return false
		}
		return !rd.behind()
	}
	for !done() {
		if err := rd.fetch(); err != nil {
			rd.t.Errorf("reader %d, request %d: %v", i, rd.requested, err)
			return
		}
		if !rd.behind() {
			rd.progress = time.Now()
		}
		if still := time.Since(rd.progress); still > stallPatience {
			rd.t.Errorf("reader %d got nothing for %v in %d requests: at %v", i, still, rd.requested, rd.at)
			return
		}
	}
}

// behind reports whether acked records are not read.
func (rd *stallReader) behind() bool {
	for i, topic := range rd.topics {
		for p := range topic.ends {
			if rd.at[[2]int{i, p}] < topic.ends[p].Load() {
				return true
			}
		}
	}
	return false
}

func (rd *stallReader) fetch() error {
	rd.requested++
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = rd.wait, rd.minBytes, rd.maxBytes
	req.SessionID, req.SessionEpoch = rd.session, rd.epoch
	if !rd.sessions {
		req.SessionEpoch = -1
	}
	for i, topic := range rd.topics {
		rt, ft := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestForgottenTopic()
		rt.Topic, rt.TopicID, ft.Topic, ft.TopicID = topic.name, topic.id, topic.name, topic.id
		for p := range topic.ends {
			key := [2]int{i, p}
			told, known := rd.told[key]
			if rd.epoch > 0 && known && rd.r.IntN(20) == 0 { // as a consumer whose buffer is full, or that is paused
				ft.Partitions = append(ft.Partitions, int32(p))
				delete(rd.told, key)
				continue
			}
			if rd.epoch > 0 && known && told == rd.at[key] {
				continue
			}
			fp := kmsg.NewFetchRequestTopicPartition()
			fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = int32(p), rd.at[key], rd.partBytes
			rt.Partitions = append(rt.Partitions, fp)
			rd.told[key] = rd.at[key]
		}
		if len(rt.Partitions) > 0 {
			req.Topics = append(req.Topics, rt)
		}
		if len(ft.Partitions) > 0 {
			req.ForgottenTopics = append(req.ForgottenTopics, ft)
		}
	}
	answer, err := rd.c.try(req, rd.version)
	if err != nil {
		return err
	}
	resp := answer.(*kmsg.FetchResponse)
	if resp.ErrorCode != 0 {
		return kerr.ErrorForCode(resp.ErrorCode)
	}
	if rd.session = resp.SessionID; rd.session != 0 {
		rd.epoch++
	} else {
		rd.epoch = 0
		clear(rd.told)
	}
	return rd.take(resp)
}

// take checks that the records follow on what was read.
func (rd *stallReader) take(resp *kmsg.FetchResponse) error {
	for _, rt := range resp.Topics {
		i := 0
		for rd.topics[i].name != rt.Topic && rd.topics[i].id != rt.TopicID {
			i++
		}
		for _, p := range rt.Partitions {
			if p.ErrorCode != 0 {
				return fmt.Errorf("%s-%d: %w", rd.topics[i].name, p.Partition, kerr.ErrorForCode(p.ErrorCode))
			}
			key := [2]int{i, int(p.Partition)}
			for rest := p.RecordBatches; len(rest) > 0; {
				n, err := batch.Peek(rest)
				if err != nil || n > len(rest) {
					break // cut at the end
				}
				b := batch.Batch(rest[:n])
				if err := b.Check(); err != nil {
					return err
				}
				if int64(b.BaseOffset()) != rd.at[key] {
					return fmt.Errorf("%s-%d: batch of offset %d, want %d", rd.topics[i].name, p.Partition, b.BaseOffset(), rd.at[key])
				}
				rd.at[key] = int64(b.NextOffset())
				rd.progress = time.Now()
				rest = rest[n:]
			}
		}
	}
	return nil
}
