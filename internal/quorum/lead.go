package quorum

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"golang.org/x/sync/errgroup"

	"ottla.dev/ottla/internal/controller"
	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

const (
	// entryBytes ends an entry that gathers decisions.
	entryBytes = 1 << 20
	// flightBytes is how much may be proposed and not yet applied; decisions wait
	// beyond that, so that what is speculative stays bounded.
	flightBytes = 16 << 20
	// maxResult is how many records one decision may have, so that its entry fits a
	// frame and a segment.
	maxResult = 250_000
)

// phase is how far a leader has come. It only moves forward.
type phase int8

const (
	// opening: the empty entry with which raft begins the term is not applied yet, so
	// the end of the metadata log is not known.
	opening phase = iota
	// announcing: the LeaderChange batch is proposed.
	announcing
	// active: it is committed; the controller decides.
	active
)

// leading is the state of one term of leadership; it goes with it (Q4).
type leading struct {
	term  uint64
	phase phase

	// img and next are what has been decided on top of what is applied: the image
	// and the offset behind it. Invariant: they are those of the last of flight, or
	// the applied ones if that is empty.
	img  *image.Image
	next model.Offset

	// flight are this term's proposals, oldest first. Raft applies them in this
	// order, and between them nothing that has data.
	flight []*proposal
	bytes  int // of flight
}

// A proposal is one entry on its way.
type proposal struct {
	base, end model.Offset // the offsets its batches will have
	data      []byte
	last      int64 // timestamp of its batches
	img       *image.Image
	delta     *image.Delta
	answers   []pending
}

// pending is an answer that leaves when its proposal is applied.
type pending struct {
	call *call
	answer
}

func (p *pending) send() { p.call.done <- p.answer }

// fail answers everybody who waits for a decision of this term.
func (l *leading) fail(err error) {
	for _, p := range l.flight {
		for _, a := range p.answers {
			a.call.done <- answer{err: err}
		}
	}
	l.flight = nil
}

// lead does what a leader has to do now, and sends away calls that have come to
// the wrong node.
func (q *Quorum) lead(g *errgroup.Group) error {
	c := &q.core
	q.maybeSnapshot(g)
	l := c.leading
	if l == nil {
		if len(c.waiting) > 0 && c.lead != raft.None {
			err := q.notLeader()
			for _, w := range c.waiting {
				w.done <- answer{err: err}
			}
			c.waiting = nil
		}
		return nil
	}
	if l.phase != active {
		return nil
	}
	now := q.cfg.Now()
	for len(c.waiting) > 0 && l.bytes < flightBytes {
		if err := q.decide(nil, &c.waiting); err != nil {
			return err
		}
	}
	// After the calls: heartbeats that wait here count before silence does.
	if t := q.cfg.Controller.Next(); !t.IsZero() && !now.Before(t) {
		for _, r := range q.cfg.Controller.Tick(q.env()) {
			if err := q.decide([]controller.Result{r}, nil); err != nil {
				return err
			}
		}
	}
	if q.cfg.MaxIdle > 0 && len(l.flight) == 0 && now.Sub(c.moved) >= q.cfg.MaxIdle && q.observed(now, q.observeFor()) {
		return q.decide([]controller.Result{{Records: []record.Metadata{record.NewNoOpRecord()}}}, nil)
	}
	return nil
}

func (q *Quorum) env() controller.Env {
	l := q.core.leading
	return controller.Env{Now: q.cfg.Now(), Image: l.img, Next: l.next, Rand: q.cfg.Rand}
}

// announce proposes the control batch that begins the epoch (Q3); the first one
// of the log names the voters too, and so does one after their addresses changed.
func (q *Quorum) announce() error {
	c := &q.core
	l := c.leading
	l.phase, l.img, l.next = announcing, c.img, c.end
	w := newBatcher(q.cfg.Codecs, c.end, epochOf(l.term), q.cfg.Now().UnixMilli())
	recs := []controlRecord{leaderChange(q.self, c.voters)}
	if c.end == 0 || c.readdressed {
		recs = append(recs, votersRecords(c.voters)...)
	}
	c.readdressed = false
	if err := w.controls(recs...); err != nil {
		return err
	}
	img := c.img.At(w.next-1, epochOf(l.term))
	p := &proposal{base: c.end, end: w.next, data: w.out, last: w.now, img: img, delta: &image.Delta{From: c.img, To: img}}
	if err := q.propose(p); err != nil {
		return err
	}
	if len(l.flight) == 0 {
		return errors.New("BUG: raft refused the first proposal of a leader")
	}
	return nil
}

