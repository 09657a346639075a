package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// kafkaNode is the node that testdata/kafka-topics.txt and the broker answers are from.
func kafkaNode(t testing.TB) (before, after *Config) {
	t.Helper()
	c := mustLoad(t, map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.listener.names": "CONTROLLER", "log.dirs": "/d",
		"listeners": "PLAINTEXT://127.0.0.1:39092,CONTROLLER://127.0.0.1:40092", "controller.quorum.voters": "1@127.0.0.1:40092",
		"log.retention.minutes": "100", "log.roll.hours": "24", "log.flush.interval.ms": "5000", "bogus.key": "1",
	})
	// A cluster with eligible leader replicas holds min.insync.replicas for all brokers.
	before, err := c.Dynamic(map[string]string{"min.insync.replicas": "1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err = before.Dynamic(
		map[string]string{"min.insync.replicas": "1", "log.segment.bytes": "3000000", "log.retention.ms": "77000", "custom.key": "x"},
		map[string]string{"message.max.bytes": "555555"})
	if err != nil {
		t.Fatal(err)
	}
	return before, after
}

// TestTopicEntriesAreThoseOfKafka compares every field of every topic config with what
// Apache Kafka 4.4.0 answered, except what differs on purpose.
func TestTopicEntriesAreThoseOfKafka(t *testing.T) {
	before, after := kafkaNode(t)
	t1 := map[string]string{"segment.bytes": " 2000000 ", "cleanup.policy": "compact, delete", "min.cleanable.dirty.ratio": "1", "internal.segment.bytes": "2000000"}
	t1after := map[string]string{"retention.ms": "999"}
	for k, v := range t1 {
		t1after[k] = v
	}
	t2 := map[string]string{"segment.ms": "5000000"}
	ours := map[string][]Entry{
		"C t0": before.TopicEntries(nil), "C t1": before.TopicEntries(t1), "C t2": after.TopicEntries(t2),
		"D t1": after.TopicEntries(t1after), "D t2": after.TopicEntries(t2),
	}
	text, err := os.ReadFile("testdata/kafka-topics.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		if line[0] == '#' {
			continue
		}
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		which := f[0] + " " + f[1]
		i := slices.IndexFunc(ours[which], func(e Entry) bool { return e.Name == f[2] })
		if i < 0 {
			t.Fatalf("%s: not in our answer", line)
		}
		if f[0] == "C" && i != seen[which] {
			t.Errorf("%s: Kafka has it at place %d, we at %d", line, seen[which], i)
		}
		seen[which]++
		if got := answerLine(which, ours[which][i]); got != expected(line) {
			t.Errorf("\ngot  %s\nwant %s", got, expected(line))
		}
	}
	for which, entries := range ours {
		if seen[which] != len(entries) {
			t.Errorf("%s: Kafka answers %d configs, we %d", which, seen[which], len(entries))
		}
	}
}

// expected changes Kafka's answer where ours differs on purpose.
func expected(line string) string {
	f := strings.Fields(line)
	if f[2] == "flush.messages" { // our default is durability
		line = strings.ReplaceAll(line, strconv.FormatInt(1<<63-1, 10), "1")
	}
	if strings.HasPrefix(line, "D t1 segment.ms ") {
		// Kafka's DescribeConfigs calls a value from log.roll.hours a default, its
		// CreateTopics does not.
		return "D t1 segment.ms value=86400000 src 4 ro false sens false type 5 [log.roll.hours 24 4] [log.roll.hours 168 5]"
	}
	if strings.HasPrefix(line, "D t2 segment.ms ") {
		line += " [log.roll.hours 24 4] [log.roll.hours 168 5]"
	}
	return line
}

func answerLine(which string, e Entry) string {
	value := e.Value
	if which[0] == 'C' {
		value = strings.ReplaceAll(e.Given, " ", "_")
	}
	if e.Null {
		value = "<null>"
	}
	s := fmt.Sprintf("%s %s value=%s src %d ro %v sens %v", which, e.Name, value, e.Source, e.ReadOnly, e.Sensitive)
	if which[0] == 'D' {
		s += fmt.Sprintf(" type %d", e.Type)
		for _, y := range e.Synonyms {
			s += fmt.Sprintf(" [%s %s %d]", y.Name, y.Value, y.Source)
		}
	}
	return s
}

