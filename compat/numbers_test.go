package compat_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Limits of the design. Sizes fail the test; times are printed, since they
// belong to the machine and to what else runs on it.
const (
	binaryLimit     = 25_000_000 // bytes
	idleMemoryLimit = 30_000_000 // bytes resident
	firstAckLimit   = 100 * time.Millisecond
)

func TestNumbers(t *testing.T) {
	if run.target != "ottla" {
		t.Skip("the numbers are Ottla's")
	}
	info, err := os.Stat(program(t))
	if err != nil {
		t.Fatal(err)
	}
	number(t, "binary", fmt.Sprintf("%.1f MB", mb(info.Size())), fmt.Sprintf("%.0f MB", mb(binaryLimit)))
	if info.Size() > binaryLimit {
		t.Errorf("the binary has %d bytes, the limit is %d", info.Size(), binaryLimit)
	}

	const runs = 5
	var fresh, again, memory []int64
	for range runs {
		b := newBroker(t) // formats; what is measured comes after
		b.stop(t)
		if err := os.RemoveAll(b.data()); err != nil {
			t.Fatal(err)
		}
		fresh = append(fresh, int64(firstAck(t, b)))
		memory = append(memory, idleMemory(t, b))
		b.stop(t)
		again = append(again, int64(firstAck(t, b)))
		b.stop(t)
	}
	number(t, "start to first ack, empty folder", times(fresh), firstAckLimit.String())
	number(t, "start to first ack, after a clean stop", times(again), firstAckLimit.String())
	number(t, "idle memory", fmt.Sprintf("%.1f MB, at most %.1f MB", mb(median(memory)), mb(slices.Max(memory))), fmt.Sprintf("%.0f MB", mb(idleMemoryLimit)))
	if m := median(memory); m > idleMemoryLimit {
		t.Errorf("%d bytes resident when idle, the limit is %d", m, idleMemoryLimit)
	}
}

func number(t *testing.T, what, got, limit string) {
	t.Helper()
	t.Logf("%-40s %s (limit %s)", what, got, limit)
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func median(ns []int64) int64 {
	sorted := slices.Sorted(slices.Values(ns))
	return sorted[len(sorted)/2]
}

func times(ns []int64) string {
	show := func(n int64) time.Duration { return time.Duration(n).Round(time.Millisecond) }
	return fmt.Sprintf("%v, %v to %v", show(median(ns)), show(slices.Min(ns)), show(slices.Max(ns)))
}

// firstAck starts the broker's process and returns the time from there until a
// record in a topic is acknowledged; the topic is created on the way if need be.
func firstAck(t *testing.T, b *broker) time.Duration {
	t.Helper()
	began := time.Now()
	b.launch(t)
	b.awaitPort(t, b.addr)
	cl := newClient(t, b.addr, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("first"), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(10*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return time.Millisecond }))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cl.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// idleMemory returns the bytes resident once the process has come to rest: when
// three readings, a second apart, do not fall any more.
func idleMemory(t *testing.T, b *broker) int64 {
	t.Helper()
	status := filepath.Join("/proc", strconv.Itoa(b.pid()), "status")
	if _, err := os.Stat(status); err != nil {
		t.Skipf("no resident size here: %v", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := resident(t, status)
	for calm := 0; calm < 3; {
		<-tick.C
		now := resident(t, status)
		if calm++; now < last*99/100 {
			calm = 0
		}
		last = now
	}
	return last
}

func resident(t *testing.T, status string) int64 {
	t.Helper()
	text, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb * 1024
		}
	}
	t.Fatalf("%s has no VmRSS", status)
	return 0
}
