package node

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/coord"
	"ottla.dev/ottla/internal/coord/group"
	"ottla.dev/ottla/internal/image"
)

// configs answers the controller's questions about configuration.
func (n *Node) configs() controller.Configs {
	s := n.cfg.Settings
	return controller.Configs{
		CheckTopic: config.ValidateTopic,
		Topic: func(_ *image.Image, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
			var out []kmsg.CreateTopicsResponseTopicConfig
			for _, e := range s.TopicEntries(overrides) {
				c := kmsg.NewCreateTopicsResponseTopicConfig()
				c.Name, c.ReadOnly, c.Source, c.IsSensitive = e.Name, e.ReadOnly, e.Source, e.Sensitive
				if !e.Null {
					c.Value = &e.Given
				}
				out = append(out, c)
			}
			return out
		},
		List: func(resourceType int8, key string) (bool, string) {
			if resourceType != 2 {
				return false, ""
			}
			p, ok := config.LookupTopic(key)
			if !ok || p.Type != config.List {
				return false, ""
			}
			return true, p.Default
		},
		CheckBroker: func(_, key, _ string) error {
			return fmt.Errorf("%s: broker configs cannot be changed while the node runs yet", key)
		},
	}
}

// groups makes what makes the machines of __consumer_offsets.
func (n *Node) groups() func() coord.Machine {
	s := n.cfg.Settings
	cfg := group.Config{
		InitialDelay:     millis(s.Int(config.GroupInitialRebalanceDelayMs)),
		MinSession:       millis(s.Int(config.GroupMinSessionTimeoutMs)),
		MaxSession:       millis(s.Int(config.GroupMaxSessionTimeoutMs)),
		MaxSize:          int(s.Int(config.GroupMaxSize)),
		MaxMetadata:      int(s.Int(config.OffsetMetadataMaxBytes)),
		OffsetsRetention: time.Duration(s.Int(config.OffsetsRetentionMinutes)) * time.Minute,
		OffsetsCheck:     time.Duration(s.Long(config.OffsetsRetentionCheckIntervalMs)) * time.Millisecond,
	}
	return func() coord.Machine { return group.New(cfg) }
}
