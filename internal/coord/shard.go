package coord

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// ShardConfig is what a Shard is made of. All fields are required but Effect.
type ShardConfig struct {
	// Machine makes an empty machine.
	Machine func() Machine
	Log     Log
	// Epoch is the leader epoch that appends are fenced by.
	Epoch  model.Epoch
	Image  func() *image.Image
	Now    func() time.Time
	Rand   *rand.Rand // owned by the Shard's goroutine
	Codecs *batch.Codecs
	// Effect takes the effects of committed decisions. It must not block.
	Effect func(any)
	// BatchBytes is how large a batch may get before another is begun.
	BatchBytes int
	Logger     *slog.Logger
}

// event is something for the machine to decide. Exactly one of req, timeout and
// delta is set.
type event struct {
	req     kmsg.Request
	who     Client
	done    func(kmsg.Response, error)
	timeout string
	delta   *image.Delta
}

// answer waits for the high watermark.
type answer struct {
	done    func(kmsg.Response, error)
	resp    kmsg.Response
	effects []any
}

// Shard runs one machine on one log in one leader epoch.
type Shard struct {
	cfg ShardConfig

	mu      sync.Mutex
	queue   []event
	busy    bool          // a goroutine is working
	loading bool          // the log is being replayed: requests are refused
	closed  error         // why the Shard has ended, nil while it lives
	quit    chan struct{} // closed when closed is set
	alarm   *time.Timer

	// The rest belongs to the working goroutine. busy passes it on.

	machine Machine
	drain   drain
	parked  map[Token]func(kmsg.Response, error)
	last    Token
	timers  timers
	written map[string]model.Offset // end of the last write about something, while not committed

	// Guarded by mu: drains that are written and not committed, oldest first, and
	// where the last of those that are committed ended.
	inflight []*flight
	landedTo model.Offset
	landing  bool // somebody delivers what has landed
}

// flight is one append on its way to the high watermark.
type flight struct {
	done    bool  // committed, or never will be: err
	err     error // guarded by Shard.mu, like done
	end     model.Offset
	answers []answer
	abouts  []string
}

// NewShard starts to load a machine. It is not ready until that has ended.
func NewShard(cfg ShardConfig) *Shard {
	s := &Shard{cfg: cfg, busy: true, loading: true, quit: make(chan struct{})}
	go s.live()
	return s
}

// Do has the machine decide a request. done is called exactly once, from any
// goroutine; its error is one of this package's.
func (s *Shard) Do(req kmsg.Request, who Client, done func(kmsg.Response, error)) {
	s.mu.Lock()
	err := s.closed
	if err == nil && s.loading {
		err = ErrLoading
	}
	if err == nil {
		s.pushLocked(event{req: req, who: who, done: done})
	}
	s.mu.Unlock()
	if err != nil {
		done(nil, err)
	}
}

// Changed tells the machine what is new in the metadata.
func (s *Shard) Changed(d *image.Delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil { // while loading too: the image it began with may be older
		s.pushLocked(event{delta: d})
	}
}

// Close ends the Shard: this node leads the partition no more, or not in this
// epoch. Everyone who waits is told so.
func (s *Shard) Close() {
	s.mu.Lock()
	if s.closed != nil {
		s.mu.Unlock()
		return
	}
	s.closeLocked()
	work := !s.busy
	s.busy = true
	s.mu.Unlock()
	if work {
		go s.run()
	}
}

func (s *Shard) closeLocked() {
	if s.closed != nil {
		return
	}
	s.closed = ErrNotCoordinator
	close(s.quit)
	if s.alarm != nil {
		s.alarm.Stop()
	}
}

func (s *Shard) pushLocked(e event) {
	s.queue = append(s.queue, e)
	if !s.busy {
		s.busy = true
		go s.run()
	}
}

// live loads the machine and works. After a decision that could not be written it
// begins again, with a pause: the same decision may be due at once.
func (s *Shard) live() {
	for {
		if err := s.load(); err != nil {
			if !errors.Is(err, errClosed) {
				s.cfg.Logger.Error("coordinator: loading failed; this partition has no coordinator until its leader changes", "epoch", s.cfg.Epoch, "error", err)
			}
			s.end()
			return
		}
		if err := s.settle(); err != nil {
			s.fail(nil, err)
		} else {
			s.mu.Lock()
			s.loading = false
			s.mu.Unlock()
			if s.serve() {
				return
			}
		}
		s.pause()
	}
}

