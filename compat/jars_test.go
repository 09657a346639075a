package compat_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func kerrOf(code int16) error { return kerr.ErrorForCode(code) }

// need returns the path of an installed program.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; ./test debian installs it on Debian", err)
	}
	return path
}

func java(t *testing.T) string { return need(t, "java") }

// repoFile returns the absolute path of a file beside this test.
func repoFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// jars returns the class path of one of Apache Kafka's artifacts with all that
// it depends on, fetched by Maven once and kept in the cache.
func jars(t *testing.T, artifact, version string) string {
	t.Helper()
	dir := filepath.Join(run.cache, artifact+"-"+version)
	err := cached(dir, func(tmp string) error {
		t.Logf("fetching %s %s with Maven", artifact, version)
		_, err := try(need(t, "mvn"), "-q", "-B", "-f", repoFile(t, "java/pom.xml"), "-Dkafka.artifact="+artifact, "-Dkafka.version="+version,
			"dependency:copy-dependencies", "-DoutputDirectory="+tmp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "*")
}

// cached makes the folder dir with fill, or finds it made. It appears whole or not at all.
func cached(dir string, fill func(tmp string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return fmt.Errorf("fill %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// formatKafka writes the first files into an Apache Kafka broker's folder.
func formatKafka(t *testing.T, b *broker) {
	t.Helper()
	output(t, java(t), "-Xmx128m", "-cp", jars(t, "kafka_2.13", serverVersion), "-Dlog4j2.configurationFile="+repoFile(t, "java/log4j2.xml"),
		"kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", b.properties())
}
