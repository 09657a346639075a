package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/memnet"
)

// step is how the handler of the property test answers one request.
type step struct {
	size   int  // of the answer's body
	own    bool // body not from Buffer
	async  bool // answered later, out of order
	silent bool // not answered
	at, n  int  // a file part of n bytes, before body[at:]
}

func drawStep(t *rapid.T) step {
	s := step{
		size:   rapid.OneOf(rapid.IntRange(0, 200), rapid.IntRange(gatherMax-20, gatherMax+20), rapid.IntRange(0, 100_000)).Draw(t, "size"),
		own:    rapid.Bool().Draw(t, "own"),
		async:  rapid.Bool().Draw(t, "async"),
		silent: rapid.IntRange(0, 9).Draw(t, "silent") == 0,
	}
	if rapid.IntRange(0, 4).Draw(t, "file") == 0 {
		s.at = rapid.IntRange(0, s.size).Draw(t, "at")
		s.n = rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(smallFile-2, smallFile+2), rapid.IntRange(0, 300_000)).Draw(t, "n")
	}
	return s
}

// script is a handler that answers by a plan, and what a client must then read.
type script struct {
	plan     []step
	noise    []byte // contents of bodies and of the file
	file     *os.File
	rand     *rand.Rand
	released atomic.Int32

	mu      sync.Mutex
	waiting []*Request
	kick    chan struct{}
}

func (s *script) Serve(r *Request) {
	if !s.plan[r.CorrelationID].async {
		s.answer(r)
		return
	}
	s.mu.Lock()
	s.waiting = append(s.waiting, r)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// answerLate answers the requests that wait, in random order.
func (s *script) answerLate() {
	for range s.kick {
		for {
			s.mu.Lock()
			if len(s.waiting) == 0 {
				s.mu.Unlock()
				break
			}
			i := s.rand.IntN(len(s.waiting))
			r := s.waiting[i]
			s.waiting[i] = s.waiting[len(s.waiting)-1]
			s.waiting = s.waiting[:len(s.waiting)-1]
			s.mu.Unlock()
			s.answer(r)
		}
	}
}

func (s *script) body(i int32) []byte { return s.noise[i : int(i)+s.plan[i].size] }

func (s *script) answer(r *Request) {
	i := r.CorrelationID
	p := s.plan[i]
	if p.silent {
		r.NoReply()
		return
	}
	var b []byte
	if !p.own {
		b = r.Buffer(p.size)
	}
	b = append(b, s.body(i)...)
	if p.n == 0 {
		r.Reply(b)
		return
	}
	r.Reply(b, FilePart{At: p.at, File: s.file, Off: int64(i), N: int64(p.n), Release: func() { s.released.Add(1) }})
}

// expected is what the client must read.
func (s *script) expected() []byte {
	var all []byte
	for i, p := range s.plan {
		if p.silent {
			continue
		}
		body := s.body(int32(i))
		all = binary.BigEndian.AppendUint32(all, uint32(4+p.size+p.n))
		all = binary.BigEndian.AppendUint32(all, uint32(i))
		all = append(all, body[:p.at]...)
		all = append(all, s.noise[i:i+p.n]...)
		all = append(all, body[p.at:]...)
	}
	return all
}

func (s *script) files() (n int32) {
	for _, p := range s.plan {
		if p.n > 0 && !p.silent {
			n++
		}
	}
	return n
}

// run sends the plan's requests over c in pieces and compares all answers.
func (s *script) run(t *rapid.T, c net.Conn) {
	var requests []byte
	for i := range s.plan {
		requests = append(requests, frame(0, 0, int32(i), string(s.noise[:i*37%5000]))...)
	}
	pieces := rapid.IntRange(1, 5).Draw(t, "pieces")
	go func() {
		for size := len(requests)/pieces + 1; len(requests) > 0; {
			n := min(size, len(requests))
			if _, err := c.Write(requests[:n]); err != nil {
				return
			}
			requests = requests[n:]
		}
	}()
	want := s.expected()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(want), err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("answers differ from byte %d of %d on", i, len(want))
		}
	}
}

