package compat_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A peer is a client library that people use. Topics to produce to are
// name=codec; every one gets the records of the file. Consuming writes what it
// read of each topic to a file of the topic's name.
type peer interface {
	produce(t *testing.T, addr, file string, rs []*kgo.Record, topics []string)
	consume(t *testing.T, addr, dir string, topics []string)
}

// javaPeer is Apache Kafka's own client, of a version.
type javaPeer struct{ artifact, version string }

// class returns the command line that runs java/Client.java with this version's jars.
func (p javaPeer) class(t *testing.T) []string {
	t.Helper()
	cp := jars(t, p.artifact, p.version)
	classes := filepath.Join(run.tmp, "classes-"+p.version)
	if err := cached(classes, func(tmp string) error {
		_, err := try(need(t, "javac"), "-d", tmp, "-cp", cp, repoFile(t, "java/Client.java"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return []string{"-Xmx256m", "-XX:+UseSerialGC", "-Dlog4j2.configurationFile=" + repoFile(t, "java/log4j2.xml"), "-cp", classes + string(os.PathListSeparator) + cp, "Client"}
}

func (p javaPeer) run(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, java(t), append(p.class(t), args...)...)
}

func (p javaPeer) produce(t *testing.T, addr, file string, _ []*kgo.Record, topics []string) {
	t.Helper()
	p.run(t, append([]string{"produce", addr, file}, topics...)...)
}

func (p javaPeer) consume(t *testing.T, addr, dir string, topics []string) {
	t.Helper()
	p.run(t, append([]string{"consume", addr, dir}, topics...)...)
}

// pythonPeer is a Python library: kafka-python, or confluent for librdkafka.
type pythonPeer struct{ library string }

// What pip installs: two clients, and the codecs that kafka-python does not bring along.
var pythonPackages = []string{"kafka-python==3.0.12", "confluent-kafka==2.16.1", "python-snappy", "lz4", "zstandard"}

func (p pythonPeer) run(t *testing.T, args ...string) {
	t.Helper()
	home := filepath.Join(run.cache, "python-"+strings.NewReplacer("==", "-", " ", "").Replace(strings.Join(pythonPackages[:2], "-")))
	if err := cached(home, func(tmp string) error {
		t.Log("fetching Python clients with pip")
		if _, err := try(need(t, "python3"), "-m", "venv", tmp); err != nil {
			return err
		}
		_, err := try(filepath.Join(tmp, "bin", "python"), append([]string{"-m", "pip", "install", "-q"}, pythonPackages...)...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	output(t, filepath.Join(home, "bin", "python"), append([]string{repoFile(t, "python/client.py"), p.library}, args...)...)
}

func (p pythonPeer) produce(t *testing.T, addr, file string, _ []*kgo.Record, topics []string) {
	t.Helper()
	p.run(t, append([]string{"produce", addr, file}, topics...)...)
}

func (p pythonPeer) consume(t *testing.T, addr, dir string, topics []string) {
	t.Helper()
	p.run(t, append([]string{"consume", addr, dir}, topics...)...)
}

// goPeer is franz-go, in this process.
type goPeer struct{ opts []kgo.Opt }

func goCodec(name string) kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[name]
}

func (p goPeer) produce(t *testing.T, addr, _ string, rs []*kgo.Record, topics []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, topic := range topics {
		name, codec, _ := strings.Cut(topic, "=")
		cl := newClient(t, addr, append([]kgo.Opt{
			kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(goCodec(codec)),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20 * time.Millisecond),
		}, p.opts...)...)
		var own []*kgo.Record // a client keeps what it is given
		for _, r := range rs {
			c := *r
			own = append(own, &c)
		}
		if err := cl.ProduceSync(ctx, own...).FirstErr(); err != nil {
			t.Fatalf("%s: %v", topic, err)
		}
		cl.Close()
	}
}

func (p goPeer) consume(t *testing.T, addr, dir string, topics []string) {
	t.Helper()
	for _, topic := range topics {
		var mu sync.Mutex
		lines := map[int32]*strings.Builder{}
		readTopic(t, addr, topic, func(r *kgo.Record) {
			mu.Lock()
			defer mu.Unlock()
			if lines[r.Partition] == nil {
				lines[r.Partition] = &strings.Builder{}
			}
			lines[r.Partition].WriteString(recordLine(r, r.Offset))
		}, p.opts...)
		partitions := make([]int32, 0, len(lines))
		for p := range lines {
			partitions = append(partitions, p)
		}
		sort.Slice(partitions, func(i, j int) bool { return partitions[i] < partitions[j] })
		var text strings.Builder
		for _, p := range partitions {
			text.WriteString(lines[p].String())
		}
		if err := os.WriteFile(filepath.Join(dir, topic), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readTopic reads every partition of a topic from its start to the end that it
// has at the call, without a group, and gives each record to yield.
func readTopic(t *testing.T, addr, topic string, yield func(*kgo.Record), opts ...kgo.Opt) {
	t.Helper()
	ends := endOffsets(t, addr, topic)
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	for p, end := range ends {
		if end > 0 {
			from[p], left[p] = kgo.NewOffset().AtStart(), end
		}
	}
	cl := newClient(t, addr, append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchMaxWait(100*time.Millisecond))...)
	defer cl.Close()
	at := map[int32]int64{}
	for len(left) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		fetches := cl.PollFetches(ctx) // returns with records, an error, or nothing after a minute
		cancel()
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v; at %v, partitions left with their ends: %v", topic, err, at, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < ends[r.Partition] {
				yield(r)
			}
			at[r.Partition] = r.Offset + 1
			if r.Offset >= ends[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
}

// endOffsets asks for the end of each partition of a topic.
func endOffsets(t *testing.T, addr, topic string) map[int32]int64 {
	t.Helper()
	cl := newClient(t, addr)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ends, err := listEnds(ctx, cl, topic)
	if err != nil {
		t.Fatal(err)
	}
	return ends
}

func listEnds(ctx context.Context, cl *kgo.Client, topic string) (map[int32]int64, error) {
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	meta.Topics = append(meta.Topics, mt)
	resp, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	if err := kerrOf(resp.Topics[0].ErrorCode); err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", topic, err)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = topic
	for _, p := range resp.Topics[0].Partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p.Partition, -1
		lt.Partitions = append(lt.Partitions, lp)
	}
	req.Topics = append(req.Topics, lt)
	listed, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	for _, p := range listed.Topics[0].Partitions {
		if err := kerrOf(p.ErrorCode); err != nil {
			return nil, fmt.Errorf("end of %s-%d: %w", topic, p.Partition, err)
		}
		ends[p.Partition] = p.Offset
	}
	return ends, nil
}

// awaitRecords waits until a topic holds n records: acks=0 promises no more than that they come.
func awaitRecords(t *testing.T, addr, topic string, n int64) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		var sum int64
		for _, end := range endOffsets(t, addr, topic) {
			sum += end
		}
		if sum != n {
			return fmt.Errorf("%s has %d records, want %d", topic, sum, n)
		}
		return nil
	})
}
