// Command gen turns the schema files of package record (schema/README.md has
// the notation) into Go: one zz_*.go for each file, and zz_types.go with the
// table of all metadata records.
//
// It runs at development time only. parse.go reads the notation, emit.go and
// its neighbours write the code; the code leans on the small codec in package
// record, so that what is generated is plain and short.
//
//	gen -o DIR [-suffix _test.go] [-types=false] FILE…
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	out := flag.String("o", ".", "folder of the generated files")
	suffix := flag.String("suffix", ".go", "how the names of the generated files end")
	types := flag.Bool("types", true, "write the table of metadata records")
	flag.Parse()
	if err := run(*out, *suffix, *types, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(out, suffix string, types bool, files []string) error {
	var p parser
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := p.parse(strings.TrimSuffix(filepath.Base(name), ".txt"), string(text)); err != nil {
			return err
		}
	}
	emitted := map[string]*emitter{}
	for _, r := range p.records {
		e := emitted[r.file]
		if e == nil {
			e = &emitter{}
			emitted[r.file] = e
		}
		e.record(r)
	}
	if types {
		emitted["types"] = typesTable(p.records)
	}
	for file, e := range emitted {
		code, err := e.source()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(out, "zz_"+file+suffix), code, 0o644); err != nil {
			return err
		}
	}
	return nil
}
