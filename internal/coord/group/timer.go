package group

import (
	"strconv"
	"strings"
)

// Timer keys: a kind, how long the group's id is, the id, and perhaps a member's.
// Both ids may have any bytes in them.
const expiryTimer = "expiry"

func sessionTimer(group, member string) string { return timerKey("session", group, member) }
func pendingTimer(group, member string) string { return timerKey("pending", group, member) }
func joinTimer(group string) string            { return timerKey("join", group, "") }
func syncTimer(group string) string            { return timerKey("sync", group, "") }

func timerKey(kind, group, member string) string {
	return kind + " " + strconv.Itoa(len(group)) + " " + group + member
}

func splitTimer(key string) (kind, group, member string) {
	kind, rest, _ := strings.Cut(key, " ")
	size, ids, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(size)
	return kind, ids[:n], ids[n:]
}
