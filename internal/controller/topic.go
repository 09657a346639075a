package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// creation is one CreateTopics request being decided. Topics succeed or fail one
// by one, and each sees the names that those before it took.
type creation struct {
	c   *Controller
	env Env
	// taken are the names and collision keys of this request's new topics.
	taken map[string]string
	recs  []record.Metadata
	place *placer
}

// createTopics decides CreateTopics v2-7 (KAFKA.md 3.11).
func (c *Controller) createTopics(env Env, req *kmsg.CreateTopicsRequest) Result {
	resp := kmsg.NewPtrCreateTopicsResponse()
	t := &creation{c: c, env: env, taken: map[string]string{}}
	tooMany := c.tooManyPartitions(req)
	for want, n := range distinct(req.Topics, func(t *kmsg.CreateTopicsRequestTopic) string { return t.Topic }) {
		var rt kmsg.CreateTopicsResponseTopic
		var e *refusal
		switch {
		case n > 1:
			e = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case tooMany:
			e = refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
		default:
			rt, e = t.topic(want)
		}
		if e != nil {
			rt = kmsg.NewCreateTopicsResponseTopic()
			rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // null would say: not yours to see
			rt.ErrorCode, rt.ErrorMessage = e.code, text(e.text)
		}
		rt.Topic = want.Topic
		resp.Topics = append(resp.Topics, rt)
	}
	if req.ValidateOnly {
		t.recs = nil
	}
	return Result{Records: t.recs, Response: resp}
}

// tooManyPartitions bounds the work of one request.
func (c *Controller) tooManyPartitions(req *kmsg.CreateTopicsRequest) bool {
	var total int64
	for i := range req.Topics {
		n := int64(len(req.Topics[i].ReplicaAssignment))
		if n == 0 {
			n = int64(req.Topics[i].NumPartitions)
		}
		if n == -1 {
			n = int64(c.cfg.NumPartitions)
		}
		total += max(n, 0)
	}
	return total > MaxPartitions
}

// topic decides one topic and appends its records: the topic, its configs, its
// partitions.
func (t *creation) topic(want *kmsg.CreateTopicsRequestTopic) (kmsg.CreateTopicsResponseTopic, *refusal) {
	resp := kmsg.NewCreateTopicsResponseTopic()
	if e := t.checkName(want.Topic); e != nil {
		return resp, e
	}
	configs, recs, e := t.c.newTopicConfigs(want)
	if e != nil {
		return resp, e
	}
	assigned, e := t.assignments(want)
	if e != nil {
		return resp, e
	}
	id := model.RandomUUID(t.env.Rand.Uint64)
	for {
		if _, clash := t.env.Image.TopicByID(id); !clash {
			break
		}
		id = model.RandomUUID(t.env.Rand.Uint64)
	}
	topic := record.NewTopicRecord()
	topic.Name, topic.TopicID = want.Topic, id
	t.recs = append(append(t.recs, topic), recs...)
	for p, replicas := range assigned {
		t.recs = append(t.recs, newPartition(t.env.Image, id, int32(p), replicas))
	}
	t.taken[model.CollisionKey(want.Topic)] = want.Topic

	resp.TopicID = id
	resp.NumPartitions = int32(len(assigned))
	resp.ReplicationFactor = int16(len(assigned[0]))
	if f := t.c.cfg.Configs.Topic; f != nil {
		resp.Configs = f(t.env.Image, configs)
	}
	return resp, nil
}

