package vfs

import (
	"fmt"
	"io/fs"
)

// OpKind is a kind of operation on an FS or a File.
type OpKind int8

// The operations. Those from OpCreate to OpChtimes change something and are what
// Mem.OnOp tells; Inject's rules know them all.
const (
	OpAny OpKind = iota // in a Rule: every operation

	OpCreate   // OpenFile or Lock of a name that does not exist, with O_CREATE
	OpMkdir    // Mkdir, and each folder that MkdirAll makes
	OpWrite    // WriteAt, WriteVec
	OpTruncate // Truncate, OpenFile with O_TRUNC
	OpAllocate
	OpSync
	OpRename
	OpRemove // Remove, and each entry that RemoveAll removes
	OpSyncDir
	OpChmod
	OpChtimes

	OpOpen // Open and OpenFile of a name that exists
	OpRead // ReadAt
	OpReadDir
	OpStat // FS.Stat, File.Size
	OpLock
	OpSpace
	OpClose

	numOps
)

// String returns the kind's name: "write".
func (k OpKind) String() string {
	names := [numOps]string{
		"any",
		"create", "mkdir", "write", "truncate", "allocate", "sync", "rename", "remove", "syncdir", "chmod", "chtimes",
		"open", "read", "readdir", "stat", "lock", "space", "close",
	}
	if k < 0 || k >= numOps {
		return fmt.Sprintf("op %d", int8(k))
	}
	return names[k]
}

// Op is one operation that is about to happen.
type Op struct {
	Kind OpKind
	Path string
	To   string // of a rename: the new name
	Off  int64  // of read, write and allocate: where
	Len  int64  // of read, write and allocate: bytes; of truncate: the new size
}

// String returns the operation for a person: "write a/b 100+512".
func (o Op) String() string {
	switch o.Kind {
	case OpRename:
		return fmt.Sprintf("rename %s to %s", o.Path, o.To)
	case OpWrite, OpRead, OpAllocate:
		return fmt.Sprintf("%v %s %d+%d", o.Kind, o.Path, o.Off, o.Len)
	case OpTruncate:
		return fmt.Sprintf("truncate %s %d", o.Path, o.Len)
	}
	return fmt.Sprintf("%v %s", o.Kind, o.Path)
}

// pathError names an operation and its path, as package os does.
func pathError(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}
