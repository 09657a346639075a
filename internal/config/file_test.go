package config

import (
	"bytes"
	"maps"
	"strings"
	"testing"
)

func TestPropertiesFilesAreReadAsJavaReadsThem(t *testing.T) {
	got, err := ParseProperties([]byte("# comment\n! another\n\na=1\nb : 2\nc 3\n  d\t=\t4  \ne=x\\\n   y\nf=\\u00e4\\n\ng=\nh\ni=a=b:c\nj\\ k=l\na=9\r\nm=${env:X}\n\\:n=\\\\\nö=ü"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a": "9", "b": "2", "c": "3", "d": "4  ", "e": "xy", "f": "ä\n", "g": "", "h": "", "i": "a=b:c", "j k": "l", "m": "${env:X}", ":n": `\`, "ö": "ü",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestContinuedLinesAndOddities: each outcome is that of java.util.Properties.
func TestContinuedLinesAndOddities(t *testing.T) {
	for in, want := range map[string]map[string]string{
		"a=b,\\\r\n   c\r\nd=1\r\n":     {"a": "b,c", "d": "1"},
		"a\\\n  b=1":                    {"ab": "1"},
		"a=1\\":                         {"a": "1"},
		"a=1\\\\\nb=2":                  {"a": `1\`, "b": "2"},
		"a=1\\\n\nb=2":                  {"a": "1", "b": "2"},
		"# no \\\na=1":                  {"a": "1"},
		"a=x\\\n# part":                 {"a": "x# part"},
		"\\\n  k v\n ${a}":              {"k": "v", "${a}": ""},
		"=v":                            {"": "v"},
		"a = = b":                       {"a": "= b"},
		"a\\=b=c":                       {"a=b": "c"},
		"a:b=c":                         {"a": "b=c"},
		"\ta\fb":                        {"a": "b"},
		"a=\\ud83d\\ude00\\ud83d":       {"a": "😀\uFFFD"},
		"a=\\z\\\"":                     {"a": `z"`},
		"a=1\rb=2":                      {"a": "1", "b": "2"},
		"a=\\u0041\\u0042\\\n \\u0043d": {"a": "ABCd"},
	} {
		got, err := ParseProperties([]byte(in))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
}

func TestBadEscapesAreErrorsThatNameTheLineAndNoValue(t *testing.T) {
	for in, line := range map[string]string{"a=1\n\n#\nb=x\\\nhunter2\\u00zz": "line 4", "\\u12": "line 1", "a=hunter2\\ud83d\\u1": "line 1"} {
		_, err := ParseProperties([]byte(in))
		if err == nil || !strings.Contains(err.Error(), line) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestPropertiesFilesHaveABound(t *testing.T) {
	if _, err := ParseProperties(bytes.Repeat([]byte("#\n"), MaxFile)); err == nil {
		t.Error("taken")
	}
}

func FuzzParseProperties(f *testing.F) {
	f.Add([]byte(shippedFile))
	f.Add([]byte("a=${a}\nb=${env:X}\n\\"))
	f.Add([]byte("a\\u12"))
	f.Add([]byte("\xff\xfe=1\\"))
	f.Fuzz(func(t *testing.T, text []byte) {
		props, err := ParseProperties(text)
		if err != nil {
			return
		}
		size := 0
		for k, v := range props {
			size += len(k) + len(v)
		}
		if size > 3*len(text)+len(props) { // no escape makes more than that of a byte
			t.Errorf("%d bytes became %d", len(text), size)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add(shippedFile)
	for key, val := range Default() {
		f.Add(key + "=" + val)
	}
	f.Add("controller.quorum.voters=1@[::1]:9093,2@:0")
	f.Add("listeners=A://[:1,B://]:2\nlistener.security.protocol.map=A:PLAINTEXT,:")
	f.Add("config.providers=env\nbroker.rack=${env:}")
	f.Add("max.connections.per.ip.overrides=::1:5,:")
	f.Fuzz(func(t *testing.T, text string) {
		props, err := ParseProperties([]byte(text))
		if err != nil {
			return
		}
		for key, val := range Default() {
			if _, ok := props[key]; !ok && !strings.Contains(text, "process.roles") {
				props[key] = val
			}
		}
		if props, err = Resolve(props, Sources{}); err != nil {
			return
		}
		c, _, err := Load(props)
		if err != nil {
			return
		}
		if len(c.Listeners()) == 0 || len(c.LogDirs()) == 0 || c.NodeID() < 0 || !c.IsBroker() && !c.IsController() {
			t.Errorf("a configuration without the essentials: %q", props)
		}
		again, _, err := Load(c.Static())
		if err != nil || again.NodeID() != c.NodeID() || len(again.Listeners()) != len(c.Listeners()) {
			t.Errorf("what was loaded does not load again: %v", err)
		}
	})
}
