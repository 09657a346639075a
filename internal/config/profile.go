package config

// Default gives the built-in profile: what `ottla serve` without a file loads. One
// node, both roles, loopback only, everything under ./ottla-data. The values that
// differ from Kafka's defaults for three brokers are those that a single one needs.
func Default() map[string]string {
	return map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   "1",
		"listeners":                 "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
		"controller.listener.names": "CONTROLLER",
		"log.dirs":                  "./ottla-data",
		"ottla.http.listener":       "127.0.0.1:8080",

		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
	}
}
