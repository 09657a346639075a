package controller

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Numbers of ACLs on the wire and in records (KAFKA.md 10.2).
const (
	aclUnknown = 0 // of every kind
	aclAny     = 1

	patternMatch    = 2
	patternLiteral  = 3
	patternPrefixed = 4

	permissionDeny  = 2
	permissionAllow = 3

	aclTopic     = 2
	aclCluster   = 4
	aclUser      = 7
	clusterName  = "kafka-cluster"
	aclAll       = 2
	lastACLOp    = 15
	anyResource  = "*"
	aclCIDRLevel = 32 // metadata.version from which a host may be a range
)

// createACLs decides CreateAcls v1-3. Each entry succeeds or fails by itself; one
// that exists already succeeds and changes nothing.
func (c *Controller) createACLs(env Env, req *kmsg.CreateACLsRequest) Result {
	resp := kmsg.NewPtrCreateACLsResponse()
	have := map[record.AccessControlEntryRecord]bool{}
	for a := range env.Image.ACLs() {
		entry := *a
		entry.ID = model.ZeroUUID
		have[entry] = true
	}
	var recs []record.Metadata
	for _, want := range req.Creations {
		r := record.AccessControlEntryRecord{
			ResourceType: int8(want.ResourceType), ResourceName: want.ResourceName, PatternType: int8(want.ResourcePatternType),
			Principal: want.Principal, Host: want.Host, Operation: int8(want.Operation), PermissionType: int8(want.PermissionType),
		}
		rr := kmsg.NewCreateACLsResponseResult()
		if e := checkACL(env.Image, &r); e != nil {
			rr.ErrorCode, rr.ErrorMessage = e.code, text(e.text)
		} else if !have[r] {
			have[r] = true
			entry := r
			entry.ID = model.RandomUUID(env.Rand.Uint64)
			recs = append(recs, &entry)
		}
		resp.Results = append(resp.Results, rr)
	}
	return Result{Records: recs, Response: resp}
}

func checkACL(img *image.Image, r *record.AccessControlEntryRecord) *refusal {
	kind, name, ok := strings.Cut(r.Principal, ":")
	switch {
	case r.ResourceType < aclTopic || r.ResourceType > aclUser:
		return refuse(kerr.InvalidRequest, "Invalid resourceType %d", r.ResourceType)
	case r.ResourceType == aclCluster && r.ResourceName != clusterName:
		return refuse(kerr.InvalidRequest, "The only valid name for the CLUSTER resource is %s", clusterName)
	case r.ResourceName == "":
		return refuse(kerr.InvalidRequest, "Invalid empty resource name")
	case r.PatternType != patternLiteral && r.PatternType != patternPrefixed:
		return refuse(kerr.InvalidRequest, "Invalid patternType %d", r.PatternType)
	case r.Operation < aclAll || r.Operation > lastACLOp:
		return refuse(kerr.InvalidRequest, "Invalid operation %d", r.Operation)
	case r.PermissionType != permissionDeny && r.PermissionType != permissionAllow:
		return refuse(kerr.InvalidRequest, "Invalid permissionType %d", r.PermissionType)
	case !ok || kind == "" || name == "":
		return refuse(kerr.InvalidRequest, "expected a string in format principalType:principalName but got %s", r.Principal)
	}
	return checkHost(img, r.Host)
}

// checkHost wants a host to be "*", an address or, from 4.4 on, a range of them.
// What is not an address is taken as it is, as Kafka does: it matches nothing.
func checkHost(img *image.Image, host string) *refusal {
	if host == "" {
		return refuse(kerr.InvalidRequest, "Invalid empty host")
	}
	if !strings.Contains(host, "/") {
		return nil
	}
	if _, err := netip.ParsePrefix(host); err != nil {
		return refuse(kerr.InvalidRequest, "Invalid host %s: %v", host, err)
	}
	if level := img.Feature(feature.MetadataVersion); level < aclCIDRLevel {
		return refuse(kerr.UnsupportedVersion, "Host ranges need metadata.version %d, the cluster is at %d", aclCIDRLevel, level)
	}
	return nil
}

// deleteACLs decides DeleteAcls v1-3: every entry that a filter finds goes, and is
// answered, once per filter.
func (c *Controller) deleteACLs(env Env, req *kmsg.DeleteACLsRequest) Result {
	resp := kmsg.NewPtrDeleteACLsResponse()
	gone := map[model.UUID]bool{}
	var recs []record.Metadata
	for i := range req.Filters {
		f := &req.Filters[i]
		rr := kmsg.NewDeleteACLsResponseResult()
		if f.ResourceType == aclUnknown || f.ResourcePatternType == aclUnknown || f.Operation == aclUnknown || f.PermissionType == aclUnknown {
			rr.ErrorCode, rr.ErrorMessage = kerr.InvalidRequest.Code, text("Filters must not contain UNKNOWN elements")
			resp.Results = append(resp.Results, rr)
			continue
		}
		for a := range env.Image.ACLs() {
			if !finds(f, a) {
				continue
			}
			m := kmsg.NewDeleteACLsResponseResultMatchingACL()
			m.ResourceType, m.ResourceName = kmsg.ACLResourceType(a.ResourceType), a.ResourceName
			m.ResourcePatternType = kmsg.ACLResourcePatternType(a.PatternType)
			m.Principal, m.Host = a.Principal, a.Host
			m.Operation, m.PermissionType = kmsg.ACLOperation(a.Operation), kmsg.ACLPermissionType(a.PermissionType)
			rr.MatchingACLs = append(rr.MatchingACLs, m)
			if !gone[a.ID] {
				gone[a.ID] = true
				r := record.NewRemoveAccessControlEntryRecord()
				r.ID = a.ID
				recs = append(recs, r)
			}
		}
		slices.SortFunc(rr.MatchingACLs, func(a, b kmsg.DeleteACLsResponseResultMatchingACL) int {
			return cmp.Or(cmp.Compare(a.ResourceType, b.ResourceType), cmp.Compare(a.ResourceName, b.ResourceName), cmp.Compare(a.Principal, b.Principal))
		})
		resp.Results = append(resp.Results, rr)
	}
	return Result{Records: recs, Response: resp}
}

// finds tells whether a filter finds an entry.
func finds(f *kmsg.DeleteACLsRequestFilter, a *record.AccessControlEntryRecord) bool {
	one := func(want, is int8) bool { return want == aclAny || want == is }
	same := func(want *string, is string) bool { return want == nil || *want == is }
	return one(int8(f.ResourceType), a.ResourceType) && findsPattern(int8(f.ResourcePatternType), f.ResourceName, a) &&
		same(f.Principal, a.Principal) && same(f.Host, a.Host) &&
		one(int8(f.Operation), a.Operation) && one(int8(f.PermissionType), a.PermissionType)
}

// findsPattern: MATCH finds every pattern that a name falls under, the others the
// patterns that have just this name.
func findsPattern(typ int8, name *string, a *record.AccessControlEntryRecord) bool {
	switch {
	case typ == patternLiteral || typ == patternPrefixed:
		return a.PatternType == typ && (name == nil || *name == a.ResourceName)
	case name == nil || *name == a.ResourceName:
		return true
	case typ != patternMatch:
		return false
	case a.PatternType == patternPrefixed:
		return strings.HasPrefix(*name, a.ResourceName)
	}
	return a.ResourceName == anyResource
}
