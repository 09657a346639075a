package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// A placer chooses brokers for new partitions: striped over racks, within a rack
// over its brokers, unfenced brokers before fenced ones, leaders only on unfenced
// ones (KAFKA.md 6, "Assignment of new partitions").
//
//	racks     r0: 1 4   r1: 2 5   r2: 3 6          in a random order, per cycle
//	p0        r0 r1 r2 → 1 2 3
//	p1        r1 r2 r0 → 5 6 4       each rack leads once per cycle of partitions,
//	p2        r2 r0 r1 → 3 1 2       within a rack the brokers take turns
//	p3        a new random order of racks …
//
// Each broker of a rack leads as often as the others, up to one, and the followers
// of one leader are not always the same, so that a lost broker's load spreads.
type placer struct {
	rand  *rand.Rand
	racks []*rack
	order []*rack // the racks in the order of this cycle
	next  int     // position in order at which the next partition starts
	total int     // brokers in all racks
}

// A rack's queues: whoever is chosen goes to the end of the queue it came from.
type rack struct {
	leaders   []model.NodeID // unfenced, in turn as leaders
	followers []model.NodeID // the same brokers, in turn as followers
	fenced    []model.NodeID
}

// newPlacer takes the brokers that may get replicas: not those in controlled
// shutdown, nor those whose folders are all cordoned.
func newPlacer(img *image.Image, r *rand.Rand) *placer {
	p := &placer{rand: r}
	byName := map[string]*rack{}
	for b := range img.Brokers() {
		if b.InControlledShutdown || allCordoned(b) {
			continue
		}
		name := ""
		if b.Rack != nil {
			name = "=" + *b.Rack // brokers without a rack are a rack of their own
		}
		k := byName[name]
		if k == nil {
			k = &rack{}
			byName[name] = k
			p.racks = append(p.racks, k)
		}
		if b.Fenced {
			k.fenced = append(k.fenced, b.ID)
		} else {
			k.leaders = append(k.leaders, b.ID)
		}
		p.total++
	}
	for _, k := range p.racks {
		shuffle(r, k.leaders)
		shuffle(r, k.fenced)
		k.followers = slices.Clone(k.leaders)
		shuffle(r, k.followers)
	}
	p.order = slices.Clone(p.racks)
	shuffle(r, p.order)
	return p
}

func allCordoned(b *image.Broker) bool {
	if len(b.Dirs) == 0 {
		return false
	}
	for _, d := range b.Dirs {
		if !slices.Contains(b.Cordoned, d) {
			return false
		}
	}
	return true
}

func shuffle[T any](r *rand.Rand, s []T) {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

// check says why no partition with rf replicas can be placed, or nil.
func (p *placer) check(rf int) error {
	if p.total < rf {
		return fmt.Errorf("The target replication factor of %d cannot be reached because only %d broker(s) are registered.", rf, p.total) //nolint:staticcheck // Kafka's sentence
	}
	for _, k := range p.racks {
		if len(k.leaders) > 0 {
			return nil
		}
	}
	return fmt.Errorf("All brokers are currently fenced.") //nolint:staticcheck // Kafka's sentence
}

// place chooses rf brokers for one partition, the leader first. check must have
// passed for rf.
func (p *placer) place(rf int) []model.NodeID {
	if p.next == len(p.order) {
		p.next = 0
		shuffle(p.rand, p.order)
	}
	start := p.next
	p.next++
	out := make([]model.NodeID, 0, rf)
	at := start
	for i := range p.order { // the first rack from start that has a leader to offer
		k := p.order[(start+i)%len(p.order)]
		if len(k.leaders) == 0 {
			continue
		}
		out = append(out, turn(&k.leaders, nil))
		at = start + i + 1
		break
	}
	for len(out) < rf {
		k := p.order[at%len(p.order)]
		at++
		if id := turn(&k.followers, out); id != model.NoNode {
			out = append(out, id)
		} else if id := turn(&k.fenced, out); id != model.NoNode {
			out = append(out, id)
		}
	}
	return out
}

// turn takes the first of a queue that is not in used and puts it at the end.
func turn(queue *[]model.NodeID, used []model.NodeID) model.NodeID {
	for i, id := range *queue {
		if !slices.Contains(used, id) {
			*queue = append(slices.Delete(*queue, i, i+1), id)
			return id
		}
	}
	return model.NoNode
}
