package config

import (
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"
)

// world is the environment and the files that the tests resolve from.
var world = Sources{
	Env: func(name string) (string, bool) {
		v, ok := map[string]string{"ZONE": "eu-1", "SECRET": "hunter2", "NESTED": "${env:SECRET}"}[name]
		return v, ok
	},
	ReadFile: func(name string) ([]byte, error) {
		b, ok := map[string]string{"/etc/kafka/secrets": "user=alice\npassword=p:w=1\n", "/run/secrets/pin": "1234", "/bad": "a=\\u00zz"}[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(b), nil
	},
}

func TestReferencesAreReplacedByWhatTheyStandFor(t *testing.T) {
	declared := map[string]string{
		"config.providers":               "env,secrets,dir",
		"config.providers.env.class":     envProvider,
		"config.providers.secrets.class": fileProvider,
		"config.providers.dir.class":     dirProvider,
	}
	for in, want := range map[string]string{
		"${env:ZONE}":                            "eu-1",
		"a-${env:ZONE}-${env:ZONE}":              "a-eu-1-eu-1",
		"${secrets:/etc/kafka/secrets:password}": "p:w=1",
		"${dir:/run/secrets:pin}":                "1234",
		"${env:NESTED}":                          "${env:SECRET}", // once, as in Kafka
		"${vault:x:y}":                           "${vault:x:y}",
		"${}${env":                               "${}${env",
		"$env{x}":                                "$env{x}",
		"${a${env:ZONE}":                         "${aeu-1",
	} {
		props := maps.Clone(declared)
		props["broker.rack"] = in
		got, err := Resolve(props, world)
		if err != nil || got["broker.rack"] != want {
			t.Errorf("%s: %q %v, want %q", in, got["broker.rack"], err, want)
		}
		if props["broker.rack"] != in {
			t.Error("Resolve changed the map it was given")
		}
	}
}

func TestWithoutConfigProvidersReferencesStay(t *testing.T) {
	got, err := Resolve(map[string]string{"broker.rack": "${env:ZONE}"}, world)
	if err != nil || got["broker.rack"] != "${env:ZONE}" {
		t.Errorf("%v %v", got, err)
	}
}

func TestReferencesThatLeadNowhereAreErrorsThatShowNoSecret(t *testing.T) {
	for _, c := range []struct{ ref, more, want string }{
		{"${env:NOSUCH}", "", "no such variable"},
		{"${env:SECRET:x}", "", "want the name of a variable alone"},
		{"${file:/etc/kafka/secrets}", "", "want a path and a key"},
		{"${file:/etc/kafka/secrets:nosuch}", "", "no such key"},
		{"${file:/nosuch:x}", "", "not exist"},
		{"${file:/bad:x}", "", "not a properties file"},
		{"${directory:/run/secrets:../secrets/pin}", "", "is not the name of a file"},
		{"${env:SECRET}", "config.providers.env.param.allowlist.pattern=ZO.*", "allowlist.pattern does not allow it"},
		{"${file:/etc/kafka/secrets:user}", "config.providers.file.param.allowed.paths=/etc/other,/etc/kaf", "allowed.paths does not allow it"},
		{"${file:/etc/kafka/../kafka/secrets:user}", "config.providers.file.param.allowed.paths=/run", "allowed.paths does not allow it"},
		{"x", "config.providers.file.param.allowed.paths=relative", "want absolute paths"},
		{"x", "config.providers.env.param.allowlist.pattern=(", "missing closing"},
		{"x", "config.providers.env.class=my.Vault", "allowed are " + envProvider},
	} {
		props := map[string]string{"config.providers": "env,file,directory", "broker.rack": c.ref}
		if key, val, ok := strings.Cut(c.more, "="); ok {
			props[key] = val
		}
		_, err := Resolve(props, world)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %s: %v, want %q", c.ref, c.more, err, c.want)
		}
	}
	props := map[string]string{"config.providers": "file", "config.providers.file.param.allowed.paths": "/etc/kafka", "broker.rack": "${file:/etc/kafka/secrets:user}"}
	if got, err := Resolve(props, world); err != nil || got["broker.rack"] != "alice" {
		t.Errorf("an allowed path: %v %v", got, err)
	}
	if _, err := Resolve(props, Sources{}); err == nil {
		t.Error("a file was read by nobody")
	}
}

func TestUnresolvedReferencesDoNotBecomeValues(t *testing.T) {
	props := profile("config.providers", "env", "broker.rack", "${env:ZONE}")
	_, _, err := Load(props)
	var v *ValueError
	if !errors.As(err, &v) || !strings.Contains(err.Error(), "was not resolved") {
		t.Errorf("%v", err)
	}
	resolved, err := Resolve(props, world)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, resolved).String(BrokerRack); got != "eu-1" {
		t.Errorf("rack %q", got)
	}
}
