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
	text string   // as given, without blanks around it
	null bool     // not set and without a default
	num  int64    // Int, Short, Long; Boolean as 0 or 1
	real float64  // Double
	list []string // List; never modified after parsing
}

// parseValue reads text as Kafka does: blanks around it do not count, a list is split
// at commas.
func parseValue(t Type, text string) (value, error) {
	v := value{text: strings.TrimSpace(text)}
	var err error
	switch t {
	case Boolean:
		switch {
		case strings.EqualFold(v.text, "true"):
			v.num = 1
		case !strings.EqualFold(v.text, "false"):
			err = errors.New("want true or false")
		}
	case Int:
		v.num, err = parseInt(v.text, 32)
	case Short:
		v.num, err = parseInt(v.text, 16)
	case Long:
		v.num, err = parseInt(v.text, 64)
	case Double:
		v.real, err = parseDouble(v.text)
	case List:
		v.list = splitList(v.text)
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

// splitList splits at commas, drops blanks around the elements and what stands there a
// second time; "" is the empty list.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	var list []string
	seen := make(map[string]bool)
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); !seen[e] {
			seen[e] = true
			list = append(list, e)
		}
	}
	return list
}

// canonical gives the value as DescribeConfigs shows it: parsed and written again, the
// way Java writes it.
func (v value) canonical(t Type) string {
	switch t {
	case Boolean:
		return strconv.FormatBool(v.num != 0)
	case Int, Short, Long:
		return strconv.FormatInt(v.num, 10)
	case Double:
		return javaDouble(v.real)
	case List:
		return strings.Join(v.list, ",")
	default:
		return v.text
	}
}

// javaDouble writes a number as Java does: always with a point, with an exponent below
// a thousandth and from ten million on.
func javaDouble(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		s := strconv.FormatFloat(f, 'E', -1, 64)
		mantissa, exponent, ok := strings.Cut(s, "E")
		if !ok {
			return s // infinite
		}
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		exponent = strings.TrimPrefix(exponent, "+")
		sign := ""
		if strings.HasPrefix(exponent, "-") {
			sign, exponent = "-", exponent[1:]
		}
		return mantissa + "E" + sign + strings.TrimLeft(exponent, "0")
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
