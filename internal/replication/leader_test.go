package replication

import (
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
)

func ids(n ...model.NodeID) []model.NodeID { return n }

func TestSoleReplicaHighWatermarkIsWhatIsFlushed(t *testing.T) {
	l := NewLeader(1, ids(1), ids(1), 1, 10, 7, 5)
	if l.High() != 7 {
		t.Fatalf("high watermark %d at start, want the flushed offset 7", l.High())
	}
	if l.Local(20, 7) {
		t.Fatal("unflushed data moved the high watermark")
	}
	if !l.Local(20, 15) || l.High() != 15 {
		t.Fatalf("high watermark %d, want 15", l.High())
	}
}

func TestHighWatermarkWaitsForEveryISRMember(t *testing.T) {
	l := NewLeader(1, ids(1, 2, 3), ids(1, 2, 3), 2, 10, 10, 0)
	l.Fetched(2, 10)
	if l.High() != 0 {
		t.Fatalf("high watermark %d before follower 3 fetched", l.High())
	}
	l.Fetched(3, 4)
	if l.High() != 4 {
		t.Fatalf("high watermark %d, want 4", l.High())
	}
	l.SetISR(ids(1, 2, 3), ids(1, 2), 2)
	if l.High() != 10 {
		t.Fatalf("high watermark %d after the slow follower left, want 10", l.High())
	}
}

func TestHighWatermarkStandsStillUnderMinISR(t *testing.T) {
	l := NewLeader(1, ids(1, 2), ids(1), 2, 5, 5, 0)
	if l.High() != 0 || l.EnoughISR() {
		t.Fatalf("high watermark %d with one of two required replicas", l.High())
	}
	// RF 1 with min.insync.replicas 2 must not block for ever.
	if one := NewLeader(1, ids(1), ids(1), 2, 5, 5, 0); one.High() != 5 {
		t.Fatalf("high watermark %d with a single replica, want 5", one.High())
	}
}

func TestHighWatermarkIsSafeAndMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := ids(1, 2, 3)
		isr := ids(1, 2, 3)
		minISR := rapid.IntRange(1, 3).Draw(t, "minISR")
		l := NewLeader(1, all, isr, minISR, 0, 0, 0)
		durable := map[model.NodeID]model.Offset{}
		var end model.Offset
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := l.High()
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				end += model.Offset(rapid.IntRange(1, 5).Draw(t, "append"))
				l.Local(end, durable[1])
			case 1:
				durable[1] = model.Offset(rapid.Int64Range(int64(durable[1]), int64(end)).Draw(t, "flush"))
				l.Local(end, durable[1])
			case 2:
				f := model.NodeID(rapid.IntRange(2, 3).Draw(t, "follower"))
				durable[f] = model.Offset(rapid.Int64Range(int64(durable[f]), int64(end)).Draw(t, "fetch"))
				l.Fetched(f, durable[f])
			case 3:
				isr = ids(1)
				for _, f := range ids(2, 3) {
					// A follower joins only when it has caught up with the high watermark.
					if durable[f] >= l.High() && rapid.Bool().Draw(t, "in") {
						isr = append(isr, f)
					}
				}
				l.SetISR(all, isr, minISR)
			}
			if l.High() < before {
				t.Fatalf("high watermark went back from %d to %d", before, l.High())
			}
			if l.High() > before {
				for _, id := range isr {
					if durable[id] < l.High() {
						t.Fatalf("high watermark %d above what node %d has: %d", l.High(), id, durable[id])
					}
				}
			}
		}
	})
}
