package config

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Sources is what ${…} in values may be read from. This package does no I/O, so both
// come from outside; a nil one makes a file that needs it an error.
type Sources struct {
	Env      func(name string) (string, bool)  // an environment variable
	ReadFile func(name string) ([]byte, error) // a whole file
}

// Names of the providers that Kafka ships; the name that a file gives them is free.
const (
	envProvider  = "org.apache.kafka.common.config.provider.EnvVarConfigProvider"
	fileProvider = "org.apache.kafka.common.config.provider.FileConfigProvider"
	dirProvider  = "org.apache.kafka.common.config.provider.DirectoryConfigProvider"
)

// provider is one entry of config.providers.
type provider struct {
	name  string
	from  Sources
	class string
	only  *regexp.Regexp // env: variables that may be read; nil for all
	paths []string       // file, directory: folders that may be read from; nil for all
	files map[string]map[string]string
}

// Resolve replaces the references in values by what they stand for (KIP-297):
//
//	${env:NAME}        an environment variable
//	${file:path:key}   a key of another properties file
//	${dir:folder:file} a whole file, as Kubernetes mounts secrets
//
// It does so for the providers that config.providers declares; references to others
// stay as they are, as does everything in a file that declares none. The class of a
// provider may be left out where its name is env, file or directory. A reference that
// leads nowhere is an error: Kafka takes the reference itself for the value, which as a
// password is not what anyone meant. Errors never contain what was read.
func Resolve(props map[string]string, from Sources) (map[string]string, error) {
	providers := make(map[string]*provider)
	var errs []error
	for _, name := range splitList(strings.TrimSpace(props["config.providers"])) {
		p, err := newProvider(name, props, from)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		providers[name] = p
	}
	out := maps.Clone(props)
	if out == nil {
		out = make(map[string]string)
	}
	for _, key := range slices.Sorted(maps.Keys(props)) {
		if strings.HasPrefix(key, "config.providers") {
			continue
		}
		text, err := resolve(props[key], providers)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		out[key] = text
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

func newProvider(name string, props map[string]string, from Sources) (*provider, error) {
	prefix := "config.providers." + name + "."
	p := &provider{name: name, from: from, class: strings.TrimSpace(props[prefix+"class"])}
	if p.class == "" {
		p.class = map[string]string{"env": envProvider, "file": fileProvider, "directory": dirProvider}[name]
	}
	switch p.class {
	case envProvider, fileProvider, dirProvider:
	default:
		return nil, &ValueError{Key: prefix + "class", Value: p.class, Want: fmt.Sprintf("allowed are %s, %s, %s", envProvider, fileProvider, dirProvider)}
	}
	if text := props[prefix+"param.allowlist.pattern"]; text != "" {
		re, err := regexp.Compile("^(?:" + text + ")$")
		if err != nil {
			return nil, &ValueError{Key: prefix + "param.allowlist.pattern", Value: text, Want: err.Error()}
		}
		p.only = re
	}
	for _, dir := range splitList(strings.TrimSpace(props[prefix+"param.allowed.paths"])) {
		if !path.IsAbs(dir) {
			return nil, &ValueError{Key: prefix + "param.allowed.paths", Value: dir, Want: "want absolute paths"}
		}
		p.paths = append(p.paths, path.Clean(dir))
	}
	return p, nil
}

// resolve replaces each ${provider:path:key} in text. What was put in is not looked at again.
func resolve(text string, providers map[string]*provider) (string, error) {
	var out strings.Builder
	for {
		start := strings.Index(text, "${")
		if start < 0 {
			break
		}
		length := strings.IndexByte(text[start:], '}')
		if length < 0 {
			break
		}
		name, ref, ok := strings.Cut(text[start+2:start+length], ":")
		p := providers[name]
		if !ok || p == nil { // not ours: keep the "${" and look on behind it
			out.WriteString(text[:start+2])
			text = text[start+2:]
			continue
		}
		got, err := p.get(ref)
		if err != nil {
			return "", fmt.Errorf("${%s:%s}: %w", name, ref, err)
		}
		out.WriteString(text[:start])
		out.WriteString(got)
		text = text[start+length+1:]
	}
	out.WriteString(text)
	return out.String(), nil
}

func (p *provider) get(ref string) (string, error) {
	where, key, two := strings.Cut(ref, ":")
	switch {
	case p.class == envProvider && two:
		return "", errors.New("want the name of a variable alone")
	case p.class == envProvider:
		return p.env(where)
	case !two:
		return "", errors.New("want a path and a key")
	case p.class == fileProvider:
		return p.fileKey(where, key)
	}
	if key == "" || key != path.Base(key) || key == ".." || key == "." {
		return "", fmt.Errorf("%q is not the name of a file", key)
	}
	b, err := p.read(path.Join(where, key))
	return string(b), err
}

func (p *provider) env(name string) (string, error) {
	if p.from.Env == nil {
		return "", errors.New("the environment cannot be read here")
	}
	if p.only != nil && !p.only.MatchString(name) {
		return "", fmt.Errorf("config.providers.%s.param.allowlist.pattern does not allow it", p.name)
	}
	v, ok := p.from.Env(name)
	if !ok {
		return "", errors.New("there is no such variable")
	}
	return v, nil
}

func (p *provider) fileKey(name, key string) (string, error) {
	keys, ok := p.files[name]
	if !ok {
		b, err := p.read(name)
		if err != nil {
			return "", err
		}
		if keys, err = ParseProperties(b); err != nil {
			return "", errors.New("the file is not a properties file") // the text may hold secrets
		}
		if p.files == nil {
			p.files = make(map[string]map[string]string)
		}
		p.files[name] = keys
	}
	v, ok := keys[key]
	if !ok {
		return "", errors.New("the file has no such key")
	}
	return v, nil
}

func (p *provider) read(name string) ([]byte, error) {
	if p.from.ReadFile == nil {
		return nil, errors.New("files cannot be read here")
	}
	clean := path.Clean(name)
	if p.paths != nil && !slices.ContainsFunc(p.paths, func(dir string) bool {
		return clean == dir || strings.HasPrefix(clean, strings.TrimSuffix(dir, "/")+"/")
	}) {
		return nil, fmt.Errorf("config.providers.%s.param.allowed.paths does not allow it", p.name)
	}
	return p.from.ReadFile(clean)
}
