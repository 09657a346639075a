package controller

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/record"
)

// quotaKeys are the quotas there are (KAFKA.md 10.4), by whether they are of
// addresses or of users and clients, and whether they are whole numbers.
var quotaKeys = map[string]struct{ ip, whole bool }{
	"producer_byte_rate":       {whole: true},
	"consumer_byte_rate":       {whole: true},
	"request_percentage":       {},
	"controller_mutation_rate": {},
	"connection_creation_rate": {ip: true, whole: true},
}

// alterQuotas decides AlterClientQuotas v0-1. Entries succeed or fail one by one.
func (c *Controller) alterQuotas(env Env, req *kmsg.AlterClientQuotasRequest) Result {
	resp := kmsg.NewPtrAlterClientQuotasResponse()
	have := map[string]float64{}
	for q := range env.Image.Quotas() {
		have[quotaName(q.Entity)+q.Key] = q.Value
	}
	var recs []record.Metadata
	seen := map[string]bool{}
	for _, entry := range req.Entries {
		re := kmsg.NewAlterClientQuotasResponseEntry()
		var entity []record.EntityData
		for _, part := range entry.Entity {
			re.Entity = append(re.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: part.Type, Name: part.Name})
			entity = append(entity, record.EntityData{EntityType: part.Type, EntityName: part.Name})
		}
		slices.SortFunc(entity, func(a, b record.EntityData) int { return cmp.Compare(a.EntityType, b.EntityType) })
		name := quotaName(entity)
		add, e := quotaRecords(entity, entry.Ops, have, name)
		if e == nil && seen[name] {
			e = refuse(kerr.InvalidRequest, "Entity %s appears more than once in the request.", name)
		}
		seen[name] = true
		if e != nil {
			re.ErrorCode, re.ErrorMessage = e.code, text(e.text)
		} else {
			recs = append(recs, add...)
		}
		resp.Entries = append(resp.Entries, re)
	}
	if req.ValidateOnly {
		recs = nil
	}
	return Result{Records: recs, Response: resp}
}

// quotaName is a text that tells entities apart. The parts must be sorted.
func quotaName(entity []record.EntityData) string {
	var b strings.Builder
	for _, p := range entity {
		b.WriteString(p.EntityType)
		if p.EntityName == nil {
			b.WriteString(" default\n")
		} else {
			b.WriteString("=" + *p.EntityName + "\n")
		}
	}
	return b.String()
}

func quotaRecords(entity []record.EntityData, ops []kmsg.AlterClientQuotasRequestEntryOp, have map[string]float64, name string) ([]record.Metadata, *refusal) {
	ip, e := checkEntity(entity)
	if e != nil {
		return nil, e
	}
	var recs []record.Metadata
	keys := map[string]bool{}
	for _, op := range ops {
		k, ok := quotaKeys[op.Key]
		switch {
		case !ok || k.ip != ip:
			return nil, refuse(kerr.InvalidRequest, "Invalid configuration key %s", op.Key)
		case keys[op.Key]:
			return nil, refuse(kerr.InvalidRequest, "Configuration key %s appears more than once.", op.Key)
		case !op.Remove && (math.IsNaN(op.Value) || math.IsInf(op.Value, 0) || op.Value <= 0):
			return nil, refuse(kerr.InvalidRequest, "Quota %s must be greater than 0", op.Key)
		case !op.Remove && k.whole && (op.Value != math.Trunc(op.Value) || op.Value > math.MaxInt64/2):
			return nil, refuse(kerr.InvalidRequest, "Quota %s must be a whole number", op.Key)
		}
		keys[op.Key] = true
		old, had := have[name+op.Key]
		if op.Remove && !had || !op.Remove && had && old == op.Value {
			continue
		}
		r := record.NewClientQuotaRecord()
		r.Entity, r.Key, r.Remove = slices.Clone(entity), op.Key, op.Remove
		if !op.Remove {
			r.Value = op.Value
		}
		recs = append(recs, r)
	}
	return recs, nil
}

// checkEntity judges the parts of a quota's entity and tells whether it is an
// address: user, client-id, both, or ip alone.
func checkEntity(entity []record.EntityData) (ip bool, e *refusal) {
	if len(entity) == 0 {
		return false, refuse(kerr.InvalidRequest, "Invalid empty client quota entity")
	}
	for i, p := range entity {
		switch {
		case p.EntityType != "user" && p.EntityType != "client-id" && p.EntityType != "ip":
			return false, refuse(kerr.InvalidRequest, "Unhandled client quota entity type: %s", p.EntityType)
		case p.EntityName != nil && *p.EntityName == "":
			return false, refuse(kerr.InvalidRequest, "Empty %s not supported", p.EntityType)
		case i > 0 && entity[i-1].EntityType == p.EntityType:
			return false, refuse(kerr.InvalidRequest, "Invalid client quota entity, contains duplicate entity type %s", p.EntityType)
		}
		ip = ip || p.EntityType == "ip"
	}
	if ip && len(entity) > 1 {
		return false, refuse(kerr.InvalidRequest, "Invalid quota entity combination, IP entity should not be combined with User or ClientId")
	}
	return ip, nil
}
