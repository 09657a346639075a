package controller

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// registerBroker decides BrokerRegistration v0-4 (KAFKA.md 7.6): a new life of a
// broker, fenced until it heartbeats, its epoch the offset of its record.
//
// A registration under an id whose last life still has a session is refused, so
// that two processes with one id do not take turns. One case is exempt: the
// request comes from this very process and names the same log folders. They are
// locked, so the earlier life is over; a single node that was killed comes back
// at once and not after a session timeout, as with Apache Kafka.
func (c *Controller) registerBroker(env Env, req *kmsg.BrokerRegistrationRequest, who Requester) Result {
	resp := kmsg.NewPtrBrokerRegistrationResponse()
	if e := c.checkRegistration(env, req, who); e != nil {
		resp.ErrorCode = e.Code
		return Result{Response: resp}
	}
	id := model.NodeID(req.BrokerID)
	old, known := env.Image.Broker(id)
	same := known && old.Incarnation == model.UUID(req.IncarnationID)

	r := record.NewRegisterBrokerRecord()
	r.BrokerID, r.IncarnationID, r.Rack = req.BrokerID, req.IncarnationID, req.Rack
	r.BrokerEpoch, r.Fenced = int64(env.Next), true
	if same {
		// The same process asks again: it keeps its epoch and its standing.
		r.BrokerEpoch, r.Fenced, r.InControlledShutdown = int64(old.Epoch), old.Fenced, old.InControlledShutdown
	}
	for _, l := range req.Listeners {
		r.EndPoints = append(r.EndPoints, record.BrokerEndpoint{Name: l.Name, Host: l.Host, Port: l.Port, SecurityProtocol: l.SecurityProtocol})
	}
	for _, f := range req.Features {
		r.Features = append(r.Features, record.BrokerFeature{Name: f.Name, MinSupportedVersion: f.MinSupportedVersion, MaxSupportedVersion: f.MaxSupportedVersion})
	}
	for _, d := range req.LogDirs {
		r.LogDirs = append(r.LogDirs, d)
	}
	recs := []record.Metadata{r}
	if known && !same {
		m := c.moves(env.Image)
		if env.Image.Feature(feature.EligibleLeaderVersion) > 0 && req.PreviousBrokerEpoch != int64(old.Epoch) {
			m.removeUnclean(id) // it did not stop cleanly: what it acknowledged as a follower may be gone
		} else {
			m.remove(id)
		}
		recs = m.appendTo(recs)
	}
	s := c.touch(id, model.BrokerEpoch(r.BrokerEpoch), env.Now)
	s.registered = env.Next
	resp.BrokerEpoch = r.BrokerEpoch
	return Result{Records: recs, Response: resp}
}

func (c *Controller) checkRegistration(env Env, req *kmsg.BrokerRegistrationRequest, who Requester) *kerr.Error {
	id := model.NodeID(req.BrokerID)
	if req.ClusterID != c.cfg.ClusterID.String() {
		return kerr.InconsistentClusterID
	}
	if id < 0 {
		return kerr.InvalidRequest
	}
	if req.IsMigratingZkBroker {
		return kerr.BrokerIDNotRegistered
	}
	if old, ok := env.Image.Broker(id); ok && old.Incarnation != model.UUID(req.IncarnationID) &&
		!old.InControlledShutdown && c.alive(old, env.Now) && !(who.Local && sharesDir(old, req.LogDirs)) {
		return kerr.DuplicateBrokerRegistration
	}
	if env.Image.Feature(feature.MetadataVersion) >= feature.MetadataDirs {
		if e := checkDirs(env.Image, id, req.LogDirs); e != nil {
			return e
		}
	}
	return checkFeatures(env.Image, req.Features)
}

func sharesDir(b *image.Broker, dirs [][16]byte) bool {
	return slices.ContainsFunc(dirs, func(d [16]byte) bool { return slices.Contains(b.Dirs, model.UUID(d)) })
}

func checkDirs(img *image.Image, id model.NodeID, dirs [][16]byte) *kerr.Error {
	if len(dirs) == 0 {
		return kerr.InvalidRegistration
	}
	seen := make(map[[16]byte]bool, len(dirs))
	for _, d := range dirs {
		if reservedDir(d) || seen[d] {
			return kerr.InvalidRegistration
		}
		seen[d] = true
	}
	for b := range img.Brokers() {
		if b.ID != id && sharesDir(b, dirs) {
			return kerr.InvalidRegistration
		}
	}
	return nil
}

