// Package feature knows the versions that a cluster as a whole can be at: Kafka's
// finalized features (KIP-584, KAFKA.md 1). A binary supports a range of levels of
// each; the metadata log says which level is in force, and that level decides what
// may be written. There is no state here: only the table of Kafka 4.4 and questions
// to it. A level that Ottla cannot write yet must not be in a range here, because
// brokers and controllers register exactly these ranges.
package feature

import "fmt"

// Names of the features, as they stand in FeatureLevelRecord and ApiVersions.
const (
	MetadataVersion       = "metadata.version"
	KRaftVersion          = "kraft.version"
	TransactionVersion    = "transaction.version"
	GroupVersion          = "group.version"
	EligibleLeaderVersion = "eligible.leader.replicas.version"
	ShareVersion          = "share.version"
	StreamsVersion        = "streams.version"
	// Liveness is a feature of ours: a broker that registers it heartbeats often and may
	// be fenced on evidence before its session ends. It is never finalized (level 0):
	// a controller refuses a broker that does not support each finalized feature, and
	// Apache Kafka's brokers do not know this one. Being registered is what counts.
	Liveness = "ottla.liveness"
)

// The levels of metadata.version that decide something in Ottla's code.
const (
	MetadataMin         = 7  // 3.3-IV3, the lowest a 4.x cluster may be at
	MetadataNoISRBump   = 12 // 3.6-IV0: an ISR shrink leaves the leader epoch alone
	MetadataTxn         = 13 // 3.6-IV1: Begin/End/AbortTransactionRecord
	MetadataControllers = 15 // 3.7-IV0: RegisterControllerRecord
	MetadataDirs        = 17 // 3.7-IV2: directory ids in registrations and partitions
	MetadataELR         = 23 // 4.0-IV1: eligible leader replicas in PartitionRecord v2
	MetadataCordoned    = 30 // 4.3-IV0: cordoned folders in registrations
	MetadataLatest      = 33 // 4.4-IV2
)

// Range is one feature and what this binary can do of it.
type Range struct {
	Name     string
	Min, Max int16 // levels supported, inclusive; level 0 means "off"
	Default  int16 // level of a new cluster
}

// Supported lists every feature, by name. The slice is the caller's.
func Supported() []Range {
	return []Range{
		{EligibleLeaderVersion, 0, 1, 1},
		{GroupVersion, 0, 1, 1},
		{KRaftVersion, 0, 1, 1},
		{MetadataVersion, MetadataMin, MetadataLatest, MetadataLatest},
		{Liveness, 0, 1, 0},
		{ShareVersion, 0, 2, 2},
		{StreamsVersion, 0, 1, 1},
		{TransactionVersion, 0, 2, 2},
	}
}

// Lookup finds a feature by name.
func Lookup(name string) (Range, bool) {
	for _, r := range Supported() {
		if r.Name == name {
			return r, true
		}
	}
	return Range{}, false
}

// Level is a feature at one level.
type Level struct {
	Name  string
	Level int16
}

// Defaults gives the levels that the bootstrap of a new cluster writes as
// FeatureLevelRecords, in the order in which Kafka's format writes them:
// metadata.version first, the others by name. kraft.version is not among them: it
// lives in a control record of the metadata log (KAFKA.md 7.3).
func Defaults() []Level {
	out := []Level{{MetadataVersion, MetadataLatest}}
	for _, r := range Supported() {
		if r.Name != MetadataVersion && r.Name != KRaftVersion && r.Default > 0 {
			out = append(out, Level{r.Name, r.Default})
		}
	}
	return out
}

// Check says why a feature cannot be set to a level, or nil.
func Check(name string, level int16) error {
	r, ok := Lookup(name)
	if !ok {
		return fmt.Errorf("feature %q is not known here", name)
	}
	if level < r.Min || level > r.Max {
		return fmt.Errorf("feature %s cannot be at level %d, supported are %d to %d", name, level, r.Min, r.Max)
	}
	return nil
}

// Requires gives the metadata.version that a feature's level needs, 0 for none.
func Requires(name string, level int16) int16 {
	switch {
	case name == EligibleLeaderVersion && level >= 1:
		return MetadataELR
	default:
		return 0
	}
}
