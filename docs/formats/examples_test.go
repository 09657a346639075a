// Package docs holds what is on disk, byte by byte, in words. There is no code
// here but this test: it reads the examples out of the pages and holds them
// against the packages that write such files, so that a format cannot change
// without its page, nor a page show what nobody writes.
package docs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

// An example is a block of a page that begins with ```hex NAME, ```hex NAME
// @POSITION or ```text NAME: a file, or a part of one. Lines of hex are
// "position  bytes  | what they are"; their positions must be right.
type example struct {
	page string
	pos  int64
	data []byte
}

var blockHead = regexp.MustCompile("^```(hex|text) (\\S+)(?: @([0-9]+))?$")

// examples reads all pages. Several parts of a file are in the order of the pages.
func examples(t *testing.T) map[string][]example {
	t.Helper()
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	all := map[string][]example{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i < len(lines); i++ {
			head := blockHead.FindStringSubmatch(lines[i])
			if head == nil {
				continue
			}
			from := i + 1
			for i++; i < len(lines) && lines[i] != "```"; i++ {
			}
			e := example{page: fmt.Sprintf("%s:%d", page, from), data: []byte(strings.Join(lines[from:i], "\n") + "\n")}
			if head[1] == "hex" {
				e.pos, _ = strconv.ParseInt("0"+head[3], 10, 64)
				if e.data, err = parseHex(lines[from:i], e.pos); err != nil {
					t.Fatalf("%s: %v", e.page, err)
				}
			}
			all[head[2]] = append(all[head[2]], e)
		}
	}
	return all
}

func parseHex(lines []string, pos int64) ([]byte, error) {
	var data []byte
	for _, line := range lines {
		code, _, _ := strings.Cut(line, "|")
		fields := strings.Fields(code)
		if len(fields) == 0 {
			return nil, fmt.Errorf("%q has no bytes", line)
		}
		at, err := strconv.ParseInt(fields[0], 16, 64)
		if err != nil || at != pos+int64(len(data)) {
			return nil, fmt.Errorf("%q stands at %d", line, pos+int64(len(data)))
		}
		b, err := hex.DecodeString(strings.Join(fields[1:], ""))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		data = append(data, b...)
	}
	return data, nil
}

// one is the whole file that a page shows.
func one(t *testing.T, all map[string][]example, name string) []byte {
	t.Helper()
	list := all[name]
	if len(list) != 1 || list[0].pos != 0 {
		t.Fatalf("%s is shown %d times, want once and whole", name, len(list))
	}
	return list[0].data
}

// eachBatch walks over whole, valid batches.
func eachBatch(t *testing.T, where string, data []byte, f func(batch.Batch)) {
	t.Helper()
	for len(data) > 0 {
		n, err := batch.Peek(data)
		if err != nil || n > len(data) {
			t.Fatalf("%s: %d bytes where a batch of %d should be: %v", where, len(data), n, err)
		}
		b := batch.Batch(data[:n:n])
		if err := b.Check(); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		f(b)
		data = data[n:]
	}
}

