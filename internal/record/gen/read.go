package main

// readFunc writes the decoder. The receiver holds the defaults already.
func (e *emitter) readFunc() {
	r := e.rec
	e.f("func (r *%s) read(d *reader, version int16) {\n", r.name)
	if !r.nested {
		e.f("d.flexible = %s\n", e.flex)
	}
	for _, f := range r.fields {
		if f.tag < 0 {
			e.guarded(r.versions.cond(f.versions), func() { e.readField(f) })
		}
	}
	e.guarded(e.flex, e.readTags)
	e.f("}\n\n")
}

// readField reads one field.
func (e *emitter) readField(f *field) {
	x := "r." + goName(f.name)
	null := f.versions.cond(f.typ.nullable)
	elem := typ{base: f.typ.base, elem: f.typ.elem, nullable: none}
	switch {
	case f.typ.array && f.typ.elem == nil:
		e.f("%s = readArray(d, %d, %s, (*reader).%s)\n", x, elem.minSize(), null, baseTypes[f.typ.base].method)
	case f.typ.array:
		e.f("%s = makeArray[%s](d, %d, %s)\n", x, f.typ.elemType(), elem.minSize(), null)
		e.f("for i := range %s {\n", x)
		e.readValue(elem, x+"[i]", "false")
		e.f("}\n")
	case f.typ.elem != nil && f.typ.canBeNull():
		e.f("if d.present(%s) {\n %s = new(%s)\n", null, x, f.typ.elem.name)
		if f.typ.elem.hasDefaults() {
			e.f("%s.setDefaults()\n", x)
		}
		e.f("%s.read(d, version)\n} else { %s = nil }\n", x, x)
	default:
		e.readValue(f.typ, x, null)
	}
}

// readValue reads one value that is not an array.
func (e *emitter) readValue(t typ, x, null string) {
	switch {
	case t.elem != nil:
		if t.elem.hasDefaults() {
			e.f("%s.setDefaults()\n", x)
		}
		e.f("%s.read(d, version)\n", x)
	case t.base == "string" && t.canBeNull() && !t.array:
		e.f("%s = d.nullString(%s)\n", x, null)
	case t.base == "bytes":
		e.f("%s = d.bytes(%s)\n", x, null)
	default:
		e.f("%s = d.%s()\n", x, baseTypes[t.base].method)
	}
}

// readTags reads the tagged fields; those it does not know it skips.
func (e *emitter) readTags() {
	tagged := e.rec.tagged()
	if len(tagged) == 0 {
		e.f("d.skipTags()\n")
		return
	}
	e.f("for n := d.tagCount(); n > 0 && d.err == nil; n-- {\n tag, rest := d.openTag()\n switch {\n")
	for _, f := range tagged {
		e.f("case tag == %d", f.tag)
		if in := e.rec.versions.cond(f.versions); in != "true" {
			e.f(" && %s", in)
		}
		e.f(":\n")
		e.readField(f)
	}
	e.f("default: d.src = nil // unknown: skip it\n}\n d.closeTag(rest)\n}\n")
}
