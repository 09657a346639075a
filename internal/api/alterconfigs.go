package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// createPartitions is CreatePartitions, key 37, versions 0 to 3. The controller
// decides; the answer waits until this broker has the partitions.
func (c call) createPartitions() {
	req := c.msg.(*kmsg.CreatePartitionsRequest)
	resp, err := c.forward(req.TimeoutMillis)
	if err != nil {
		failed := kmsg.NewPtrCreatePartitionsResponse()
		for _, t := range req.Topics {
			ft := kmsg.NewCreatePartitionsResponseTopic()
			ft.Topic, ft.ErrorCode, ft.ErrorMessage = t.Topic, code(err), text(err)
			failed.Topics = append(failed.Topics, ft)
		}
		resp = failed
	}
	c.reply(resp)
}

// defaultTimeout is for requests that bring none, in milliseconds.
const defaultTimeout = 30000

// alterConfigs is AlterConfigs, key 33, versions 0 to 2: a resource's configs are
// replaced by these. The controller decides.
func (c call) alterConfigs() {
	resp, err := c.forward(defaultTimeout)
	if err != nil {
		failed := kmsg.NewPtrAlterConfigsResponse()
		for _, r := range c.msg.(*kmsg.AlterConfigsRequest).Resources {
			fr := kmsg.NewAlterConfigsResponseResource()
			fr.ResourceType, fr.ResourceName, fr.ErrorCode, fr.ErrorMessage = r.ResourceType, r.ResourceName, code(err), text(err)
			failed.Resources = append(failed.Resources, fr)
		}
		resp = failed
	}
	c.reply(resp)
}

// incrementalAlterConfigs is IncrementalAlterConfigs, key 44, versions 0 and 1
// (KIP-339). The controller decides.
func (c call) incrementalAlterConfigs() {
	resp, err := c.forward(defaultTimeout)
	if err != nil {
		failed := kmsg.NewPtrIncrementalAlterConfigsResponse()
		for _, r := range c.msg.(*kmsg.IncrementalAlterConfigsRequest).Resources {
			fr := kmsg.NewIncrementalAlterConfigsResponseResource()
			fr.ResourceType, fr.ResourceName, fr.ErrorCode, fr.ErrorMessage = r.ResourceType, r.ResourceName, code(err), text(err)
			failed.Resources = append(failed.Resources, fr)
		}
		resp = failed
	}
	c.reply(resp)
}