// reservedDir reports whether Kafka keeps an id for itself: the first 100.
func reservedDir(d [16]byte) bool {
	for _, b := range d[:15] {
		if b != 0 {
			return false
		}
	}
	return d[15] < 100
}

// checkFeatures demands that the broker can work at every finalized level. A
// feature that it does not name counts as 0 to 0, except that a broker without
// metadata.version is as old as can be.
func checkFeatures(img *image.Image, have []kmsg.BrokerRegistrationRequestFeature) *kerr.Error {
	for name, level := range img.Features() {
		var lo, hi int16
		if name == feature.MetadataVersion {
			lo, hi = feature.MetadataMin, feature.MetadataMin
		}
		for _, f := range have {
			if f.Name == name {
				lo, hi = f.MinSupportedVersion, f.MaxSupportedVersion
			}
		}
		if level < lo || level > hi {
			return kerr.UnsupportedVersion
		}
	}
	return nil
}

// checkEpoch finds a broker that speaks in its current life.
func checkEpoch(img *image.Image, id int32, epoch int64) (*image.Broker, *kerr.Error) {
	b, ok := img.Broker(model.NodeID(id))
	if !ok || int64(b.Epoch) != epoch {
		return nil, kerr.StaleBrokerEpoch
	}
	return b, nil
}

// heartbeat decides BrokerHeartbeat v0-2: it keeps the session and moves the
// broker between fenced, unfenced and controlled shutdown.
func (c *Controller) heartbeat(env Env, req *kmsg.BrokerHeartbeatRequest) Result {
	resp := kmsg.NewPtrBrokerHeartbeatResponse()
	b, e := checkEpoch(env.Image, req.BrokerID, req.BrokerEpoch)
	if e != nil {
		resp.ErrorCode = e.Code
		return Result{Response: resp}
	}
	s := c.touch(b.ID, b.Epoch, env.Now)
	s.offset = model.Offset(req.CurrentMetadataOffset)

	m := c.moves(env.Image)
	change := record.NewBrokerRegistrationChangeRecord()
	change.BrokerID, change.BrokerEpoch = int32(b.ID), int64(b.Epoch)
	same := *change
	failed := failedDirs(b, req.OfflineLogDirs)
	// A broker without any folder left can do nothing; no record says so but that it
	// is fenced.
	fence := req.WantFence || len(failed) > 0 && len(failed) == len(b.Dirs)
	resp.IsCaughtUp = s.caughtUp(s.offset)
	switch c.nextStand(env, b, s, fence, req.WantShutdown) {
	case stopping:
		resp.ShouldShutdown = true
		fallthrough
	case fenced:
		if !b.Fenced {
			change.Fenced = 1
			m.remove(b.ID)
		}
	case leaving:
		resp.IsFenced = false
		if !b.InControlledShutdown {
			change.InControlledShutdown = 1
			m.remove(b.ID)
			s.shutdown = env.Next
		}
	case unfenced:
		resp.IsFenced = false
		if b.Fenced {
			change.Fenced = -1
			m.add(b.ID)
		}
	}
	if len(failed) > 0 && len(failed) < len(b.Dirs) {
		m.fail(b.ID, failed)
		change.LogDirs = slices.DeleteFunc(slices.Clone(b.Dirs), func(d model.UUID) bool { return slices.Contains(failed, d) })
	}
	if req.CordonedLogDirs != nil && env.Image.Feature(feature.MetadataVersion) >= feature.MetadataCordoned {
		dirs := make([]model.UUID, 0, len(req.CordonedLogDirs))
		for _, d := range req.CordonedLogDirs {
			dirs = append(dirs, d)
		}
		if !slices.Equal(dirs, b.Cordoned) {
			change.CordonedLogDirs = dirs
		}
	}
	var recs []record.Metadata
	if !reflect.DeepEqual(*change, same) {
		recs = append(recs, change)
	}
	return Result{Records: m.appendTo(recs), Response: resp}
}

// A stand is where a broker is in its life.
type stand int8

const (
	fenced   stand = iota // leads nothing, is not shown to clients
	unfenced              // takes part
	leaving               // in controlled shutdown: gives up what it leads
	stopping              // may end its process, and counts as fenced
)

