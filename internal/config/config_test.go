package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustLoad(t testing.TB, props map[string]string) *Config {
	t.Helper()
	c, _, err := Load(props)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// profile is the built-in profile with some values on top.
func profile(kv ...string) map[string]string {
	props := Default()
	for i := 0; i < len(kv); i += 2 {
		props[kv[i]] = kv[i+1]
	}
	return props
}

func TestDefaultProfileLoadsWithoutAnError(t *testing.T) {
	c := mustLoad(t, Default())
	if c.NodeID() != 1 || !c.IsBroker() || !c.IsController() {
		t.Errorf("node %d broker %v controller %v", c.NodeID(), c.IsBroker(), c.IsController())
	}
	if got := c.Advertised(); len(got) != 1 || got[0].String() != "PLAINTEXT://127.0.0.1:9092" {
		t.Errorf("advertised %v", got)
	}
	if got := c.ControllerListeners(); len(got) != 1 || got[0].Address() != "127.0.0.1:9093" {
		t.Errorf("controllers %v", got)
	}
	if got := c.BrokerListeners(); len(got) != 1 || got[0].Name != "PLAINTEXT" || c.InterBroker() != "PLAINTEXT" {
		t.Errorf("broker listeners %v, among brokers %s", got, c.InterBroker())
	}
	if got := c.MetadataLogDir(); got != "./ottla-data" {
		t.Errorf("metadata.log.dir %s", got)
	}
	if got := c.String(OttlaHTTPListener); got != "127.0.0.1:8080" {
		t.Errorf("ottla.http.listener %s", got)
	}
}

// The keys of the file that Apache Kafka ships for a combined node, with its values.
const shippedFile = `
# what a node is
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093

listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600

log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
#log.flush.interval.messages=10000
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
`

func TestTheFileThatKafkaShipsStartsANode(t *testing.T) {
	props, err := ParseProperties([]byte(shippedFile))
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Load(props)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, w := range warnings {
		keys = append(keys, w.Key)
	}
	want := []string{
		"listeners", "listeners", // all interfaces, and nobody is asked who they are
		"share.coordinator.state.topic.min.isr", "share.coordinator.state.topic.replication.factor",
		"transaction.state.log.min.isr", "transaction.state.log.replication.factor",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("warnings for %q, want %q: what has its default value is not worth a word", keys, want)
	}
	if got := c.Advertised(); len(got) != 1 || got[0].Address() != "localhost:9092" {
		t.Errorf("advertised %v", got)
	}
	if got := c.AdvertisedControllers(); len(got) != 1 || got[0].Address() != "localhost:9093" {
		t.Errorf("advertised controllers %v", got)
	}
	if got := c.Listeners(); len(got) != 2 || got[0].Host != "" || got[1].Port != 9093 {
		t.Errorf("listeners %v", got)
	}
	if c.Long(LogFlushIntervalMessages) != 1 {
		t.Error("a file that does not set log.flush.interval.messages must be durable")
	}
}

func TestAllMistakesAreReportedAtOnceWithKeyValueAndWhatIsAllowed(t *testing.T) {
	_, _, err := Load(profile("num.partitions", "0", "log.segment.bytes", "big", "authorizer.class.name", "x.Y", "zookeeper.connect", "zk:1", "sasl.enabled.mechanims", "PLAIN", "ottla.http.listner", "x", "log.dirs", "/a,/b,/a/"))
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		"num.partitions=0: allowed are 1 or more",
		"log.segment.bytes=big: want a whole number from -2147483648 to 2147483647",
		`authorizer.class.name=x.Y: refused: this node has no authorizer and knows no principals: everyone who connects may do everything; only "" is possible`,
		"zookeeper.connect=zk:1: ZooKeeper is gone since Kafka 4.0",
		"ottla.http.listner=x: is not a property; did you mean ottla.http.listener?",
		"log.dirs=/a,/b,/a/: /a and /a/ are the same folder",
		"sasl.enabled.mechanims=[hidden]: is not a property; did you mean sasl.enabled.mechanisms?",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	var v *ValueError
	if !errors.As(err, &v) || v.Key == "" {
		t.Errorf("no ValueError in %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		key, val string
		note     bool
		text     string // a part of the warning; "" for none
	}{
		{"num.partitons", "3", false, "is not a property and has no effect; did you mean num.partitions?"},
		{"log.retention.hours", "24", false, ""},
		{"num.io.threads", "16", true, "has no effect: work runs on goroutines"},
		{"num.io.threads", "8", true, ""},
		{"my.plugin.option", "x", false, "is not a property and has no effect"},
		{"listeners", "PLAINTEXT://10.0.0.1:9092,CONTROLLER://[::1]:9093", false, "anyone who can reach PLAINTEXT://10.0.0.1:9092 may read"},
		{"listeners", "PLAINTEXT://localhost:9092,CONTROLLER://127.0.0.2:9093", false, ""},
		{"ottla.http.listener", ":8080", false, "anyone who can reach it"},
		{"broker.heartbeat.interval.ms", "9000", false, "will be fenced again and again"},
		{"leader.replication.throttled.rate", "5", false, "can only be set at run time"},
		{"rsm.config.bucket", "x", true, "there is no remote storage"},
		{"listener.name.plaintext.num.network.threads", "4", true, "has no effect"},
	} {
		_, warnings, err := Load(profile(c.key, c.val))
		if err != nil {
			t.Errorf("%s: %v", c.key, err)
			continue
		}
		i := slices.IndexFunc(warnings, func(w Warning) bool { return w.Key == c.key })
		switch {
		case c.text == "" && i >= 0:
			t.Errorf("%s=%s: %s", c.key, c.val, warnings[i])
		case c.text != "" && (i < 0 || !strings.Contains(warnings[i].String(), c.text) || warnings[i].Note != c.note):
			t.Errorf("%s=%s: want %q, got %v", c.key, c.val, c.text, warnings)
		}
	}
}

// TestRefusedPropertiesAreAllErrors sets every refused property to something else than
// its default: none may pass as a warning.
func TestRefusedPropertiesAreAllErrors(t *testing.T) {
	n := 0
	for p := range Properties() {
		if p.Status != Refused {
			continue
		}
		n++
		val := map[Type]string{Boolean: "true", String: "x", Int: "7", Short: "7", Long: "7", Double: "0.7", List: "x", Class: "x.Y", Password: "x"}[p.Type]
		switch {
		case p.Name == "sasl.oauthbearer.assertion.algorithm":
			val = "ES256"
		case p.Name == "ssl.client.auth":
			val = "required"
		}
		_, _, err := Load(profile(p.Name, val))
		if err == nil || !strings.Contains(err.Error(), p.Name+"=") || !strings.Contains(err.Error(), "refused: "+p.Why) {
			t.Errorf("%s=%s: %v", p.Name, val, err)
		}
		if p.HasDefault && !p.Null {
			if _, _, err := Load(profile(p.Name, p.Default)); err != nil {
				t.Errorf("its default: %v", err)
			}
		}
		if err := ValidateBroker(p.Name, val, false); err == nil {
			t.Errorf("%s=%s can be set at run time", p.Name, val)
		}
	}
	if n < 80 {
		t.Errorf("only %d refused properties", n)
	}
}

func TestBrokerIDStandsForNodeID(t *testing.T) {
	props := profile("broker.id", "7")
	delete(props, "node.id")
	if got := mustLoad(t, props).NodeID(); got != 7 {
		t.Errorf("node id %d", got)
	}
	c, _, err := mustLoad(t, props).With(map[string]string{"node.id": "8"})
	if err != nil || c.NodeID() != 8 {
		t.Errorf("%v", err)
	}
}

func TestWithLaysValuesOverTheFileAndKeepsDynamicOnes(t *testing.T) {
	c, err := mustLoad(t, Default()).Dynamic(map[string]string{"log.retention.ms": "77"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := c.With(map[string]string{"num.partitions": "4"})
	if err != nil {
		t.Fatal(err)
	}
	if next.Int(NumPartitions) != 4 || next.Topic(nil).RetentionMs != 77 || c.Int(NumPartitions) != 1 {
		t.Errorf("partitions %d, was %d, retention %d", next.Int(NumPartitions), c.Int(NumPartitions), next.Topic(nil).RetentionMs)
	}
	if _, _, err := c.With(map[string]string{"num.partitions": "x"}); err == nil {
		t.Error("a bad override was taken")
	}
}

func TestDynamicValuesGoBrokerThenClusterThenFile(t *testing.T) {
	file := mustLoad(t, profile("message.max.bytes", "1000"))
	get := func(cluster, broker string) int32 {
		layer := func(v string) map[string]string {
			if v == "" {
				return nil
			}
			return map[string]string{"message.max.bytes": v}
		}
		c, err := file.Dynamic(layer(cluster), layer(broker))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Topic(nil).MaxMessageBytes; got != c.Int(MessageMaxBytes) {
			t.Errorf("topics get %d, the broker has %d", got, c.Int(MessageMaxBytes))
		}
		return c.Int(MessageMaxBytes)
	}
	for _, c := range []struct {
		cluster, broker string
		want            int32
	}{{"", "", 1000}, {"2000", "", 2000}, {"2000", "3000", 3000}, {"", "3000", 3000}} {
		if got := get(c.cluster, c.broker); got != c.want {
			t.Errorf("cluster %q broker %q: %d, want %d", c.cluster, c.broker, got, c.want)
		}
	}
	c, err := file.Dynamic(map[string]string{"message.max.bytes": "2000", "log.segment.bytes": "3000000"}, map[string]string{"message.max.bytes": "-1"})
	if err == nil || !strings.Contains(err.Error(), "message.max.bytes=-1") {
		t.Errorf("a bad value was taken: %v", err)
	}
	if c.Int(MessageMaxBytes) != 2000 || c.Topic(nil).SegmentBytes != 3000000 || c.BrokerEntries() == nil {
		t.Error("one bad value took others with it")
	}
	if _, err := file.Dynamic(map[string]string{"log.retention.ms": "0"}, nil); err == nil {
		t.Error("values are not held against each other")
	}
	odd := mustLoad(t, profile("leader.replication.throttled.rate", "abc")) // ignored in a file
	if _, err := odd.Dynamic(nil, nil); err != nil || !odd.IsSet("leader.replication.throttled.rate") {
		t.Errorf("%v", err)
	}
	// Where others write metadata, a property that takes a restart here is left alone.
	c, err = file.Dynamic(nil, map[string]string{"listeners": "PLAINTEXT://:1", "num.partitions": "9"})
	if err != nil || c.Int(NumPartitions) != 1 || len(c.List(Listeners)) != 2 {
		t.Errorf("%v", err)
	}
}

func TestValidateBrokerKeepsWhatCannotChange(t *testing.T) {
	for _, c := range []struct {
		key, val string
		all      bool
		want     error
	}{
		{"message.max.bytes", "5", true, nil},
		{"log.roll.hours", "5", true, ErrReadOnly},
		{"listeners", "x", false, ErrReadOnly},
		{"cordoned.log.dirs", "", true, ErrPerBroker},
		{"custom.key", "x", true, nil},
	} {
		if err := ValidateBroker(c.key, c.val, c.all); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.key, err, c.want)
		}
	}
	for _, c := range [][2]string{{"message.max.bytes", "-1"}, {"max.connection.creation.rate", "3"}, {"listener.name.x.ssl.keystore.location", "f"}, {"password.encoder.secret", "x"}} {
		var v *ValueError
		if err := ValidateBroker(c[0], c[1], false); !errors.As(err, &v) {
			t.Errorf("%s=%s: %v", c[0], c[1], err)
		}
	}
}

func TestListenersAreGivenAsCopies(t *testing.T) {
	c := mustLoad(t, Default())
	c.Listeners()[0].Name = "X"
	c.Advertised()[0].Name = "X"
	c.ControllerListeners()[0].Name = "X"
	if c.Listeners()[0].Name == "X" || c.Advertised()[0].Name == "X" || c.ControllerListeners()[0].Name == "X" {
		t.Error("a caller can change the configuration")
	}
}

func TestDynamicQuorumNeedsNoVotersAndAnotherOneHasThem(t *testing.T) {
	c := mustLoad(t, profile("controller.quorum.voters", "1@a:9093, 2@[::1]:9094"))
	want := []Voter{{1, "a", 9093}, {2, "::1", 9094}}
	if !slices.Equal(c.Voters(), want) {
		t.Errorf("%v", c.Voters())
	}
	if len(mustLoad(t, Default()).Voters()) != 0 {
		t.Error("voters from nowhere")
	}
}

// TestAnyValueLoadsToWhatItSays: whatever is put into any property, Load does not
// panic, and a value that it takes is what the getters and entries give.
func TestAnyValueLoadsToWhatItSays(t *testing.T) {
	rows := slices.Collect(Properties())
	rapid.Check(t, func(t *rapid.T) {
		props := Default()
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			p := rapid.SampledFrom(rows).Draw(t, "property")
			props[p.Name] = rapid.OneOf(
				rapid.StringMatching(`-?[0-9]{1,20}`), rapid.SampledFrom([]string{"true", "false", "", " ", "PLAINTEXT://:1", "a,b", "1:2", "delete"}), rapid.String(),
			).Draw(t, "value")
		}
		given := maps.Clone(props)
		c, _, err := Load(props)
		if !maps.Equal(given, props) {
			t.Fatal("Load changed the map it was given")
		}
		if err != nil {
			return
		}
		for _, p := range rows {
			if p.DynamicOnly {
				continue
			}
			if val, ok := props[p.Name]; ok && c.get(p.Name).text != strings.TrimSpace(val) {
				t.Fatalf("%s=%q gives %q", p.Name, val, c.get(p.Name).text)
			}
		}
		if len(c.TopicEntries(nil)) != 37 || len(c.LogDirs()) == 0 {
			t.Fatal("incomplete")
		}
	})
}
