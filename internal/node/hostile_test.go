package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/vfs"
)

// Hostile peers against a whole node. In every test a well-behaved client, the
// neighbour, works beside them and must notice nothing; memory stays bounded
// whatever lengths are claimed; and when the node is closed no goroutine is left.

// victim is a node under attack.
type victim struct {
	*fixture
	topic [16]byte // id of "t", which has records
}

// attackTest starts a node with a neighbour; most is by how much the heap may
// grow at any moment.
func attackTest(t *testing.T, props map[string]string, most int64, attack func(v victim)) {
	t.Helper()
	noLeaks(t)
	f := start(t, nil, props)
	c := f.dial()
	v := victim{fixture: f, topic: c.create("t", 1)}
	c.produce("t", 1, build(plain(), "seed"))
	heap := watchHeap()
	neighbour := v.neighbour()
	attack(v)
	neighbour.leave()
	if grown := heap.stop(); grown > most {
		t.Errorf("the heap grew by %d MiB, want at most %d", grown>>20, most>>20)
	}
}

// noLeaks fails the test if goroutines are left when all else is cleaned up.
func noLeaks(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

// heapWatch samples the heap.
type heapWatch struct {
	before uint64
	peak   atomic.Uint64
	done   chan struct{}
	ended  sync.WaitGroup
}

func watchHeap() *heapWatch {
	runtime.GC()
	h := &heapWatch{before: heapBytes(), done: make(chan struct{})}
	h.ended.Go(func() {
		for {
			if n := heapBytes(); n > h.peak.Load() {
				h.peak.Store(n)
			}
			select {
			case <-h.done:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	return h
}

// stop gives how far the heap was above its beginning, at most.
func (h *heapWatch) stop() int64 {
	close(h.done)
	h.ended.Wait()
	return int64(h.peak.Load()) - int64(h.before)
}

func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// neighbour produces and fetches without a pause until it leaves.
type neighbour struct {
	t      testing.TB
	done   chan struct{}
	ended  sync.WaitGroup
	rounds atomic.Int64
}

func (v victim) neighbour() *neighbour {
	n := &neighbour{t: v.t, done: make(chan struct{})}
	c := v.dial()
	id := c.create("neighbour", 1)
	n.ended.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-n.done:
				return
			default:
			}
			if err := round(c, id, i); err != nil {
				n.t.Errorf("the neighbour's round %d: %v", i, err)
				return
			}
			n.rounds.Add(1)
			time.Sleep(time.Millisecond)
		}
	})
	return n
}

// round produces one record and reads it back.
func round(c client, id [16]byte, i int64) error {
	value := fmt.Sprint("round ", i)
	began := time.Now()
	resp, err := c.try(produceRequest("neighbour", [16]byte{}, -1, build(plain(), value)), 12)
	if err != nil {
		return fmt.Errorf("produce after %v: %w", time.Since(began), err)
	}
	if p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != i {
		return fmt.Errorf("produce: error %d at offset %d", p.ErrorCode, p.BaseOffset)
	}
	resp, err = c.try(fetchRequest("", id, i), 13)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	p := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || !bytes.Contains(p.RecordBatches, []byte(value)) {
		return fmt.Errorf("fetch: error %d, %d bytes without the record", p.ErrorCode, len(p.RecordBatches))
	}
	return nil
}

// leave waits until the neighbour has done some more rounds, then ends it.
func (n *neighbour) leave() {
	n.t.Helper()
	for from, deadline := n.rounds.Load(), time.Now().Add(20*time.Second); n.rounds.Load() < from+3 && !n.t.Failed(); {
		if time.Now().After(deadline) {
			n.t.Errorf("the neighbour did %d rounds in 20 s", n.rounds.Load()-from)
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(n.done)
	n.ended.Wait()
}

// bad opens a connection of an attacker.
func (v victim) bad() net.Conn {
	v.t.Helper()
	return v.from("6.6.6.6")
}

func (v victim) from(host string) net.Conn {
	v.t.Helper()
	c, err := v.net.Dial(context.Background(), host, v.node.Addr("PLAINTEXT"))
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// ends sends bytes and nothing more, and returns what comes until the node
// closes the connection, which it must.
func ends(t testing.TB, c net.Conn, send []byte) []byte {
	t.Helper()
	go func() { // a node that closes early must not keep us from reading
		_, _ = c.Write(send)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after % x the connection stays open", send[:min(len(send), 64)])
	}
	c.Close()
	return got
}

// frame is a request with any bytes as its body, header version 1.
func frame(key, version int16, correlation int32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = binary.BigEndian.AppendUint16(b, 0xffff)
	return append(b, body...)
}

// flexFrame is frame with header version 2.
func flexFrame(key, version int16, correlation int32, body []byte) []byte {
	return frame(key, version, correlation, append([]byte{0}, body...))
}

// wholeFrames cuts what a node sent into the payloads of its frames. rest is a
// frame that the connection's end cut.
func wholeFrames(b []byte) (out [][]byte, rest []byte) {
	for len(b) >= 4 && int64(len(b)) >= 4+int64(binary.BigEndian.Uint32(b)) {
		n := 4 + int(binary.BigEndian.Uint32(b))
		out, b = append(out, b[4:n]), b[n:]
	}
	return out, b
}

func TestRandomBytes(t *testing.T) {
	attackTest(t, nil, 200<<20, func(v victim) {
		r := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			b := make([]byte, 1+r.IntN(4000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if r.IntN(2) == 0 { // a length that fits leads deeper
				b = frame(int16(r.IntN(100)), int16(r.IntN(20)), 1, b)
			}
			ends(v.t, v.bad(), b)
		}
	})
}

func TestFramesOfImpossibleLength(t *testing.T) {
	attackTest(t, nil, 50<<20, func(v victim) {
		for _, n := range []int32{-1, -2147483648, 2147483647, 100<<20 + 1, 0, 1, 7} {
			b := binary.BigEndian.AppendUint32(nil, uint32(n))
			if got := ends(v.t, v.bad(), append(b, make([]byte, 100)...)); len(got) != 0 {
				v.t.Errorf("length %d was answered with % x", n, got)
			}
		}
	})
}

// A frame that claims to be large books its memory; that must not be more than
// the budget and one more frame, however many claim it.
func TestFramesThatLieAboutTheirLengthHoldBoundedMemory(t *testing.T) {
	attackTest(t, nil, 700<<20, // of 5 GiB that are claimed; garbage counts, too
		func(v victim) {
			var conns []net.Conn
			for range 50 {
				c := v.bad()
				b := frame(int16(kmsg.Produce), 9, 1, make([]byte, 100))
				binary.BigEndian.PutUint32(b, 100<<20)
				_, _ = c.Write(b)
				conns = append(conns, c)
			}
			time.Sleep(200 * time.Millisecond) // the neighbour works on
			var all sync.WaitGroup
			for _, c := range conns {
				all.Go(func() { ends(v.t, c, nil) })
			}
			all.Wait()
		})
}

func TestUnknownKeysAndVersionsClose(t *testing.T) {
	attackTest(t, nil, 50<<20, func(v victim) {
		served := map[int16]kmsg.ApiVersionsResponseApiKey{}
		for _, k := range v.served() {
			served[k.ApiKey] = k
		}
		for key := int16(-2); key < 110; key++ {
			k, ok := served[key]
			for _, version := range []int16{-1, 0, k.MinVersion - 1, k.MaxVersion + 1, 99, 32767, -32768} {
				if ok && k.MinVersion <= version && version <= k.MaxVersion || key == int16(kmsg.ApiVersions) {
					continue
				}
				if got := ends(v.t, v.bad(), frame(key, version, 1, make([]byte, 50))); len(got) != 0 {
					v.t.Errorf("key %d version %d was answered with % x", key, version, got)
				}
			}
		}
	})
}

// KAFKA.md 3.2, bytes observed on Apache Kafka 4.4.0.
func TestApiVersionsOfTheFutureIsAnsweredInVersion0(t *testing.T) {
	want := []byte{0, 0, 0, 16, 0, 0, 0, 0x4d, 0, 0x23, 0, 0, 0, 1, 0, 0x12, 0, 0, 0, 5}
	attackTest(t, nil, 50<<20, func(v victim) {
		for _, version := range []int16{6, 99, 32767} { // header version 2: it ends with a tagged section
			for _, body := range [][]byte{{0}, append([]byte{0}, bytes.Repeat([]byte{0xff}, 60)...)} {
				got := ends(v.t, v.bad(), frame(int16(kmsg.ApiVersions), version, 77, body))
				if !bytes.Equal(got, want) {
					v.t.Errorf("version %d, body % x: got % x, want % x", version, body, got, want)
				}
			}
		}
	})
}

// served are the APIs that a node offers on its broker listener.
func (v victim) served() []kmsg.ApiVersionsResponseApiKey {
	resp := do[*kmsg.ApiVersionsResponse](v.dial(), softwareNamed(), 4)
	return resp.ApiKeys
}

func softwareNamed() *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
	return req
}

// sample is a request with something in every field.
func (v victim) sample(key, version int16) kmsg.Request {
	req := kmsg.RequestForKey(key)
	if key == int16(kmsg.Produce) {
		req = produceRequest("t", v.topic, 1, build(plain(), "sample"))
	} else {
		fill(req)
	}
	req.SetVersion(version)
	return req
}

// bodyOf encodes a request without its header.
func bodyOf(req kmsg.Request) []byte { return req.AppendTo(nil) }

func requestFrame(req kmsg.Request, body []byte) []byte {
	if req.IsFlexible() {
		return flexFrame(req.Key(), req.GetVersion(), 5, body)
	}
	return frame(req.Key(), req.GetVersion(), 5, body)
}

// answersOrCloses sends a request and a good one behind it. The node must close
// the connection or answer the good one, within the connection's deadline.
func (v victim) answersOrCloses(what string, request []byte) {
	v.t.Helper()
	c := v.bad()
	good := frame(int16(kmsg.ApiVersions), 0, 1234567, nil)
	answers, rest := wholeFrames(ends(v.t, c, append(request, good...)))
	if len(rest) > 0 {
		v.t.Errorf("%s: the last answer is cut off after %d bytes", what, len(rest))
	}
	if n := len(answers); n > 2 || n == 2 && int32(binary.BigEndian.Uint32(answers[1])) != 1234567 {
		v.t.Errorf("%s: %d answers", what, n)
	}
}

func (v victim) eachServed(f func(name string, req kmsg.Request, body []byte)) {
	for _, k := range v.served() {
		low := k.MinVersion
		if k.ApiKey == int16(kmsg.Produce) {
			low = 3
		}
		for version := low; version <= k.MaxVersion; version++ {
			req := v.sample(k.ApiKey, version)
			f(fmt.Sprintf("%s version %d", kmsg.NameForKey(k.ApiKey), version), req, bodyOf(req))
		}
	}
}

func TestBodiesCutAtEveryLength(t *testing.T) {
	attackTest(t, map[string]string{"auto.create.topics.enable": "false"}, 100<<20, func(v victim) {
		v.eachServed(func(name string, req kmsg.Request, body []byte) {
			for n := range body {
				v.answersOrCloses(fmt.Sprintf("%s cut at %d of %d", name, n, len(body)), requestFrame(req, body[:n]))
			}
		})
	})
}

func TestBodiesWithGarbageBehindThem(t *testing.T) {
	attackTest(t, map[string]string{"auto.create.topics.enable": "false"}, 100<<20, func(v victim) {
		v.eachServed(func(name string, req kmsg.Request, body []byte) {
			for _, more := range []string{"\x00", "\xff", strings.Repeat("\xff", 100), strings.Repeat("\x01", 2000)} {
				v.answersOrCloses(name+" with garbage", requestFrame(req, append(body[:len(body):len(body)], more...)))
			}
		})
	})
}

// Every byte of a good request is replaced by those that make lengths null,
// negative, huge or overlong.
func TestBodiesWithOneWrongByte(t *testing.T) {
	attackTest(t, map[string]string{"auto.create.topics.enable": "false"}, 300<<20, func(v victim) {
		v.eachServed(func(name string, req kmsg.Request, body []byte) {
			if testing.Short() && req.GetVersion()%2 == 1 {
				return
			}
			for i := range body {
				for _, b := range []byte{0, 0x7f, 0xff} {
					wrong := bytes.Clone(body)
					if wrong[i] == b {
						continue
					}
					wrong[i] = b
					v.answersOrCloses(fmt.Sprintf("%s with byte %d = %#x", name, i, b), requestFrame(req, wrong))
				}
			}
		})
	})
}

// Arrays that claim more than the body holds, and arrays that hold what they
// claim but decode into many times their size.
func TestHugeArrays(t *testing.T) {
	attackTest(t, map[string]string{"auto.create.topics.enable": "false"}, 1500<<20, func(v victim) { // garbage counts, too
		claims := [][]byte{
			{0x7f, 0xff, 0xff, 0xff},       // an array of 2^31-1
			{0x00, 0x0f, 0x42, 0x40},       // of a million
			{0xa1, 0x8d, 0x06},             // compact, a hundred thousand
			{0xc1, 0x84, 0x3d},             // compact, a million
			{0xff, 0xff, 0xff, 0xff, 0x07}, // compact, 2^31-2
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		}
		every := int16(3) // versions
		switch {
		case os.Getenv("OTTLA_SOAK") != "":
			every = 1
		case raceEnabled: // which makes it ten times slower
			every = 9
		}
		v.eachServed(func(name string, req kmsg.Request, body []byte) {
			if req.GetVersion()%every != 0 {
				return
			}
			claims := claims
			if req.Key() > int16(kmsg.Fetch) {
				claims = claims[:3] // see TestTaggedSectionsThatClaimBillions
			}
			for _, claim := range claims {
				for n := 0; n <= min(len(body), 40); n++ {
					b := append(bytes.Clone(body[:n]), claim...)
					v.answersOrCloses(name+" with a huge array", requestFrame(req, append(b, make([]byte, 64)...)))
				}
			}
		})
		sizes := []int{1 << 20, 2<<20 - 100}
		if raceEnabled {
			sizes = sizes[1:]
		}
		for _, k := range v.served() { // as many elements as fit into the largest request
			req := kmsg.RequestForKey(k.ApiKey)
			req.SetVersion(k.MaxVersion)
			for _, size := range sizes {
				body := binary.AppendUvarint(nil, 900_001)
				body = append(body, bytes.Repeat([]byte{1}, size)...)
				v.answersOrCloses(kmsg.NameForKey(k.ApiKey)+" full of elements", requestFrame(req, body))
			}
		}
	})
}

// A tagged section is a count and that many tags. kmsg believes the count even
// when the body has ended, and goes round its loop two thousand million times,
// for minutes, on a request of thirty bytes.
func TestTaggedSectionsThatClaimBillions(t *testing.T) {
	attackTest(t, nil, 600<<20, func(v victim) {
		v.answersOrCloses("metadata", flexFrame(int16(kmsg.Metadata), 12, 5, []byte{1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x07}))
	})
}

// tinyProduce is a Produce of many partitions, each a few bytes.
func tinyProduce(parts, topics int) []byte {
	b := []byte{0, 0xff, 0xff, 0, 0, 0, 1} // no transactional id, acks=all, 1 ms
	b = binary.AppendUvarint(b, uint64(topics)+1)
	for range topics {
		b = append(b, 2, 't')
		b = binary.AppendUvarint(b, uint64(parts)+1)
		b = append(b, bytes.Repeat([]byte{0, 0, 0, 0, 1, 0}, parts)...) // partition 0, no records
		b = append(b, 0)
	}
	return append(b, 0)
}

func TestRequestsOfAMillionTinyPartitions(t *testing.T) {
	attackTest(t, nil, 600<<20, func(v victim) {
		v.answersOrCloses("produce", flexFrame(int16(kmsg.Produce), 9, 5, tinyProduce(1_000_000, 1)))
		v.answersOrCloses("produce", flexFrame(int16(kmsg.Produce), 9, 5, tinyProduce(1_000_000, 16)))
	})
}

// A fetch that names one partition a million times, waits, and is sent again and
// again, must not hold a million partitions each time.
func TestParkedFetchesOfAMillionPartitions(t *testing.T) {
	attackTest(t, nil, 400<<20, func(v victim) {
		id := v.dial().create("empty", 1)
		req := fetchRequest("", id, 0)
		req.MaxWaitMillis = 1 << 30
		for range 120_000 {
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, req.Topics[0].Partitions[0])
		}
		req.SetVersion(13)
		b := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
		var conns []net.Conn
		for range 10 {
			c := v.bad()
			conns = append(conns, c)
			for range 2 {
				if _, err := c.Write(b); err != nil {
					break // refused is fine
				}
			}
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

// bomb is a batch of one record whose value is size zeros.
func bomb(t *testing.T, codec batch.Codec, size int) []byte {
	t.Helper()
	var rec []byte
	rec = append(rec, 0, 0, 0, 1) // attributes, timestamp, offset, null key
	rec = binary.AppendVarint(rec, int64(size))
	head := append(binary.AppendVarint(nil, int64(len(rec)+size+1)), rec...)
	var out bytes.Buffer
	out.Write(build(plain(), "x")[:batch.HeaderSize])
	var w io.WriteCloser
	var err error
	switch codec {
	case batch.Gzip:
		w = gzip.NewWriter(&out)
	case batch.Zstd:
		w, err = zstd.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(head)
	zeros := make([]byte, 1<<20)
	for n := size; n > 0; n -= len(zeros) {
		_, _ = w.Write(zeros[:min(n, len(zeros))])
	}
	_, _ = w.Write([]byte{0}) // no headers
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b := batch.Batch(out.Bytes())
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batch.LengthEnd))
	binary.BigEndian.PutUint16(b[21:], uint16(codec))
	binary.BigEndian.PutUint32(b[17:], b.ComputeCRC())
	return b
}

func TestCompressedBombs(t *testing.T) {
	gz, zs := bomb(t, batch.Gzip, 512<<20), bomb(t, batch.Zstd, 1<<30)
	attackTest(t, nil, 150<<20, func(v victim) {
		c := v.dial()
		c.create("small", 1, "max.decompressed.message.bytes", "1000000")
		for name, b := range map[string][]byte{"gzip": gz, "zstd": zs} {
			p := c.produce("t", 1, b) // within Kafka's default limit; reading it through takes no memory
			v.t.Logf("%s: %d bytes, %v", name, len(b), kerr.ErrorForCode(p.ErrorCode))
			if p = c.produce("small", 1, b); p.ErrorCode != kerr.MessageTooLarge.Code && p.ErrorCode != kerr.InvalidRecord.Code {
				v.t.Errorf("%s: error %d, want that it is too large", name, p.ErrorCode)
			}
		}
	})
}

func TestWrongBatchesAreAnswered(t *testing.T) {
	attackTest(t, nil, 100<<20, func(v victim) {
		c := v.dial()
		good := build(plain(), "one", "two")
		r := rand.New(rand.NewPCG(3, 3))
		for range 500 {
			b := bytes.Clone(good)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
			}
			if r.IntN(2) == 0 && len(b) >= batch.HeaderSize { // with a CRC that is right
				binary.BigEndian.PutUint32(b[17:], batch.Batch(b).ComputeCRC())
			}
			if r.IntN(4) == 0 {
				b = b[:r.IntN(len(b))]
			}
			resp := do[*kmsg.ProduceResponse](c, produceRequest("t", [16]byte{}, 1, b), 12)
			if code := resp.Topics[0].Partitions[0].ErrorCode; code == kerr.UnknownServerError.Code {
				v.t.Errorf("% x: unknown server error", b)
			}
		}
	})
}

// A produce whose time runs out while one of its partitions was refused and
// another one waits for the disk.
func TestTimeoutBesideARefusedPartition(t *testing.T) {
	noLeaks(t)
	disk := vfs.Inject(vfs.NewMem())
	f := start(t, disk, nil)
	c := f.dial()
	c.create("t", 2)
	slow := disk.Add(vfs.Rule{Kind: vfs.OpSync, Path: "*.log", Delay: 50 * time.Millisecond})
	req := produceRequest("t", [16]byte{}, -1, nil)
	req.TimeoutMillis = 1
	good := kmsg.NewProduceRequestTopicPartition()
	good.Partition, good.Records = 1, build(plain(), "x")
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, good)
	resp := do[*kmsg.ProduceResponse](c, req, 12)
	slow.Remove()
	got := resp.Topics[0].Partitions
	if got[0].ErrorCode != kerr.InvalidRecord.Code || got[1].ErrorCode != kerr.RequestTimedOut.Code {
		t.Errorf("errors %d and %d", got[0].ErrorCode, got[1].ErrorCode)
	}
}

// Frames that claim to be large and do not come must not take the budget away from
// honest clients.
func TestFramesThatLieAboutTheirLengthLeaveRoomForOthers(t *testing.T) {
	attackTest(t, nil, 250<<20, func(v victim) {
		for range 40 {
			b := frame(int16(kmsg.Produce), 9, 1, make([]byte, 100))
			binary.BigEndian.PutUint32(b, 15<<20)
			_, _ = v.bad().Write(b)
		}
		time.Sleep(100 * time.Millisecond)
	})
}

// Clients that ask for much and read nothing.
func TestClientsThatNeverRead(t *testing.T) {
	attackTest(t, nil, 300<<20, func(v victim) {
		c := v.dial()
		for range 30 {
			c.produce("t", 1, build(plain(), strings.Repeat("x", 500_000)))
		}
		fetch := fetchRequest("", v.topic, 0)
		fetch.Topics[0].Partitions[0].PartitionMaxBytes = 50 << 20
		fetch.SetVersion(13)
		ask := kmsg.NewRequestFormatter().AppendRequest(nil, fetch, 1)
		for range 50 {
			bad := v.bad()
			_ = bad.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			for range 500 {
				if _, err := bad.Write(ask); err != nil {
					break // it is not read any more
				}
			}
		}
	})
}

func TestAThousandSilentConnections(t *testing.T) {
	attackTest(t, nil, 100<<20, func(v victim) {
		half := frame(int16(kmsg.Metadata), 9, 1, make([]byte, 1000))
		for i := range 1000 {
			c := v.bad()
			if i%2 == 1 {
				_, _ = c.Write(half[:1+i%100]) // in the middle of a frame
			}
		}
	})
}

// Peers that stop in the middle of a frame, or that vanish without a word, are
// closed when their time is over; connections.max.idle.ms bounds the silent.
func TestSilentPeersAreClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, map[string]string{"connections.max.idle.ms": "600000"})
		v := victim{fixture: f}
		began := time.Now()
		closed := func(c net.Conn) time.Duration {
			_ = c.SetDeadline(time.Time{})
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the node sent something")
			}
			return time.Since(began)
		}
		silent, half, gone := v.bad(), v.bad(), v.from("7.7.7.7")
		_, _ = half.Write(frame(int16(kmsg.Metadata), 9, 1, make([]byte, 100))[:50])
		f.net.Cut("7.7.7.7", "127.0.0.1", true)
		if d := closed(half); d < 29*time.Second || d > time.Minute {
			t.Errorf("half a frame was awaited for %v", d)
		}
		if d := closed(silent); d < 9*time.Minute || d > 13*time.Minute {
			t.Errorf("a silent connection was closed after %v", d)
		}
		f.net.Cut("7.7.7.7", "127.0.0.1", false)
		if d := closed(gone); d > 14*time.Minute {
			t.Errorf("a vanished peer was closed after %v", d)
		}
	})
}

