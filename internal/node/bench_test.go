package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// The benchmarks send encoded requests through a whole node on one connection,
// a window at a time, so that what they count is the broker: the client side
// copies bytes and allocates nothing. They say what a request costs in
// allocations exactly, and in time with the client's share in it. The upper
// bound is internal/wire's echo plus internal/storage's append.

const window = 16

// exchange sends one frame n times, at most window of them ahead of the answers.
func exchange(c net.Conn, frame []byte, n int, reply []byte) error {
	sent, got := 0, 0
	for got < n {
		for sent < n && sent-got < window {
			if _, err := c.Write(frame); err != nil {
				return err
			}
			sent++
		}
		if _, err := io.ReadFull(c, reply[:4]); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(reply))
		if size > len(reply) {
			return fmt.Errorf("answer of %d bytes", size)
		}
		if _, err := io.ReadFull(c, reply[:size]); err != nil {
			return err
		}
		got++
	}
	return nil
}

// hot is a node with one topic, and a connection to it.
func hot(tb testing.TB) (c net.Conn, topic [16]byte) {
	tb.Helper()
	network := memnet.New()
	n := open(tb, vfs.OS(), network, map[string]string{"log.dirs": tb.TempDir() + "/data", "log.flush.interval.messages": "9223372036854775807", "log.segment.bytes": "67108864"})
	c, err := network.Dial(context.Background(), "10.0.0.1", n.Addr("PLAINTEXT"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.Close()
		if err := n.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	client := wire.NewClient(c, wire.ClientConfig{})
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = "t", 1, 1
	req.Topics, req.TimeoutMillis = append(req.Topics, t), 10000
	req.SetVersion(7)
	resp, err := client.Do(context.Background(), req)
	if err != nil {
		tb.Fatal(err)
	}
	client.Close()
	c, err = network.Dial(context.Background(), "10.0.0.1", n.Addr("PLAINTEXT"))
	if err != nil {
		tb.Fatal(err)
	}
	return c, resp.(*kmsg.CreateTopicsResponse).Topics[0].TopicID
}

func produceFrame(size int) []byte {
	req := produceRequest("t", [16]byte{}, -1, build(plain(), string(make([]byte, size))))
	req.SetVersion(9)
	return kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
}

func fetchFrame(id [16]byte, offset int64) []byte {
	req := fetchRequest("t", id, offset)
	req.Topics[0].Partitions[0].PartitionMaxBytes = 16 << 10 // below what goes by sendfile
	req.SetVersion(13)
	return kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
}

func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			c, _ := hot(b)
			frame, reply := produceFrame(size), make([]byte, 4096)
			b.SetBytes(int64(size * window))
			b.ReportAllocs()
			for b.Loop() {
				if err := exchange(c, frame, window, reply); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*window), "ns/request")
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	c, id := hot(b)
	reply := make([]byte, 4<<20)
	if err := exchange(c, produceFrame(16<<10), 1, reply); err != nil {
		b.Fatal(err)
	}
	frame := fetchFrame(id, 0)
	b.SetBytes(16 << 10 * window)
	b.ReportAllocs()
	for b.Loop() {
		if err := exchange(c, frame, window, reply); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*window), "ns/request")
}

// A request on the hot path must leave nothing to the garbage collector. What is
// counted is the whole process, so a fraction of an allocation is the noise of
// timers and pools being refilled.
func TestHotPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	c, id := hot(t)
	reply := make([]byte, 4<<20)
	for name, frame := range map[string][]byte{"produce": produceFrame(1 << 10), "fetch": fetchFrame(id, 0)} {
		run := func() {
			if err := exchange(c, frame, 64*window, reply); err != nil {
				t.Fatal(err)
			}
		}
		if name == "fetch" {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			if err := exchange(c, produceFrame(1<<10), 1, reply); err != nil {
				t.Fatal(err)
			}
		}
		run() // pools fill
		if n := testing.AllocsPerRun(5, run) / (64 * window); n > 0.5 {
			t.Errorf("%s: %.2f allocations a request, want none", name, n)
		}
	}
}