// TestBrokerEntriesAreThoseOfKafka holds DescribeConfigs of a broker against what Apache
// Kafka 4.4.0 answered for the properties that were set.
func TestBrokerEntriesAreThoseOfKafka(t *testing.T) {
	_, after := kafkaNode(t)
	entries := after.BrokerEntries()
	// Kafka 4.4.0: 352 for this node, of which custom.key and bogus.key are undefined.
	if got, want := len(entries), 352; got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	for _, want := range []string{
		"D 1 bogus.key value=<null> src 4 ro true sens true type 0 [bogus.key  4]",
		"D 1 custom.key value=<null> src 3 ro true sens true type 0 [custom.key  3]",
		"D 1 log.flush.interval.ms value=5000 src 4 ro false sens false type 5 [log.flush.interval.ms 5000 4] [log.flush.scheduler.interval.ms 9223372036854775807 5]",
		"D 1 min.insync.replicas value=1 src 3 ro false sens false type 3 [min.insync.replicas 1 3] [min.insync.replicas 1 5]",
		"D 1 message.max.bytes value=555555 src 2 ro false sens false type 3 [message.max.bytes 555555 2] [message.max.bytes 1048588 5]",
		"D 1 node.id value=1 src 4 ro true sens false type 3 [node.id 1 4]",
		"D 1 log.segment.bytes value=3000000 src 3 ro false sens false type 3 [log.segment.bytes 3000000 3] [log.segment.bytes 1073741824 5]",
		"D 1 log.dirs value=/d src 4 ro true sens false type 7 [log.dirs /d 4]",
		"D 1 log.retention.ms value=77000 src 3 ro false sens false type 5 [log.retention.ms 77000 3] [log.retention.minutes 100 4] [log.retention.hours 168 5]",
		"D 1 log.roll.hours value=24 src 4 ro true sens false type 3 [log.roll.hours 24 4] [log.roll.hours 168 5]",
		"D 1 ssl.keystore.password value=<null> src 5 ro false sens true type 9",
		"D 1 process.roles value=broker,controller src 4 ro true sens false type 7 [process.roles broker,controller 4]",
		"D 1 controller.quorum.voters value=1@127.0.0.1:40092 src 4 ro true sens false type 7 [controller.quorum.voters 1@127.0.0.1:40092 4] [controller.quorum.voters  5]",
		"D 1 log.cleaner.io.max.bytes.per.second value=1.7976931348623157E308 src 5 ro false sens false type 6 [log.cleaner.io.max.bytes.per.second 1.7976931348623157E308 5]",
	} {
		name := strings.Fields(want)[2]
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == name })
		if i < 0 {
			t.Errorf("%s is missing", name)
		} else if got := answerLine("D 1", entries[i]); got != want {
			t.Errorf("\ngot  %s\nwant %s", got, want)
		}
	}
}

func TestClusterEntriesAreWhatWasSetForAllBrokers(t *testing.T) {
	_, after := kafkaNode(t)
	var got []string
	for _, e := range after.ClusterEntries() {
		got = append(got, answerLine("D", e))
	}
	want := []string{
		"D custom.key value=<null> src 3 ro true sens true type 0 [custom.key  3]",
		"D log.retention.ms value=77000 src 3 ro false sens false type 5 [log.retention.ms 77000 3]",
		"D log.segment.bytes value=3000000 src 3 ro false sens false type 3 [log.segment.bytes 3000000 3]",
		"D min.insync.replicas value=1 src 3 ro false sens false type 3 [min.insync.replicas 1 3]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestPasswordsAreNeverShown(t *testing.T) {
	props := Default()
	props["delegation.token.secret.key"] = "hunter2"
	props["sasl.jaas.config"] = "hunter2"
	props["my.plugin.password"] = "hunter2"
	props["ssl.keystore.pasword"] = "hunter2"
	props["listener.name.x.sasl.jaas.config"] = "hunter2"
	_, warnings, err := Load(props)
	if err == nil {
		t.Fatal("taken")
	}
	if all := fmt.Sprint(warnings, err); strings.Contains(all, "hunter2") {
		t.Errorf("a secret is in %s", all)
	}
	c, err := mustLoad(t, Default()).Dynamic(nil, map[string]string{"ssl.key.password": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.BrokerEntries() {
		if s := fmt.Sprint(e); strings.Contains(s, "hunter2") {
			t.Errorf("a secret is in %s", s)
		}
	}
}

func TestDoublesAreWrittenAsJavaWritesThem(t *testing.T) {
	plain := regexp.MustCompile(`^-?\d+\.\d+(E-?\d+)?$`)
	for in, want := range map[string]string{
		"1": "1.0", "0": "0.0", ".25": "0.25", "1e7": "1.0E7", "9999999": "9999999.0", "0.001": "0.001", "0.0001": "1.0E-4",
		"12345678.5": "1.23456785E7", "1.7976931348623157E308": "1.7976931348623157E308", "-2e-9": "-2.0E-9",
	} {
		v, err := parseValue(Double, in)
		if got := v.canonical(Double); err != nil || got != want || !plain.MatchString(got) {
			t.Errorf("%s: %s %v, want %s", in, got, err, want)
		}
	}
}