func (t *creation) checkName(name string) *refusal {
	if name == model.MetadataTopic {
		return refuse(kerr.InvalidRequest, "Creation of internal topic %s is prohibited.", name)
	}
	if err := model.CheckTopicName(name); err != nil {
		return refuse(kerr.InvalidTopicException, "%v", err)
	}
	if _, ok := t.env.Image.Topic(name); ok {
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	other, ok := t.env.Image.CollidingTopic(name)
	if !ok {
		other, ok = t.taken[model.CollisionKey(name)]
	}
	if ok {
		return refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", name, other)
	}
	return nil
}

// assignments gives the replicas of each partition, as asked for or placed.
func (t *creation) assignments(want *kmsg.CreateTopicsRequestTopic) ([][]model.NodeID, *refusal) {
	if len(want.ReplicaAssignment) > 0 {
		return t.manual(want)
	}
	n, rf := want.NumPartitions, want.ReplicationFactor
	if rf < -1 || rf == 0 {
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if n < -1 || n == 0 {
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if rf == -1 {
		rf = t.c.cfg.ReplicationFactor
	}
	if n == -1 {
		n = t.c.cfg.NumPartitions
	}
	if t.place == nil {
		t.place = newPlacer(t.env.Image, t.env.Rand)
	}
	if err := t.place.check(int(rf)); err != nil {
		return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): %v", rf, err)
	}
	out := make([][]model.NodeID, n)
	for i := range out {
		out[i] = t.place.place(int(rf))
	}
	return out, nil
}

func (t *creation) manual(want *kmsg.CreateTopicsRequestTopic) ([][]model.NodeID, *refusal) {
	if want.ReplicationFactor != -1 {
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if want.NumPartitions != -1 {
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	list := slices.Clone(want.ReplicaAssignment)
	slices.SortStableFunc(list, func(a, b kmsg.CreateTopicsRequestTopicReplicaAssignment) int {
		return cmp.Compare(a.Partition, b.Partition)
	})
	out := make([][]model.NodeID, len(list))
	for i, a := range list {
		if i > 0 && a.Partition == list[i-1].Partition {
			return nil, refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for partition %d", a.Partition)
		}
		if a.Partition != int32(i) {
			return nil, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		out[i] = nodes(a.Replicas)
		if e := checkAssignment(t.env.Image, a.Partition, out[i], len(out[0])); e != nil {
			return nil, e
		}
	}
	return out, nil
}

// checkAssignment judges the replicas that somebody wishes for a new partition.
func checkAssignment(img *image.Image, id int32, replicas []model.NodeID, rf int) *refusal {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	anyActive := false
	for i, r := range replicas {
		if slices.Contains(replicas[:i], r) {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", r)
		}
		if _, ok := img.Broker(r); !ok {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", r)
		}
		anyActive = anyActive || active(img, r)
	}
	if len(replicas) != rf {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), rf)
	}
	if !anyActive {
		return refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", id)
	}
	return nil
}

// newPartition is the record of a partition that has no data yet: every active
// replica is in sync and the first of them leads.
func newPartition(img *image.Image, topic model.UUID, id int32, replicas []model.NodeID) *record.PartitionRecord {
	r := record.NewPartitionRecord()
	r.PartitionID, r.TopicID, r.Replicas = id, topic, ids(replicas)
	r.ISR, r.RemovingReplicas, r.AddingReplicas = []int32{}, []int32{}, []int32{}
	for _, n := range replicas {
		if active(img, n) {
			r.ISR = append(r.ISR, int32(n))
		}
		r.Directories = append(r.Directories, defaultDir(img, n))
	}
	r.Leader, r.LeaderEpoch, r.PartitionEpoch = r.ISR[0], 0, 0
	return r
}

// newTopicConfigs checks the configs of a new topic and gives them as a map and
// as records in the order of the request; of a key given twice the last counts.
func (c *Controller) newTopicConfigs(want *kmsg.CreateTopicsRequestTopic) (map[string]string, []record.Metadata, *refusal) {
	configs := make(map[string]string, len(want.Configs))
	var keys []string
	for _, k := range want.Configs {
		if k.Value == nil {
			return nil, nil, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", k.Name)
		}
		if f := c.cfg.Configs.CheckTopic; f != nil {
			if err := f(k.Name, *k.Value); err != nil {
				return nil, nil, refuse(kerr.InvalidConfig, "%v", err)
			}
		}
		if _, twice := configs[k.Name]; !twice {
			keys = append(keys, k.Name)
		}
		configs[k.Name] = *k.Value
	}
	res := image.ConfigResource{Type: topicResource, Name: want.Topic}
	var recs []record.Metadata
	for _, k := range keys {
		recs = append(recs, configRecord(res, k, configs[k]))
	}
	return configs, recs, nil
}

// deleteTopics decides DeleteTopics v1-6 (KAFKA.md 3.11).
func (c *Controller) deleteTopics(env Env, req *kmsg.DeleteTopicsRequest) Result {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	list := req.Topics
	if req.Version < 6 {
		list = make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
		for i := range req.TopicNames {
			list[i].Topic = &req.TopicNames[i]
		}
	}
	var recs []record.Metadata
	count := countDeletions(env.Image, list)
	for _, want := range list {
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = want.Topic, want.TopicID
		key := deletionOf(env.Image, want)
		n := count[key]
		if n == (mentions{}) {
			continue // a duplicate, already answered
		}
		count[key] = mentions{}
		t, e := c.deletable(env.Image, req.Version, want)
		switch {
		case n.names+n.ids > 1: // none of them counts
			if n.ids > 0 {
				rt.TopicID = key.id
			}
			rt.ErrorCode, rt.ErrorMessage = kerr.InvalidRequest.Code, text("Duplicate topic.")
		case e != nil:
			rt.ErrorCode, rt.ErrorMessage = e.code, text(e.text)
		default:
			r := record.NewRemoveTopicRecord()
			r.TopicID = t.ID
			recs = append(recs, r)
			rt.Topic, rt.TopicID = &t.Name, t.ID
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return Result{Records: recs, Response: resp}
}

// deletion is what an entry of DeleteTopics is about: a topic that exists, else
// its words.
type deletion struct {
	id   model.UUID
	name string
}

func deletionOf(img *image.Image, want kmsg.DeleteTopicsRequestTopic) deletion {
	d := deletion{id: want.TopicID}
	if want.Topic == nil {
		return d
	}
	if t, ok := img.Topic(*want.Topic); ok && d.id == model.ZeroUUID {
		return deletion{id: t.ID}
	}
	d.name = *want.Topic
	return d
}

// mentions is how often a request has the same deletion, by name and by id.
type mentions struct{ names, ids int }

func countDeletions(img *image.Image, list []kmsg.DeleteTopicsRequestTopic) map[deletion]mentions {
	count := make(map[deletion]mentions, len(list))
	for _, want := range list {
		d := deletionOf(img, want)
		m := count[d]
		if want.Topic != nil {
			m.names++
		} else {
			m.ids++
		}
		count[d] = m
	}
	return count
}

func (c *Controller) deletable(img *image.Image, version int16, want kmsg.DeleteTopicsRequestTopic) (*image.Topic, *refusal) {
	if c.cfg.TopicDeletionOff {
		if version < 3 {
			return nil, refuse(kerr.InvalidRequest, "Topic deletion is disabled.")
		}
		return nil, refuse(kerr.TopicDeletionDisabled, "Topic deletion is disabled.")
	}
	id := model.UUID(want.TopicID)
	switch {
	case want.Topic != nil && id != model.ZeroUUID:
		return nil, refuse(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
	case want.Topic == nil && id == model.ZeroUUID:
		return nil, refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
	case want.Topic != nil:
		if t, ok := img.Topic(*want.Topic); ok {
			return t, nil
		}
		return nil, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	if t, ok := img.TopicByID(id); ok {
		return t, nil
	}
	return nil, refuse(kerr.UnknownTopicID, "This server does not host this topic ID.")
}

// createPartitions decides CreatePartitions v0-3.
func (c *Controller) createPartitions(env Env, req *kmsg.CreatePartitionsRequest) Result {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	var total int64
	for _, t := range req.Topics {
		if old, ok := env.Image.Topic(t.Topic); ok {
			total += max(0, int64(t.Count)-int64(old.NumPartitions()))
		}
	}
	var recs []record.Metadata
	for want, n := range distinct(req.Topics, func(t *kmsg.CreatePartitionsRequestTopic) string { return t.Topic }) {
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic = want.Topic
		var add []record.Metadata
		var e *refusal
		switch {
		case n > 1:
			e = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case total > MaxPartitions:
			e = refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
		default:
			add, e = c.morePartitions(env, want)
		}
		if e != nil {
			rt.ErrorCode, rt.ErrorMessage = e.code, text(e.text)
		}
		recs = append(recs, add...)
		resp.Topics = append(resp.Topics, rt)
	}
	if req.ValidateOnly {
		recs = nil
	}
	return Result{Records: recs, Response: resp}
}

func (c *Controller) morePartitions(env Env, want *kmsg.CreatePartitionsRequestTopic) ([]record.Metadata, *refusal) {
	t, ok := env.Image.Topic(want.Topic)
	if !ok {
		return nil, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	have := int32(t.NumPartitions())
	switch {
	case want.Count == have:
		return nil, refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case want.Count < have:
		return nil, refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", want.Topic, have, want.Count)
	}
	more := int(want.Count - have)
	if want.Assignment != nil && len(want.Assignment) != more {
		return nil, refuse(kerr.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", more, len(want.Assignment))
	}
	first, ok := t.Partition(0)
	if !ok {
		return nil, refuse(kerr.UnknownServerError, "topic %s has no partition 0", want.Topic)
	}
	rf := len(without(first.Replicas, first.Adding...))
	var place *placer
	if want.Assignment == nil {
		place = newPlacer(env.Image, env.Rand)
		if err := place.check(rf); err != nil {
			return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): %v", rf, err)
		}
	}
	recs := make([]record.Metadata, 0, more)
	for i := range more {
		id := have + int32(i)
		var replicas []model.NodeID
		if place != nil {
			replicas = place.place(rf)
		} else {
			replicas = nodes(want.Assignment[i].Replicas)
			if e := checkAssignment(env.Image, id, replicas, rf); e != nil {
				return nil, e
			}
		}
		recs = append(recs, newPartition(env.Image, t.ID, id, replicas))
	}
	return recs, nil
}

// listed renders broker ids for messages.
func listed(list []model.NodeID) string {
	return "[" + strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]") + "]"
}
