package main

import (
	"strings"
	"unicode"
)

// initialisms are the words that Go writes in capitals.
var initialisms = map[string]string{"Id": "ID", "Ids": "IDs", "Isr": "ISR", "Elr": "ELR", "Zk": "ZK"}

// words splits a name of Kafka's where a capital begins a new word: "TopicId"
// is Topic, Id.
func words(name string) (list []string) {
	start := 0
	for i, c := range name {
		if i > start && unicode.IsUpper(c) && !unicode.IsUpper(rune(name[i-1])) {
			list = append(list, name[start:i])
			start = i
		}
	}
	return append(list, name[start:])
}

// goName is the Go spelling of a field's name.
func goName(name string) string {
	list := words(name)
	for i, w := range list {
		w = strings.ToUpper(w[:1]) + w[1:]
		if up, ok := initialisms[w]; ok {
			w = up
		}
		list[i] = w
	}
	return strings.Join(list, "")
}

// jsonName is the spelling in Kafka's JSON form.
func jsonName(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// enumName is how Kafka's tools name a record type: REGISTER_BROKER_RECORD.
func enumName(name string) string { return strings.ToUpper(strings.Join(words(name), "_")) }
