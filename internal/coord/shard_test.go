package coord

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// play runs a test where time and goroutines obey: wait returns when all rest.
func play(t *testing.T, l *memLog, f func(b *bench, wait func())) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, l)
		synctest.Wait()
		f(b, synctest.Wait)
		b.shard.Close()
		synctest.Wait()
	})
}

func TestAnswersWaitForTheHighWatermark(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("a", "g", "add x")
		wait()
		b.do("b", "h", "add y")
		wait()
		b.want("a", none)
		b.log.commit(1)
		b.want("a", "x")
		b.want("b", none)
		b.log.commit(2)
		b.want("b", "y")
	})
}

func TestReadsWaitForTheLastWriteAboutTheSameOnly(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("w", "g", "add x")
		wait()
		b.do("same", "g", "read")
		b.do("other", "h", "read")
		wait()
		b.want("same", none)
		b.want("other", "")
		b.log.commit(1)
		b.want("same", "x")
		b.do("later", "g", "read")
		wait()
		b.want("later", "x")
	})
}

func TestReadsWaitForWritesAboutEverything(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.shard.Changed(&image.Delta{})
		b.do("at once", "g", "read")
		wait()
		b.do("then", "g", "read")
		wait()
		b.want("at once", none)
		b.want("then", none)
		b.log.commit(1)
		b.want("at once", "")
		b.want("then", "")
	})
}

func TestAnswersLeaveInOrder(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		var want []string
		for i := range 20 {
			name := fmt.Sprint(i)
			b.do(name, "g", "add "+name)
			if i%3 == 0 {
				wait()
			}
			want = append(want, name)
		}
		wait()
		b.log.commit(b.log.End())
		wait()
		if !slices.Equal(b.order, want) {
			t.Errorf("answers came in order %v", b.order)
		}
	})
}

func TestOneDrainIsOneAppend(t *testing.T) {
	l := &memLog{}
	play(t, l, func(b *bench, wait func()) {
		b.shard.mu.Lock() // nothing is drained meanwhile
		asked := make(chan struct{})
		for i := range 10 {
			go func() { b.do(fmt.Sprint(i), "g", "add x"); asked <- struct{}{} }()
		}
		b.shard.mu.Unlock()
		for range 10 {
			<-asked
		}
		wait()
		if l.appends > 10 || l.End() != 10 {
			t.Errorf("%d appends to offset %d", l.appends, l.End())
		}
		l.commit(10)
	})
}

func TestEffectsComeAfterTheCommit(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("a", "g", "effect x")
		wait()
		b.want("effect", none)
		b.log.commit(1)
		b.want("effect", "x")
	})
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("a", "g", "effect x")
		wait()
		b.log.lose()
		wait()
		b.want("effect", none)
	})
}

func TestParkedRequestsAreAnsweredWithWhatWokeThem(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("p", "g", "park")
		b.do("q", "g", "park")
		wait()
		b.do("w", "g", "wake")
		wait()
		b.want("p", none)
		b.log.commit(1)
		b.want("p", "woken")
		b.want("q", "woken")
	})
}

// state is what a fresh machine makes of the log.
func (b *bench) replayed() map[string][]string {
	n := (&made{}).new().(*notes)
	s := &Shard{cfg: ShardConfig{Log: b.log, Codecs: batch.NewCodecs()}, machine: n}
	if _, err := s.replay(0, b.log.End()); err != nil {
		b.t.Fatal(err)
	}
	return n.lists
}

func TestAFailedAppendTellsAllAndLoadsAgain(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("before", "g", "add x")
		b.do("parked", "g", "park")
		wait()
		b.log.set(func() { b.log.refuse = errors.New("disk full") })
		b.do("refused", "g", "add y")
		wait()
		b.want("refused", ErrFailed.Error())
		b.want("parked", ErrFailed.Error())
		b.want("before", none) // it is written and may land
		b.do("loading", "g", "read")
		b.want("loading", ErrLoading.Error())
		b.log.set(func() { b.log.refuse = nil })
		b.log.commit(1)
		time.Sleep(reloadPause)
		wait()
		b.want("before", "x")
		b.do("after", "g", "add z")
		wait()
		b.log.commit(2)
		b.want("after", "x z")
		if want := b.replayed(); !reflect.DeepEqual(b.made.current.lists, want) {
			t.Errorf("the machine has %v, the log %v", b.made.current.lists, want)
		}
		if b.made.machines != 2 {
			t.Errorf("%d machines were made", b.made.machines)
		}
	})
}

