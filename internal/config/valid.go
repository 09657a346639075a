package config

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Validator is the range of a property's values, read from the table's notation.
// The zero Validator allows everything.
type Validator struct {
	kind     validKind
	min, max float64  // numbers: exact for int, and for long where a table has a bound (≤ 2^53)
	also     []string // numbers: single values allowed outside min..max
	words    []string // oneOf, anyCase: what is allowed; list: what elements are allowed, nil for any
	filled   bool     // list: at least one element
}

type validKind int8

const (
	anything validKind = iota
	numbers
	oneOf
	anyCase
	nonEmpty
	list
	voters   // id@host:port, each id once
	servers  // host:port
	replicas // partition:broker, or one *
	counts   // address:count
)

// String gives the range in words, for documentation; "" if everything is allowed.
func (v Validator) String() string {
	switch v.kind {
	case anything:
		return ""
	case numbers:
		s := number(v.min) + " or more"
		if !math.IsInf(v.max, 1) {
			s = number(v.min) + " to " + number(v.max)
		}
		if len(v.also) > 0 {
			s += ", or " + strings.Join(v.also, ", ")
		}
		return s
	case oneOf:
		return strings.Join(v.words, ", ")
	case anyCase:
		return strings.Join(v.words, ", ") + " (in any case)"
	case nonEmpty:
		return "not empty"
	case voters:
		return "id@host:port, …"
	case servers:
		return "host:port, …"
	case replicas:
		return "partition:broker, … or *"
	case counts:
		return "address:count, …"
	}
	switch {
	case v.words != nil && v.filled:
		return "one or more of " + strings.Join(v.words, ", ")
	case v.words != nil:
		return "any of " + strings.Join(v.words, ", ")
	case v.filled:
		return "at least one"
	}
	return ""
}

// parseValidator reads the notation of the table.
func parseValidator(s string) (Validator, error) {
	var v Validator
	switch {
	case s == "-":
	case s == "nonempty":
		v.kind = nonEmpty
	case s == "voters":
		v.kind = voters
	case s == "servers":
		v.kind = servers
	case s == "replicas":
		v.kind = replicas
	case s == "counts":
		v.kind = counts
	case strings.HasPrefix(s, "list"):
		v.kind = list
		s, v.filled = strings.CutPrefix(s[len("list"):], "+")
		if s != "" {
			v.words = words(s)
		}
	case strings.HasPrefix(s, "{i:"):
		v.kind, v.words = anyCase, words("{"+s[len("{i:"):])
	case strings.HasPrefix(s, "{"):
		v.kind, v.words = oneOf, words(s)
	default:
		return v, v.parseNumbers(s)
	}
	return v, nil
}

func words(braced string) []string { return strings.Split(strings.Trim(braced, "{}"), ",") }

func (v *Validator) parseNumbers(s string) error {
	parts := strings.Split(s, "|")
	low, high, ok := strings.Cut(parts[0], "..")
	if !ok {
		return fmt.Errorf("unknown range %q", s)
	}
	v.kind, v.max, v.also = numbers, math.Inf(1), parts[1:]
	var err error
	if v.min, err = strconv.ParseFloat(low, 64); err == nil && high != "" {
		v.max, err = strconv.ParseFloat(high, 64)
	}
	return err
}

// check says what the value should have been, or "" if it is allowed.
func (v Validator) check(got value) string {
	switch v.kind {
	case numbers:
		n := got.real
		if got.num != 0 {
			n = float64(got.num)
		}
		if (n < v.min || n > v.max) && !slices.Contains(v.also, got.text) {
			return "allowed are " + v.String()
		}
	case oneOf:
		if !slices.Contains(v.words, got.text) {
			return "allowed are " + v.String()
		}
	case anyCase:
		if !slices.ContainsFunc(v.words, func(w string) bool { return strings.EqualFold(w, got.text) }) {
			return "allowed are " + v.String()
		}
	case nonEmpty:
		if got.text == "" {
			return "must not be empty; leave it out instead"
		}
	case counts:
		_, err := parseCounts(got.text)
		return text(err)
	case list, voters, servers, replicas:
		return v.checkList(got.list)
	}
	return ""
}

func (v Validator) checkList(got []string) string {
	if v.filled && len(got) == 0 {
		return "want at least one element"
	}
	for _, e := range got {
		switch {
		case e == "":
			return "an element of the list is empty"
		case v.words != nil && !slices.Contains(v.words, e):
			return fmt.Sprintf("%s is not allowed; allowed are %s", e, strings.Join(v.words, ", "))
		}
	}
	switch v.kind {
	case voters:
		_, err := parseVoters(got)
		return text(err)
	case servers:
		for _, e := range got {
			if _, _, err := splitHostPort(e); err != nil {
				return text(err)
			}
		}
	case replicas:
		return checkReplicas(got)
	}
	return ""
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// checkReplicas checks a list of throttled replicas: "*" alone or partition:broker.
func checkReplicas(got []string) string {
	if len(got) == 1 && got[0] == "*" {
		return ""
	}
	for _, e := range got {
		p, b, ok := strings.Cut(e, ":")
		if !ok || !digits(p) || !digits(b) {
			return fmt.Sprintf("%s is not partition:broker", e)
		}
	}
	return ""
}

func digits(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// splitHostPort reads host:port with a port that can be dialled.
func splitHostPort(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%s is not host:port", s)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 || host == "" {
		return "", 0, fmt.Errorf("%s: want a host and a port from 1 to 65535", s)
	}
	return host, port, nil
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
