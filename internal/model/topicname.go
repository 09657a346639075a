package model

import (
	"fmt"
	"strings"
)

// MaxTopicName is the longest topic name, in bytes: the folder name
// topic-partition must fit a file system's 255.
const MaxTopicName = 249

// CheckTopicName says what is wrong with a topic name, or nil (KAFKA.md 3.11).
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("topic name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name %q is not allowed", name)
	case len(name) > MaxTopicName:
		return fmt.Errorf("topic name has %d characters, at most %d are allowed", len(name), MaxTopicName)
	}
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-' {
			continue
		}
		return fmt.Errorf("topic name %q has the character %q; allowed are a-z A-Z 0-9 . _ -", name, c)
	}
	return nil
}

// CollisionKey is equal for two topic names that would get the same metric name
// (they differ only in '.' and '_'); Kafka refuses the second.
func CollisionKey(name string) string { return strings.ReplaceAll(name, ".", "_") }
