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
