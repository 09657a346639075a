package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// value is a property's value, parsed. Which fields mean something depends on the
// property's type.
type value struct {
	text string   // as given, untouched: what DescribeConfigs shows
	null bool     // not set and without a default
	num  int64    // Int, Short, Long; Boolean as 0 or 1
	real float64  // Double
	list []string // List; never modified after parsing
}

// parseValue reads text as Kafka does: blanks around it do not count (but stay in
// what is shown), a list is split at commas.
func parseValue(t Type, text string) (value, error) {
	v := value{text: text}
	trimmed := strings.TrimSpace(text)
	var err error
	switch t {
	case Boolean:
		switch {
		case strings.EqualFold(trimmed, "true"):
			v.num = 1
		case !strings.EqualFold(trimmed, "false"):
			err = errors.New("want true or false")
		}
	case Int:
		v.num, err = parseInt(trimmed, 32)
	case Short:
		v.num, err = parseInt(trimmed, 16)
	case Long:
		v.num, err = parseInt(trimmed, 64)
	case Double:
		v.real, err = parseDouble(trimmed)
	case List:
		v.list = splitList(trimmed)
	}
	return v, err
}

func parseInt(s string, bits int) (int64, error) {
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		limit := int64(math.MaxInt64) >> (64 - bits)
		return 0, errors.New("want a whole number from " + strconv.FormatInt(-limit-1, 10) + " to " + strconv.FormatInt(limit, 10))
	}
	return n, nil
}

func parseDouble(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || strings.Contains(s, "_") {
		return 0, errors.New("want a number")
	}
	return f, nil
}

// splitList splits at commas and drops blanks around the elements; "" is the empty list.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}
