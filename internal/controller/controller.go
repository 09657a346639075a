// Package controller decides about the cluster: who is a member, where replicas
// live, who leads. It is what Kafka calls the active controller, without log,
// network, clock or randomness: an image, a request and the time go in, metadata
// records and a response come out.
//
//	request ──▶ Handle(env) ──▶ Result{Records, Response}
//	                ▲                 │ the quorum appends the records and applies
//	             env.Image ◀──────────┘ them to the image that the next call sees
//
// The one idea: nothing but applying records changes the hard state, and the
// hard state is the image. A decision looks at the image, which may run ahead of
// what is committed; if this controller is deposed, that image is dropped with
// all that was decided on it. Records of one Result are valid only together and
// only on the image they were decided on.
//
// Soft state is the brokers' sessions (session.go): when each was last heard of.
// It is never in the log. Activate starts every session anew, so a change of the
// active controller costs a dead broker at most one more session timeout.
//
// Concurrency: one goroutine at a time, that of the quorum. Nothing here blocks.
// Rules and codes: KAFKA.md 3.11 to 3.13, 6 and 7.6.
package controller

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// Config is what a controller is told once. Only NodeID, ClusterID and
// Incarnation have no useful zero value.
type Config struct {
	NodeID    model.NodeID
	ClusterID model.UUID
	// Incarnation is this process's id in its RegisterControllerRecord.
	Incarnation model.UUID
	// Endpoints are the controller listeners as others reach them.
	Endpoints []image.Endpoint
	// Supported are the feature ranges that this controller registers.
	Supported []image.FeatureRange
	// Features are the levels that the bootstrap of an empty cluster finalizes, in
	// the order in which they are written; nil means feature.Defaults.
	Features []feature.Level

	NumPartitions     int32 // num.partitions, 0 means 1
	ReplicationFactor int16 // default.replication.factor, 0 means 1
	MinInsync         int32 // static min.insync.replicas, 0 means 1
	UncleanElection   bool  // static unclean.leader.election.enable
	TopicDeletionOff  bool  // delete.topic.enable=false

	// Rebalance is leader.imbalance.check.interval.seconds if
	// auto.leader.rebalance.enable is set: how often leaderships go back to the
	// preferred replicas. 0 means never.
	Rebalance time.Duration

	// SessionTimeout is broker.session.timeout.ms, 0 means 9 s.
	SessionTimeout time.Duration

	Configs Configs
}

// Configs are the questions about configuration that the controller cannot
// answer itself. A nil func accepts everything and lists nothing.
type Configs struct {
	// CheckTopic, CheckBroker and CheckGroup say what is wrong with one key and
	// value, or nil. CheckBroker's name is a node id, or "" for all brokers.
	CheckTopic  func(key, value string) error
	CheckBroker func(name, key, value string) error
	CheckGroup  func(key, value string) error
	CheckClient func(key, value string) error
	// List tells whether a key of a resource type holds a list, which APPEND and
	// SUBTRACT need, and its value where nothing is set.
	List func(resourceType int8, key string) (list bool, def string)
	// Topic lists all configs of a topic with these overrides, as CreateTopics
	// v5+ answers them.
	Topic func(img *image.Image, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig
}

// Env is everything that a decision may look at besides the request.
type Env struct {
	Now time.Time
	// Image has every decision made so far in this term, committed or not.
	Image *image.Image
	// Next is the offset that the first record of this decision will get.
	Next model.Offset
	Rand *rand.Rand
}

// Requester says who asks.
type Requester struct {
	// Local is set when the request comes from this very process. Its log folders
	// are locked by it, so no earlier life of the same broker can be running.
	Local bool
	// Principal and Host go into messages and audit only: who may ask was settled
	// by the API that calls.
	Principal, Host string
}

// Result is one decision.
type Result struct {
	// Records are to be appended in this order or not at all. The first one's
	// offset must be Env.Next.
	Records []record.Metadata
	// Response answers the request once everything decided so far is committed.
	Response kmsg.Response
	// Txn asks for the records to be wrapped as a metadata transaction, because
	// they are more than one batch and must be seen together. They never hold an
	// offset that the wrapping would move.
	Txn bool
}

// maxRecords is how many records a Result may have before it is a transaction.
const maxRecords = 2000

// MaxPartitions is how many partitions one request may create, Kafka's limit.
const MaxPartitions = 10000

// UnsupportedError is the error of Handle for a request that no controller of
// this version decides.
type UnsupportedError struct{ Key int16 }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("controller: request %s (key %d) is not one that the controller decides", kmsg.NameForKey(e.Key), e.Key)
}

// Controller holds the configuration and the soft state.
type Controller struct {
	cfg Config
	// sessions are the brokers heard of in this activation, by id.
	sessions map[model.NodeID]*session
	// rebalanceAt is when leaderships are looked at next.
	rebalanceAt time.Time
}