// What Ottla wrote in the run that the pages tell of comes out again when the
// batches of the logs are appended to an empty folder.
func TestTheExamplesAreWhatStorageWrites(t *testing.T) {
	all := examples(t)
	meta := string(one(t, all, "meta.properties"))
	disk := vfs.NewMem()
	folder, err := storage.OpenFolder(storage.FolderConfig{
		FS: disk, Path: "/data", NodeID: 1,
		ClusterID: uuid(t, meta, `cluster\.id=(\S+)`),
		NewID:     func() model.UUID { return uuid(t, meta, `directory\.id=(\S+)`) },
		Now:       func() time.Time { return moment(t, meta) },
	})
	if err != nil {
		t.Fatal(err)
	}
	highs := map[model.TopicPartition]model.Offset{}
	for topic, config := range map[string]storage.LogConfig{"hello": {}, "clock": {IndexInterval: 1}} {
		dir := topic + "-0"
		tp := model.TopicPartition{Topic: topic}
		id := uuid(t, string(one(t, all, dir+"/partition.metadata")), `topic_id: (\S+)`)
		log, err := folder.Open(tp, id, storage.LogOptions{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.SetLeaderEpoch(0); err != nil {
			t.Fatal(err)
		}
		eachBatch(t, dir, slices.Clone(one(t, all, dir+"/00000000000000000000.log")), func(b batch.Batch) {
			b.SetBaseOffset(0) // as a client sends it
			put(t, log, b)
		})
		highs[tp] = log.EndOffset()
	}
	if err := folder.CheckpointHighWatermarks(maps.All(highs)); err != nil {
		t.Fatal(err)
	}
	if err := folder.Close(13); err != nil {
		t.Fatal(err)
	}
	for name, list := range all {
		if dir := path.Dir(name); dir == "__cluster_metadata-0" || dir == "__cluster_metadata-0/raft" || dir == "pay-0" {
			continue // the other tests'
		}
		got, err := vfs.ReadFile(disk, "/data/"+name, 1<<20)
		if err != nil {
			t.Errorf("%s shows a file that storage does not write: %v", list[0].page, err)
			continue
		}
		same(t, list[0], got)
	}
}

// same compares a file with what a page shows of it.
func same(t *testing.T, e example, got []byte) {
	t.Helper()
	// A text without a newline at its end cannot be told from one with it in a page.
	want := e.data
	if !bytes.HasSuffix(got, []byte("\n")) {
		want = bytes.TrimSuffix(want, []byte("\n"))
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: storage writes\n%swhich is not what the page shows:\n%s", e.page, hex.Dump(got), hex.Dump(want))
	}
}

func put(t *testing.T, log *storage.Log, b batch.Batch) {
	t.Helper()
	done := make(chan struct{})
	a := &storage.Append{Batch: b, Done: func(*storage.Append) { close(done) }}
	log.Append(a)
	<-done
	if a.Err != nil {
		t.Fatal(a.Err)
	}
}

func uuid(t *testing.T, text, pattern string) model.UUID {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %q", pattern, text)
	}
	id, err := model.ParseUUID(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func moment(t *testing.T, meta string) time.Time {
	t.Helper()
	at, err := time.Parse("#Mon Jan 02 15:04:05 MST 2006", strings.Split(meta, "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The transaction of the pages, which no client can make yet: two records of
// producer 7, then the marker that aborts them.
func TestTheAbortedTransactionIsWhatStorageWrites(t *testing.T) {
	const at = 1795572912000
	all := examples(t)
	disk := vfs.NewMem()
	syncer := storage.NewSyncer(storage.SyncerConfig{FS: disk, Path: "/"})
	defer syncer.Close()
	log, err := storage.OpenLog("/pay-0", storage.LogOptions{}, syncer)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.SetLeaderEpoch(0); err != nil {
		t.Fatal(err)
	}
	payer := model.Producer{ID: 7}
	var b batch.Builder
	b.Reset(batch.BuilderOptions{Producer: payer, Transactional: true})
	b.Add(at, nil, []byte("debit"))
	b.Add(at, nil, []byte("credit"))
	data, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	put(t, log, data)
	marker := batch.EndTxnMarker(payer, false, 3, at+1)
	put(t, log, marker)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	index, err := vfs.ReadFile(disk, "/pay-0/00000000000000000000.txnindex", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"pay-0/00000000000000000000.log": marker, "pay-0/00000000000000000000.txnindex": index} {
		if len(all[name]) != 1 {
			t.Errorf("no page shows %s:\n%s", name, hex.Dump(got))
			continue
		}
		same(t, all[name][0], got)
	}
}

// Every batch of the metadata log, its snapshot and the Raft log that a page
// shows is whole, and its records decode and encode to the same bytes.
func TestTheMetadataExamplesDecode(t *testing.T) {
	codecs := batch.NewCodecs()
	batches := 0
	for name, list := range examples(t) {
		if !strings.HasPrefix(name, "__cluster_metadata-0/") || path.Ext(name) != ".log" && path.Ext(name) != ".checkpoint" {
			continue
		}
		for _, e := range list {
			eachBatch(t, e.page, e.data, func(b batch.Batch) {
				batches++
				for r, err := range codecs.Records(b, 1<<20) {
					switch {
					case err != nil:
						t.Errorf("%s: %v", e.page, err)
					case b.Control():
						if _, err := batch.ParseControlKey(r.Key); err != nil {
							t.Errorf("%s: %v", e.page, err)
						}
					case strings.Contains(name, "/raft/"):
						// An entry: its data is batches of the metadata log.
						eachBatch(t, e.page, r.Value, func(batch.Batch) { batches++ })
					default:
						m, version, err := record.DecodeFramed(r.Value)
						if err != nil || !bytes.Equal(record.AppendFramed(nil, m, version), r.Value) {
							t.Errorf("%s: the record at offset %d does not come out as it went in (%v)", e.page, r.Offset, err)
						}
					}
				}
			})
		}
	}
	if batches < 5 {
		t.Errorf("only %d batches are shown", batches)
	}
}

// The page on the quorum state gives the layout; this reads the example by it.
func TestTheQuorumStateIsAsThePageSays(t *testing.T) {
	all := examples(t)
	slots := all["__cluster_metadata-0/ottla-quorum-state"]
	if len(slots) != 2 || slots[0].pos != 0 || slots[1].pos != 16384 {
		t.Fatalf("%d slots are shown", len(slots))
	}
	directory := uuid(t, string(one(t, all, "meta.properties")), `directory\.id=(\S+)`)
	hash := fnv.New64a()
	hash.Write(directory[:])
	for i, s := range slots {
		be, b := binary.BigEndian, s.data
		if string(b[:4]) != "OQS1" || int(be.Uint32(b[4:])) != len(b)-20 || crc32.Checksum(b[12:], crc32.MakeTable(crc32.Castagnoli)) != be.Uint32(b[8:]) {
			t.Errorf("%s is no valid slot", s.page)
		}
		body := b[20:]
		got := []uint64{be.Uint64(b[12:]), be.Uint64(body), be.Uint64(body[8:]), be.Uint64(body[16:]), be.Uint64(body[40:]), be.Uint64(body[52:]), uint64(be.Uint32(body[68:]))}
		// sequence, term, vote, commit, snapshot end, its entry, voters
		want := [][]uint64{{9, 1, hash.Sum64(), 7, 20, 7, 1}, {12, 1, hash.Sum64(), 10, 20, 7, 1}}[i]
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", s.page, got, want)
		}
		if id := model.UUID(body[76:92]); id != directory {
			t.Errorf("%s names directory %s, want %s", s.page, id, directory)
		}
	}
}
