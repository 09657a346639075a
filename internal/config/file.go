package config

import (
	"fmt"

	"github.com/magiconair/properties"
)

// MaxFile is the size in bytes up to which ParseProperties takes a file. The largest
// honest one, with certificates inside, is a hundredth of that.
const MaxFile = 4 << 20

// ParseProperties reads a Java properties file: key=value, key:value or "key value",
// comments with # or !, lines continued with a backslash, \uXXXX. A key that stands
// twice has its last value, as in Java. ${…} stays as it is: see Resolve.
func ParseProperties(text []byte) (map[string]string, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("properties: the file has %d bytes, at most %d are read", len(text), MaxFile)
	}
	l := properties.Loader{Encoding: properties.UTF8, DisableExpansion: true}
	p, err := l.LoadBytes(text)
	if err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	return p.Map(), nil
}
