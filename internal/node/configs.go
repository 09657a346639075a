package node

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/controller"
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
