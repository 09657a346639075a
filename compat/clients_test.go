package compat_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

func newestJava() javaPeer { return javaPeer{"kafka_2.13", serverVersion} }

// Every client sends the same records in every codec; every client reads them
// all back, equal to the byte, with the offsets that a partition must give them.
// Then Apache Kafka's dump tool reads the disk.
func TestClients(t *testing.T) {
	b := newBroker(t)
	rs := fixture()
	b.createTopic(t, "plain", fixturePartitions)
	goPeer{}.produce(t, b.addr, "", rs, []string{"plain=none"})
	t.Run("RecordsGoInAndOutUnchanged", func(t *testing.T) { everyClientInEveryClientOut(t, b) })
	t.Run("Kcat", func(t *testing.T) { kcatLines(t, b) })
	t.Run("JavaAdmin", func(t *testing.T) { javaAdmin(t, b) })
	t.Run("FetchSessions", func(t *testing.T) { fetchSessions(t, b) })
	t.Run("LongPoll", func(t *testing.T) { longPoll(t, b) })
	t.Run("KafkaReadsTheDisk", func(t *testing.T) {
		b.stop(t)
		dumpAll(t, b.data())
		theDumpToolFindsDamage(t, filepath.Join(b.data(), "plain-0"))
	})
	t.Run("RestartKeepsAll", func(t *testing.T) {
		b.start(t)
		awaitRecords(t, b.addr, "plain", int64(len(rs)))
		b.stop(t)
	})
}

func everyClientInEveryClientOut(t *testing.T, b *broker) {
	producers := []struct {
		name string
		peer peer
	}{
		{"java", newestJava()},
		{"java-before", javaPeer{"kafka-tools", toolsVersion}},
		{"librdkafka", pythonPeer{"confluent"}},
		{"kafka-python", pythonPeer{"kafka-python"}},
		{"franz-go", goPeer{}},
		{"franz-go-acks1", goPeer{[]kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())}}},
		{"franz-go-acks0", goPeer{[]kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck())}}},
	}
	consumers := append(producers[:5:5], struct {
		name string
		peer peer
	}{"franz-go-without-sessions", goPeer{[]kgo.Opt{kgo.DisableFetchSessions()}}})

	var all []string
	want := map[string]string{}
	for _, p := range producers {
		t.Run("in-"+p.name, func(t *testing.T) {
			rs := fixture()
			if p.name == "kafka-python" {
				rs = slices.DeleteFunc(rs, refusedByKafkaPython)
			}
			file := writeFixture(t, rs)
			var topics []string
			for _, codec := range codecs {
				name := p.name + "-" + codec
				b.createTopic(t, name, fixturePartitions)
				topics = append(topics, name+"="+codec)
			}
			p.peer.produce(t, b.addr, file, rs, topics)
			for _, topic := range topics {
				name, _, _ := strings.Cut(topic, "=")
				awaitRecords(t, b.addr, name, int64(len(rs)))
				all = append(all, name)
				want[name] = fixtureRead(rs)
			}
		})
	}
	for _, c := range consumers {
		t.Run("out-"+c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.peer.consume(t, b.addr, dir, all)
			for _, topic := range all {
				got, err := os.ReadFile(filepath.Join(dir, topic))
				if err != nil {
					t.Error(err)
				} else if d := difference(string(got), want[topic]); d != "" {
					t.Errorf("%s as %s read it, %s", topic, c.name, d)
				}
			}
		})
	}
}

// refusedByKafkaPython tells whether that client refuses to send a record.
func refusedByKafkaPython(r *kgo.Record) bool {
	nullHeader := slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Value == nil })
	return r.Key == nil && r.Value == nil || nullHeader
}

func kcatLines(t *testing.T, b *broker) {
	kcat := need(t, "kcat")
	var text bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("x", i%97))
	}
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, codec := range codecs {
		topic := "kcat-" + codec
		b.createTopic(t, topic, 1)
		output(t, kcat, "-P", "-b", b.addr, "-t", topic, "-p", "0", "-z", codec, "-X", "enable.idempotence=true", "-l", file)
		got := output(t, kcat, "-C", "-q", "-b", b.addr, "-t", topic, "-p", "0", "-o", "beginning", "-e")
		if d := difference(got, text.String()); d != "" {
			t.Errorf("%s, %s", topic, d)
		}
	}
	if got, want := output(t, kcat, "-C", "-q", "-b", b.addr, "-t", "kcat-zstd", "-p", "0", "-o", "4000", "-c", "2", "-f", "%o %S\n"), "4000 33\n4001 34\n"; got != want {
		t.Errorf("from the middle: %q, want %q", got, want)
	}
	if got, want := output(t, kcat, "-C", "-q", "-b", b.addr, "-t", "kcat-none", "-p", "0", "-o", "-3", "-e", "-f", "%o\n"), "4997\n4998\n4999\n"; got != want {
		t.Errorf("the last three: %q, want %q", got, want)
	}
	if got, want := output(t, kcat, "-Q", "-b", b.addr, "-t", "kcat-none:0:-1"), "kcat-none [0] offset 5000\n"; got != want {
		t.Errorf("kcat -Q says %q, want %q", got, want)
	}
	if got := output(t, kcat, "-L", "-b", b.addr); !strings.Contains(got, `topic "kcat-lz4" with 1 partitions`) || !strings.Contains(got, "broker 1 at "+b.addr) {
		t.Errorf("kcat -L says %q", got)
	}
	b.createTopic(t, "kcat-keys", 1)
	pairs := filepath.Join(t.TempDir(), "pairs")
	if err := os.WriteFile(pairs, []byte("a:1\nb:\nc:3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, kcat, "-P", "-b", b.addr, "-t", "kcat-keys", "-K", ":", "-Z", "-H", "h=v", "-l", pairs)
	if got, want := output(t, kcat, "-C", "-q", "-Z", "-b", b.addr, "-t", "kcat-keys", "-p", "0", "-e", "-f", "%k=%s %h\n"), "a=1 h=v\nb=NULL h=v\nc=3 h=v\n"; got != want {
		t.Errorf("keys, nulls and headers: %q, want %q", got, want)
	}
}

func javaAdmin(t *testing.T, b *broker) {
	const want = `nodes 1 controller true id true
create ok
create again TopicExistsException
bad name InvalidTopicException
too many replicas InvalidReplicationFactorException
no partitions InvalidPartitionsException
bad setting InvalidConfigurationException
unknown setting InvalidConfigurationException
listed true
partition 0 leader true replicas 1 isr 1
partition 1 leader true replicas 1 isr 1
partition 2 leader true replicas 1 isr 1
topic id true internal false
cleanup.policy delete DEFAULT_CONFIG
max.message.bytes 2000000 DYNAMIC_TOPIC_CONFIG
retention.ms 123456789 DYNAMIC_TOPIC_CONFIG
segment.bytes 1073741824 DEFAULT_CONFIG
offset EarliestSpec 0 -1
offset LatestSpec 10 -1
offset MaxTimestampSpec 5 2000
offset TimestampSpec 4 1040
offset TimestampSpec -1 -1
delete ok
describe deleted UnknownTopicOrPartitionException
delete again UnknownTopicOrPartitionException
create after delete ok
`
	if d := difference(newestJava().run(t, "admin", b.addr), want); d != "" {
		t.Error(d)
	}
}
