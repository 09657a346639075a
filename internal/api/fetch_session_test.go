package api

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/wire"
)

// reader is a client of the session cache.
type sessionReader struct {
	t     *testing.T
	cache *sessions
}

func newCache(slots int) *sessions {
	return newSessions(slots, rand.New(rand.NewPCG(1, 2)).Uint64)
}

func ask(version int16, id, epoch int32, parts ...string) *fetch {
	f := &fetch{r: &wire.Request{Version: version}}
	f.ask = fetchRequest{replica: -1, sessionID: id, sessionEpoch: epoch}
	for _, name := range parts {
		f.ask.parts = append(f.ask.parts, fetchPart{key: partKey{name: name}, read: broker.Read{Offset: 7}, max: 100})
	}
	return f
}

func (r sessionReader) do(f *fetch, want error) *fetch {
	r.t.Helper()
	if err := r.cache.begin(f); !errors.Is(err, want) {
		r.t.Fatalf("session %d epoch %d: %v, want %v", f.ask.sessionID, f.ask.sessionEpoch, err, want)
	}
	return f
}

func names(f *fetch) (out []string) {
	for _, it := range f.items {
		out = append(out, it.name)
	}
	return out
}

// KIP-227: "The fetch session epoch is a monotonically incrementing counter."
func TestSessionEpochMustBeTheNext(t *testing.T) {
	r := sessionReader{t, newCache(10)}
	id := r.do(ask(12, 0, 0, "a", "b"), nil).session.id
	r.do(ask(12, id, 1), nil)
	r.do(ask(12, id, 1), kerr.InvalidFetchSessionEpoch)
	r.do(ask(12, id, 2), nil)
	r.do(ask(12, id+1, 1), kerr.FetchSessionIDNotFound)
	r.do(ask(12, 0, 5), kerr.FetchSessionIDNotFound)
	r.do(ask(12, id, -1), nil)
	r.do(ask(12, id, 3), kerr.FetchSessionIDNotFound)
}

func TestSessionRemembersAndForgetsPartitions(t *testing.T) {
	r := sessionReader{t, newCache(10)}
	id := r.do(ask(12, 0, 0, "a", "b"), nil).session.id
	if f := r.do(ask(12, id, 1, "c"), nil); len(f.items) != 3 {
		t.Fatalf("items %v, want a, b and c", names(f))
	}
	f := ask(12, id, 2)
	f.ask.forget = []partKey{{name: "a"}}
	if r.do(f, nil); len(f.items) != 2 {
		t.Fatalf("items %v, want b and c", names(f))
	}
	f = ask(12, id, 3)
	f.ask.forget = []partKey{{name: "b"}, {name: "c"}}
	if r.do(f, nil); f.session != nil || r.cache.count() != 0 {
		t.Fatal("a session without partitions must end")
	}
}

func TestSessionsOfNamesAndIDsDoNotMix(t *testing.T) {
	r := sessionReader{t, newCache(10)}
	id := r.do(ask(12, 0, 0, "a"), nil).session.id
	r.do(ask(13, id, 1), kerr.FetchSessionTopicIDError)
}

func TestWithoutAFreeSlotThereIsNoSession(t *testing.T) {
	r := sessionReader{t, newCache(1)}
	r.do(ask(12, 0, 0, "a"), nil)
	if f := r.do(ask(12, 0, 0, "b"), nil); f.session != nil || len(f.items) != 1 {
		t.Fatal("the second reader must be served without a session")
	}
}

func TestIncrementalAnswerHasOnlyNewsAndServesTheHungryFirst(t *testing.T) {
	r := sessionReader{t, newCache(10)}
	first := r.do(ask(12, 0, 0, "a", "b"), nil)
	id := first.session.id
	for i := range first.items {
		first.items[i].slice = broker.Slice{High: 5, Stable: 5}
	}
	first.items[0].got = 10
	first.session.choose(first.items, false)
	if !first.items[0].answered || !first.items[1].answered {
		t.Fatal("the first answer must have everything")
	}
	f := r.do(ask(12, id, 1), nil)
	if f.items[0].name != "b" || f.items[1].name != "a" {
		t.Fatalf("order %v: who got data must go last", names(f))
	}
	f.items[0].slice = broker.Slice{High: 5, Stable: 5}
	f.items[1].slice = broker.Slice{High: 6, Stable: 6}
	f.session.choose(f.items, true)
	if f.items[0].answered || !f.items[1].answered {
		t.Fatal("only the partition whose high watermark moved is news")
	}
}

func TestSessionEpochWrapsToOne(t *testing.T) {
	r := sessionReader{t, newCache(10)}
	s := r.do(ask(12, 0, 0, "a"), nil).session
	s.epoch = 1<<31 - 1
	r.do(ask(12, s.id, 1<<31-1), nil)
	r.do(ask(12, s.id, 1), nil)
}
