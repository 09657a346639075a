package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxFile is the size in bytes up to which ParseProperties takes a file. The largest
// honest one, with certificates inside, is a hundredth of that.
const MaxFile = 4 << 20

// ParseProperties reads a Java properties file: key=value, key:value or "key value",
// comments with # or !, lines continued with a backslash, \uXXXX. A key that stands
// twice has its last value, as in Java. ${…} stays as it is: see Resolve. The text is
// taken for UTF-8, where Java's own reader takes it for Latin-1; and a lone backslash at
// the end of the file, to Java an empty key, is nothing.
//
// It is written out here because the library at hand reads continued lines that end in
// CR LF, and keys that are continued, otherwise than Java does.
func ParseProperties(text []byte) (map[string]string, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("properties: the file has %d bytes, at most %d are read", len(text), MaxFile)
	}
	props := make(map[string]string)
	r := lineReader{rest: string(text)}
	for {
		line, ok := r.next()
		if !ok {
			return props, nil
		}
		rawKey, rawValue := splitLine(line)
		key, err := unescape(rawKey)
		if err != nil {
			return nil, fmt.Errorf("properties: line %d: %w", r.started, err)
		}
		val, err := unescape(rawValue)
		if err != nil {
			return nil, fmt.Errorf("properties: line %d: value of %s: %w", r.started, key, err)
		}
		props[key] = val
	}
}

const blanks = " \t\f"

// lineReader cuts a file into logical lines: without comments and empty lines, with
// continued lines joined.
type lineReader struct {
	rest    string
	line    int // physical lines read
	started int // physical line that the last logical line began at, from 1
}

// physical takes one line, without its end (LF, CR or CR LF).
func (r *lineReader) physical() (line string, ok bool) {
	if r.rest == "" {
		return "", false
	}
	r.line++
	end := strings.IndexAny(r.rest, "\r\n")
	if end < 0 {
		line, r.rest = r.rest, ""
		return line, true
	}
	line = r.rest[:end]
	if strings.HasPrefix(r.rest[end:], "\r\n") {
		end++
	}
	r.rest = r.rest[end+1:]
	return line, true
}

// next gives a logical line, its escapes untouched. A comment cannot be continued, and
// what looks like one is none where it continues a line that has text.
func (r *lineReader) next() (string, bool) {
	var out strings.Builder
	for {
		line, ok := r.physical()
		if !ok {
			return out.String(), out.Len() > 0
		}
		line = strings.TrimLeft(line, blanks)
		if out.Len() == 0 {
			if line == "" || line[0] == '#' || line[0] == '!' {
				continue
			}
			r.started = r.line
		}
		if backslashes(line)%2 == 0 {
			out.WriteString(line)
			return out.String(), true
		}
		out.WriteString(line[:len(line)-1])
	}
}

// backslashes counts those at the end of s.
func backslashes(s string) int { return len(s) - len(strings.TrimRight(s, `\`)) }

// splitLine cuts a logical line into key and value, both still escaped: the key ends at
// the first =, : or blank without a backslash before it.
func splitLine(line string) (key, val string) {
	i := 0
	for i < len(line) && !strings.ContainsRune(blanks+"=:", rune(line[i])) {
		if line[i] == '\\' {
			i++
		}
		i++
	}
	if i >= len(line) {
		return line, ""
	}
	val = strings.TrimLeft(line[i:], blanks)
	if val != "" && (val[0] == '=' || val[0] == ':') {
		val = strings.TrimLeft(val[1:], blanks)
	}
	return line[:i], val
}

// unescape replaces \t, \n, \r, \f and \uXXXX; a backslash before anything else goes away.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 't':
			out.WriteByte('\t')
		case 'n':
			out.WriteByte('\n')
		case 'r':
			out.WriteByte('\r')
		case 'f':
			out.WriteByte('\f')
		case 'u':
			r, used, err := unicodeEscape(s[i-1:])
			if err != nil {
				return "", err
			}
			out.WriteRune(r)
			i += used - 2
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

// unicodeEscape reads \uXXXX, or two of them that are a surrogate pair, at the start of s.
func unicodeEscape(s string) (r rune, used int, err error) {
	unit, err := codeUnit(s)
	if err != nil {
		return 0, 0, err
	}
	if !utf16.IsSurrogate(unit) {
		return unit, 6, nil
	}
	if strings.HasPrefix(s[6:], `\u`) {
		low, err := codeUnit(s[6:])
		if err != nil {
			return 0, 0, err
		}
		if r = utf16.DecodeRune(unit, low); r != utf8.RuneError {
			return r, 12, nil
		}
	}
	return utf8.RuneError, 6, nil
}

// codeUnit reads the four hexadecimal digits of \uXXXX.
func codeUnit(s string) (rune, error) {
	if len(s) >= 6 {
		if n, err := strconv.ParseUint(s[2:6], 16, 16); err == nil {
			return rune(n), nil
		}
	}
	return 0, errUnicode
}

// errUnicode does not show the text: it may be a part of a password.
var errUnicode = errors.New("want four hexadecimal digits after \\u")
