package ottla_test

import (
	"cmp"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of every import path of ours.
const module = "ottla.dev/ottla"

// layers is the architecture, bottom first: a package imports only what stands
// on a line above its own. Packages of one line do not know each other, except
// a parent and its subfolders where both are listed. It is a statement of
// policy: a build that fails it is wrong, not the table.
//
// "x/..." covers x and everything below it; the most exact name wins.
const layers = `
internal/model
internal/config internal/feature
internal/vfs internal/memnet internal/metric
internal/batch internal/record/...
internal/security/... internal/quota
internal/image
internal/storage
internal/wire
internal/controller
internal/coord
internal/coord/group internal/coord/txn internal/coord/share
internal/replication
internal/quorum
internal/link
internal/broker
internal/tier
internal/api
internal/registry internal/console
internal/node
internal/worker internal/cli
internal/sim
.
ottlatest
streams/... connect/...
cmd/...
compat bench/...
`

// pure lists the packages that decide and never act: no clock, no randomness
// of their own, no network, no disk. Time and *rand.Rand come as arguments.
const pure = `
internal/model internal/config internal/feature
internal/batch internal/record internal/image internal/quota
internal/controller internal/replication
internal/coord/group internal/coord/txn internal/coord/share
internal/security/acl
`

// A fence keeps an outside module (or a part of the standard library) behind
// the few doors that may know it, so that it can be replaced there.
type fence struct {
	path string // import path; with a trailing /... everything below it too
	only string // packages that may import it, in the notation of layers
	why  string
}

var fences = []fence{
	{
		"go.etcd.io/raft/...", "internal/quorum",
		"consensus has one door",
	},
	{
		"github.com/twmb/franz-go/pkg/kmsg",
		"internal/wire internal/controller internal/coord/... internal/replication internal/quorum internal/link internal/broker internal/tier internal/api " +
			"internal/registry internal/console internal/node internal/worker internal/cli internal/sim ottlatest streams/... connect/... compat bench/...",
		"below wire there are bytes and our own views of them, never decoded requests",
	},
	{
		"github.com/twmb/franz-go/pkg/kgo",
		"internal/cli internal/sim streams/... connect/... compat bench/...",
		"a broker is not its own client",
	},
	{
		"github.com/twmb/franz-go/pkg/kadm",
		"internal/cli internal/sim streams/... connect/... compat bench/...",
		"a broker is not its own client",
	},
	{"github.com/klauspost/compress/...", "internal/batch", "compression has one door"},
	{"github.com/pierrec/lz4/...", "internal/batch", "compression has one door"},
	{"github.com/spf13/cobra", "internal/cli cmd/...", "commands are the surface, not the core"},
	{"pgregory.net/rapid", "", "a test library never ships"},
	{"testing/...", "internal/cli ottlatest", "tests never ship"},
}

// diskDoors are the packages that may touch files without going through vfs.
const diskDoors = "internal/vfs internal/cli cmd/... internal/record/gen compat bench/..."

// diskCalls are the names of package os that reach the disk; its types, errors
// and flags are free for all.
var diskCalls = set(`Chdir Chmod Chown Chtimes CopyFS Create CreateTemp DirFS Lchown Link Lstat
	Mkdir MkdirAll MkdirTemp NewFile Open OpenFile OpenInRoot OpenRoot ReadDir ReadFile Readlink
	Remove RemoveAll Rename Stat Symlink Truncate WriteFile`)

// impureImports may not appear in a pure package at all.
var impureImports = set(`crypto/rand io/ioutil math/rand net/http os os/exec os/signal syscall
	golang.org/x/sys/unix`)

// impureCalls may not be used in a pure package although their package may be imported.
var impureCalls = map[string]map[string]bool{
	"time": set("After AfterFunc NewTicker NewTimer Now Since Sleep Tick Until"),
	"math/rand/v2": set(`ExpFloat64 Float32 Float64 Int Int32 Int32N Int64 Int64N IntN N NormFloat64
		Perm Shuffle Uint Uint32 Uint32N Uint64 Uint64N UintN`),
	"net": set(`Dial DialIP DialTCP DialTimeout DialUDP DialUnix Interfaces InterfaceAddrs Listen ListenIP
		ListenPacket ListenTCP ListenUDP ListenUnix LookupAddr LookupCNAME LookupHost LookupIP LookupPort
		LookupSRV LookupTXT Pipe ResolveIPAddr ResolveTCPAddr ResolveUDPAddr`),
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// A sourcePackage is what one folder ships: its files without tests.
type sourcePackage struct {
	dir   string // slash path from the module's root, "." for the root
	files map[string]*ast.File
}

// imports returns the package's import paths, sorted, each once.
func (p sourcePackage) imports() []string {
	all := map[string]bool{}
	for _, f := range p.files {
		for _, spec := range f.Imports {
			all[importPath(spec)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func importPath(spec *ast.ImportSpec) string {
	p, _ := strconv.Unquote(spec.Path.Value)
	return p
}

// uses calls yield with every name that a file takes from the package at path.
func uses(f *ast.File, path string, yield func(name string, at token.Pos)) {
	local := ""
	for _, spec := range f.Imports {
		if importPath(spec) != path {
			continue
		}
		local = packageName(path)
		if spec.Name != nil {
			local = spec.Name.Name
		}
	}
	if local == "" {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				yield(sel.Sel.Name, sel.Pos())
			}
		}
		return true
	})
}

func packageName(p string) string {
	if base := path.Base(p); !strings.HasPrefix(base, "v") || strings.Trim(base, "v0123456789") != "" {
		return base
	}
	return path.Base(path.Dir(p))
}

// sources parses every package of the module for any system that Ottla runs on.
func sources(t *testing.T) (*token.FileSet, []sourcePackage) {
	t.Helper()
	fset := token.NewFileSet()
	byDir := map[string]sourcePackage{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (skipDir(d.Name()) || name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || !builds(t, name) {
			return nil
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		if byDir[dir].files == nil {
			byDir[dir] = sourcePackage{dir, map[string]*ast.File{}}
		}
		byDir[dir].files[name] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pkgs := slices.SortedFunc(maps.Values(byDir), func(a, b sourcePackage) int { return cmp.Compare(a.dir, b.dir) })
	return fset, pkgs
}

func skipDir(base string) bool {
	return strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata"
}

// builds tells whether a file is part of the program on any system we build for.
func builds(t *testing.T, name string) bool {
	t.Helper()
	for _, goos := range []string{"linux", "darwin", "windows"} {
		ctx := build.Default
		ctx.GOOS, ctx.CgoEnabled = goos, false
		ok, err := ctx.MatchFile(filepath.Dir(name), filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return true
		}
	}
	return false
}

// matches tells whether one of the patterns in list covers pkg.
func matches(list, pkg string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(pat string) bool { return covers(pat, pkg) })
}

func covers(pat, pkg string) bool {
	root, tree := strings.CutSuffix(pat, "/...")
	return pkg == root || tree && strings.HasPrefix(pkg, root+"/")
}

// rank returns the line of layers that holds pkg; the longest pattern wins.
func rank(pkg string) (line int, pat string, ok bool) {
	for i, l := range strings.Split(strings.TrimSpace(layers), "\n") {
		for _, p := range strings.Fields(l) {
			if covers(p, pkg) && len(p) > len(pat) {
				line, pat, ok = i, p, true
			}
		}
	}
	return line, pat, ok
}

func TestPackagesImportOnlyWhatStandsAboveThem(t *testing.T) {
	_, pkgs := sources(t)
	for _, p := range pkgs {
		line, pat, ok := rank(p.dir)
		if !ok {
			t.Errorf("%s has no line in layers; decide where it stands", p.dir)
			continue
		}
		for _, imp := range p.imports() {
			dep, ours := strings.CutPrefix(imp, module+"/")
			if imp == module {
				dep, ours = ".", true
			}
			if !ours {
				continue
			}
			depLine, depPat, ok := rank(dep)
			if ok && depLine >= line && depPat != pat {
				t.Errorf("%s imports %s, which does not stand above it", p.dir, dep)
			}
		}
	}
}

func TestOutsideModulesStayBehindTheirDoors(t *testing.T) {
	_, pkgs := sources(t)
	for _, p := range pkgs {
		for _, imp := range p.imports() {
			for _, f := range fences {
				if covers(f.path, imp) && !matches(f.only, p.dir) {
					t.Errorf("%s imports %s: %s (allowed: %s)", p.dir, imp, f.why, f.only)
				}
			}
		}
	}
}

func TestOnlyTheDiskDoorsTouchFiles(t *testing.T) {
	fset, pkgs := sources(t)
	for _, p := range pkgs {
		if matches(diskDoors, p.dir) {
			continue
		}
		for _, f := range p.files {
			uses(f, "os", func(name string, at token.Pos) {
				if diskCalls[name] {
					t.Errorf("%s: os.%s outside vfs; take a vfs.FS", fset.Position(at), name)
				}
			})
		}
	}
}

func TestPurePackagesHaveNoClockRandomnessOrIO(t *testing.T) {
	fset, pkgs := sources(t)
	for _, p := range pkgs {
		if !matches(pure, p.dir) {
			continue
		}
		for _, imp := range p.imports() {
			if impureImports[imp] {
				t.Errorf("%s is pure and imports %s", p.dir, imp)
			}
		}
		for _, f := range p.files {
			for imp, banned := range impureCalls {
				uses(f, imp, func(name string, at token.Pos) {
					if banned[name] {
						t.Errorf("%s: %s is pure and uses %s.%s; take it as an argument", fset.Position(at), p.dir, packageName(imp), name)
					}
				})
			}
		}
	}
}

// A test waits for what it waits for: it polls, or it runs in a synctest bubble
// where sleeping takes no time. A sleep outside a loop is a guess.
func TestNoTestSleepsAndHopes(t *testing.T) {
	fset := token.NewFileSet()
	for name := range textFiles(t) {
		if !strings.HasSuffix(name, "_test.go") || !builds(t, name) {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		if slices.ContainsFunc(f.Imports, func(s *ast.ImportSpec) bool { return importPath(s) == "testing/synctest" }) {
			continue
		}
		var loops [][2]token.Pos
		ast.Inspect(f, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.ForStmt, *ast.RangeStmt:
				loops = append(loops, [2]token.Pos{n.Pos(), n.End()})
			}
			return true
		})
		uses(f, "time", func(what string, at token.Pos) {
			looped := slices.ContainsFunc(loops, func(l [2]token.Pos) bool { return l[0] < at && at < l[1] })
			if what == "Sleep" && !looped {
				t.Errorf("%s: a sleep outside a polling loop; wait for the condition itself", fset.Position(at))
			}
		})
	}
}

// The table must be able to fail: these are the mistakes it is there to find.
func TestTheLayerTableKnowsWrongFromRight(t *testing.T) {
	for _, c := range []struct {
		pkg, dep string
		may      bool
	}{
		{"internal/storage", "internal/batch", true},
		{"internal/storage", "internal/wire", false},
		{"internal/config", "internal/feature", false},
		{"internal/coord/group", "internal/coord", true},
		{"internal/coord", "internal/coord/group", false},
		{"internal/record/gen", "internal/record", true},
		{"cmd/ottla", "internal/cli", true},
	} {
		line, pat, ok := rank(c.pkg)
		depLine, depPat, depOK := rank(c.dep)
		if may := ok && depOK && (depLine < line || depPat == pat); may != c.may {
			t.Errorf("may %s import %s? got %v, want %v", c.pkg, c.dep, may, c.may)
		}
	}
	if matches(fences[0].only, "internal/storage") || !matches(fences[0].only, "internal/quorum") {
		t.Error("the fence around raft does not hold")
	}
}
