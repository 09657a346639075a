package api

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// describeConfigs is DescribeConfigs, key 32, versions 1 to 4: what is configured,
// and where it comes from. v3 types and documentation. KAFKA.md 3.12.
//
// Topics and this broker are described; loggers, groups and client metrics are
// refused in words while they have no configs here.
func (c call) describeConfigs() {
	req, resp := c.msg.(*kmsg.DescribeConfigsRequest), kmsg.NewPtrDescribeConfigsResponse()
	img := c.image()
	for _, rr := range req.Resources {
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = rr.ResourceType, rr.ResourceName
		entries, err := c.entries(img, rr)
		out.ErrorMessage = new(string) // Kafka says "" for success
		if err != nil {
			out.ErrorCode, out.ErrorMessage = code(err), text(err)
		}
		for i := range entries {
			if e := &entries[i]; len(rr.ConfigNames) == 0 || slices.Contains(rr.ConfigNames, e.Name) {
				out.Configs = append(out.Configs, describeConfig(e, req))
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	c.reply(resp)
}

func (c call) entries(img *image.Image, rr kmsg.DescribeConfigsRequestResource) ([]config.Entry, error) {
	s := c.s.cfg.Settings
	switch rr.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		if err := model.CheckTopicName(rr.ResourceName); err != nil {
			return nil, fmt.Errorf("%w: %w", kerr.InvalidTopicException, err)
		}
		if _, ok := img.Topic(rr.ResourceName); !ok {
			return nil, fmt.Errorf("%w: there is no topic %q", kerr.UnknownTopicOrPartition, rr.ResourceName)
		}
		return s.TopicEntries(img.Config(image.ConfigResource{Type: image.TopicConfig, Name: rr.ResourceName})), nil
	case kmsg.ConfigResourceTypeBroker:
		if rr.ResourceName == "" {
			return nil, nil // nothing is set for all brokers
		}
		if rr.ResourceName != strconv.Itoa(int(c.s.cfg.NodeID)) {
			return nil, fmt.Errorf("%w: this is broker %d; ask broker %q for its configs", kerr.InvalidRequest, c.s.cfg.NodeID, rr.ResourceName)
		}
		return s.BrokerEntries(), nil
	}
	return nil, fmt.Errorf("%w: configs of resource type %d are not there yet", kerr.InvalidRequest, rr.ResourceType)
}

func describeConfig(e *config.Entry, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	d := kmsg.NewDescribeConfigsResponseResourceConfig()
	d.Name, d.ReadOnly, d.Source, d.IsSensitive = e.Name, e.ReadOnly, kmsg.ConfigSource(e.Source), e.Sensitive
	d.ConfigType = kmsg.ConfigType(e.Type)
	if !e.Null {
		d.Value = &e.Value
	}
	if req.IncludeDocumentation {
		d.Documentation = &e.Doc
	}
	if req.IncludeSynonyms {
		for _, s := range e.Synonyms {
			ds := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			ds.Name, ds.Source = s.Name, kmsg.ConfigSource(s.Source)
			if !s.Null {
				ds.Value = &s.Value
			}
			d.ConfigSynonyms = append(d.ConfigSynonyms, ds)
		}
	}
	return d
}
