package quorum

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// After a crash the state file holds the last durable state or one written after
// it, whole: whatever was torn or lost meanwhile.
func TestStateSurvivesTornWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("/d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := fs.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		f, _, found, err := openState(fs, "/d")
		if err != nil || found {
			t.Fatal(found, err)
		}
		var since []state // the last durable state and those written after it
		for i := range rapid.IntRange(1, 20).Draw(t, "writes") {
			st := state{term: uint64(i), commit: uint64(i * 10), voters: []Voter{voter(1), voter(2)}}
			st.voters[0].Host = fmt.Sprintf("%0*d", rapid.IntRange(1, 2000).Draw(t, "host"), i)
			durable := rapid.Bool().Draw(t, "durable")
			if err := f.write(&st, durable); err != nil {
				t.Fatal(err)
			}
			if durable {
				since = since[:0]
			}
			if since != nil || durable {
				since = append(since, st)
			}
			if rapid.IntRange(0, 4).Draw(t, "reopen") == 0 && len(since) > 0 {
				crashed := fs.CrashClone(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))
				g, got, found, err := openState(crashed, "/d")
				if err != nil || !found {
					t.Fatalf("found %t: %v", found, err)
				}
				ok := false
				for _, want := range since {
					ok = ok || reflect.DeepEqual(got, want)
				}
				if !ok {
					t.Fatalf("term %d was found, the last durable one is %d", got.term, since[0].term)
				}
				// Life goes on on what the crash left.
				fs, f, since = crashed, g, append(since[:0], got)
				if err := f.write(&got, true); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestTermsAreNeverUsedTwice(t *testing.T) {
	cfg := testConfig(nil, 1, 1)
	list := crashes(t, cfg, 5, func(n *testNode, _ func(string, int64)) {
		joinBroker(n, 1, 1)
	})
	for i := range list {
		c := list[i]
		cfg.FS = c.disk
		n := startNode(t, cfg)
		joinBroker(n, 1, 2)
		n.close()
		term := n.q.core.term
		crashed := c.disk.CrashClone(nil)
		cfg.FS = crashed
		n = startNode(t, cfg)
		joinBroker(n, 1, 3)
		n.close()
		if n.q.core.term <= term {
			t.Fatalf("crash at %s: led in term %d after term %d", c.op, n.q.core.term, term)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(appendState(nil, &state{term: 3, vote: 4, commit: 5, voters: []Voter{voter(1)}, snapshot: SnapshotID{7, 1}, at: position{9, 2}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		if again := appendState(nil, &st); string(again) != string(b) {
			t.Fatalf("%x was read, %x is written", b, again)
		}
	})
}

func FuzzSnapshotName(f *testing.F) {
	f.Add("00000000000000000042-0000000003.checkpoint")
	f.Add("00000000000000000042-0000000003.checkpoint.part")
	f.Fuzz(func(t *testing.T, name string) {
		if id, ok := parseSnapshotName(name); ok && id.String()+checkpointSuffix != name {
			t.Fatalf("%q was read as %s", name, id)
		}
	})
}

func TestRaftIDsAreMadeOfDirectoryIDs(t *testing.T) {
	a, b := voter(1), voter(1)
	b.DirectoryID = model.UUID{9}
	if a.raftID() == b.raftID() {
		t.Error("a voter with a new disk has its old Raft id")
	}
	b = voter(2)
	b.DirectoryID = a.DirectoryID
	if a.raftID() != b.raftID() {
		t.Error("the Raft id depends on more than the directory id")
	}
}