// activate begins to decide: the LeaderChange is committed.
func (q *Quorum) activate() error {
	c := &q.core
	l := c.leading
	l.phase, l.img, l.next = active, c.img, c.end
	q.meta.setKnown(true)
	q.tell()
	return q.decide([]controller.Result{q.cfg.Controller.Activate(q.env())}, nil)
}

// decide makes one entry of results that are there already and of calls, which it
// takes from the front of the list until the entry is large enough.
func (q *Quorum) decide(results []controller.Result, calls *[]*call) error {
	l := q.core.leading
	w := newBatcher(q.cfg.Codecs, l.next, epochOf(l.term), q.cfg.Now().UnixMilli())
	p := &proposal{base: l.next, img: l.img, last: w.now}
	var bad *undecidable
	for _, r := range results {
		if err := q.gather(p, w, r); err != nil && !errors.As(err, &bad) {
			return err
		}
	}
	for calls != nil && len(*calls) > 0 && w.size() < entryBytes {
		next := (*calls)[0]
		(*calls)[0] = nil
		*calls = (*calls)[1:]
		if next.gone.Load() {
			continue
		}
		env := controller.Env{Now: q.cfg.Now(), Image: p.img, Next: w.next, Rand: q.cfg.Rand}
		r, err := q.cfg.Controller.Handle(env, next.req, next.who)
		if err == nil {
			err = q.gather(p, w, r)
			if err != nil && !errors.As(err, &bad) {
				return err
			}
		}
		if err != nil {
			next.done <- answer{err: err}
			continue
		}
		p.answers = append(p.answers, pending{next, answer{resp: r.Response}})
	}
	if w.next == p.base {
		q.owe(p.answers)
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	p.data, p.end = w.out, w.next
	return q.propose(p)
}

// owe sends answers that have no records of their own as soon as all that they
// are based on is committed.
func (q *Quorum) owe(list []pending) {
	if l := q.core.leading; len(l.flight) > 0 {
		newest := l.flight[len(l.flight)-1]
		newest.answers = append(newest.answers, list...)
		return
	}
	for i := range list {
		list[i].send()
	}
}

// An undecidable is a result that is too large, or (a bug) does not fit the image
// it was decided on.
type undecidable struct{ err error }

func (e *undecidable) Error() string { return "the decision cannot be made: " + e.err.Error() }
func (e *undecidable) Unwrap() error { return e.err }

// gather adds one result to a proposal. An *undecidable leaves the proposal as it
// was; any other error is final.
func (q *Quorum) gather(p *proposal, w *batcher, r controller.Result) error {
	recs := r.Records
	if len(recs) == 0 {
		return nil
	}
	if r.Txn {
		begin := record.NewBeginTransactionRecord()
		recs = append(append([]record.Metadata{begin}, recs...), record.NewEndTransactionRecord())
	}
	if len(recs) > maxResult {
		q.cfg.Log.Error("a decision is too large", "records", len(recs), "limit", maxResult)
		return &undecidable{fmt.Errorf("it has %d records, at most %d are possible", len(recs), maxResult)}
	}
	img, delta, err := p.img.Apply(w.next, w.epoch, recs)
	if err != nil {
		q.cfg.Log.Error("BUG: a decision does not fit the image it was made on", "error", err)
		return &undecidable{err}
	}
	if err := w.add(recs, img.Feature(feature.MetadataVersion)); err != nil {
		return err
	}
	p.img, p.delta = img, p.delta.Merge(delta)
	return nil
}

// propose hands an entry to raft, in the term it was decided in (Q4).
func (q *Quorum) propose(p *proposal) error {
	c := &q.core
	l := c.leading
	if s := c.node.BasicStatus(); s.RaftState != raft.StateLeader || s.GetTerm() != l.term {
		return fmt.Errorf("BUG: a decision of term %d is proposed in term %d as %s", l.term, s.GetTerm(), s.RaftState)
	}
	if err := c.node.Propose(p.data); err != nil {
		if !errors.Is(err, raft.ErrProposalDropped) {
			return fmt.Errorf("proposing offsets [%d, %d): %w", p.base, p.end, err)
		}
		// Raft takes nothing now, as during a transfer of leadership. What was decided
		// never happened; img and next are as before.
		err := q.notLeader()
		for _, a := range p.answers {
			a.call.done <- answer{err: err}
		}
		return nil
	}
	l.flight = append(l.flight, p)
	l.bytes += len(p.data)
	l.img, l.next = p.img, p.end
	return nil
}
