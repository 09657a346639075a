package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/node"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// fixture is a node on a file system and a network in memory.
type fixture struct {
	t    *testing.T
	node *node.Node
	fs   vfs.FS
	net  *memnet.Network
}

// start opens a node on fs; nil is a new, empty disk.
func start(t *testing.T, fs vfs.FS, props map[string]string) *fixture {
	t.Helper()
	if fs == nil {
		fs = vfs.NewMem()
	}
	f := &fixture{t: t, fs: fs, net: memnet.New()}
	f.node = open(t, fs, f.net, props)
	t.Cleanup(f.stop)
	return f
}

func open(tb testing.TB, fs vfs.FS, network *memnet.Network, props map[string]string) *node.Node {
	tb.Helper()
	all := config.Default()
	all["log.dirs"] = "/data"
	all["ottla.http.listener"] = ""
	maps.Copy(all, props)
	settings, _, err := config.Load(all)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := node.Open(ctx, node.Config{Settings: settings, FS: fs, Network: network, Log: slog.New(slog.NewTextHandler(tb.Output(), nil)), Seed: 7})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func (f *fixture) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.node.Close(ctx); err != nil {
		f.t.Errorf("stopping the node: %v", err)
	}
}

// client is one connection to the node.
type client struct {
	t *testing.T
	c *wire.Client
}

func (f *fixture) dial() client { return f.dialTo("PLAINTEXT") }

func (f *fixture) dialTo(listener string) client {
	f.t.Helper()
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) { return f.net.Dial(ctx, "10.0.0.1", addr) }
	c, err := wire.Dial(context.Background(), dial, f.node.Addr(listener), wire.ClientConfig{ClientID: "test"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return client{f.t, c}
}

// try sends a request at a version.
func (c client) try(req kmsg.Request, version int16) (kmsg.Response, error) {
	req.SetVersion(version)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.c.Do(ctx, req)
}

// do is try where an answer must come.
func do[R kmsg.Response](c client, req kmsg.Request, version int16) R {
	c.t.Helper()
	resp, err := c.try(req, version)
	if err != nil {
		c.t.Fatalf("%s version %d: %v", kmsg.Key(req.Key()).Name(), version, err)
	}
	return resp.(R)
}

// create makes a topic and gives its id.
func (c client) create(name string, partitions int32, configs ...string) [16]byte {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for i := 0; i < len(configs); i += 2 {
		e := kmsg.NewCreateTopicsRequestTopicConfig()
		e.Name, e.Value = configs[i], &configs[i+1]
		t.Configs = append(t.Configs, e)
	}
	req.Topics, req.TimeoutMillis = append(req.Topics, t), 10000
	resp := do[*kmsg.CreateTopicsResponse](c, req, 7)
	if code := resp.Topics[0].ErrorCode; code != 0 {
		c.t.Fatalf("creating %s: error %d", name, code)
	}
	return resp.Topics[0].TopicID
}

// rawConn is a connection that sends and receives frame by frame.
type rawConn struct {
	t *testing.T
	c net.Conn
}

func (f *fixture) raw() rawConn {
	f.t.Helper()
	c, err := f.net.Dial(context.Background(), "10.0.0.1", f.node.Addr("PLAINTEXT"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return rawConn{f.t, c}
}

func (r rawConn) send(correlation int32, req kmsg.Request, version int16) {
	r.t.Helper()
	req.SetVersion(version)
	if _, err := r.c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, correlation)); err != nil {
		r.t.Fatal(err)
	}
}

// receive reads the next answer, which must be that of a correlation id.
func (r rawConn) receive(correlation int32, resp kmsg.Response, version int16) {
	r.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(r.c, head[:]); err != nil {
		r.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r.c, body); err != nil {
		r.t.Fatal(err)
	}
	if got := int32(binary.BigEndian.Uint32(body)); got != correlation {
		r.t.Fatalf("answer to request %d, want that of %d", got, correlation)
	}
	body = body[4:]
	resp.SetVersion(version)
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		r.t.Fatal(err)
	}
}

func (r rawConn) expectClosed() {
	r.t.Helper()
	if n, err := r.c.Read(make([]byte, 1)); err == nil {
		r.t.Fatalf("%d bytes came, want a closed connection", n)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Fatal("the connection is still open")
	}
}

// build makes a batch of these values.
func build(opts batch.BuilderOptions, values ...string) []byte {
	b := batch.NewCodecs().NewBuilder(opts)
	for _, v := range values {
		b.Add(time.Now().UnixMilli(), []byte("k"), []byte(v))
	}
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return out
}

// plain are the options of a batch from a producer without sequence numbers.
func plain() batch.BuilderOptions {
	return batch.BuilderOptions{Epoch: model.NoEpoch, Producer: model.NoProducer, Sequence: -1}
}

// produce sends one batch to partition 0 by topic name.
func (c client) produce(topic string, acks int16, records []byte) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	resp := do[*kmsg.ProduceResponse](c, produceRequest(topic, [16]byte{}, acks, records), 12)
	return resp.Topics[0].Partitions[0]
}

func produceRequest(topic string, id [16]byte, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 10000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// fetchRequest asks partition 0 of a topic from offset on.
func fetchRequest(topic string, id [16]byte, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 0, 1, 50<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes = offset, 1<<20
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// values reads the records of fetched bytes from an offset on.
func values(t *testing.T, records []byte, from int64) (out []string) {
	t.Helper()
	codecs := batch.NewCodecs()
	for len(records) > 0 {
		n, err := batch.Peek(records)
		if err != nil || n > len(records) {
			return out // cut at the end
		}
		b := batch.Batch(records[:n])
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		for r, err := range codecs.Records(b, 1<<30) {
			if err != nil {
				t.Fatal(err)
			}
			if int64(r.Offset) >= from {
				out = append(out, string(r.Value))
			}
		}
		records = records[n:]
	}
	return out
}
