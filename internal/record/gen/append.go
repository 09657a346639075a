package main

import "fmt"

// appendFunc writes the encoder.
func (e *emitter) appendFunc() {
	r := e.rec
	e.f("func (r *%s) append(dst []byte, version int16) []byte {\n", r.name)
	for _, f := range r.fields {
		if f.tag < 0 {
			e.guarded(r.versions.cond(f.versions), func() { e.appendField(f) })
		}
	}
	e.guarded(e.flex, e.appendTags)
	e.f("\treturn dst\n}\n\n")
}

func (e *emitter) appendField(f *field) {
	x := "r." + goName(f.name)
	null := f.versions.cond(f.typ.nullable)
	switch {
	case f.typ.array && f.typ.elem == nil && f.typ.base != "string" && f.typ.base != "bytes":
		e.f("dst = appendArray(dst, %s, %s, %s, append%s)\n", x, e.isNull(x, null), e.flex, upperFirst(baseTypes[f.typ.base].method))
	case f.typ.array:
		e.f("dst = appendArrayLen(dst, len(%s), %s, %s)\n", x, e.isNull(x, null), e.flex)
		e.f("for i := range %s {\n", x)
		e.appendValue(f.typ, x+"[i]", "false")
		e.f("}\n")
	case f.typ.elem != nil && f.typ.canBeNull():
		e.f("if %s == nil { dst = append(dst, 0xff) } else {\n dst = append(dst, 1)\n dst = %s.append(dst, version) }\n", x, x)
	default:
		e.appendValue(f.typ, x, null)
	}
}

// isNull spells "the value is written as null".
func (e *emitter) isNull(x, null string) string {
	switch null {
	case "false":
		return "false"
	case "true":
		return x + " == nil"
	}
	return fmt.Sprintf("%s == nil && %s", x, null)
}

// appendValue writes one value that is not an array.
func (e *emitter) appendValue(t typ, x, null string) {
	switch {
	case t.elem != nil:
		e.f("dst = %s.append(dst, version)\n", x)
	case t.base == "string" && t.canBeNull() && !t.array:
		e.f("dst = appendNullString(dst, %s, %s, %s)\n", x, null, e.flex)
	case t.base == "string":
		e.f("dst = appendString(dst, %s, %s)\n", x, e.flex)
	case t.base == "bytes":
		e.f("dst = appendBytes(dst, %s, %s, %s)\n", x, e.isNull(x, null), e.flex)
	default:
		e.f("dst = append%s(dst, %s)\n", upperFirst(baseTypes[t.base].method), x)
	}
}

// appendTags writes the tagged fields that are not at their default, in the
// order of their tags.
func (e *emitter) appendTags() {
	tagged := e.rec.tagged()
	if len(tagged) == 0 {
		e.f("dst = append(dst, 0) // no tagged fields\n")
		return
	}
	e.f("tags := byte(0)\n")
	for _, f := range tagged {
		e.f("if %s { tags++ }\n", e.tagCond(f))
	}
	e.f("dst = append(dst, tags)\n")
	for _, f := range tagged {
		e.f("if %s {\n dst = append(dst, %d)\n start := len(dst)\n", e.tagCond(f), f.tag)
		e.appendField(f)
		e.f("dst = closeTag(dst, start)\n}\n")
	}
}

// tagCond spells "the tagged field is written".
func (e *emitter) tagCond(f *field) string {
	x, cond := "r."+goName(f.name), ""
	switch {
	case f.typ.canBeNull():
		cond = x + " != nil"
	case f.typ.array || f.typ.base == "bytes":
		cond = "len(" + x + ") > 0"
	case f.typ.base == "bool" && f.def == "true":
		cond = "!" + x
	case f.typ.base == "bool":
		cond = x
	case f.typ.base == "uuid":
		cond = x + " != (model.UUID{})"
	case f.typ.base == "string":
		cond = fmt.Sprintf("%s != %q", x, f.def)
	case f.def == "":
		cond = x + " != 0"
	default:
		cond = x + " != " + f.def
	}
	if in := e.rec.versions.cond(f.versions); in != "true" {
		cond = in + " && " + cond
	}
	return cond
}
