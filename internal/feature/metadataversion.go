package feature

import (
	"fmt"
	"strconv"
	"strings"
)

// versions has a row per level of metadata.version from MetadataMin on. Its name is
// that of the release train it was made for; changed tells that the metadata records
// changed their shape at this level, so that going below it may lose data.
var versions = [...]struct {
	name    string
	changed bool
}{
	7 - MetadataMin:  {"3.3-IV3", true},
	8 - MetadataMin:  {"3.4-IV0", true},
	9 - MetadataMin:  {"3.5-IV0", false},
	10 - MetadataMin: {"3.5-IV1", false},
	11 - MetadataMin: {"3.5-IV2", true},
	12 - MetadataMin: {"3.6-IV0", false},
	13 - MetadataMin: {"3.6-IV1", true},
	14 - MetadataMin: {"3.6-IV2", true},
	15 - MetadataMin: {"3.7-IV0", true},
	16 - MetadataMin: {"3.7-IV1", false},
	17 - MetadataMin: {"3.7-IV2", true},
	18 - MetadataMin: {"3.7-IV3", false},
	19 - MetadataMin: {"3.7-IV4", false},
	20 - MetadataMin: {"3.8-IV0", false},
	21 - MetadataMin: {"3.9-IV0", false},
	22 - MetadataMin: {"4.0-IV0", false},
	23 - MetadataMin: {"4.0-IV1", true},
	24 - MetadataMin: {"4.0-IV2", false},
	25 - MetadataMin: {"4.0-IV3", false},
	26 - MetadataMin: {"4.1-IV0", false},
	27 - MetadataMin: {"4.1-IV1", false},
	28 - MetadataMin: {"4.2-IV0", false},
	29 - MetadataMin: {"4.2-IV1", false},
	30 - MetadataMin: {"4.3-IV0", true},
	31 - MetadataMin: {"4.4-IV0", false},
	32 - MetadataMin: {"4.4-IV1", true},
	33 - MetadataMin: {"4.4-IV2", true},
}

// MetadataVersionName gives the name that Kafka's tools show for a level of
// metadata.version, for example "4.4-IV2" for 33.
func MetadataVersionName(level int16) string {
	if i := int(level) - MetadataMin; i >= 0 && i < len(versions) {
		return versions[i].name
	}
	return fmt.Sprintf("unknown metadata.version %d", level)
}

// ParseMetadataVersion reads a level by its name ("4.4-IV2"), by the release that
// introduced it ("4.4" means that release's last level) or by its number ("33").
func ParseMetadataVersion(s string) (int16, error) {
	if n, err := strconv.ParseInt(s, 10, 16); err == nil {
		return int16(n), Check(MetadataVersion, int16(n))
	}
	for i := len(versions) - 1; i >= 0; i-- {
		if name := versions[i].name; name == s || strings.HasPrefix(name, s+"-IV") {
			return int16(i + MetadataMin), nil
		}
	}
	return 0, fmt.Errorf("metadata.version %q is not known, the newest here is %s", s, MetadataVersionName(MetadataLatest))
}

// MetadataDowngradeSafe reports whether a cluster may go from one level of
// metadata.version down to a lower one without losing metadata: no level that it
// leaves changed the records.
func MetadataDowngradeSafe(from, to int16) bool {
	for level := from; level > to; level-- {
		if i := int(level) - MetadataMin; i < 0 || i >= len(versions) || versions[i].changed {
			return false
		}
	}
	return true
}