func newScript(t *rapid.T, noise []byte, file *os.File) *script {
	return &script{
		plan:  rapid.SliceOfN(rapid.Custom(drawStep), 1, 60).Draw(t, "plan"),
		noise: noise,
		file:  file,
		rand:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
		kick:  make(chan struct{}, 1),
	}
}

// noiseFile makes bytes in which every position looks different, and a file of
// them.
func noiseFile(t testing.TB) ([]byte, *os.File) {
	noise := make([]byte, 512<<10)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return noise, f
}

func TestAnswersOfAnyKindComeInOrder(t *testing.T) {
	noise, file := noiseFile(t)
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := newScript(rt, noise, file)
				cfg := Config{Handler: s, MaxParked: rapid.IntRange(1, 30).Draw(rt, "parked")}
				if secure {
					cfg.TLS = serverTLS(t)
				}
				go s.answerLate()
				defer close(s.kick)
				srv, stop := start(t, cfg)
				defer stop()
				c := connect(t, srv, secure)
				defer c.Close()
				s.run(rt, c)
				waitFor(t, "the files' release", func() bool { return s.released.Load() == s.files() })
			})
		})
	}
}

// The same in a bubble over memory, where time stands still until all goroutines
// wait: a lost wake-up is a deadlock that synctest reports.
func TestAnswersComeInOrderInABubble(t *testing.T) {
	noise, file := noiseFile(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(rt, noise, file)
		parked := rapid.IntRange(1, 30).Draw(rt, "parked")
		synctest.Test(t, func(t *testing.T) {
			s.kick = make(chan struct{}, 1)
			net := memnet.New()
			l, err := net.Listen("server:9092")
			if err != nil {
				t.Fatal(err)
			}
			go s.answerLate()
			defer close(s.kick)
			_, stop := start(t, Config{Listener: l, Handler: s, MaxParked: parked})
			defer stop()
			c, err := net.Dial(context.Background(), "client", "server:9092")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s.run(rt, c)
		})
	})
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAnswersAllocateNothing(t *testing.T) {
	noise, file := noiseFile(t)
	raw, _ := file.SyscallConn()
	late := make(chan *Request, 1)
	defer close(late)
	go func() {
		for r := range late {
			echo(r)
		}
	}()
	for _, tc := range []struct {
		name   string
		answer func(*Request)
	}{
		{"bytes", echo},
		{"file", func(r *Request) {
			r.Reply(append(r.Buffer(100), noise[:100]...), FilePart{File: file, Raw: raw, N: 100 << 10})
		}},
		{"later", func(r *Request) { late <- r }},
		{"small file", func(r *Request) { r.Reply(r.Buffer(100), FilePart{Src: file, N: 1000}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, serve(t, Config{Budget: NewBudget(1 << 20), Handler: handlerFunc(tc.answer)}))
			f := frame(3, 0, 7, "body")
			in := make([]byte, 200<<10)
			once := func() {
				if _, err := c.Write(f); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, in[:4]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, in[:binary.BigEndian.Uint32(in)]); err != nil {
					t.Fatal(err)
				}
			}
			once()
			// A garbage collection may empty the pools: a few runs may allocate.
			if n := testing.AllocsPerRun(500, once); n >= 1 && !raceEnabled {
				t.Fatalf("%v allocations per request", n)
			}
		})
	}
}

func TestASharedFileKeepsItsPosition(t *testing.T) {
	noise, file := noiseFile(t)
	const size = 300 << 10
	s := serve(t, Config{Handler: handlerFunc(func(r *Request) {
		r.Reply(nil, FilePart{File: file, Off: int64(r.CorrelationID), N: size})
	})})
	var wg sync.WaitGroup
	for k := range int32(4) {
		wg.Go(func() {
			c := dial(t, s)
			for i := range int32(20) {
				if _, err := c.Write(frame(1, 0, k*20+i, "")); err != nil {
					t.Error(err)
					return
				}
				p, err := readAnswer(c)
				if err != nil || !bytes.Equal(p[4:], noise[k*20+i:][:size]) {
					t.Errorf("connection %d, answer %d: wrong bytes, %v", k, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
