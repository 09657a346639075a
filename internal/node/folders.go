package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// openFolders locks log.dirs and metadata.log.dir and settles the cluster id: the
// one that the folders have, or a new one if all of them are empty.
func (n *Node) openFolders(context.Context) error {
	s := n.cfg.Settings
	paths := s.LogDirs()
	metaPath := s.MetadataLogDir()
	id, err := n.findClusterID(append([]string{metaPath}, paths...))
	if err != nil {
		return err
	}
	n.clusterID = id
	for _, path := range paths {
		f, err := n.openFolder(path)
		if err != nil {
			return fmt.Errorf("log.dirs: %w", err)
		}
		n.folders = append(n.folders, f)
		if path == metaPath {
			n.meta = f
		}
	}
	if n.meta == nil {
		if n.meta, err = n.openFolder(metaPath); err != nil {
			return fmt.Errorf("metadata.log.dir: %w", err)
		}
	}
	return nil
}

func (n *Node) openFolder(path string) (*storage.Folder, error) {
	return storage.OpenFolder(storage.FolderConfig{
		FS:        n.cfg.FS,
		Path:      path,
		ClusterID: n.clusterID,
		NodeID:    n.cfg.Settings.NodeID(),
		NewID:     func() model.UUID { return model.RandomUUID(n.rand.Uint64) },
		Reserve:   n.cfg.Settings.Long(config.OttlaLogDirReserveBytes),
		Codecs:    n.codecs,
		Metrics:   n.metrics,
		Log:       n.cfg.Log,
		Now:       time.Now,
	})
}

func (n *Node) findClusterID(paths []string) (model.UUID, error) {
	var id model.UUID
	var from string
	for _, path := range paths {
		meta, err := storage.PeekMeta(n.cfg.FS, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return id, err
		case from != "" && meta.ClusterID != id:
			return id, fmt.Errorf("log.dirs: %s belongs to cluster %s, but %s to cluster %s; use folders of one cluster", path, meta.ClusterID, from, id)
		}
		id, from = meta.ClusterID, path
	}
	if from == "" {
		id = model.RandomUUID(n.rand.Uint64)
	}
	return id, nil
}

// shared reports whether the metadata log lives in one of log.dirs.
func (n *Node) shared() bool {
	for _, f := range n.folders {
		if f == n.meta {
			return true
		}
	}
	return false
}

// ClusterID is the id of the cluster that the node belongs to.
func (n *Node) ClusterID() model.UUID { return n.clusterID }

// hostname is what an empty advertised host stands for.
func (n *Node) hostname(host string) string {
	if host != "" {
		return host
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
