package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Kafka's ConfigResource types that the metadata log keeps.
const (
	topicResource  int8 = 2
	brokerResource int8 = 4
	clientResource int8 = 16
	groupResource  int8 = 32
)

// Keys that the controller itself obeys.
const (
	minInsyncKey = "min.insync.replicas"
	uncleanKey   = "unclean.leader.election.enable"
)

func configRecord(res image.ConfigResource, key, value string) *record.ConfigRecord {
	r := record.NewConfigRecord()
	r.ResourceType, r.ResourceName, r.Name, r.Value = res.Type, res.Name, key, &value
	return r
}

// incrementalAlterConfigs decides IncrementalAlterConfigs v0-1 (KAFKA.md 3.12).
// Resources succeed or fail one by one.
func (c *Controller) incrementalAlterConfigs(env Env, req *kmsg.IncrementalAlterConfigsRequest) Result {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	var recs []record.Metadata
	resource := func(r *kmsg.IncrementalAlterConfigsRequestResource) image.ConfigResource {
		return image.ConfigResource{Type: int8(r.ResourceType), Name: r.ResourceName}
	}
	for want, n := range distinct(req.Resources, resource) {
		res := resource(want)
		var e *refusal
		if n > 1 {
			e = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
		} else {
			e = c.checkResource(env.Image, res)
		}
		next := map[string]string{}
		maps.Copy(next, env.Image.Config(res))
		seen := map[string]bool{}
		for _, k := range want.Configs {
			if e != nil {
				break
			}
			if seen[k.Name] {
				e = refuse(kerr.InvalidRequest, "Error due to duplicate config keys: %s", k.Name)
				break
			}
			seen[k.Name] = true
			e = c.alterKey(res, next, k)
		}
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = want.ResourceType, want.ResourceName
		if e == nil {
			recs, e = c.configChanges(env.Image, recs, res, next)
		}
		if e != nil {
			rr.ErrorCode, rr.ErrorMessage = e.code, text(e.text)
		}
		resp.Resources = append(resp.Resources, rr)
	}
	if req.ValidateOnly {
		recs = nil
	}
	return Result{Records: recs, Response: resp}
}

// alterConfigs decides AlterConfigs v0-2: the whole set of a resource is replaced.
func (c *Controller) alterConfigs(env Env, req *kmsg.AlterConfigsRequest) Result {
	resp := kmsg.NewPtrAlterConfigsResponse()
	var recs []record.Metadata
	resource := func(r *kmsg.AlterConfigsRequestResource) image.ConfigResource {
		return image.ConfigResource{Type: int8(r.ResourceType), Name: r.ResourceName}
	}
	for want, n := range distinct(req.Resources, resource) {
		res := resource(want)
		e := c.checkResource(env.Image, res)
		if n > 1 {
			e = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
		}
		next := map[string]string{}
		for _, k := range want.Configs {
			_, twice := next[k.Name]
			switch {
			case e != nil:
			case twice:
				e = refuse(kerr.InvalidRequest, "Error due to duplicate config keys: %s", k.Name)
			case k.Value == nil:
				e = refuse(kerr.InvalidRequest, "Null value not supported for : %s", k.Name)
			default:
				next[k.Name] = *k.Value
			}
		}
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = want.ResourceType, want.ResourceName
		if e == nil {
			recs, e = c.configChanges(env.Image, recs, res, next)
		}
		if e != nil {
			rr.ErrorCode, rr.ErrorMessage = e.code, text(e.text)
		}
		resp.Resources = append(resp.Resources, rr)
	}
	if req.ValidateOnly {
		recs = nil
	}
	return Result{Records: recs, Response: resp}
}

func (c *Controller) checkResource(img *image.Image, res image.ConfigResource) *refusal {
	switch res.Type {
	case topicResource:
		if res.Name == "" {
			return refuse(kerr.InvalidRequest, "Default topic resources are not allowed; a topic's name is expected.")
		}
		if err := model.CheckTopicName(res.Name); err != nil {
			return refuse(kerr.InvalidTopicException, "%v", err)
		}
		if _, ok := img.Topic(res.Name); !ok {
			return refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", res.Name)
		}
	case brokerResource:
		if res.Name == "" {
			return nil
		}
		id, ok := parseInt(res.Name)
		if !ok || id < 0 || id > 1<<31-1 {
			return refuse(kerr.InvalidRequest, "Invalid broker name %q: a node id or the empty string is expected.", res.Name)
		}
		if _, ok := img.Broker(model.NodeID(id)); !ok {
			return refuse(kerr.BrokerIDNotRegistered, "Broker %d is not registered.", id)
		}
	case clientResource, groupResource:
		if res.Name == "" {
			return refuse(kerr.InvalidRequest, "Default resources are not allowed here; a name is expected.")
		}
	default:
		return refuse(kerr.InvalidRequest, "Unsupported resource type %d.", res.Type)
	}
	return nil
}

