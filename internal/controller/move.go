package controller

import (
	"maps"
	"slices"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

// moves gathers what happens to brokers and then emits, in one pass over their
// partitions, what that means for leaders and ISRs. One pass for all of them:
// otherwise leaders would move from one dead broker to the next.
type moves struct {
	c   *Controller
	img *image.Image
	// gone leave every ISR and lead nothing, whatever the image says of them.
	gone map[model.NodeID]bool
	// lost are those of gone that came back without all they had: they are no
	// longer eligible either.
	lost map[model.NodeID]bool
	// came may lead from now on, whatever the image says of them.
	came map[model.NodeID]bool
	// offline are folders of a broker that just failed; only replicas in them
	// leave ISRs.
	offline map[model.NodeID][]model.UUID
}

func (c *Controller) moves(img *image.Image) *moves {
	return &moves{c: c, img: img, gone: map[model.NodeID]bool{}}
}

func (m *moves) remove(id model.NodeID) { m.gone[id] = true }

func (m *moves) removeUnclean(id model.NodeID) {
	m.gone[id] = true
	m.lost = map[model.NodeID]bool{id: true}
}

func (m *moves) add(id model.NodeID) { m.came = map[model.NodeID]bool{id: true} }

func (m *moves) fail(id model.NodeID, dirs []model.UUID) {
	m.offline = map[model.NodeID][]model.UUID{id: dirs}
}

// appendTo emits the changes, ordered by topic id and partition. Only partitions
// of the brokers concerned can change.
func (m *moves) appendTo(recs []record.Metadata) []record.Metadata {
	done := map[model.TopicIDPartition]bool{}
	for _, id := range m.concerned() {
		for tp, p := range m.img.PartitionsOn(id) {
			if done[tp] || !m.touches(p) {
				continue
			}
			done[tp] = true
			t, _ := m.img.TopicByID(tp.ID)
			if r := m.change(t, tp.Partition, p); r != nil {
				recs = append(recs, r)
			}
		}
	}
	return recs
}

// concerned are the brokers that something happens to, ascending.
func (m *moves) concerned() []model.NodeID {
	all := map[model.NodeID]bool{}
	maps.Copy(all, m.gone)
	maps.Copy(all, m.came)
	for id := range m.offline {
		all[id] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// touches is a cheap look whether a partition can change at all.
func (m *moves) touches(p *image.Partition) bool {
	if len(m.came) > 0 && p.Leader == noLeader {
		return true
	}
	for _, r := range p.ISR {
		if m.gone[r] || m.inOffline(p, r) {
			return true
		}
	}
	for _, r := range p.ELR {
		if m.lost[r] {
			return true
		}
	}
	return p.Leader != noLeader && m.gone[p.Leader]
}

func (m *moves) change(t *image.Topic, id int32, p *image.Partition) *record.PartitionChangeRecord {
	g := m.c.newChange(m.img, t, id, p)
	g.accept = func(r model.NodeID) bool { return m.accepts(p, r) }
	g.lost = m.lost
	if m.c.uncleanAllowed(m.img, t.Name) {
		g.election = unclean
	}
	return g.record()
}

func (m *moves) accepts(p *image.Partition, r model.NodeID) bool {
	if m.gone[r] || m.inOffline(p, r) {
		return false
	}
	return (m.came[r] || active(m.img, r)) && onlineDir(m.img, p, r)
}

// inOffline reports whether a replica is in a folder that just failed.
func (m *moves) inOffline(p *image.Partition, r model.NodeID) bool {
	dirs := m.offline[r]
	if dirs == nil {
		return false
	}
	i := slices.Index(p.Replicas, r)
	return i >= 0 && i < len(p.Dirs) && slices.Contains(dirs, p.Dirs[i])
}

// leads reports whether any partition is led by a broker.
func leads(img *image.Image, id model.NodeID) bool {
	for _, p := range img.PartitionsOn(id) {
		if p.Leader == id {
			return true
		}
	}
	return false
}