// nextStand is a broker's life cycle: where a heartbeat takes it.
func (c *Controller) nextStand(env Env, b *image.Broker, s *session, wantFence, wantShutdown bool) stand {
	switch {
	case wantShutdown && (b.Fenced || wantFence):
		return stopping
	case wantFence:
		return fenced
	case wantShutdown:
		// The others must know that it leads nothing before it may go.
		if !leads(env.Image, b.ID) && (s.shutdown == 0 || s.shutdown <= c.lowestActive(env.Image)) {
			return stopping
		}
		return leaving
	case b.InControlledShutdown && b.Fenced:
		// It comes back by registering again: no record says that it changed its mind.
		return fenced
	case b.InControlledShutdown:
		return leaving
	case b.Fenced && !s.caughtUp(s.offset):
		return fenced
	}
	return unfenced
}

// failedDirs are the folders among those reported that count as usable so far.
func failedDirs(b *image.Broker, offline [][16]byte) []model.UUID {
	var failed []model.UUID
	for _, d := range offline {
		if slices.Contains(b.Dirs, model.UUID(d)) && !slices.Contains(failed, model.UUID(d)) {
			failed = append(failed, d)
		}
	}
	return failed
}

// unregisterBroker decides UnregisterBroker v0: the broker is out of the cluster.
func (c *Controller) unregisterBroker(env Env, req *kmsg.UnregisterBrokerRequest) Result {
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	b, ok := env.Image.Broker(model.NodeID(req.BrokerID))
	if !ok {
		resp.ErrorCode = kerr.BrokerIDNotRegistered.Code
		resp.ErrorMessage = text(fmt.Sprintf("Broker ID %d is not currently registered", req.BrokerID))
		return Result{Response: resp}
	}
	m := c.moves(env.Image)
	m.remove(b.ID)
	recs := m.appendTo(nil)
	r := record.NewUnregisterBrokerRecord()
	r.BrokerID, r.BrokerEpoch = int32(b.ID), int64(b.Epoch)
	return Result{Records: append(recs, r), Response: resp}
}

// fenceRecord is the record that fences (1) or unfences (-1) a broker.
func fenceRecord(b *image.Broker, fenced int8) *record.BrokerRegistrationChangeRecord {
	r := record.NewBrokerRegistrationChangeRecord()
	r.BrokerID, r.BrokerEpoch, r.Fenced = int32(b.ID), int64(b.Epoch), fenced
	return r
}

// producerIDBlock is how many producer ids a broker gets at once.
const producerIDBlock = 1000

// allocateProducerIDs decides AllocateProducerIds v0.
func (c *Controller) allocateProducerIDs(env Env, req *kmsg.AllocateProducerIDsRequest) Result {
	resp := kmsg.NewPtrAllocateProducerIDsResponse()
	if _, e := checkEpoch(env.Image, req.BrokerID, req.BrokerEpoch); e != nil {
		resp.ErrorCode = e.Code
		return Result{Response: resp}
	}
	next := env.Image.NextProducerID()
	if next > math.MaxInt64-producerIDBlock {
		resp.ErrorCode = kerr.UnknownServerError.Code
		return Result{Response: resp}
	}
	r := record.NewProducerIdsRecord()
	r.BrokerID, r.BrokerEpoch, r.NextProducerID = req.BrokerID, req.BrokerEpoch, next+producerIDBlock
	resp.ProducerIDStart, resp.ProducerIDLen = next, producerIDBlock
	return Result{Records: []record.Metadata{r}, Response: resp}
}

