package group

import "strings"

// Timer keys: a kind, a group and perhaps a member, apart by zero bytes, which no
// name of ours has.
const expiryTimer = "expiry"

func sessionTimer(group, member string) string { return "session\x00" + group + "\x00" + member }
func pendingTimer(group, member string) string { return "pending\x00" + group + "\x00" + member }
func joinTimer(group string) string            { return "join\x00" + group }
func syncTimer(group string) string            { return "sync\x00" + group }

func splitTimer(key string) (kind, group, member string) {
	kind, rest, _ := strings.Cut(key, "\x00")
	// A member id may end in anything, a group id may not be cut: the last zero
	// byte parts them, and member ids are made here without one.
	if at := strings.LastIndexByte(rest, 0); at >= 0 && (kind == "session" || kind == "pending") {
		return kind, rest[:at], rest[at+1:]
	}
	return kind, rest, ""
}
