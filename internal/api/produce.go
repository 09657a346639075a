package api

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/wire"
)

// produce is Produce, key 0, versions 3 to 13: append a batch to each of some
// partitions. v5 log start offset in the answer, v8 record errors (KIP-467), v9
// flexible, v10 leader hints (KIP-951), v13 topic ids. Rules: KAFKA.md 3.5.
//
// Transactional batches are refused while there is no transaction coordinator, and
// batches for internal topics from everyone: Kafka lets its admin client write there.
func (c call) produce() {
	p := c.s.produces.Get().(*produce)
	p.r = c.Request
	if !p.parse(c.Body, c.Version) {
		p.release()
		c.Close(fmt.Errorf("produce version %d cannot be decoded", c.Version))
		return
	}
	p.start()
}

// produce is one Produce request being served. It is pooled: everything that it
// points to is used again.
type produce struct {
	s *Server
	r *wire.Request

	acks      int16
	timeout   time.Duration
	txn       bool // a transactional id was given
	topics    []produceTopic
	parts     []*producePart // all topics' partitions, in request order
	used      int            // how many of parts this request has
	left      atomic.Int32   // parts not finished, + 1 while they are started
	timer     *time.Timer    // for acks=all; nil until first needed
	armed     bool
	abandoned func() // p.expire, made once
}

type produceTopic struct {
	name string // view of the request
	id   model.UUID
	n    int // partitions
}

type producePart struct {
	*broker.Write
	index   int32
	records []byte
	topic   *broker.Topic
	where   *broker.Partition
	sent    bool // where has it, or had it: expire may abandon it
}

func newProduce(s *Server) *produce {
	p := &produce{s: s}
	p.abandoned = p.expire
	return p
}

// parse reads the request. All strings and records are views of body.
func (p *produce) parse(body []byte, version int16) bool {
	r := reader{b: body, flex: version >= 9}
	_, p.txn = r.string()
	p.acks = r.int16()
	p.timeout = time.Duration(r.int32()) * time.Millisecond
	p.topics, p.used = p.topics[:0], 0
	most := len(body)/batch.HeaderSize + sparePartitions
	for range r.array(minTopic(r.flex)) {
		var t produceTopic
		if version >= 13 {
			t.id = r.uuid()
		} else {
			t.name = r.text()
		}
		if t.n = r.array(minPartition(r.flex)); p.used+t.n > most {
			return false
		}
		for range t.n {
			part := p.part()
			part.index = r.int32()
			part.records = r.bytes()
			r.tags(nil)
		}
		r.tags(nil)
		p.topics = append(p.topics, t)
		if r.bad {
			return false
		}
	}
	r.tags(nil)
	return !r.bad
}

// sparePartitions is how many partitions a request may have beyond the batches
// that its bytes have room for. A partition without a batch is refused anyway;
// a hundred megabytes of them would decode into gigabytes.
const sparePartitions = 1000

// minTopic and minPartition are the least bytes of an empty topic with a name,
// and of a partition without records.
func minTopic(flex bool) int {
	if flex {
		return 3
	}
	return 6
}

func minPartition(flex bool) int {
	if flex {
		return 6
	}
	return 8
}

// part gives the next free part.
func (p *produce) part() *producePart {
	if p.used == len(p.parts) {
		p.parts = append(p.parts, &producePart{Write: broker.NewWrite(func(*broker.Write) { p.done() })})
	}
	p.used++
	return p.parts[p.used-1]
}

// start hands every batch to its partition. The answer goes out when the last
// one is finished, which may be before start returns.
func (p *produce) start() {
	img := p.s.cfg.Image()
	now := time.Now().UnixMilli()
	p.left.Store(int32(p.used) + 1)
	at := 0
	for i := range p.topics {
		t := &p.topics[i]
		topic, err := p.s.topic(img, p.r.Version >= 13, t.name, t.id)
		for range t.n {
			part := p.parts[at]
			at++
			part.Acks = p.acks
			p.startPart(img, topic, err, part, now)
		}
	}
	if p.acks == broker.AcksAll && p.left.Load() > 1 {
		p.arm()
	}
	p.done()
}

func (p *produce) startPart(img *image.Image, topic *broker.Topic, err error, part *producePart, now int64) {
	part.topic, part.where, part.sent = topic, nil, false
	if topic != nil {
		part.where = topic.Partition(part.index)
	}
	switch {
	case err != nil:
	case part.where == nil:
		err = missing(img, topic, part.index)
	case p.acks < -1 || p.acks > 1:
		err = kerr.InvalidRequiredAcks
	case model.InternalTopic(topic.Name): // coordinators write there, and nobody between
		err = kerr.InvalidTopicException
	default:
		err = p.admit(part)
	}
	if err != nil {
		part.Err, part.Base, part.Start, part.AppendTime = err, model.NoOffset, model.NoOffset, -1
		p.done()
		return
	}
	part.sent = true
	part.where.Write(part.Write, part.records, now)
}

// admit checks what depends on the request rather than on the partition.
func (p *produce) admit(part *producePart) error {
	size, err := onlyBatch(part.records)
	if err != nil {
		return fmt.Errorf("partition %d: %w", part.index, err)
	}
	part.records = part.records[:size]
	b := batch.Batch(part.records)
	if b.Codec() == batch.Zstd && p.r.Version < 7 {
		return fmt.Errorf("%w: zstd needs Produce version 7", batch.ErrCodec)
	}
	if b.Transactional() {
		if !p.txn {
			return kerr.TransactionalIDAuthorizationFailed
		}
		return kerr.UnsupportedVersion
	}
	return nil
}

// arm starts the request's timeout.
func (p *produce) arm() {
	p.armed = true
	if p.timer == nil {
		p.timer = time.AfterFunc(p.timeout, p.abandoned)
		return
	}
	p.timer.Reset(p.timeout)
}

// expire gives up on what is not replicated in time.
func (p *produce) expire() {
	for _, part := range p.parts[:p.used] {
		if part.sent {
			part.Abandon(broker.ErrTimeout)
		}
	}
}

// done counts one part, and answers after the last.
func (p *produce) done() {
	if p.left.Add(-1) > 0 {
		return
	}
	// A timer that can't be stopped is walking over parts: leave them to it.
	reusable := !p.armed || p.timer.Stop()
	p.armed = false
	p.answer()
	if reusable {
		p.release()
	}
}

// release gives the request back to the pool, without views of its body.
func (p *produce) release() {
	for _, part := range p.parts[:p.used] {
		part.records, part.Batch, part.topic, part.where = nil, nil, nil, nil
	}
	if p.used > keptPartitions || cap(p.topics) > keptPartitions {
		p.parts, p.topics = nil, nil
	}
	clear(p.topics)
	p.used, p.r = 0, nil
	p.s.produces.Put(p)
}

func (p *produce) answer() {
	r := p.r
	if p.acks == 0 {
		// No answer exists; an error can only be told by closing (KAFKA.md 3.5).
		for _, part := range p.parts[:p.used] {
			if part.Err != nil {
				r.Close(fmt.Errorf("produce with acks=0 failed: %w", part.Err))
				return
			}
		}
		r.NoReply()
		return
	}
	r.Reply(p.encode(r.Buffer(64 + 80*p.used)))
}
