package main

// printFunc writes the walk over all fields that the text and JSON forms share.
// Tagged fields at their default are left out, as on the wire.
func (e *emitter) printFunc() {
	r := e.rec
	recv := "r"
	if len(r.fields) == 0 {
		recv = ""
	}
	e.f("func (%s *%s) print(p *printer, version int16) {\n", recv, r.name)
	for _, f := range r.fields {
		cond := r.versions.cond(f.versions)
		if f.tag >= 0 {
			cond = e.tagCond(f)
		}
		e.guarded(cond, func() { e.printField(f) })
	}
	e.f("}\n\n")
}

func (e *emitter) printField(f *field) {
	x, name := "r."+goName(f.name), jsonName(f.name)
	switch {
	case f.typ.array:
		null := e.isNull(x, f.versions.cond(f.typ.nullable))
		if null != "false" {
			e.f("if %s { p.null(%q) } else {\n", null, name)
		}
		e.f("p.open(%q, '[')\n for i := range %s {\n", name, x)
		e.printValue(f.typ, x+"[i]", "")
		e.f("}\n p.close(']')\n")
		if null != "false" {
			e.f("}\n")
		}
	case f.typ.elem != nil && f.typ.canBeNull():
		e.f("if %s == nil { p.null(%q) } else {\n", x, name)
		e.printValue(f.typ, x, name)
		e.f("}\n")
	case f.secret:
		e.f("p.secret(%q, %s)\n", name, x)
	case f.typ.base == "bytes" && f.typ.canBeNull():
		e.f("if %s == nil { p.null(%q) } else { p.bytes(%q, %s) }\n", x, name, name, x)
	case f.typ.base == "string" && f.typ.canBeNull():
		e.f("p.nullString(%q, %s)\n", name, x)
	default:
		e.printValue(f.typ, x, name)
	}
}

// printValue prints one value that is neither array nor null; name is empty
// for an array's element.
func (e *emitter) printValue(t typ, x, name string) {
	switch t.base {
	case "int8", "int16", "uint16", "int32":
		e.f("p.int(%q, int64(%s))\n", name, x)
	case "int64":
		e.f("p.int(%q, %s)\n", name, x)
	case "float64":
		e.f("p.float(%q, %s)\n", name, x)
	case "bool", "string", "bytes", "uuid":
		e.f("p.%s(%q, %s)\n", baseTypes[t.base].method, name, x)
	default:
		e.f("p.open(%q, '{')\n %s.print(p, version)\n p.close('}')\n", name, x)
	}
}
