// Package compat_test holds Ottla against the clients and tools that people
// use: it starts the real program, talks to it with Java, librdkafka, Python
// and Go clients, kills it, and has Apache Kafka's own dump tool read its disk.
//
// The one idea: a broker here is a process with an address and a folder, and
// nothing else. So every test runs unchanged against Apache Kafka
// (OTTLA_COMPAT_TARGET=kafka), which is how the tests themselves are tested.
//
// The tests are skipped unless OTTLA_COMPAT=1, which ./test sets: they need
// Java, Maven, kcat and Python, and they take minutes. README.md lists the
// settings.
package compat_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Versions of what the tests fetch.
const (
	serverVersion = "4.4.0" // the reference server and the newest Java client
	toolsVersion  = "4.3.1" // command-line tools: none were published for 4.4.0
)

// suite is what the tests of one run share. It is made by TestMain and then only read.
type suite struct {
	target string // "ottla" or "kafka"
	cache  string // kept between runs: jars, Python packages
	tmp    string // removed at the end: the program, compiled classes
	bytes  int64  // how much real text TestRealText moves
	rounds int    // how often TestKill kills
}

var run suite

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Getenv("OTTLA_COMPAT") == "" {
		fmt.Println("compat: skipped; OTTLA_COMPAT=1 or ./test compat runs it (needs Java, Maven, kcat, Python)")
		return 0
	}
	if err := run.init(); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		return 1
	}
	defer os.RemoveAll(run.tmp)
	return m.Run()
}

func (s *suite) init() error {
	s.target = setting("OTTLA_COMPAT_TARGET", "ottla")
	if s.target != "ottla" && s.target != "kafka" {
		return fmt.Errorf("OTTLA_COMPAT_TARGET=%s: want ottla or kafka", s.target)
	}
	var err error
	if s.bytes, err = strconv.ParseInt(setting("OTTLA_COMPAT_BYTES", "50000000"), 10, 64); err != nil {
		return fmt.Errorf("OTTLA_COMPAT_BYTES: %w", err)
	}
	if s.rounds, err = strconv.Atoi(setting("OTTLA_COMPAT_ROUNDS", "5")); err != nil {
		return fmt.Errorf("OTTLA_COMPAT_ROUNDS: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	s.cache = filepath.Join(cache, "ottla-test")
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return err
	}
	s.tmp, err = os.MkdirTemp("", "ottla-compat-")
	return err
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
