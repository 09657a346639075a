package vfs

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rule says which operations fail, and how.
type Rule struct {
	// Kind is the kind of the operations; OpAny: all.
	Kind OpKind
	// Path is a pattern of filepath.Match for the operation's path. Without a
	// separator it is held against the path's last part: "*.log". Empty: every
	// path. A rename matches by either of its names.
	Path string
	// After is how many matching operations pass before the first one fails.
	After int
	// Times is how many operations fail then; 0: all of them.
	Times int
	// Delay is slept before the operation, or before it fails. The times of a
	// slow disk, in a testing/synctest bubble.
	Delay time.Duration
	// Err is the error, most often a syscall.Errno; nil: the operation is only
	// delayed or cut short.
	Err error
	// Short has a write or a read move the first half of its bytes. With Err
	// nil a write then fails with io.ErrShortWrite and a read with io.EOF.
	Short bool
}

// Injected is an FS whose operations fail by rule. Operations that no rule
// matches go to the FS below.
//
// A Sync that a rule fails does not reach the file. On a Mem, what was unsynced
// then is lost for good as on Linux: reads still show it, no later Sync makes
// it durable and no crash clone has it.
type Injected struct {
	fsys FS

	mu    sync.Mutex
	rules []*Handle // in the order of Add: the first that matches counts
}

// Handle is a rule in force.
type Handle struct {
	in   *Injected
	rule Rule

	// Guarded by in.mu.
	seen int // matching operations
	hits int // of those: failed, delayed or cut short
}

// Inject returns fsys under the rules. It panics on a malformed pattern.
func Inject(fsys FS, rules ...Rule) *Injected {
	in := &Injected{fsys: fsys}
	for _, r := range rules {
		in.Add(r)
	}
	return in
}

// Add puts a rule into force, behind those that are.
func (in *Injected) Add(r Rule) *Handle {
	if _, err := filepath.Match(r.Path, ""); err != nil {
		panic("BUG: vfs: rule with pattern " + r.Path + ": " + err.Error())
	}
	h := &Handle{in: in, rule: r}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.rules = append(in.rules, h)
	return h
}

// Remove ends the rule. Removing twice does nothing.
func (h *Handle) Remove() {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	h.in.rules = slices.DeleteFunc(h.in.rules, func(o *Handle) bool { return o == h })
}

// Hits returns how many operations the rule has met.
func (h *Handle) Hits() int {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	return h.hits
}

// matches tells whether the rule is about op.
func (r Rule) matches(op Op) bool {
	if r.Kind != OpAny && r.Kind != op.Kind {
		return false
	}
	match := func(path string) bool {
		if !strings.ContainsRune(r.Path, filepath.Separator) {
			path = filepath.Base(path)
		}
		ok, _ := filepath.Match(r.Path, path) // checked by Add
		return ok
	}
	return r.Path == "" || match(op.Path) || op.To != "" && match(op.To)
}

// meet finds the rule that op meets and sleeps its delay. ok tells whether op
// is to go on as if nothing were.
func (in *Injected) meet(op Op) (r Rule, ok bool) {
	h := in.find(op)
	if h == nil {
		return Rule{}, true
	}
	if h.rule.Delay > 0 {
		time.Sleep(h.rule.Delay)
	}
	return h.rule, h.rule.Err == nil && !h.rule.Short
}

func (in *Injected) find(op Op) *Handle {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, h := range in.rules {
		if !h.rule.matches(op) {
			continue
		}
		h.seen++
		if h.seen <= h.rule.After || h.rule.Times > 0 && h.hits >= h.rule.Times {
			continue
		}
		h.hits++
		return h
	}
	return nil
}

// fail returns the error that op meets, if any, for operations that cannot be
// cut short.
func (in *Injected) fail(op Op) error {
	if r, _ := in.meet(op); r.Err != nil {
		return pathError(op.Kind.String(), op.Path, r.Err)
	}
	return nil
}

func (in *Injected) Open(name string) (File, error) { return in.OpenFile(name, os.O_RDONLY, 0) }

func (in *Injected) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	kind := OpOpen
	if flag&os.O_CREATE != 0 {
		if _, err := in.fsys.Stat(name); err != nil {
			kind = OpCreate
		}
	}
	if err := in.fail(Op{Kind: kind, Path: name}); err != nil {
		return nil, err
	}
	if kind == OpOpen && flag&os.O_TRUNC != 0 {
		if err := in.fail(Op{Kind: OpTruncate, Path: name}); err != nil {
			return nil, err
		}
	}
	f, err := in.fsys.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &injectedFile{File: f, in: in}, nil
}

func (in *Injected) Mkdir(name string, perm fs.FileMode) error {
	if err := in.fail(Op{Kind: OpMkdir, Path: name}); err != nil {
		return err
	}
	return in.fsys.Mkdir(name, perm)
}

func (in *Injected) MkdirAll(name string, perm fs.FileMode) error {
	if err := in.fail(Op{Kind: OpMkdir, Path: name}); err != nil {
		return err
	}
	return in.fsys.MkdirAll(name, perm)
}

