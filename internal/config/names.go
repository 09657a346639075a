package config

import (
	"strings"
)

// gone says what to do about properties that Kafka once had, by name or, with a dot at
// the end, by prefix. A node with ZooKeeper settings expects metadata that is not
// here, so these are errors, not unknown keys.
var gone = map[string]string{
	"zookeeper.":                              "ZooKeeper is gone since Kafka 4.0: the controllers keep the metadata; take it out and set process.roles, controller.listener.names and, for more than one controller, controller.quorum.bootstrap.servers",
	"control.plane.listener.name":             "gone since Kafka 4.0: requests of controllers come on the listeners of controller.listener.names",
	"inter.broker.protocol.version":           "gone since Kafka 4.0: the cluster's metadata.version decides; take it out",
	"log.message.format.version":              "gone since Kafka 4.0: batches are always written in format 2; take it out",
	"log.message.timestamp.difference.max.ms": "gone since Kafka 4.0: set log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
	"offsets.commit.required.acks":            "gone since Kafka 4.0: commits always wait for all replicas in sync; take it out",
	"delegation.token.master.key":             "gone since Kafka 4.0: its name is delegation.token.secret.key",
	"password.encoder.":                       "gone since Kafka 4.0: it encrypted values in ZooKeeper; take it out",
	"reserved.broker.max.id":                  "gone since Kafka 4.0: broker ids are always given; take it out",
	"broker.id.generation.enable":             "gone since Kafka 4.0: set node.id",
	"leader.imbalance.per.broker.percentage":  "gone since Kafka 4.0: leaders are balanced whatever the share; take it out",
	"group.coordinator.new.enable":            "gone since Kafka 4.0: there is one group coordinator; set group.coordinator.rebalance.protocols",
	"auto.include.jmx.reporter":               "gone since Kafka 4.0: set metric.reporters",
}

// keys judges the names that the table does not have.
func (l *loader) keys() {
	for key, val := range l.c.static {
		if _, ok := Lookup(key); ok {
			continue
		}
		switch why := goneWhy(key); {
		case why != "":
			l.fail(key, val, "%s", why)
		case strings.HasPrefix(key, "listener.name."):
			l.listenerOverride(key)
		case strings.HasPrefix(key, "config.providers."): // read by Resolve
		case strings.HasPrefix(key, "rsm.config."), strings.HasPrefix(key, "rlmm.config."):
			l.warn(key, "has no effect: there is no remote storage for segments", true)
		case strings.HasPrefix(key, "sasl."), strings.HasPrefix(key, "ssl."), strings.HasPrefix(key, "ottla."), strings.Contains(key, "authorizer"):
			// A misspelt property of these may have been meant to keep someone out, or is
			// ours, where a reader of other versions' files gets no benefit from leniency.
			if !strings.HasPrefix(key, "ottla.") || looksSecret(key) {
				val = "[hidden]"
			}
			l.fail(key, val, "is not a property%s", suggest(key, brokerTable()))
		default:
			l.warn(key, "is not a property and has no effect"+suggest(key, brokerTable()), false)
		}
	}
}

func goneWhy(key string) string {
	if why := gone[key]; why != "" {
		return why
	}
	for prefix, why := range gone {
		if strings.HasSuffix(prefix, ".") && strings.HasPrefix(key, prefix) {
			return why
		}
	}
	return ""
}

// listenerOverride judges listener.name.<listener>.<property>: nothing of the kind is
// obeyed, so all but what never matters here is an error. Most of these restrict who
// may connect.
func (l *loader) listenerOverride(key string) {
	if listenerOverrideRefused(key) {
		l.fail(key, "[hidden]", "properties of a single listener are not supported; take it out")
		return
	}
	l.warn(key, "has no effect here", true)
}

// listenerOverrideRefused reports whether key is a listener's property that this node
// must not ignore.
func listenerOverrideRefused(key string) bool {
	rest, ok := strings.CutPrefix(key, "listener.name.")
	if !ok {
		return false
	}
	_, name, _ := strings.Cut(rest, ".")
	p, known := Lookup(name)
	return !known || p.Status != Harmless
}

// suggest gives ", did you mean …?" with the name nearest to a misspelt one, or "".
func suggest(key string, t *table) string {
	limit := min(max(1, len(key)/5), 4)
	best := ""
	for _, p := range t.rows {
		if p.Internal {
			continue
		}
		if d := distance(key, p.Name, limit); d <= limit {
			best, limit = p.Name, d-1
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment); more than limit stands for
// any larger number.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
