package coord

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// memLog is a partition in memory whose high watermark the test moves.
type memLog struct {
	mu      sync.Mutex
	data    []batch.Batch
	end     model.Offset
	high    model.Offset
	auto    bool  // the high watermark follows the end
	refuse  error // of the next appends
	appends int   // that were accepted
	lost    error // set by lose
	waiting []memWait
}

type memWait struct {
	at model.Offset
	f  func(error)
}

func (l *memLog) Append(batches []batch.Batch, _ model.Epoch, written func(model.Offset, error), committed func(error)) {
	l.mu.Lock()
	if err := l.refuse; err != nil {
		l.mu.Unlock()
		written(0, err)
		return
	}
	for _, b := range batches {
		b = slices.Clone(b)
		b.SetBaseOffset(l.end)
		l.end = b.NextOffset()
		l.data = append(l.data, b)
	}
	l.appends++
	end := l.end
	l.waiting = append(l.waiting, memWait{end, committed})
	auto := l.auto
	l.mu.Unlock()
	written(end, nil)
	if auto {
		l.commit(end)
	}
}

// commit moves the high watermark.
func (l *memLog) commit(to model.Offset) {
	l.mu.Lock()
	l.high = max(l.high, to)
	var ready []memWait
	l.waiting = slices.DeleteFunc(l.waiting, func(w memWait) bool {
		if w.at <= l.high {
			ready = append(ready, w)
		}
		return w.at <= l.high
	})
	l.mu.Unlock()
	for _, w := range ready {
		w.f(nil)
	}
}

// lose tells all who wait that the partition is led elsewhere.
func (l *memLog) lose() {
	l.mu.Lock()
	ws := l.waiting
	l.waiting, l.lost = nil, errors.New("not the leader")
	l.mu.Unlock()
	for _, w := range ws {
		w.f(l.lost)
	}
}

func (l *memLog) Committed(offset model.Offset, f func(error)) {
	l.mu.Lock()
	if l.high < offset {
		l.waiting = append(l.waiting, memWait{offset, f})
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	f(nil)
}

func (l *memLog) Read(from model.Offset, _ int64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.data {
		if b.NextOffset() > from {
			return slices.Clone(b), nil // one at a time, so that loading has to go on
		}
	}
	return nil, nil
}

func (l *memLog) Start() model.Offset { return 0 }

func (l *memLog) End() model.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

func (l *memLog) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// notes is a machine that keeps a list of words per name. Requests are
// heartbeats: the group is the name and the member id a command,
//
//	add W        record W, answer with the list
//	read         answer with the list
//	park         no answer until a wake
//	wake         record that, answer all that are parked
//	timer T D    set timer T to fire after D, or cancel it (D 0); it adds T to the name
//	effect W     record W, and W as effect
type notes struct {
	lists  map[string][]string
	parked map[string][]Token
	open   map[int64][]string // of transactions
	made   *made
}

// made is what lives longer than one machine.
type made struct {
	mu       sync.Mutex
	machines int
	deltas   []*image.Delta
	onLoaded func() []Record
	current  *notes
}

func (m *made) new() Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.machines++
	m.current = &notes{lists: map[string][]string{}, parked: map[string][]Token{}, open: map[int64][]string{}, made: m}
	return m.current
}

func note(name, word string) Record { return Record{Key: []byte(name), Value: []byte(word)} }

func (n *notes) Replay(_ model.Offset, _ int64, by model.Producer, r Record) {
	if by.ID >= 0 {
		n.open[by.ID] = append(n.open[by.ID], string(r.Value))
		return
	}
	n.lists[string(r.Key)] = append(n.lists[string(r.Key)], string(r.Value))
}

func (n *notes) EndTxn(by model.Producer, commit bool) {
	if commit {
		n.lists["txn"] = append(n.lists["txn"], n.open[by.ID]...)
	}
	delete(n.open, by.ID)
}