// Operations of IncrementalAlterConfigs.
const (
	opSet      = 0
	opDelete   = 1
	opAppend   = 2
	opSubtract = 3
)

// alterKey applies one operation to a resource's keys.
func (c *Controller) alterKey(res image.ConfigResource, next map[string]string, k kmsg.IncrementalAlterConfigsRequestResourceConfig) *refusal {
	if k.Op != opDelete && k.Value == nil {
		return refuse(kerr.InvalidRequest, "Null value not supported for : %s:%s", k.Op, k.Name)
	}
	switch k.Op {
	case opSet:
		next[k.Name] = *k.Value
		return nil
	case opDelete:
		delete(next, k.Name)
		return nil
	case opAppend, opSubtract:
	default:
		return refuse(kerr.InvalidRequest, "Unknown operation type %d", int8(k.Op))
	}
	var list bool
	var def string
	if f := c.cfg.Configs.List; f != nil {
		list, def = f(res.Type, k.Name)
	}
	if !list {
		return refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.", strings.ToLower(k.Op.String()), k.Name)
	}
	old, ok := next[k.Name]
	if !ok {
		old = def
	}
	next[k.Name] = alterList(old, *k.Value, k.Op == opAppend)
	return nil
}

// alterList adds to or takes from a comma-separated list.
func alterList(old, value string, add bool) string {
	split := func(s string) []string {
		var out []string
		for e := range strings.SplitSeq(s, ",") {
			if e = strings.TrimSpace(e); e != "" {
				out = append(out, e)
			}
		}
		return out
	}
	list := split(old)
	for _, e := range split(value) {
		switch at := slices.Index(list, e); {
		case add && at < 0:
			list = append(list, e)
		case !add && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ",")
}

// configChanges checks what a resource would become and appends the records that
// make it so, keys in order.
func (c *Controller) configChanges(img *image.Image, recs []record.Metadata, res image.ConfigResource, next map[string]string) ([]record.Metadata, *refusal) {
	old := img.Config(res)
	elr := img.Feature(feature.EligibleLeaderVersion) > 0
	var out []record.Metadata
	for _, k := range slices.Sorted(maps.Keys(next)) {
		if v, ok := old[k]; ok && v == next[k] {
			continue
		}
		if err := c.checkKey(res, k, next[k]); err != nil {
			if res.Type == brokerResource { // Kafka's brokers say so of their own configs
				return recs, refuse(kerr.InvalidRequest, "%v", err)
			}
			return recs, refuse(kerr.InvalidConfig, "%v", err)
		}
		if k == minInsyncKey && res.Type == brokerResource && res.Name != "" && elr {
			return recs, refuse(kerr.InvalidConfig, "Broker-level %s cannot be altered while ELR is enabled.", minInsyncKey)
		}
		out = append(out, configRecord(res, k, next[k]))
	}
	for _, k := range slices.Sorted(maps.Keys(old)) {
		if _, kept := next[k]; kept {
			continue
		}
		if k == minInsyncKey && res.Type == brokerResource && res.Name == "" && elr {
			return recs, refuse(kerr.InvalidConfig, "Cluster-level %s cannot be removed while ELR is enabled.", minInsyncKey)
		}
		r := configRecord(res, k, "")
		r.Value = nil
		out = append(out, r)
	}
	for _, r := range out {
		if elr && r.(*record.ConfigRecord).Name == minInsyncKey {
			// Who is eligible was computed with the old value.
			clear := record.NewClearElrRecord()
			if res.Type == topicResource {
				clear.TopicName = res.Name
			}
			out = append(out, clear)
			break
		}
	}
	return append(recs, out...), nil
}

func (c *Controller) checkKey(res image.ConfigResource, key, value string) error {
	if key == "" {
		return fmt.Errorf("config key must not be empty")
	}
	check := c.cfg.Configs
	switch {
	case res.Type == topicResource && check.CheckTopic != nil:
		return check.CheckTopic(key, value)
	case res.Type == brokerResource && check.CheckBroker != nil:
		return check.CheckBroker(res.Name, key, value)
	case res.Type == groupResource && check.CheckGroup != nil:
		return check.CheckGroup(key, value)
	case res.Type == clientResource && check.CheckClient != nil:
		return check.CheckClient(key, value)
	}
	return nil
}