func TestAFailedAppendForgetsNoChangeOfTheMetadata(t *testing.T) {
	play(t, &memLog{auto: true}, func(b *bench, wait func()) {
		b.log.set(func() { b.log.refuse = errors.New("disk full") })
		b.shard.Changed(&image.Delta{})
		wait()
		time.Sleep(5 * reloadPause)
		b.log.set(func() { b.log.refuse = nil })
		time.Sleep(5 * reloadPause)
		if got := b.replayed()["meta"]; len(got) != 1 {
			t.Errorf("the log has %v of one change", got)
		}
	})
}

func TestWhatLoadingDecidesIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, log: &memLog{auto: true, refuse: errors.New("disk full")}, made: &made{}, answers: map[string]string{}}
		b.made.onLoaded = func() []Record { return []Record{note("g", "loaded")} }
		b.open()
		time.Sleep(3*reloadPause + reloadPause/2)
		synctest.Wait()
		b.made.mu.Lock()
		if b.made.machines != 4 {
			t.Errorf("loading was tried %d times in 3 pauses", b.made.machines)
		}
		b.made.mu.Unlock()
		b.do("early", "g", "read")
		b.want("early", ErrLoading.Error())
		b.log.set(func() { b.log.refuse = nil })
		time.Sleep(reloadPause)
		b.do("a", "g", "read")
		synctest.Wait()
		b.want("a", "loaded")
		b.shard.Close()
	})
}

func TestLoadingRefusesUntilItsEndIsCommitted(t *testing.T) {
	l := &memLog{}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, l)
		synctest.Wait()
		b.do("a", "g", "add x")
		synctest.Wait()
		b.shard.Close()
		synctest.Wait()
		b.want("a", ErrNotCoordinator.Error())
		b.open()
		synctest.Wait()
		b.do("early", "g", "read")
		b.want("early", ErrLoading.Error())
		b.shard.Changed(&image.Delta{})
		l.commit(1)
		synctest.Wait()
		b.do("ready", "g", "read")
		synctest.Wait()
		l.commit(2) // the change's record
		b.want("ready", "x")
		synctest.Wait()
		if len(b.made.deltas) != 1 {
			t.Error("a change during loading is lost")
		}
		b.shard.Close()
	})
}

func TestCloseTellsAll(t *testing.T) {
	l := &memLog{}
	play(t, l, func(b *bench, wait func()) {
		b.do("parked", "g", "park")
		b.do("inflight", "g", "add x")
		wait()
		b.do("with it", "g", "read")
		wait()
		b.do("queued", "g", "add y") // may be drained or not
		b.shard.Close()
		wait()
		for _, name := range []string{"parked", "inflight", "with it", "queued"} {
			b.want(name, ErrNotCoordinator.Error())
		}
		b.do("after", "g", "read")
		b.want("after", ErrNotCoordinator.Error())
		l.commit(l.End()) // the log's word comes late and changes nothing
		l.lose()
		b.shard.Close()
	})
}

func TestCloseEndsLoading(t *testing.T) {
	l := &memLog{}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, l)
		synctest.Wait()
		b.do("a", "g", "add x")
		synctest.Wait()
		b.shard.Close()
		b.open() // waits for the high watermark
		synctest.Wait()
		b.shard.Close()
		synctest.Wait() // synctest fails if a goroutine is left
	})
}

func TestALostPartitionTellsThoseInFlight(t *testing.T) {
	play(t, &memLog{}, func(b *bench, wait func()) {
		b.do("parked", "g", "park")
		b.do("a", "g", "add x")
		wait()
		b.log.lose()
		wait()
		b.want("a", ErrNotCoordinator.Error())
		b.want("parked", ErrNotCoordinator.Error())
	})
}

