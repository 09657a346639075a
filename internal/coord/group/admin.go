package group

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/coord"
)

// groupOperations are all that may be done to a group while there is no
// authorizer: Read, Delete, Describe, and its configs.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

// describe decides DescribeGroups for one group.
func (m *Machine) describe(req *kmsg.DescribeGroupsRequest) coord.Result {
	id := req.Groups[0]
	out := kmsg.NewDescribeGroupsResponseGroup()
	out.Group, out.AuthorizedOperations = id, math.MinInt32
	if req.IncludeAuthorizedOperations {
		out.AuthorizedOperations = groupOperations
	}
	g := m.get(id)
	if g == nil {
		out.State = "Dead"
		if req.Version >= 6 {
			why := fmt.Sprintf("Group %s not found.", id)
			out.ErrorCode, out.ErrorMessage = kerr.GroupIDNotFound.Code, &why
		}
	} else {
		describeClassic(&g.classic, &out)
	}
	r := kmsg.NewPtrDescribeGroupsResponse()
	r.Groups = append(r.Groups, out)
	return coord.Result{About: id, Response: r}
}

func describeClassic(c *classic, out *kmsg.DescribeGroupsResponseGroup) {
	out.State, out.ProtocolType = c.state.String(), c.protocolType
	if c.state == stable {
		out.Protocol = c.protocol
	}
	for _, m := range c.ordered() {
		dm := kmsg.NewDescribeGroupsResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.ClientID, dm.ClientHost = m.id, m.instance, m.clientID, m.clientHost
		dm.ProtocolMetadata, dm.MemberAssignment = []byte{}, []byte{}
		if c.state == stable { // between generations it has neither
			dm.ProtocolMetadata, dm.MemberAssignment = m.metadata(c.protocol), m.assignment
		}
		out.Members = append(out.Members, dm)
	}
}

// list decides ListGroups for the groups of this partition.
func (m *Machine) list(req *kmsg.ListGroupsRequest) coord.Result {
	r := kmsg.NewPtrListGroupsResponse()
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		c := &m.groups[id].classic
		if !matches(req.StatesFilter, c.state.String()) || !matches(req.TypesFilter, "classic") {
			continue
		}
		lg := kmsg.NewListGroupsResponseGroup()
		lg.Group, lg.ProtocolType, lg.GroupState, lg.GroupType = id, c.protocolType, c.state.String(), "classic"
		r.Groups = append(r.Groups, lg)
	}
	return coord.Result{Response: r}
}

// matches reports whether a filter lets a word through; none lets all.
func matches(filter []string, word string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, word) })
}

// delete decides DeleteGroups for one group.
func (m *Machine) delete(env coord.Env, req *kmsg.DeleteGroupsRequest) coord.Result {
	id := req.Groups[0]
	out := kmsg.NewDeleteGroupsResponseGroup()
	out.Group = id
	g := m.get(id)
	d := m.begin(env, g)
	switch {
	case g == nil:
		out.ErrorCode = kerr.GroupIDNotFound.Code
	case g.classic.state != empty:
		out.ErrorCode = kerr.NonEmptyGroup.Code
	default:
		for _, topic := range g.offsets.names() {
			d.dropOffsets(topic)
		}
		d.record(groupKey(id), nil)
	}
	r := kmsg.NewPtrDeleteGroupsResponse()
	r.Groups = append(r.Groups, out)
	d.About, d.Response = id, r
	return d.Result
}
