package compat_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker is one node, controller included, on loopback: Ottla's or Apache
// Kafka's. It keeps its address and its folder over any number of starts.
type broker struct {
	*process
	kind string // "ottla" or "kafka"
	addr string // of the clients' listener
	dir  string // server.properties, output and, in data, what the broker writes
}

// data is the broker's log.dirs.
func (b *broker) data() string { return filepath.Join(b.dir, "data") }

func (b *broker) properties() string { return filepath.Join(b.dir, "server.properties") }

// newBroker makes a broker of the kind under test and starts it. Both kinds get
// the same server.properties, as they should.
func newBroker(t *testing.T, extra ...string) *broker {
	t.Helper()
	return newBrokerOf(t, run.target, extra...)
}

func newBrokerOf(t *testing.T, kind string, extra ...string) *broker {
	t.Helper()
	b := &broker{kind: kind, addr: freeAddr(t), dir: t.TempDir()}
	controller := freeAddr(t)
	lines := append([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + controller,
		"listeners=PLAINTEXT://" + b.addr + ",CONTROLLER://" + controller,
		"controller.listener.names=CONTROLLER",
		"log.dirs=" + b.data(),
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.num.partitions=4",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
	}, extra...)
	if err := os.WriteFile(b.properties(), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if kind == "kafka" {
		formatKafka(t, b)
	}
	b.start(t)
	return b
}

// start starts the process and waits until it serves clients.
func (b *broker) start(t *testing.T) {
	t.Helper()
	b.launch(t)
	b.awaitPort(t, b.addr)
	cl := newClient(t, b.addr)
	defer cl.Close()
	eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
		if err == nil && len(resp.Brokers) == 0 {
			err = errors.New("no broker in the metadata yet")
		}
		return err
	})
}

// launch starts the process only.
func (b *broker) launch(t *testing.T) {
	t.Helper()
	log := filepath.Join(b.dir, "output")
	if b.kind == "kafka" {
		b.process = launch(t, log, java(t), "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-cp", jars(t, "kafka_2.13", serverVersion),
			"-Dlog4j2.configurationFile="+repoFile(t, "java/log4j2.xml"), "kafka.Kafka", b.properties())
		return
	}
	b.process = launch(t, log, program(t), "serve", b.properties(), "--set", "ottla.http.listener="+freeAddr(t))
}

// program builds Ottla as it ships, once a run.
func program(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(run.tmp, "ottla")
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return "", err
	}
	_, err := try("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "ottla.dev/ottla/cmd/ottla")
	return bin, err
})

// newClient returns a franz-go client with the options that every test wants.
func newClient(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// createTopic creates a topic and waits until every partition has a leader.
// Settings are name=value.
func (b *broker) createTopic(t *testing.T, name string, partitions int32, settings ...string) {
	t.Helper()
	cl := newClient(t, b.addr)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	for _, s := range settings {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		value := ""
		c.Name, value, _ = strings.Cut(s, "=")
		c.Value = &value
		topic.Configs = append(topic.Configs, c)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerrOf(resp.Topics[0].ErrorCode); err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	// A partition is in the metadata a moment before its leader serves it.
	eventually(t, time.Minute, func() error {
		ends, err := listEnds(ctx, cl, name)
		if err == nil && len(ends) != int(partitions) {
			err = fmt.Errorf("%s has %d partitions, want %d", name, len(ends), partitions)
		}
		return err
	})
}