func (in *Injected) Remove(name string) error {
	if err := in.fail(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return in.fsys.Remove(name)
}

func (in *Injected) RemoveAll(name string) error {
	if err := in.fail(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return in.fsys.RemoveAll(name)
}

func (in *Injected) Rename(oldname, newname string) error {
	if r, _ := in.meet(Op{Kind: OpRename, Path: oldname, To: newname}); r.Err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: r.Err}
	}
	return in.fsys.Rename(oldname, newname)
}

func (in *Injected) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := in.fail(Op{Kind: OpReadDir, Path: name}); err != nil {
		return nil, err
	}
	return in.fsys.ReadDir(name)
}

func (in *Injected) Stat(name string) (fs.FileInfo, error) {
	if err := in.fail(Op{Kind: OpStat, Path: name}); err != nil {
		return nil, err
	}
	return in.fsys.Stat(name)
}

func (in *Injected) SyncDir(name string) error {
	if err := in.fail(Op{Kind: OpSyncDir, Path: name}); err != nil {
		return err
	}
	return in.fsys.SyncDir(name)
}

func (in *Injected) Lock(name string) (io.Closer, error) {
	if err := in.fail(Op{Kind: OpLock, Path: name}); err != nil {
		return nil, err
	}
	return in.fsys.Lock(name)
}

func (in *Injected) Space(name string) (total, usable int64, err error) {
	if err := in.fail(Op{Kind: OpSpace, Path: name}); err != nil {
		return 0, 0, err
	}
	return in.fsys.Space(name)
}

func (in *Injected) Chmod(name string, perm fs.FileMode) error {
	if err := in.fail(Op{Kind: OpChmod, Path: name}); err != nil {
		return err
	}
	return in.fsys.Chmod(name, perm)
}

func (in *Injected) Chtimes(name string, mod time.Time) error {
	if err := in.fail(Op{Kind: OpChtimes, Path: name}); err != nil {
		return err
	}
	return in.fsys.Chtimes(name, mod)
}

// injectedFile is an open file of an Injected.
type injectedFile struct {
	File
	in *Injected
}

func (f *injectedFile) ReadAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpRead, Path: f.Name(), Off: off, Len: int64(len(p))}
	r, ok := f.in.meet(op)
	if ok {
		return f.File.ReadAt(p, off)
	}
	n := 0
	err := error(io.EOF)
	if r.Short {
		if n, err = f.File.ReadAt(p[:len(p)/2], off); err == nil {
			err = io.EOF
		}
	}
	if r.Err != nil {
		err = pathError("read", f.Name(), r.Err)
	}
	return n, err
}

func (f *injectedFile) WriteAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpWrite, Path: f.Name(), Off: off, Len: int64(len(p))}
	r, ok := f.in.meet(op)
	if ok {
		return f.File.WriteAt(p, off)
	}
	n := 0
	if r.Short {
		var err error
		if n, err = f.File.WriteAt(p[:len(p)/2], off); err != nil {
			return n, err
		}
	}
	return n, writeError(f.Name(), r)
}

func (f *injectedFile) WriteVec(bufs [][]byte, off int64) (int64, error) {
	op := Op{Kind: OpWrite, Path: f.Name(), Off: off}
	for _, b := range bufs {
		op.Len += int64(len(b))
	}
	r, ok := f.in.meet(op)
	if ok {
		return f.File.WriteVec(bufs, off)
	}
	var n int64
	if r.Short {
		var err error
		if n, err = f.File.WriteVec(prefix(bufs, op.Len/2), off); err != nil {
			return n, err
		}
	}
	return n, writeError(f.Name(), r)
}

func writeError(name string, r Rule) error {
	if r.Err == nil {
		return pathError("write", name, io.ErrShortWrite)
	}
	return pathError("write", name, r.Err)
}

// prefix returns the first n bytes of bufs.
func prefix(bufs [][]byte, n int64) [][]byte {
	var out [][]byte
	for _, b := range bufs {
		b = b[:min(int64(len(b)), n)]
		n -= int64(len(b))
		out = append(out, b)
	}
	return out
}

func (f *injectedFile) Truncate(size int64) error {
	if err := f.in.fail(Op{Kind: OpTruncate, Path: f.Name(), Len: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *injectedFile) Size() (int64, error) {
	if err := f.in.fail(Op{Kind: OpStat, Path: f.Name()}); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *injectedFile) Sync() error {
	if err := f.in.fail(Op{Kind: OpSync, Path: f.Name()}); err != nil {
		if l, ok := f.File.(interface{ loseUnsynced() }); ok {
			l.loseUnsynced()
		}
		return err
	}
	return f.File.Sync()
}

func (f *injectedFile) Allocate(off, n int64) error {
	if err := f.in.fail(Op{Kind: OpAllocate, Path: f.Name(), Off: off, Len: n}); err != nil {
		return err
	}
	return f.File.Allocate(off, n)
}

// Close closes the file also if a rule has it fail, as on Linux.
func (f *injectedFile) Close() error {
	err := f.in.fail(Op{Kind: OpClose, Path: f.Name()})
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	return err
}

// OSFile is nil: a read by descriptor would pass the rules by.
func (f *injectedFile) OSFile() *os.File { return nil }
