package api

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
)

// softwareName is what KIP-511 allows as client software name and version.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// apiVersions is ApiVersions, key 18, versions 0 to 5: which APIs and features
// there are. v3 client software (KIP-511) and features (KIP-584), v4 features
// with minimum 0, v5 misrouted connections (KIP-1242). KAFKA.md 3.2.
//
// A version that is not known is answered in the form of version 0, so that a
// newer client can step down. Answers always have the old header.
func (c call) apiVersions() {
	req, resp := c.msg.(*kmsg.ApiVersionsRequest), kmsg.NewPtrApiVersionsResponse()
	switch {
	case c.Version < 0 || c.Version > 5:
		resp.ErrorCode = kerr.UnsupportedVersion.Code
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: int16(kmsg.ApiVersions), MaxVersion: 5}}
		c.ReplyV0(resp.AppendTo(c.Buffer(64)))
		return
	case c.Version >= 3 && !(softwareName.MatchString(req.ClientSoftwareName) && softwareName.MatchString(req.ClientSoftwareVersion)):
		resp.ErrorCode = kerr.InvalidRequest.Code
	case c.Version >= 5 && c.misrouted(req) != nil:
		resp.ErrorCode = c.misrouted(req).Code
	default:
		c.Conn().SetSoftware(req.ClientSoftwareName, req.ClientSoftwareVersion)
		c.s.fillAPIs(resp)
		fillFeatures(resp, c.image(), c.Version)
	}
	resp.SetVersion(c.Version)
	c.ReplyV0(resp.AppendTo(c.Buffer(1024)))
}

// misrouted says what is wrong when the client names another cluster or node.
func (c call) misrouted(req *kmsg.ApiVersionsRequest) *kerr.Error {
	switch {
	case req.ClusterID == nil && req.NodeID == -1:
		return nil
	case req.ClusterID == nil || req.NodeID == -1:
		return kerr.InvalidRequest
	case *req.ClusterID != c.s.cfg.ClusterID.String() || req.NodeID != int32(c.s.cfg.NodeID):
		return kerr.RebootstrapRequired
	}
	return nil
}

// fillAPIs lists what this listener offers. Produce is offered from 0 although 3
// is the least that works: librdkafka 2.x needs it (KAFKA-18659).
func (s *Server) fillAPIs(resp *kmsg.ApiVersionsResponse) {
	for _, e := range s.table {
		if e == nil {
			continue
		}
		k := kmsg.ApiVersionsResponseApiKey{ApiKey: int16(e.key), MinVersion: e.min, MaxVersion: e.max}
		if e.key == kmsg.Produce {
			k.MinVersion = 0
		}
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
}

// fillFeatures lists supported and finalized features. Version 3 leaves out
// those that begin at 0 (KAFKA-17011).
func fillFeatures(resp *kmsg.ApiVersionsResponse, img *image.Image, version int16) {
	for _, f := range feature.Supported() {
		if f.Name == feature.Liveness || version < 4 && f.Min == 0 {
			continue
		}
		resp.SupportedFeatures = append(resp.SupportedFeatures, kmsg.ApiVersionsResponseSupportedFeature{Name: f.Name, MinVersion: f.Min, MaxVersion: f.Max})
	}
	for name, level := range img.Features() {
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, kmsg.ApiVersionsResponseFinalizedFeature{Name: name, MinVersionLevel: level, MaxVersionLevel: level})
	}
	slices.SortFunc(resp.FinalizedFeatures, func(a, b kmsg.ApiVersionsResponseFinalizedFeature) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	resp.FinalizedFeaturesEpoch = int64(img.Offset())
}
