package config

import (
	"errors"
	"fmt"
)

// Reasons why a property cannot be set at run time. Kafka answers all of them with
// INVALID_REQUEST; what is wrong with the value itself (a *ValueError) is INVALID_CONFIG.
var (
	ErrReadOnly  = errors.New("cannot be changed at run time")
	ErrPerBroker = errors.New("can only be set for one broker, not for all")
)

// ValidateBroker says why a broker property cannot be set to a value at run time, or
// nil; forAll: for all brokers at once. Keys that are not in the table may be set, as in
// Kafka, where they belong to plug-ins; they have no effect.
func ValidateBroker(key, val string, forAll bool) error {
	p, ok := Lookup(key)
	switch {
	case !ok && goneWhy(key) != "":
		return &ValueError{Key: key, Value: val, Want: goneWhy(key)}
	case !ok && listenerOverrideRefused(key):
		return &ValueError{Key: key, Value: "[hidden]", Want: "properties of a single listener are not supported"}
	case !ok:
		return nil
	case !p.alterable():
		return fmt.Errorf("%s %w", key, ErrReadOnly)
	case forAll && p.Dynamic == PerBroker:
		return fmt.Errorf("%s %w", key, ErrPerBroker)
	}
	v, err := p.parse(val)
	if err != nil {
		return err
	}
	if p.Status == Refused && !p.isDefault(v) {
		return &ValueError{Key: key, Value: p.shown(val), Want: "refused: " + p.Why}
	}
	return nil
}