// New makes a controller that is not active: sessions begin at Activate.
func New(cfg Config) *Controller {
	if cfg.NumPartitions == 0 {
		cfg.NumPartitions = 1
	}
	if cfg.ReplicationFactor == 0 {
		cfg.ReplicationFactor = 1
	}
	if cfg.MinInsync == 0 {
		cfg.MinInsync = 1
	}
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = 9 * time.Second
	}
	if cfg.Features == nil {
		cfg.Features = feature.Defaults()
	}
	return &Controller{cfg: cfg, sessions: make(map[model.NodeID]*session)}
}

// Activate is the first decision of a new active controller. On an empty image it
// bootstraps the cluster (KAFKA.md 7.4): the feature levels in a metadata
// transaction. Then, as on every activation where it is not there yet, this
// controller's own registration.
func (c *Controller) Activate(env Env) Result {
	c.sessions = make(map[model.NodeID]*session)
	c.rebalanceAt = env.Now.Add(c.cfg.Rebalance)
	for b := range env.Image.Brokers() {
		if !b.Fenced {
			c.touch(b.ID, b.Epoch, env.Now)
		}
	}
	var recs []record.Metadata
	if env.Image.Feature(feature.MetadataVersion) == 0 {
		recs = c.bootstrap(recs)
	}
	if reg := c.registerSelf(env.Image); reg != nil {
		recs = append(recs, reg)
	}
	return Result{Records: recs}
}

// bootstrap emits what a new cluster begins with.
func (c *Controller) bootstrap(recs []record.Metadata) []record.Metadata {
	name := "Bootstrap records"
	begin := record.NewBeginTransactionRecord()
	begin.Name = &name
	recs = append(recs, begin)
	for _, l := range c.cfg.Features {
		r := record.NewFeatureLevelRecord()
		r.Name, r.FeatureLevel = l.Name, l.Level
		recs = append(recs, r)
		if l.Name == feature.EligibleLeaderVersion && l.Level > 0 {
			// With eligible leader replicas on, the cluster-wide min.insync.replicas is
			// always set, so that every controller computes with the same one.
			recs = append(recs, configRecord(image.ConfigResource{Type: brokerResource}, minInsyncKey, fmt.Sprint(c.cfg.MinInsync)))
		}
	}
	return append(recs, record.NewEndTransactionRecord())
}

// Handle decides one request. The error is an *UnsupportedError, or nil: all that
// can be wrong with a request is said in the response.
func (c *Controller) Handle(env Env, req kmsg.Request, who Requester) (Result, error) {
	var r Result
	switch req := req.(type) {
	case *kmsg.BrokerRegistrationRequest:
		r = c.registerBroker(env, req, who)
	case *kmsg.BrokerHeartbeatRequest:
		r = c.heartbeat(env, req)
	case *kmsg.UnregisterBrokerRequest:
		r = c.unregisterBroker(env, req)
	case *kmsg.ControllerRegistrationRequest:
		r = c.registerController(env, req)
	case *kmsg.AllocateProducerIDsRequest:
		r = c.allocateProducerIDs(env, req)
	case *kmsg.AssignReplicasToDirsRequest:
		r = c.assignReplicasToDirs(env, req)
	case *kmsg.CreateTopicsRequest:
		r = c.createTopics(env, req)
	case *kmsg.DeleteTopicsRequest:
		r = c.deleteTopics(env, req)
	case *kmsg.CreatePartitionsRequest:
		r = c.createPartitions(env, req)
	case *kmsg.AlterPartitionRequest:
		r = c.alterPartition(env, req)
	case *kmsg.AlterPartitionAssignmentsRequest:
		r = c.alterReassignments(env, req)
	case *kmsg.ElectLeadersRequest:
		r = c.electLeaders(env, req)
	case *kmsg.IncrementalAlterConfigsRequest:
		r = c.incrementalAlterConfigs(env, req)
	case *kmsg.AlterConfigsRequest:
		r = c.alterConfigs(env, req)
	case *kmsg.CreateACLsRequest:
		r = c.createACLs(env, req)
	case *kmsg.DeleteACLsRequest:
		r = c.deleteACLs(env, req)
	case *kmsg.AlterUserSCRAMCredentialsRequest:
		r = c.alterScram(env, req)
	case *kmsg.AlterClientQuotasRequest:
		r = c.alterQuotas(env, req)
	default:
		return Result{}, &UnsupportedError{req.Key()}
	}
	r.Txn = len(r.Records) > maxRecords
	if r.Txn && holdsOffset(r.Records) {
		r.Txn = false // the quorum appends them in one entry all the same
	}
	r.Response.SetVersion(req.GetVersion())
	return r, nil
}

// holdsOffset reports whether a record has its own offset in it, so that nothing
// may be put before it.
func holdsOffset(recs []record.Metadata) bool {
	for _, r := range recs {
		if _, ok := r.(*record.RegisterBrokerRecord); ok {
			return true
		}
	}
	return false
}

// text is a pointer to a response's error message, nil for none.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