func (n *notes) Loaded(Env) (r Result) {
	n.made.mu.Lock()
	defer n.made.mu.Unlock()
	if n.made.onLoaded != nil {
		r.Records = n.made.onLoaded()
	}
	return r
}

func (n *notes) Handle(env Env, t Token, req kmsg.Request, _ Client) Result {
	r := req.(*kmsg.HeartbeatRequest)
	f := strings.Fields(r.MemberID)
	out := Result{About: r.Group, Response: reply(strings.Join(n.lists[r.Group], " "))}
	switch f[0] {
	case "add", "effect":
		out.Records = []Record{note(r.Group, f[1])}
		out.Response = reply(strings.Join(append(slices.Clone(n.lists[r.Group]), f[1]), " "))
		if f[0] == "effect" {
			out.Effects = []any{f[1]}
		}
	case "park":
		n.parked[r.Group] = append(n.parked[r.Group], t)
		out.Response = nil
	case "wake":
		out.Records = []Record{note(r.Group, "woken")}
		for _, t := range n.parked[r.Group] {
			out.Wake = append(out.Wake, Wake{t, reply("woken")})
		}
		delete(n.parked, r.Group)
	case "timer":
		d, _ := time.ParseDuration(f[2])
		at := env.Now.Add(d)
		if d == 0 {
			at = time.Time{}
		}
		out.Timers = []Timer{{Key: r.Group + "/" + f[1], At: at}}
	case "txn":
		out.Records, out.By = []Record{note(r.Group, f[1])}, model.Producer{ID: 7}
	}
	return out
}

func (n *notes) Timeout(_ Env, key string) Result {
	name, word, _ := strings.Cut(key, "/")
	return Result{About: name, Records: []Record{note(name, word)}}
}

func (n *notes) Changed(_ Env, d *image.Delta) Result {
	n.made.mu.Lock()
	defer n.made.mu.Unlock()
	n.made.deltas = append(n.made.deltas, d)
	return Result{Records: []Record{note("meta", fmt.Sprint(len(d.Topics)))}}
}

func reply(text string) kmsg.Response {
	r := kmsg.NewPtrHeartbeatResponse()
	r.UnknownTags.Set(0, []byte(text))
	return r
}

// bench is a Shard with its log and what came of it.
type bench struct {
	t     *testing.T
	log   *memLog
	made  *made
	shard *Shard

	mu      sync.Mutex
	answers map[string]string // by name of the request
	order   []string
}

func newBench(t *testing.T, l *memLog) *bench {
	b := &bench{t: t, log: l, made: &made{}, answers: map[string]string{}}
	b.open()
	return b
}

func (b *bench) open() {
	b.shard = NewShard(ShardConfig{
		Machine: b.made.new, Log: b.log, Epoch: 3, Image: image.Empty, Now: time.Now, Rand: rand.New(rand.NewPCG(1, 1)),
		Codecs: batch.NewCodecs(), BatchBytes: 200, Logger: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
		Effect: func(e any) { b.got("effect", e.(string)) },
	})
}

func (b *bench) got(name, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, twice := b.answers[name]; twice {
		b.t.Errorf("%s is answered twice: %s, %s", name, b.answers[name], what)
	}
	b.answers[name] = what
	b.order = append(b.order, name)
}

// do asks; the answer is found under name.
func (b *bench) do(name, about, command string) {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.MemberID = about, command
	b.shard.Do(r, Client{}, func(resp kmsg.Response, err error) {
		if err != nil {
			b.got(name, err.Error())
			return
		}
		h := resp.(*kmsg.HeartbeatResponse)
		text := ""
		h.UnknownTags.Each(func(_ uint32, v []byte) { text = string(v) })
		b.got(name, text)
	})
}

// want checks an answer; "" is that there is none.
func (b *bench) want(name, text string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	got, ok := b.answers[name]
	switch {
	case !ok && text != none:
		b.t.Errorf("%s has no answer, want %q", name, text)
	case ok && got != text:
		b.t.Errorf("%s is answered with %q, want %q", name, got, text)
	}
}

const none = "no answer"
