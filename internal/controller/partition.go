package controller

import (
	"slices"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// election is how far an election may go.
type election int8

const (
	// online keeps a live leader and otherwise takes a replica that has all
	// committed records.
	online election = iota
	// preferred is online, but the first replica of the assignment takes over
	// from a live leader if it may lead.
	preferred
	// unclean is online, and where no such replica lives, any live one may lead:
	// records may be lost.
	unclean
)

// Kafka's LeaderRecoveryState.
const (
	recovered  int8 = 0
	recovering int8 = 1
)

const (
	noChange = -2 // PartitionChangeRecord.Leader: stays, with its epoch
	noLeader = model.NoNode
)

// change computes the PartitionChangeRecord that takes a partition from what it is
// to what is wanted. Fill in the wishes, then call record.
//
// Invariants of what it emits: the new leader is none or accepted and in the new
// ISR; a replica that may lack committed records gets into the ISR only alone and
// with recovery state "recovering"; an ELR has no member of the ISR (KIP-966).
type change struct {
	topic model.UUID
	id    int32
	p     *image.Partition

	// accept tells whether a replica lives and may lead.
	accept   func(model.NodeID) bool
	election election
	// elr is set when eligible leader replicas are on; minISR is the topic's
	// min.insync.replicas.
	elr    bool
	minISR int

	// Wishes, first a copy of what is.
	isr, replicas, removing, adding []model.NodeID
	recovery                        int8
	dirs                            []model.UUID
	// lost are replicas that came back without all they had: they leave the ELR.
	lost map[model.NodeID]bool

	// Results of the election.
	leader    model.NodeID
	uncleanly bool
	elrNew    []model.NodeID
	lastKnown []model.NodeID
}

// newChange begins a change of one partition that changes nothing yet.
func (c *Controller) newChange(img *image.Image, t *image.Topic, id int32, p *image.Partition) *change {
	return &change{
		topic: t.ID, id: id, p: p,
		election: online,
		elr:      img.Feature(feature.EligibleLeaderVersion) > 0,
		minISR:   c.minISR(img, t.Name),
		isr:      p.ISR,
		replicas: p.Replicas,
		removing: p.Removing,
		adding:   p.Adding,
		recovery: p.RecoveryState,
		dirs:     p.Dirs,
	}
}

// record gives the change as a record, or nil if all stays as it is.
func (g *change) record() *record.PartitionChangeRecord {
	r := record.NewPartitionChangeRecord()
	r.PartitionID, r.TopicID = g.id, g.topic
	empty := true
	set := func(f func()) { f(); empty = false }

	g.completeReassignment()
	g.shrink()
	g.elect()
	g.eligible()
	if g.leader != g.p.Leader {
		set(func() { r.Leader = int32(g.leader) })
	} else if !subset(g.p.Replicas, g.replicas) {
		// A lost member of the replica set costs an epoch, so that what it was told as
		// a replica ends.
		set(func() { r.Leader = int32(g.leader) })
	}
	if !slices.Equal(g.isr, g.p.ISR) {
		set(func() { r.ISR = ids(g.isr) })
	}
	if g.elr {
		if !slices.Equal(g.elrNew, g.p.ELR) {
			set(func() { r.EligibleLeaderReplicas = ids(g.elrNew) })
		}
		if !slices.Equal(g.lastKnown, g.p.LastKnownELR) {
			set(func() { r.LastKnownELR = ids(g.lastKnown) })
		}
	}
	if !slices.Equal(g.replicas, g.p.Replicas) {
		set(func() { r.Replicas = ids(g.replicas) })
	}
	if !slices.Equal(g.removing, g.p.Removing) {
		set(func() { r.RemovingReplicas = ids(g.removing) })
	}
	if !slices.Equal(g.adding, g.p.Adding) {
		set(func() { r.AddingReplicas = ids(g.adding) })
	}
	if g.recovery != g.p.RecoveryState {
		set(func() { r.LeaderRecoveryState = g.recovery })
	}
	if !slices.Equal(g.dirs, g.p.Dirs) {
		set(func() { r.Directories = slices.Clone(g.dirs) })
	}
	if empty {
		return nil
	}
	return r
}

// completeReassignment drops the removing replicas once every adding one is in
// sync and somebody of the target is.
func (g *change) completeReassignment() {
	if len(g.adding) == 0 && len(g.removing) == 0 {
		return
	}
	target := without(g.replicas, g.removing...)
	isr := without(g.isr, g.removing...)
	if len(isr) == 0 || len(target) == 0 || !subset(g.adding, isr) {
		return
	}
	dirs := make([]model.UUID, 0, len(target))
	for i, r := range g.replicas {
		if slices.Contains(target, r) && i < len(g.dirs) {
			dirs = append(dirs, g.dirs[i])
		}
	}
	g.replicas, g.isr, g.dirs, g.removing, g.adding = target, isr, dirs, nil, nil
}

// shrink takes out of the ISR who cannot lead. If nobody is left and eligible
// leader replicas are off, the ISR stays as it was: it is the only memory of who
// has all committed records.
func (g *change) shrink() {
	live := make([]model.NodeID, 0, len(g.isr))
	for _, r := range g.isr {
		if g.accept(r) {
			live = append(live, r)
		}
	}
	switch {
	case len(live) > 0 || g.elr:
		g.isr = live
	case !subset(g.p.ISR, g.replicas):
	default:
		g.isr = g.p.ISR
	}
}

// elect chooses the leader in Kafka's order (KAFKA.md 6, "Election order") and
// fits the ISR to the choice.
func (g *change) elect() {
	if g.election == preferred && len(g.replicas) > 0 && g.valid(g.replicas[0]) {
		g.take(g.replicas[0])
		return
	}
	if g.p.Leader != noLeader && g.valid(g.p.Leader) {
		g.take(g.p.Leader)
		return
	}
	for _, r := range g.replicas {
		if g.valid(r) {
			g.take(r)
			return
		}
	}
	if g.elr && len(g.isr) == 0 && len(g.eligibleNow()) == 0 && len(g.p.LastKnownELR) == 1 &&
		slices.Contains(g.replicas, g.p.LastKnownELR[0]) && g.accept(g.p.LastKnownELR[0]) {
		g.takeUnclean(g.p.LastKnownELR[0])
		return
	}
	if g.election == unclean {
		for _, r := range g.replicas {
			if g.accept(r) {
				g.takeUnclean(r)
				return
			}
		}
	}
	g.leader = noLeader
}

// valid reports whether a replica may lead without loss: it is in sync, or all
// that were are gone and it is eligible.
func (g *change) valid(r model.NodeID) bool {
	if !g.accept(r) || !slices.Contains(g.replicas, r) {
		return false
	}
	if slices.Contains(g.isr, r) {
		return true
	}
	return g.elr && len(g.isr) == 0 && slices.Contains(g.eligibleNow(), r)
}

func (g *change) take(r model.NodeID) {
	g.leader = r
	if !slices.Contains(g.isr, r) { // from the ELR
		g.isr = []model.NodeID{r}
	}
}

func (g *change) takeUnclean(r model.NodeID) {
	g.leader, g.uncleanly = r, true
	g.isr = []model.NodeID{r}
	g.recovery = recovering
}

// eligibleNow is the ELR as it would be with the wished ISR: who was in sync or
// eligible, is a replica still, and did not come back with less.
func (g *change) eligibleNow() []model.NodeID {
	var out []model.NodeID
	for _, list := range [2][]model.NodeID{g.p.ELR, g.p.ISR} {
		for _, r := range list {
			if !slices.Contains(g.isr, r) && !slices.Contains(out, r) && !g.lost[r] && slices.Contains(g.replicas, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// eligible computes the new ELR and the last known leader (KIP-966).
func (g *change) eligible() {
	if !g.elr {
		return
	}
	if g.uncleanly || len(g.isr) >= min(g.minISR, len(g.replicas)) {
		g.elrNew, g.lastKnown = nil, nil
		return
	}
	g.elrNew = g.eligibleNow()
	g.lastKnown = g.p.LastKnownELR
	if len(g.isr) == 0 && len(g.p.ISR) > 0 && g.p.Leader != noLeader {
		// The first time that nobody is left: remember who led last.
		g.lastKnown = []model.NodeID{g.p.Leader}
	}
}

// minISR is a topic's effective min.insync.replicas.
func (c *Controller) minISR(img *image.Image, topic string) int {
	n, ok := parseInt(topicSetting(img, topic, minInsyncKey))
	if !ok {
		n = int64(c.cfg.MinInsync)
	}
	return int(max(1, min(n, 1<<31-1)))
}

// uncleanAllowed is a topic's effective unclean.leader.election.enable.
func (c *Controller) uncleanAllowed(img *image.Image, topic string) bool {
	if v := topicSetting(img, topic, uncleanKey); v != "" {
		return v == "true"
	}
	return c.cfg.UncleanElection
}

// topicSetting finds a key that topics and brokers have under the same name: the
// topic's override or the cluster's dynamic default, "" if neither is set.
func topicSetting(img *image.Image, topic, key string) string {
	if v, ok := img.Config(image.ConfigResource{Type: topicResource, Name: topic})[key]; ok {
		return v
	}
	return img.Config(image.ConfigResource{Type: brokerResource})[key]
}

// active reports whether a broker may lead and be in sync.
func active(img *image.Image, id model.NodeID) bool {
	b, ok := img.Broker(id)
	return ok && !b.Fenced && !b.InControlledShutdown
}

// onlineDir reports whether the folder that holds a partition's replica on a
// broker is usable, as far as is known.
func onlineDir(img *image.Image, p *image.Partition, id model.NodeID) bool {
	i := slices.Index(p.Replicas, id)
	if i < 0 || i >= len(p.Dirs) {
		return true
	}
	b, ok := img.Broker(id)
	return ok && dirOnline(b, p.Dirs[i])
}

func dirOnline(b *image.Broker, dir model.UUID) bool {
	switch dir {
	case model.ZeroUUID, model.DirUnassigned:
		return true
	case model.DirLost:
		return false
	}
	return len(b.Dirs) == 0 || slices.Contains(b.Dirs, dir)
}

// defaultDir is the folder that a new replica on a broker is put down for: the
// only one it has, or "unassigned" until the broker reports its choice.
func defaultDir(img *image.Image, id model.NodeID) model.UUID {
	b, ok := img.Broker(id)
	switch {
	case !ok || len(b.Dirs) == 0:
		return model.ZeroUUID
	case len(b.Dirs) == 1:
		return b.Dirs[0]
	}
	return model.DirUnassigned
}

// ids is a list of nodes as records carry it; never nil, since nil means null.
func ids(nodes []model.NodeID) []int32 {
	out := make([]int32, len(nodes))
	for i, n := range nodes {
		out[i] = int32(n)
	}
	return out
}

func nodes(list []int32) []model.NodeID {
	out := make([]model.NodeID, len(list))
	for i, n := range list {
		out[i] = model.NodeID(n)
	}
	return out
}

func without(list []model.NodeID, drop ...model.NodeID) []model.NodeID {
	out := make([]model.NodeID, 0, len(list))
	for _, n := range list {
		if !slices.Contains(drop, n) {
			out = append(out, n)
		}
	}
	return out
}

// subset reports whether all of a are in b.
func subset(a, b []model.NodeID) bool {
	for _, n := range a {
		if !slices.Contains(b, n) {
			return false
		}
	}
	return true
}