// run is what the goroutine of a Shard that was idle does.
func (s *Shard) run() {
	if !s.serve() {
		s.pause()
		s.live()
	}
}

// serve works until there is nothing to do or the Shard has ended. It reports
// false if the machine must be loaded again.
func (s *Shard) serve() bool {
	for {
		s.mu.Lock()
		if s.closed != nil {
			s.mu.Unlock()
			s.end()
			return true
		}
		events := s.queue
		s.queue = nil
		if len(events) == 0 {
			s.busy = false
			s.wakeAtLocked()
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		if err := s.work(events); err != nil {
			s.fail(events, err)
			return false
		}
	}
}

// pause waits before loading is tried again.
func (s *Shard) pause() {
	t := time.NewTimer(reloadPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.quit:
	}
}

// work is one drain.
func (s *Shard) work(events []event) error {
	s.drain.begin(s.cfg.Log.End())
	for i := range events {
		s.decide(&events[i])
	}
	return s.flush()
}

func (s *Shard) decide(e *event) {
	env := s.env()
	var r Result
	switch {
	case e.req != nil:
		s.last++
		t := s.last
		r = s.machine.Handle(env, t, e.req, e.who)
		if r.Response == nil {
			s.parked[t] = e.done
		}
	case e.delta != nil:
		r = s.machine.Changed(env, e.delta)
	default:
		if !s.timers.due(e.timeout, env.Now) {
			return // set anew since it fired
		}
		r = s.machine.Timeout(env, e.timeout)
	}
	s.take(r, e.done)
}

func (s *Shard) env() Env {
	return Env{Now: s.cfg.Now(), Image: s.cfg.Image(), Rand: s.cfg.Rand}
}

// take replays a decision and adds it to the drain.
func (s *Shard) take(r Result, done func(kmsg.Response, error)) {
	now := s.cfg.Now().UnixMilli()
	by := r.By
	if by == (model.Producer{}) {
		by = model.NoProducer
	}
	for _, rec := range r.Records {
		at := s.drain.add(by, now, rec)
		s.machine.Replay(at, now, by, rec)
	}
	for _, t := range r.Timers {
		s.timers.set(t)
	}
	var answers []answer
	if r.Response != nil && done != nil {
		answers = append(answers, answer{done: done, resp: r.Response})
	}
	for _, w := range r.Wake {
		if done, ok := s.parked[w.Token]; ok {
			delete(s.parked, w.Token)
			answers = append(answers, answer{done: done, resp: w.Response})
		}
	}
	if len(r.Effects) > 0 {
		answers = append(answers, answer{effects: r.Effects})
	}
	s.drain.wait(r.About, len(r.Records) > 0, answers)
}

// flush appends the drain and sends off its answers.
func (s *Shard) flush() error {
	d := &s.drain
	if len(d.records) == 0 {
		s.sendOrPark(d.free)
		return nil
	}
	batches, err := d.batches(s.cfg.Codecs, s.cfg.Epoch, s.cfg.BatchBytes)
	if err != nil {
		d.fail(ErrFailed)
		return fmt.Errorf("encoding: %w", err)
	}
	f := &flight{answers: d.answers, abouts: d.abouts}
	type outcome struct {
		end model.Offset
		err error
	}
	written := make(chan outcome, 1)
	s.cfg.Log.Append(batches, s.cfg.Epoch,
		func(end model.Offset, err error) { written <- outcome{end, err} },
		func(err error) { s.committed(f, err) })
	// INV-COORD-2. The append is done by whoever writes the log, often by us.
	o := <-written
	if o.err != nil {
		s.drain.fail(ErrFailed)
		return o.err
	}
	if o.end != d.next {
		panic(fmt.Sprintf("BUG: coord: the log ends at %d, want %d: somebody else writes to it", o.end, d.next))
	}
	s.mu.Lock()
	f.end = o.end
	s.inflight = append(s.inflight, f)
	s.mu.Unlock()
	for _, about := range d.abouts {
		s.written[about] = o.end
	}
	s.pruneWritten()
	s.sendOrPark(d.free)
	s.landed()
	return nil
}

// pruneWritten forgets writes that are committed, when there are many.
func (s *Shard) pruneWritten() {
	const many = 1024
	if len(s.written) < many {
		return
	}
	s.mu.Lock()
	landed := s.landedTo
	s.mu.Unlock()
	for about, end := range s.written {
		if end <= landed {
			delete(s.written, about)
		}
	}
}

// sendOrPark deals with answers that brought no records: they leave at once, or
// with the last write about the same.
func (s *Shard) sendOrPark(free []freeAnswer) {
	for _, a := range free {
		// Records about "" are about everything.
		if end := max(s.written[a.about], s.written[""]); end > 0 && s.parkWith(end, a.answers) {
			continue
		}
		delete(s.written, a.about)
		deliver(s.cfg.Effect, a.answers, nil)
	}
}

// parkWith adds answers to the flight that ends at end, if it is still under way.
func (s *Shard) parkWith(end model.Offset, answers []answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.inflight {
		if f.end == end {
			f.answers = append(f.answers, answers...)
			return true
		}
	}
	return false
}

// committed is the log's word that a flight has landed, or never will.
func (s *Shard) committed(f *flight, err error) {
	s.mu.Lock()
	f.done = true
	f.err = err
	s.mu.Unlock()
	s.landed()
}

// landed delivers the flights that are committed, in order: one goroutine at a
// time, which takes along what lands meanwhile. A flight may be committed before
// flush has entered it; flush calls again.
func (s *Shard) landed() {
	s.mu.Lock()
	if s.landing {
		s.mu.Unlock()
		return
	}
	s.landing = true
	for {
		if len(s.inflight) == 0 || !s.inflight[0].done {
			s.landing = false
			s.mu.Unlock()
			return
		}
		f := s.inflight[0]
		s.inflight, s.landedTo = s.inflight[1:], f.end
		s.mu.Unlock()
		s.land(f)
		s.mu.Lock()
	}
}

func (s *Shard) land(f *flight) {
	if f.err != nil {
		deliver(nil, f.answers, ErrNotCoordinator)
		s.Close() // the role has changed; broker makes another Shard if it leads again
		return
	}
	deliver(s.cfg.Effect, f.answers, nil)
}

func deliver(effect func(any), answers []answer, err error) {
	for _, a := range answers {
		switch {
		case a.done == nil && err == nil && effect != nil:
			for _, e := range a.effects {
				effect(e)
			}
		case a.done == nil:
		case err != nil:
			a.done(nil, err)
		default:
			a.done(a.resp, nil)
		}
	}
}

// end tells everyone who waits that this is not the coordinator any more.
func (s *Shard) end() {
	s.mu.Lock()
	s.closeLocked()
	events, flights := s.queue, s.inflight
	s.queue, s.inflight = nil, nil
	s.mu.Unlock()
	for _, f := range flights {
		deliver(nil, f.answers, ErrNotCoordinator)
	}
	s.abandon(events, ErrNotCoordinator)
}

// abandon throws the machine away with what it had parked, and refuses requests.
func (s *Shard) abandon(events []event, why error) {
	for _, e := range events {
		if e.done != nil {
			e.done(nil, why)
		}
	}
	for _, done := range s.parked {
		done(nil, why)
	}
	s.parked, s.machine = nil, nil
}

// fail ends the life of the machine after a failed append. The answers of its
// drain are told already, those in flight may still land; the metadata's changes
// must be heard by the next machine, as what this one made of them is lost.
func (s *Shard) fail(drained []event, err error) {
	s.cfg.Logger.Warn("coordinator: a decision could not be written; loading again", "epoch", s.cfg.Epoch, "error", err)
	s.mu.Lock()
	s.loading = true
	events := s.queue
	s.queue = nil
	for _, e := range slices.Concat(drained, events) {
		if e.delta != nil {
			s.queue = append(s.queue, e)
		}
	}
	s.mu.Unlock()
	s.abandon(events, ErrFailed)
}

// isClosed reports whether the Shard has ended.
func (s *Shard) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed != nil
}

var errClosed = errors.New("closed while loading")
