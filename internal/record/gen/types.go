package main

import (
	"slices"
	"strings"
)

// typesTable writes the switch statements over all metadata records.
func typesTable(all []*record) *emitter {
	recs := slices.DeleteFunc(slices.Clone(all), func(r *record) bool { return r.id < 0 })
	slices.SortFunc(recs, func(a, b *record) int { return a.id - b.id })
	e := &emitter{}

	e.f("// Type numbers of the metadata records.\nconst (\n")
	for _, r := range recs {
		e.f("Type%s int16 = %d\n", strings.TrimSuffix(r.name, "Record"), r.id)
	}
	e.f(")\n\n")

	e.f("// newMetadata returns the record of a type with its defaults, or nil.\n")
	e.f("func newMetadata(typ int16) Metadata {\n switch typ {\n")
	for _, r := range recs {
		e.f("case %d: return New%s()\n", r.id, r.name)
	}
	e.f("}\n return nil\n}\n\n")

	e.f("// typeName is the name that Kafka's tools give a type, or \"\".\n")
	e.f("func typeName(typ int16) string {\n switch typ {\n")
	for _, r := range recs {
		e.f("case %d: return %q\n", r.id, enumName(r.name))
	}
	e.f("}\n return \"\"\n}\n\n")

	e.f("// writtenVersion is the newest version of a type that a cluster at a\n// metadata.version may write.\n")
	e.f("func writtenVersion(typ, level int16) int16 {\n switch typ {\n")
	for _, r := range recs {
		if len(r.write) == 0 {
			continue
		}
		e.f("case %d:\n switch {\n", r.id)
		for _, s := range slices.Backward(r.write) {
			e.f("case level >= %d: return %d\n", s.level, s.version)
		}
		e.f("}\n")
	}
	e.f("}\n return 0\n}\n")
	return e
}
