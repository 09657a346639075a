package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"ottla.dev/ottla/internal/config"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

func newStorage(h Host) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "storage",
		Short: "Prepare and inspect the folders of a node",
		Long:  "Prepares and inspects the folders of a node, like kafka-storage. A single node does not\nneed it: `ottla serve` formats empty folders by itself.",
	})
	cmd.AddCommand(newStorageFormat(h), newStorageInfo(h), newStorageRandom(h))
	return cmd
}

func newStorageRandom(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "random-uuid",
		Short: "Print a new random id, for a cluster for example",
		Args:  arguments(0, 0),
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(h.Out, model.RandomUUID(randomUint64)) },
	}
}

func randomUint64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

func newStorageFormat(h Host) *cobra.Command {
	var file, cluster string
	var ignore bool
	cmd := &cobra.Command{
		Use:     "format",
		Short:   "Give the empty folders of a node their identity",
		Long:    "Gives the empty folders of a node their identity: the cluster's id, the node's and one\nof their own. A folder that has a file in it is never formatted.",
		Example: `  ottla storage format --config server.properties --cluster-id $(ottla storage random-uuid)`,
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cluster == "" {
				return usageError{errors.New("--cluster-id is missing; `ottla storage random-uuid` makes one")}
			}
			s, err := storageSettings(file)
			if err != nil {
				return err
			}
			id, err := model.ParseUUID(cluster)
			if err != nil {
				return usageError{fmt.Errorf("--cluster-id: %w; `ottla storage random-uuid` makes one", err)}
			}
			return formatFolders(cmd.Context(), h, s, id, ignore)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "`file` with the node's properties (default: what a serve without one uses)")
	cmd.Flags().StringVarP(&cluster, "cluster-id", "t", "", "`id` of the cluster")
	cmd.Flags().BoolVarP(&ignore, "ignore-formatted", "g", false, "leave folders that are formatted already as they are")
	cmd.Flags().Bool("standalone", false, "accepted for kafka-storage's sake: a single controller is always standalone")
	return cmd
}

func formatFolders(_ context.Context, h Host, s *config.Config, id model.UUID, ignore bool) error {
	for _, path := range folderPaths(s) {
		meta, err := storage.PeekMeta(vfs.OS(), path)
		switch {
		case err == nil && !ignore:
			return fmt.Errorf("%s is formatted already, for cluster %s; pass --ignore-formatted to leave it as it is", path, meta.ClusterID)
		case err == nil && meta.ClusterID != id:
			return fmt.Errorf("%s belongs to cluster %s, not to %s", path, meta.ClusterID, id)
		case err == nil:
			fmt.Fprintf(h.Out, "%s: formatted before, left alone\n", path)
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		f, err := storage.OpenFolder(storage.FolderConfig{
			FS: vfs.OS(), Path: path, ClusterID: id, NodeID: s.NodeID(),
			NewID: func() model.UUID { return model.RandomUUID(randomUint64) }, Now: time.Now,
		})
		if err != nil {
			return err
		}
		if err := f.Close(-1); err != nil {
			return err
		}
		fmt.Fprintf(h.Out, "%s: formatted, node %d of cluster %s, directory %s\n", path, s.NodeID(), id, f.ID())
	}
	return nil
}

func newStorageInfo(h Host) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show what the folders of a node say of themselves",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			s, err := storageSettings(file)
			if err != nil {
				return err
			}
			bad := false
			for _, path := range folderPaths(s) {
				meta, err := storage.PeekMeta(vfs.OS(), path)
				switch {
				case errors.Is(err, fs.ErrNotExist):
					fmt.Fprintf(h.Out, "%s: not formatted\n", path)
					bad = true
				case err != nil:
					return err
				default:
					fmt.Fprintf(h.Out, "%s: node %d of cluster %s, directory %s\n", path, meta.NodeID, meta.ClusterID, meta.DirectoryID)
				}
			}
			if bad {
				return errors.New("not all folders are formatted; `ottla serve` does it for a single node, `ottla storage format` otherwise")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "`file` with the node's properties (default: what a serve without one uses)")
	return cmd
}

func storageSettings(file string) (*config.Config, error) {
	var args []string
	if file != "" {
		args = []string{file}
	}
	return loadSettings(args, nil, slog.New(slog.DiscardHandler))
}

// folderPaths are log.dirs and metadata.log.dir, each once.
func folderPaths(s *config.Config) []string {
	paths := s.LogDirs()
	for _, p := range paths {
		if p == s.MetadataLogDir() {
			return paths
		}
	}
	return append([]string{s.MetadataLogDir()}, paths...)
}
