package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/vfs"
)

// dumpNames are files of every kind and flavour.
var dumpNames = []string{
	"/d/00000000000000000000.log", "/__cluster_metadata-0/00000000000000000000.log", "/__cluster_metadata-0/raft/00000000000000000000.log",
	"/d/00000000000000000000-0000000000.checkpoint", "/d/00000000000000000000.index", "/d/00000000000000000000.timeindex",
	"/d/00000000000000000000.txnindex", "/d/00000000000000000000.snapshot", "/d/leader-epoch-checkpoint", "/d/recovery-point-offset-checkpoint",
	"/d/partition.metadata", "/d/meta.properties", "/d/.kafka_cleanshutdown", "/d/quorum-state", "/d/ottla-quorum-state",
}

// FuzzDump prints any bytes as each kind of file: nothing panics, nothing is an
// error that is not damage, and every line of JSON is JSON.
func FuzzDump(f *testing.F) {
	seal := func(o batch.BuilderOptions, kvs ...[]byte) batch.Batch {
		var b batch.Builder
		b.Reset(o)
		for i := 0; i < len(kvs); i += 2 {
			b.Add(100, kvs[i], kvs[i+1])
		}
		out, err := b.Build()
		if err != nil {
			f.Fatal(err)
		}
		return bytes.Clone(out)
	}
	topic := record.NewTopicRecord()
	topic.Name = "orders"
	framed := record.AppendFramed(nil, topic, 0)
	metadata := seal(batch.Plain(0, 0), nil, framed)
	control := batch.BuilderOptions{Producer: model.NoProducer, Sequence: -1, Control: true}
	f.Add(byte(0), []byte(batch.EndTxnMarker(model.Producer{ID: 1}, true, 2, 3)))
	f.Add(byte(0), []byte(seal(batch.Plain(0, 0), []byte("k"), []byte(`{"a": 1}`))))
	f.Add(byte(1), []byte(metadata))
	f.Add(byte(1), []byte(seal(control, batch.ControlKey(batch.LeaderChange), record.NewLeaderChangeMessage().Append(nil, 1))))
	f.Add(byte(2), []byte(seal(batch.Plain(0, 1), nil, metadata)))
	f.Add(byte(3), []byte(seal(control, batch.ControlKey(batch.SnapshotHeader), record.NewSnapshotHeaderRecord().Append(nil, 0))))
	f.Add(byte(4), []byte{0, 0, 0, 4, 0, 0, 0, 86})
	f.Add(byte(7), append([]byte{0, 1, 0x48, 0x67, 0x4b, 0xc7}, 0, 0, 0, 0))
	f.Add(byte(13), []byte(`{"leaderId":1,"leaderEpoch":1,"votedId":-1,"currentVoters":[{"voterId":1}],"data_version":0}`))
	f.Add(byte(14), append([]byte("OQS1\x00\x00\x00\x18\x00\x00\x00\x00"), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		name := dumpNames[int(kind)%len(dumpNames)]
		fsys := vfs.NewMem()
		for _, n := range []string{name, "/d/00000000000000000000.log"} { // an index has its segment
			put(t, fsys, n, data)
			if size, err := batch.Peek(data); err == nil && size == len(data) && size >= batch.HeaderSize { // what a fuzzer cannot guess
				fixed := batch.Batch(bytes.Clone(data))
				sum := fixed.ComputeCRC()
				fixed[17], fixed[18], fixed[19], fixed[20] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
				put(t, fsys, n, fixed)
			}
		}
		for _, flags := range []dumpFlags{
			{format: "text", output: "text", records: true},
			{format: "json", output: "json", records: true, verify: true},
			{format: "hex", output: "json", verify: true, metadata: true},
		} {
			var out bytes.Buffer
			d, err := newDumper(Host{Out: &out}, flags)
			if err != nil {
				t.Fatal(err)
			}
			d.fs = fsys
			if err := d.file(name, int64(len(data))); err != nil {
				t.Fatalf("%+v: %v", flags, err)
			}
			if err := d.out.Flush(); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if flags.output == "json" && !json.Valid([]byte(line)) {
					t.Fatalf("not JSON: %s", line)
				}
			}
		}
	})
}

func put(t *testing.T, fsys vfs.FS, name string, data []byte) {
	t.Helper()
	if err := fsys.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