func TestTimers(t *testing.T) {
	play(t, &memLog{auto: true}, func(b *bench, wait func()) {
		b.do("1", "g", "timer once 10s")
		b.do("2", "g", "timer moved 10s")
		b.do("3", "g", "timer cancelled 10s")
		b.do("4", "g", "timer early 30s")
		wait()
		b.do("5", "g", "timer moved 20s")
		b.do("6", "g", "timer cancelled 0")
		b.do("7", "g", "timer early 5s")
		check := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			wait()
			if got := b.replayed()["g"]; !slices.Equal(got, want) {
				t.Errorf("fired: %v, want %v", got, want)
			}
		}
		check(4 * time.Second)
		check(2*time.Second, "early")
		check(5*time.Second, "early", "once")
		check(10*time.Second, "early", "once", "moved")
		check(time.Hour, "early", "once", "moved")
	})
}

func TestTimersSetAnewWhileTheyFireDoNotFireTwice(t *testing.T) {
	play(t, &memLog{auto: true}, func(b *bench, wait func()) {
		b.do("1", "g", "timer t 1s")
		wait()
		time.Sleep(time.Second - time.Nanosecond)
		b.do("2", "g", "timer t 1s")
		wait()
		time.Sleep(2 * time.Second)
		wait()
		if got := b.replayed()["g"]; len(got) != 1 {
			t.Errorf("fired %d times", len(got))
		}
	})
}

func TestRecordsOfTransactionsAreBatchesOfTheirOwn(t *testing.T) {
	l := &memLog{auto: true}
	play(t, l, func(b *bench, wait func()) {
		b.do("1", "g", "add a")
		b.do("2", "g", "txn b")
		b.do("3", "g", "add c")
		wait()
		kinds := map[bool]int{}
		for _, one := range l.data {
			kinds[one.Transactional()] += int(one.Count())
		}
		if !maps.Equal(kinds, map[bool]int{false: 2, true: 1}) {
			t.Errorf("records in and out of transactions: %v", kinds)
		}
		marker := batch.EndTxnMarker(model.Producer{ID: 7}, true, 0, 0)
		marker.SetBaseOffset(l.end)
		l.data, l.end, l.high = append(l.data, marker), l.end+1, l.high+1
		if got := b.replayed()["txn"]; !slices.Equal(got, []string{"b"}) {
			t.Errorf("committed: %v", got)
		}
	})
}

// Many ask, the log fails now and then, the Shard is closed: everyone is told
// exactly once, and what was confirmed is in the log.
func TestEveryoneIsToldOnce(t *testing.T) {
	const askers, rounds = 4, 100
	l := &memLog{auto: true}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, l)
		var asked sync.WaitGroup
		for g := range askers {
			asked.Go(func() {
				for i := range rounds {
					b.do(fmt.Sprint(g, " ", i), fmt.Sprint(g), fmt.Sprint("add ", i))
					if g == 0 && i%20 < 2 {
						l.set(func() { l.refuse = []error{errors.New("disk full"), nil}[i%20] })
					}
					time.Sleep(time.Duration(g+1) * reloadPause / 10)
				}
			})
		}
		time.AfterFunc(25*reloadPause, b.shard.Close)
		asked.Wait()
		synctest.Wait()
		lists, confirmed := b.replayed(), 0
		if len(b.answers) != askers*rounds {
			t.Errorf("%d of %d were told", len(b.answers), askers*rounds)
		}
		for name, answer := range b.answers {
			if slices.Contains([]string{ErrLoading.Error(), ErrFailed.Error(), ErrNotCoordinator.Error()}, answer) {
				continue
			}
			var g, i int
			fmt.Sscan(name, &g, &i)
			confirmed++
			if !slices.Contains(lists[fmt.Sprint(g)], fmt.Sprint(i)) {
				t.Errorf("%s was confirmed with %q and is not in the log", name, answer)
			}
		}
		if confirmed == 0 || confirmed == len(b.answers) {
			t.Errorf("%d of %d confirmed", confirmed, len(b.answers))
		}
	})
}
