package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ReadFile returns a file's bytes. A file of more than max bytes is an error
// that wraps ErrTooLarge and is not read: small state files come from disks
// that others may have written to.
func ReadFile(fsys FS, name string, max int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, max)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func readAll(f File, max int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > max {
		return nil, &fs.PathError{
			Op: "read", Path: f.Name(),
			Err: fmt.Errorf("%d bytes, at most %d expected: %w", size, max, ErrTooLarge),
		}
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return data[:n], nil // fewer than size if somebody truncates at this moment
}

// WriteFileSync replaces a file's contents in one durable step: a temporary
// file name+".tmp" is written and synced, renamed over name, and the folder
// synced. After a crash name holds either the old bytes or the new ones, whole;
// once WriteFileSync has returned nil, the new ones. On an error either may be
// the case. Two writers of one name must exclude each other.
func WriteFileSync(fsys FS, name string, data []byte, perm fs.FileMode) error {
	tmp := name + ".tmp"
	// One that a crash left may be read-only, and then cannot be opened to write.
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeSync(fsys, tmp, data, perm); err != nil {
		return errors.Join(err, removeIfThere(fsys, tmp))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return errors.Join(err, removeIfThere(fsys, tmp))
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// writeSync creates a file with these bytes and syncs it, but not its folder.
func writeSync(fsys FS, name string, data []byte, perm fs.FileMode) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func removeIfThere(fsys FS, name string) error {
	err := fsys.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