func TestConnectionLimits(t *testing.T) {
	props := map[string]string{
		"max.connections.per.ip": "3", "max.connections.per.ip.overrides": "10.0.0.1:100,9.9.9.9:1",
	}
	attackTest(t, props, 50<<20, func(v victim) {
		alive := func(c net.Conn) bool {
			_, _ = c.Write(frame(int16(kmsg.ApiVersions), 0, 1, nil))
			_, err := io.ReadFull(c, make([]byte, 4))
			return err == nil
		}
		var conns []net.Conn
		for i := range 6 {
			c := v.bad()
			if got, want := alive(c), i < 3; got != want {
				v.t.Errorf("connection %d of one address: served %v, want %v", i+1, got, want)
			}
			conns = append(conns, c)
		}
		if !alive(v.from("9.9.9.9")) || alive(v.from("9.9.9.9")) {
			v.t.Error("the override of 9.9.9.9 is one connection")
		}
		conns[0].Close() // makes room for another
		deadline := time.Now().Add(10 * time.Second)
		for !alive(v.bad()) {
			if time.Now().After(deadline) {
				v.t.Fatal("a closed connection still counts")
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// max.connections: those beyond it wait, they are not refused (KAFKA.md 10.4).
func TestConnectionsBeyondTheTotalWait(t *testing.T) {
	attackTest(t, map[string]string{"max.connections": "5"}, 50<<20, func(v victim) {
		var conns []net.Conn // the test and its neighbour have one each
		for range 5 {
			conns = append(conns, v.bad())
		}
		served := make(chan net.Conn, 5)
		for _, c := range conns {
			_, _ = c.Write(frame(int16(kmsg.ApiVersions), 0, 1, nil))
			go func() {
				if _, err := io.ReadFull(c, make([]byte, 4)); err == nil {
					served <- c
				}
			}()
		}
		for range 3 {
			(<-served).Close()
		}
		<-served
		<-served
	})
}

// fill puts something into every field of a request: names that exist nowhere,
// ones, two elements into each array.
func fill(req kmsg.Request) { fillValue(reflect.ValueOf(req).Elem(), 0) }

func fillValue(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("s")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(1)
	case reflect.Array:
		for i := range v.Len() {
			fillValue(v.Index(i), depth)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem(), depth)
	case reflect.Slice:
		n := max(1, 2-depth/2)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fillValue(v.Index(i), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && v.Type().Field(i).Name != "UnknownTags" && v.Type().Field(i).Name != "Version" {
				fillValue(f, depth+1)
			}
		}
	}
}
