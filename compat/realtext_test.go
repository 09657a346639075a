package compat_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A sum is what is compared of a partition's values: their number, and length
// and SHA-256 of all of them with a newline after each.
type sum struct {
	count, bytes int64
	sha          hash.Hash
}

func newSum() *sum { return &sum{sha: sha256.New()} }

func (s *sum) add(value []byte) {
	s.sha.Write(value)
	s.sha.Write([]byte{'\n'})
	s.count++
	s.bytes += int64(len(value)) + 1
}

// report is one line a partition, as java/Client.java prints it.
func report(sums []*sum) string {
	var text strings.Builder
	for p, s := range sums {
		fmt.Fprintf(&text, "%d %d %d %s\n", p, s.count, s.bytes, hex.EncodeToString(s.sha.Sum(nil)))
	}
	return text.String()
}

// One partition a codec; each gets a third of the text.
var realTextCodecs = []string{"none", "lz4", "zstd"}

func TestRealTextComesBackByteForByte(t *testing.T) {
	kcat := need(t, "kcat")
	parts, want := realText(t, run.bytes)
	b := newBroker(t)
	const topic = "text"
	b.createTopic(t, topic, int32(len(parts)), "segment.bytes=134217728")
	began := time.Now()
	for p, file := range parts {
		output(t, kcat, "-P", "-b", b.addr, "-t", topic, "-p", fmt.Sprint(p), "-z", realTextCodecs[p], "-X", "enable.idempotence=true", "-l", file)
	}
	t.Logf("in with kcat in %v", time.Since(began).Round(time.Millisecond))
	check := func(when string) {
		t.Helper()
		began := time.Now()
		if d := difference(newestJava().run(t, "digest", b.addr, topic), want); d != "" {
			t.Errorf("%s, out with Java: partition, lines, bytes, SHA-256 differ: %s", when, d)
		}
		t.Logf("%s, out with Java in %v", when, time.Since(began).Round(time.Millisecond))
		began = time.Now()
		sums := make([]*sum, len(parts))
		for p := range sums {
			sums[p] = newSum()
		}
		readTopic(t, b.addr, topic, func(r *kgo.Record) { sums[r.Partition].add(r.Value) })
		if d := difference(report(sums), want); d != "" {
			t.Errorf("%s, out with Go: partition, lines, bytes, SHA-256 differ: %s", when, d)
		}
		t.Logf("%s, out with Go in %v", when, time.Since(began).Round(time.Millisecond))
	}
	check("before kill -9")
	b.kill()
	began = time.Now()
	b.start(t)
	t.Logf("up again after kill -9 in %v", time.Since(began).Round(time.Millisecond))
	check("after kill -9")
	b.stop(t)
	dumpAll(t, b.data())
	b.start(t)
	check("after a clean stop")
	b.stop(t)
}

// realText gathers about n bytes of text lines into a file for each partition,
// and returns the files with the report that their values must give. The same
// machine gives the same text.
func realText(t *testing.T, n int64) (files []string, want string) {
	t.Helper()
	dir := t.TempDir()
	w := &textWriter{limit: n, part: n / int64(len(realTextCodecs)), seen: map[[32]byte]bool{}}
	for p := range realTextCodecs {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("part-%d", p)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f.Name())
		w.sums, w.outs = append(w.sums, newSum()), append(w.outs, bufio.NewWriterSize(f, 1<<20))
	}
	roots := textRoots(t)
	var distinct int64
	for pass := 1; w.total < n; pass++ {
		before := w.total
		w.prefix, w.seen = "", map[[32]byte]bool{}
		if pass > 1 {
			w.prefix = fmt.Sprintf("pass %d: ", pass)
		}
		for _, root := range roots {
			if err := w.tree(root); err != nil {
				t.Fatal(err)
			}
		}
		if w.total == before {
			t.Fatalf("no text below %v", roots)
		}
		if pass == 1 {
			distinct = w.total
		}
	}
	for _, out := range w.outs {
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	said := ""
	if distinct < w.total {
		said = fmt.Sprintf(" (%d MB are distinct; the rest repeats them with a prefix)", distinct/1e6)
	}
	t.Logf("%d MB of text%s, from %s", w.total/1e6, said, strings.Join(roots, ", "))
	return files, report(w.sums)
}

// textRoots names folders full of text: sources, documentation, package lists.
func textRoots(t *testing.T) []string {
	t.Helper()
	roots := strings.Fields(output(t, "go", "env", "GOROOT", "GOMODCACHE"))
	for _, pattern := range []string{
		"/var/lib/apt/lists", "/var/lib/dpkg/info", "/usr/share", "/usr/include", "/usr/lib/python3*", "/usr/lib/node_modules", "/usr/local/lib",
		filepath.Join(run.cache, "python-*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, found...)
	}
	return slices.DeleteFunc(roots, func(r string) bool { _, err := os.Stat(r); return err != nil })
}

// A textWriter spreads lines over the parts until the limit is reached.
type textWriter struct {
	limit, part, total int64
	prefix             string
	seen               map[[32]byte]bool // contents already taken in this pass
	sums               []*sum
	outs               []*bufio.Writer
}

func (w *textWriter) tree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case w.total >= w.limit:
			return filepath.SkipAll
		case err != nil || !d.Type().IsRegular():
			return nil // what cannot be read is left out
		}
		text, err := readText(path)
		if err != nil || len(text) == 0 {
			return nil
		}
		if id := sha256.Sum256(text); !w.seen[id] {
			w.seen[id] = true
			return w.lines(text)
		}
		return nil
	})
}

func (w *textWriter) lines(text []byte) error {
	const longest = 500_000 // bytes; below every client's limit for a message
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if len(line) == 0 || len(line) > longest {
			continue // kcat sends no empty lines
		}
		if w.total >= w.limit {
			return nil
		}
		line = append([]byte(w.prefix), line...)
		p := min(int(w.total/w.part), len(w.outs)-1)
		w.sums[p].add(line)
		w.total += int64(len(line)) + 1
		if _, err := w.outs[p].Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// readText returns a file's text, decompressed if it is gzip; nil if it is not text.
func readText(path string) ([]byte, error) {
	const largest = 64 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	var in io.Reader = r
	if head, _ := r.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		if in, err = gzip.NewReader(r); err != nil {
			return nil, err
		}
	} else if head, _ := r.Peek(8000); bytes.IndexByte(head, 0) >= 0 {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(in, largest))
	if err != nil || bytes.IndexByte(text, 0) >= 0 {
		return nil, err
	}
	return text, nil
}
