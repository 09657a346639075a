package broker

import (
	"errors"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// AcksAll is the acks value that waits for the high watermark.
const AcksAll = -1

// Write is one batch on its way into a partition and back to its producer as an
// ack. The owner sets Acks and Finish, hands it to Partition.Write, and may use
// it again after Finish. Reuse costs no allocation.
type Write struct {
	// Append is storage's part; after Finish its result fields are valid.
	storage.Append

	// Acks is 0, 1 or AcksAll.
	Acks int16

	// Finish is called exactly once per Partition.Write, from any goroutine, and
	// must not block. Err in Append says how it went.
	Finish func(*Write)

	// Written, if set, is called before that when the batch is in the file.
	Written func(*Write)

	p    *Partition
	next *Write // link in one of the partition's lists; guarded by its mu
	late error  // from Abandon, which came before it could wait; guarded by p's mu
}

// NewWrite makes a Write that reports to finish.
func NewWrite(finish func(*Write)) *Write {
	w := &Write{Finish: finish}
	w.Append.Done = w.written
	return w
}

// Write checks one produced batch and appends it. The bytes are changed in place
// and must stay until Finish. now is milliseconds since 1970. Errors arrive
// through Finish like everything else.
//
// Order: writes of one caller are appended in the order of the calls.
func (p *Partition) Write(w *Write, records []byte, now int64) {
	w.p, w.late = p, nil
	w.Append.Err = nil
	role, err := p.Lead(model.NoEpoch)
	if err != nil {
		w.finish(err)
		return
	}
	if w.Acks == AcksAll && !p.enoughISR() {
		w.finish(ErrNotEnoughReplicas)
		return
	}
	s := p.Topic.Settings()
	if err := w.admit(p, s, records, now); err != nil {
		w.finish(err)
		return
	}
	w.Append.Epoch = role.Epoch
	p.log.Append(&w.Append)
}

func (w *Write) admit(p *Partition, s *Settings, records []byte, now int64) error {
	size, err := batch.Peek(records)
	if err != nil {
		return err
	}
	if size != len(records) {
		return errors.Join(batch.ErrInvalid, errors.New("a produce request must have exactly one batch per partition"))
	}
	b := batch.Batch(records)
	if b.BaseOffset() == 0 && size > int(s.MaxMessageBytes) {
		return ErrTooLarge
	}
	rules := s.rules
	rules.Now = now
	res, err := p.Topic.codecs.Validate(b, rules)
	if err != nil {
		return err
	}
	w.Append.Batch = res.Batch
	w.Append.MaxTimestamp, w.Append.MaxTimestampOffset = res.MaxTimestamp, res.OffsetOfMaxTimestamp
	return nil
}

func (p *Partition) enoughISR() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lead != nil && p.lead.EnoughISR()
}

// written is storage's call when the batch is in the file, or refused.
func (w *Write) written(*storage.Append) {
	if w.Err != nil || w.Acks == 0 {
		w.finish(w.Err)
		return
	}
	if w.Written != nil {
		w.Written(w)
	}
	p := w.p
	p.mu.Lock()
	var err error
	switch {
	case p.lead == nil:
		err = ErrNotLeader
		if dead := p.role.Load().Dead; dead != nil {
			err = dead
		}
	case w.Acks == AcksAll && p.lead.High() < w.End:
		if err = w.late; err == nil {
			p.onHigh.push(w)
			p.mu.Unlock()
			return
		}
	case w.Acks != AcksAll && p.log.FlushedOffset() < w.End:
		if err = w.late; err == nil {
			p.onFlush.push(w)
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	w.finish(err)
}

func (w *Write) finish(err error) {
	w.Append.Err = err
	w.Finish(w)
}

// Abandon ends a write that still waits with err, ErrTimeout for example; one that
// is on its way into the file when it is there, if it would have to wait then. A
// write that is done already is left alone; it must not be handed to Write meanwhile.
func (w *Write) Abandon(err error) {
	p := w.p
	p.mu.Lock()
	waits := p.onHigh.remove(w) || p.onFlush.remove(w)
	w.late = err
	p.mu.Unlock()
	if waits {
		w.finish(err)
	}
}

func (p *Partition) takeWritesLocked() writes {
	all := p.onHigh
	all.append(&p.onFlush)
	p.onHigh, p.onFlush = writes{}, writes{}
	return all
}

// writes is a queue of parked writes, linked through themselves.
type writes struct{ head, tail *Write }

// push adds w in order of End. Appends finish in order, so this is the tail but
// for the answer to a duplicate, which waits for an older offset.
func (q *writes) push(w *Write) {
	if q.tail == nil || q.tail.End <= w.End {
		w.next = nil
		if q.tail == nil {
			q.head = w
		} else {
			q.tail.next = w
		}
		q.tail = w
		return
	}
	at := &q.head
	for *at != nil && (*at).End <= w.End {
		at = &(*at).next
	}
	w.next, *at = *at, w
}

func (q *writes) pop() *Write {
	w := q.head
	if w == nil {
		return nil
	}
	q.head, w.next = w.next, nil
	if q.head == nil {
		q.tail = nil
	}
	return w
}

// popTo moves the writes that wait for offset or less to the end of done.
func (q *writes) popTo(offset model.Offset, done *writes) {
	for q.head != nil && q.head.End <= offset {
		w := q.pop()
		if done.tail == nil {
			done.head = w
		} else {
			done.tail.next = w
		}
		done.tail = w
	}
}

func (q *writes) append(other *writes) {
	if other.head == nil {
		return
	}
	if q.tail == nil {
		*q = *other
		return
	}
	q.tail.next, q.tail = other.head, other.tail
}

func (q *writes) remove(w *Write) bool {
	var before *Write
	for at := q.head; at != nil; before, at = at, at.next {
		if at != w {
			continue
		}
		if before == nil {
			q.head = w.next
		} else {
			before.next = w.next
		}
		if q.tail == w {
			q.tail = before
		}
		w.next = nil
		return true
	}
	return false
}

func (q *writes) finish(err error) {
	for w := q.pop(); w != nil; w = q.pop() {
		w.finish(err)
	}
}
