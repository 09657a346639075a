package compat_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A dumpKind is what Apache Kafka's dump tool needs to be told about a file.
type dumpKind string

const (
	dumpLog      dumpKind = "--deep-iteration"
	dumpBatches  dumpKind = "--print-batches-only" // ours: the tool has no option for it, it is what it does without one
	dumpIndex    dumpKind = "--verify-index-only"
	dumpMetadata dumpKind = "--cluster-metadata-decoder"
	dumpOffsets  dumpKind = "--offsets-decoder"
	dumpTxns     dumpKind = "--transaction-log-decoder"
	dumpShare    dumpKind = "--share-group-state-decoder"
)

// kindOf tells how to dump a file of some size; false if it is not a file of the tool's.
func kindOf(path string, size int64) (dumpKind, bool) {
	const everyRecord = 32 << 20 // bytes; in larger logs the tool reads batches, whose checksums cover the records
	folder, _, _ := strings.Cut(filepath.Base(filepath.Dir(path)), "-")
	switch filepath.Ext(path) {
	case ".log":
		switch folder {
		case "__cluster_metadata":
			return dumpMetadata, true
		case "__consumer_offsets":
			return dumpOffsets, true
		case "__transaction_state":
			return dumpTxns, true
		case "__share_group_state":
			return dumpShare, true
		}
		if size > everyRecord {
			return dumpBatches, true
		}
		return dumpLog, true
	case ".checkpoint":
		return dumpMetadata, true
	case ".index", ".timeindex", ".txnindex", ".snapshot":
		return dumpIndex, true
	}
	return "", false
}

// complaint is what the tool says when it does not like a file. (It also says of
// every segment but a partition's first that offset -1 is followed by another.)
var complaint = regexp.MustCompile(`isvalid: false|isValid: false|Exception|Mismatches in|\s\d+ is followed by|not found in|` +
	`out of order timestamp|timestamp mismatch|invalid bytes|Error at|Failed to|Unknown record type|Ignoring unknown|[Cc]orrupt`)

// complaints has Apache Kafka's dump tool read every log, index, snapshot and
// checkpoint below dir, and returns what it did not like. files is how many it read.
func complaints(t *testing.T, dir string) (found []string, files int) {
	t.Helper()
	byKind := map[dumpKind][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasSuffix(path, "-delete") {
				return filepath.SkipDir // on its way out, and closed without ceremony
			}
			return nil
		}
		if run.target == "kafka" && filepath.Ext(path) == ".timeindex" && strings.Contains(path, "__cluster_metadata") {
			return nil // Apache Kafka does not trim this one when it stops, and its own tool says so
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if kind, ok := kindOf(path, info.Size()); ok {
			byKind[kind] = append(byKind[kind], path)
			files++
		}
		if strings.HasSuffix(path, "-checkpoint") {
			if err := checkTextCheckpoint(path); err != nil {
				found = append(found, err.Error())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		for some := range slices.Chunk(byKind[kind], 200) {
			found = append(found, dump(t, string(kind), some)...)
			if kind == dumpIndex {
				indexes := slices.DeleteFunc(slices.Clone(some), func(f string) bool { return !strings.HasSuffix(f, "index") })
				found = append(found, dump(t, "--index-sanity-check", indexes)...)
			}
		}
	}
	return found, files
}

// dump runs the tool over files. A file that it breaks on is a complaint, and
// it goes on with the next.
func dump(t *testing.T, option string, files []string) (found []string) {
	t.Helper()
	for len(files) > 0 {
		args := []string{
			"-Xmx512m", "-XX:+UseSerialGC", "-cp", jars(t, "kafka-tools", toolsVersion), "-Dlog4j2.configurationFile=" + repoFile(t, "java/log4j2.xml"),
			"org.apache.kafka.tools.DumpLogSegments", "--files", strings.Join(files, ","),
		}
		if option != string(dumpBatches) {
			args = append(args, option)
		}
		file := files[0]
		err := eachLine(exec.Command(java(t), args...), func(line string) {
			if name, ok := strings.CutPrefix(line, "Dumping "); ok {
				file = strings.TrimSpace(name)
			}
			if complaint.MatchString(line) {
				found = append(found, fmt.Sprintf("%s %s: %s", option, file, cut(strings.TrimSpace(line))))
			}
		})
		if err == nil {
			return found
		}
		found = append(found, fmt.Sprintf("%s %s: %v", option, file, err))
		files = files[slices.Index(files, file)+1:] // from the start again if the tool named a file that we did not
	}
	return found
}

// eachLine runs a command and gives every line of its output to yield.
func eachLine(cmd *exec.Cmd, yield func(string)) error {
	dieWithParent(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout // one pipe: complaints in the order they were made
	if err := cmd.Start(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(out, 1<<16)
	for {
		line, err := r.ReadString('\n')
		yield(line)
		if err != nil {
			break // the end, or the command's failure, which Wait tells
		}
	}
	return cmd.Wait()
}

// dumpAll fails the test for whatever Apache Kafka's dump tool does not like below dir.
func dumpAll(t *testing.T, dir string) {
	t.Helper()
	found, files := complaints(t, dir)
	if files == 0 {
		t.Fatalf("%s has no file to dump", dir)
	}
	for i, f := range found {
		if i == 20 {
			t.Errorf("and %d complaints more", len(found)-i)
			break
		}
		t.Error(f)
	}
	t.Logf("Apache Kafka's dump tool read %d files", files)
}

// checkTextCheckpoint reads one of Kafka's text checkpoints: a version line
// (0), a line with the number of entries, then the entries, a line each.
func checkTextCheckpoint(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(text) == 0 && filepath.Base(path) == "cleaner-offset-checkpoint" {
		return nil // made empty, filled by the first compaction
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 3 || lines[0] != "0" || lines[len(lines)-1] != "" {
		return fmt.Errorf("%s: not a checkpoint of version 0: %q", path, cut(string(text)))
	}
	if n, err := strconv.Atoi(lines[1]); err != nil || n != len(lines)-3 {
		return fmt.Errorf("%s: says %q entries and has %d", path, lines[1], len(lines)-3)
	}
	return nil
}

// theDumpToolFindsDamage shows that dumpAll can fail: each damage to a copy of a
// good partition folder is found.
func theDumpToolFindsDamage(t *testing.T, partition string) {
	checkpoint := func(file string) []string {
		if err := checkTextCheckpoint(file); err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	with := func(kind dumpKind) func(string) []string {
		return func(file string) []string { return dump(t, string(kind), []string{file}) }
	}
	for _, c := range []struct {
		file   string
		damage func([]byte) []byte
		check  func(string) []string
	}{
		{"00000000000000000000.log", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, with(dumpLog)},
		{"00000000000000000000.index", func(b []byte) []byte { return append(b, 0, 0, 0, 9, 0, 0, 0, 9) }, with(dumpIndex)},
		{"leader-epoch-checkpoint", func([]byte) []byte { return []byte("0\n2\n0 0\n") }, checkpoint},
	} {
		dir := filepath.Join(t.TempDir(), filepath.Base(partition))
		if err := os.CopyFS(dir, os.DirFS(partition)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, c.file)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, c.damage(good), 0o644); err != nil {
			t.Fatal(err)
		}
		if len(c.check(file)) == 0 {
			t.Errorf("nobody complains about a damaged %s", c.file)
		}
	}
}