// registerSelf is the record that makes this process known as a controller, or
// nil if the image has it.
func (c *Controller) registerSelf(img *image.Image) record.Metadata {
	if old, ok := img.Controller(c.cfg.NodeID); ok && old.Incarnation == c.cfg.Incarnation {
		return nil
	}
	r := record.NewRegisterControllerRecord()
	r.ControllerID, r.IncarnationID = int32(c.cfg.NodeID), c.cfg.Incarnation
	for _, e := range c.cfg.Endpoints {
		r.EndPoints = append(r.EndPoints, record.ControllerEndpoint{Name: e.Name, Host: e.Host, Port: e.Port, SecurityProtocol: e.Protocol})
	}
	for _, f := range c.cfg.Supported {
		r.Features = append(r.Features, record.ControllerFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	return r
}

// registerController decides ControllerRegistration v0: another controller makes
// itself known to the active one.
func (c *Controller) registerController(env Env, req *kmsg.ControllerRegistrationRequest) Result {
	resp := kmsg.NewPtrControllerRegistrationResponse()
	if env.Image.Feature(feature.MetadataVersion) < feature.MetadataControllers {
		resp.ErrorCode = kerr.UnsupportedVersion.Code
		resp.ErrorMessage = text("The current metadata.version is too old to support controller registrations.")
		return Result{Response: resp}
	}
	if req.ControllerID < 0 || req.ZkMigrationReady {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return Result{Response: resp}
	}
	for name, level := range env.Image.Features() {
		var lo, hi int16
		for _, f := range req.Features {
			if f.Name == name {
				lo, hi = f.MinSupportedVersion, f.MaxSupportedVersion
			}
		}
		if level < lo || level > hi {
			resp.ErrorCode = kerr.UnsupportedVersion.Code
			resp.ErrorMessage = text(fmt.Sprintf("Controller %d supports %s from %d to %d, but the cluster is at %d", req.ControllerID, name, lo, hi, level))
			return Result{Response: resp}
		}
	}
	r := record.NewRegisterControllerRecord()
	r.ControllerID, r.IncarnationID = req.ControllerID, req.IncarnationID
	for _, l := range req.Listeners {
		r.EndPoints = append(r.EndPoints, record.ControllerEndpoint{Name: l.Name, Host: l.Host, Port: l.Port, SecurityProtocol: l.SecurityProtocol})
	}
	for _, f := range req.Features {
		r.Features = append(r.Features, record.ControllerFeature{Name: f.Name, MinSupportedVersion: f.MinSupportedVersion, MaxSupportedVersion: f.MaxSupportedVersion})
	}
	return Result{Records: []record.Metadata{r}, Response: resp}
}

// assignReplicasToDirs decides AssignReplicasToDirs v0 (KIP-858): a broker says
// in which of its folders its replicas are.
func (c *Controller) assignReplicasToDirs(env Env, req *kmsg.AssignReplicasToDirsRequest) Result {
	resp := kmsg.NewPtrAssignReplicasToDirsResponse()
	b, e := checkEpoch(env.Image, req.BrokerID, req.BrokerEpoch)
	if e != nil {
		resp.ErrorCode = e.Code
		return Result{Response: resp}
	}
	var recs []record.Metadata
	done := map[model.TopicIDPartition]bool{}
	for _, d := range req.Directories {
		rd := kmsg.NewAssignReplicasToDirsResponseDirectory()
		rd.ID = d.ID
		for _, t := range d.Topics {
			rt := kmsg.NewAssignReplicasToDirsResponseDirectoryTopic()
			rt.TopicID = t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewAssignReplicasToDirsResponseDirectoryTopicPartition()
				rp.Partition = p.Partition
				tp := model.TopicIDPartition{ID: t.TopicID, Partition: p.Partition}
				r, e := c.assignDir(env.Image, b, tp, d.ID)
				switch {
				case e != nil:
					rp.ErrorCode = e.Code
				case done[tp]:
					rp.ErrorCode = kerr.InvalidRequest.Code
				case r != nil:
					recs = append(recs, r)
				}
				done[tp] = true
				rt.Partitions = append(rt.Partitions, rp)
			}
			rd.Topics = append(rd.Topics, rt)
		}
		resp.Directories = append(resp.Directories, rd)
	}
	return Result{Records: recs, Response: resp}
}

// assignDir puts one replica down for a folder. If the folder is not usable, the
// replica leaves the ISR and its leadership in the same record.
func (c *Controller) assignDir(img *image.Image, b *image.Broker, tp model.TopicIDPartition, dir model.UUID) (record.Metadata, *kerr.Error) {
	t, ok := img.TopicByID(tp.ID)
	if !ok {
		return nil, kerr.UnknownTopicID
	}
	p, ok := t.Partition(tp.Partition)
	if !ok {
		return nil, kerr.UnknownTopicOrPartition
	}
	i := slices.Index(p.Replicas, b.ID)
	if i < 0 {
		return nil, kerr.NotLeaderForPartition
	}
	g := c.newChange(img, t, tp.Partition, p)
	g.dirs = make([]model.UUID, len(p.Replicas))
	copy(g.dirs, p.Dirs)
	g.dirs[i] = dir
	offline := !dirOnline(b, dir)
	g.accept = func(r model.NodeID) bool {
		return !(offline && r == b.ID) && active(img, r) && (r == b.ID || onlineDir(img, p, r))
	}
	if offline && c.uncleanAllowed(img, t.Name) {
		g.election = unclean
	}
	if r := g.record(); r != nil {
		return r, nil
	}
	return nil, nil
}
