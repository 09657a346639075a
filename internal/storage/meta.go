package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

const (
	metaFile  = "meta.properties"
	lockFile  = ".lock"
	cleanFile = ".kafka_cleanshutdown"

	// markerFile says that Ottla formatted or adopted the folder. Kafka ignores it.
	markerFile = ".ottla"
	markerText = "version=1\n"

	maxMeta = 64 << 10
)

// Meta is a folder's identity, from meta.properties.
type Meta struct {
	Version     int // 1
	ClusterID   model.UUID
	NodeID      model.NodeID
	DirectoryID model.UUID
}

// PeekMeta reads a folder's identity without opening the folder. The error is
// fs.ErrNotExist if it has none.
func PeekMeta(fsys vfs.FS, path string) (Meta, error) {
	text, err := vfs.ReadFile(fsys, filepath.Join(path, metaFile), maxMeta)
	if err != nil {
		return Meta{}, fmt.Errorf("log folder %s: %w", path, err)
	}
	m, err := parseMeta(text)
	if err != nil {
		return Meta{}, fmt.Errorf("log folder %s: %s: %w", path, metaFile, err)
	}
	return m, nil
}

// parseMeta reads meta.properties of version 1.
func parseMeta(text []byte) (Meta, error) {
	var m Meta
	p, err := config.ParseProperties(text)
	if err != nil {
		return m, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if v := p["version"]; v != "1" {
		return m, fmt.Errorf("%w: version is %q, only 1 is supported", errCorrupt, v)
	}
	m.Version = 1
	if m.ClusterID, err = model.ParseUUID(p["cluster.id"]); err != nil {
		return m, fmt.Errorf("%w: cluster.id: %w", errCorrupt, err)
	}
	node, err := strconv.ParseInt(p["node.id"], 10, 32)
	if err != nil || node < 0 {
		return m, fmt.Errorf("%w: node.id is %q, not a number from 0", errCorrupt, p["node.id"])
	}
	m.NodeID = model.NodeID(node)
	// Folders of Kafka before 3.7 have none; whoever opens the folder adds it.
	if id := p["directory.id"]; id != "" {
		if m.DirectoryID, err = model.ParseUUID(id); err != nil {
			return m, fmt.Errorf("%w: directory.id: %w", errCorrupt, err)
		}
	}
	return m, nil
}

// appendMeta encodes meta.properties, with the comment lines of Java's writer.
func appendMeta(dst []byte, m Meta, now time.Time) []byte {
	return fmt.Appendf(dst, "#\n#%s\ncluster.id=%s\ndirectory.id=%s\nnode.id=%d\nversion=1\n",
		now.UTC().Format("Mon Jan 02 15:04:05 MST 2006"), m.ClusterID, m.DirectoryID, m.NodeID)
}

// cleanShutdown is .kafka_cleanshutdown: the folder was closed in order by the
// life of the broker that had this epoch.
type cleanShutdown struct {
	Version     int               `json:"version"`
	BrokerEpoch model.BrokerEpoch `json:"brokerEpoch"`
}

// readClean tells whether the folder was closed in order, and the epoch of the
// broker that did, -1 if unknown (files of older Kafka are empty).
func readClean(fsys vfs.FS, path string) (clean bool, epoch model.BrokerEpoch, err error) {
	text, err := vfs.ReadFile(fsys, filepath.Join(path, cleanFile), maxMeta)
	if errors.Is(err, fs.ErrNotExist) {
		return false, -1, nil
	}
	if err != nil {
		return false, -1, err
	}
	c := cleanShutdown{BrokerEpoch: -1}
	if strings.TrimSpace(string(text)) != "" && json.Unmarshal(text, &c) != nil {
		c.BrokerEpoch = -1 // the file is there, that is what counts
	}
	return true, c.BrokerEpoch, nil
}

func appendClean(dst []byte, epoch model.BrokerEpoch) []byte {
	return fmt.Appendf(dst, `{"version":0,"brokerEpoch":%d}`, epoch)
}
