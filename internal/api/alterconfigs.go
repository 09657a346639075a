package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// defaultTimeout is for requests that bring none, in milliseconds.
const defaultTimeout = 30000

// alterConfigs is AlterConfigs, key 33, versions 0 to 2: a resource's configs are
// replaced by these. The controller decides.
func (c call) alterConfigs() {
	c.forward(defaultTimeout, func(code int16, why *string) kmsg.Response {
		r := kmsg.NewPtrAlterConfigsResponse()
		for _, res := range c.msg.(*kmsg.AlterConfigsRequest).Resources {
			fr := kmsg.NewAlterConfigsResponseResource()
			fr.ResourceType, fr.ResourceName, fr.ErrorCode, fr.ErrorMessage = res.ResourceType, res.ResourceName, code, why
			r.Resources = append(r.Resources, fr)
		}
		return r
	})
}

// incrementalAlterConfigs is IncrementalAlterConfigs, key 44, versions 0 and 1
// (KIP-339). The controller decides.
func (c call) incrementalAlterConfigs() {
	c.forward(defaultTimeout, func(code int16, why *string) kmsg.Response {
		r := kmsg.NewPtrIncrementalAlterConfigsResponse()
		for _, res := range c.msg.(*kmsg.IncrementalAlterConfigsRequest).Resources {
			fr := kmsg.NewIncrementalAlterConfigsResponseResource()
			fr.ResourceType, fr.ResourceName, fr.ErrorCode, fr.ErrorMessage = res.ResourceType, res.ResourceName, code, why
			r.Resources = append(r.Resources, fr)
		}
		return r
	})
}
