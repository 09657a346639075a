package ottla_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const architecture = "ARCHITECTURE.md"

// A row of ARCHITECTURE.md's table of folders begins with the folder in backquotes.
var folderRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// quotedFile finds the names of source files that a page mentions in backquotes.
var quotedFile = regexp.MustCompile("`([a-z0-9_./-]+\\.(?:go|md|java|py|yml|xml))(?:#[^`]*)?`")

func TestEveryFolderHasARowAndEveryRowAFolder(t *testing.T) {
	page := read(t, architecture)
	rows := map[string]bool{}
	for _, m := range folderRow.FindAllStringSubmatch(page, -1) {
		name := strings.TrimSuffix(m[1], "/")
		if rows[name] {
			t.Errorf("%s: two rows for %s", architecture, name)
		}
		rows[name] = true
		if info, err := os.Stat(filepath.FromSlash(name)); err != nil || !info.IsDir() {
			t.Errorf("%s has a row for %s, which is no folder", architecture, name)
		}
	}
	for _, dir := range folders(t) {
		if !rows[dir] {
			t.Errorf("%s has no row for %s", architecture, dir)
		}
	}
}

// folders returns what deserves a row: every folder at the root, and every
// folder below that has Go files, without those that version control ignores.
func folders(t *testing.T) []string {
	t.Helper()
	var all []string
	skip := ignored(read(t, ".gitignore"))
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || name == "." {
			return err
		}
		if skipDir(d.Name()) || slices.Contains(skip, name) {
			return filepath.SkipDir
		}
		goFiles, err := filepath.Glob(filepath.Join(name, "*.go"))
		if err != nil {
			return err
		}
		built := slices.ContainsFunc(goFiles, func(f string) bool { return builds(t, f) })
		if built || !strings.Contains(name, string(filepath.Separator)) && hasFiles(t, name) {
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// internal is only a wall; its rooms have the rows.
	return slices.DeleteFunc(all, func(d string) bool { return d == "internal" || d == "cmd" })
}

// hasFiles tells whether there is a file anywhere below dir (version control
// knows no empty folders, so neither do we).
func hasFiles(t *testing.T, dir string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = true
			return filepath.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ignored returns the root folders and files named in the text of .gitignore.
func ignored(rules string) []string {
	var names []string
	for line := range strings.Lines(rules) {
		names = append(names, strings.Trim(strings.TrimSpace(line), "/"))
	}
	return names
}

func TestPagesNameFilesThatExist(t *testing.T) {
	for page, text := range textFiles(t) {
		if filepath.Ext(page) != ".md" {
			continue
		}
		for _, m := range quotedFile.FindAllStringSubmatch(text, -1) {
			beside := filepath.Join(filepath.Dir(page), filepath.FromSlash(m[1]))
			if !strings.Contains(m[1], "/") {
				continue // a name in passing, not a path
			}
			if !exists(filepath.FromSlash(m[1])) && !exists(beside) {
				t.Errorf("%s names %s, which does not exist", page, m[1])
			}
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// A package comment is the package's design: it opens with the name and says
// enough that a reader knows what the package is for and who calls it.
func TestEveryPackageOpensWithItsDesign(t *testing.T) {
	const least = 150 // bytes; below this it is a title
	_, pkgs := sources(t)
	for _, p := range pkgs {
		var comments []string
		name := ""
		for _, f := range p.files {
			name = f.Name.Name
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		want := "Package " + name + " "
		if name == "main" {
			want = "Command "
			if p.dir != "." {
				want += filepath.Base(p.dir) + " "
			}
		}
		switch {
		case len(comments) == 0:
			t.Errorf("%s has no package comment", p.dir)
		case len(comments) > 1:
			t.Errorf("%s has %d package comments; keep one", p.dir, len(comments))
		case !strings.HasPrefix(comments[0], want):
			t.Errorf("%s: the package comment does not begin with %q", p.dir, want)
		case name != "main" && len(comments[0]) < least:
			t.Errorf("%s: the package comment is a title, not a design: %q", p.dir, comments[0])
		}
	}
}

// unwanted are words and paths that belong to somebody's machine or to a
// moment's work, not to the project. They are put together from pieces so that
// this file does not find itself.
var unwanted = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`(?:^|[\s"'=(:])/(?:wo` + `rk|ro` + `ot|ho` + `me|Us` + `ers)/`,
	`/tmp/pl` + `an\b`,
	`\bsub-?ag` + `ents?\b`,
	`\bchat` + `gpt\b|\bclau` + `de\b|\bcopi` + `lot\b|\blarge language mo` + `del\b`,
}, `|`))

// unfinished marks code that says of itself that it is not done.
var unfinished = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X)\b|(?i)not (?:yet )?impl` + `emented`)

func TestNoFileSpeaksOfTheMachineItWasWrittenOn(t *testing.T) {
	for name, text := range textFiles(t) {
		for i, line := range strings.Split(text, "\n") {
			if m := unwanted.FindString(line); m != "" {
				t.Errorf("%s:%d: %q does not belong in the project", name, i+1, m)
			}
		}
	}
}

func TestNoShippedCodeCallsItselfUnfinished(t *testing.T) {
	for name, text := range textFiles(t) {
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !builds(t, name) {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if m := unfinished.FindString(line); m != "" {
				t.Errorf("%s:%d: %q: finish it, refuse it with an error, or file it", name, i+1, m)
			}
		}
	}
}

func TestTheWordListsFindWhatTheyAreFor(t *testing.T) {
	for _, bad := range []string{"see /wo" + "rk/notes", `cd "/ho` + `me/me/x"`, "a sub" + "agent wrote this"} {
		if !unwanted.MatchString(bad) {
			t.Errorf("%q passes", bad)
		}
	}
	for _, good := range []string{"User-Agent: ottla", "log.dirs=/tmp/kafka-logs", "docs/homework/page.md"} {
		if unwanted.MatchString(good) {
			t.Errorf("%q is refused", good)
		}
	}
	if !unfinished.MatchString("// TO"+"DO: later") || unfinished.MatchString("// the todo list topic") {
		t.Error("the list of unfinished words does not tell right from wrong")
	}
}

// textFiles returns the project's files that people read, by name, with their text.
func textFiles(t *testing.T) map[string]string {
	t.Helper()
	all, err := loadTextFiles()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var loadTextFiles = sync.OnceValues(func() (map[string]string, error) {
	const largest = 1 << 20 // bytes; nobody reads a longer file
	all := map[string]string{}
	rules, err := os.ReadFile(".gitignore")
	if err != nil {
		return nil, err
	}
	skip := ignored(string(rules))
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == ".git" || slices.Contains(skip, name) || d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > largest || d.Name() == "go.sum" || slices.Contains(skip, name) {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) < 0 {
			all[name] = string(text)
		}
		return nil
	})
	return all, err
})

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
