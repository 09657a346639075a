package model

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// UUID is a 128-bit id: of a topic, a log folder, a cluster, a process's life.
// Its text form is Kafka's: 22 characters of unpadded base64url.
type UUID [16]byte

// Ids that Kafka reserves. A topic or folder never gets one of them.
var (
	ZeroUUID = UUID{} // no id; for folders: Kafka's MIGRATING, place unknown
	OneUUID  = UUID{15: 1}

	DirUnassigned = OneUUID     // the broker chooses a folder and reports it
	DirLost       = UUID{15: 2} // the replica was on a folder that failed
)

// String gives the 22-character text form.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// ParseUUID reads the text form.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("id %q: want 22 characters of unpadded base64url", s)
	}
	copy(u[:], b)
	return u, nil
}

// MakeUUID builds a version 4 UUID from two random numbers, as Kafka does:
// randomness reaches this package as an argument. ok is false where the result
// is reserved or its text begins with '-' (a command line would take it for a
// flag); draw again.
func MakeUUID(hi, lo uint64) (u UUID, ok bool) {
	binary.BigEndian.PutUint64(u[:8], hi&^0xf000|0x4000)
	binary.BigEndian.PutUint64(u[8:], lo&^(3<<62)|2<<62)
	reserved := hi == 0 && lo < 100
	return u, !reserved && u.String()[0] != '-'
}

// RandomUUID draws from src (for example rand.Uint64 or a seeded source's) until
// it has an id that is not reserved.
func RandomUUID(src func() uint64) UUID {
	for {
		if u, ok := MakeUUID(src(), src()); ok {
			return u
		}
	}
}
