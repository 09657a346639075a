package feature

import "testing"

func TestDefaultsAreThoseOfANewKafka44Cluster(t *testing.T) {
	// The six records that Kafka 4.4.0 writes at format (KAFKA.md 1). None is ours: Apache Kafka's
	// brokers could not register where a feature that they do not know is finalized.
	want := []Level{
		{"metadata.version", 33},
		{"eligible.leader.replicas.version", 1},
		{"group.version", 1},
		{"share.version", 2},
		{"streams.version", 1},
		{"transaction.version", 2},
	}
	got := Defaults()
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("default %d is %v, want %v", i, got[i], want[i])
		}
		if err := Check(got[i].Name, got[i].Level); err != nil {
			t.Errorf("a default is not supported: %v", err)
		}
	}
}

func TestSupportedIsSortedAndConsistent(t *testing.T) {
	last := ""
	for _, r := range Supported() {
		if r.Name <= last {
			t.Errorf("%s is out of order after %s", r.Name, last)
		}
		last = r.Name
		if r.Min > r.Max || r.Default < r.Min || r.Default > r.Max {
			t.Errorf("%+v: want Min <= Default <= Max", r)
		}
	}
}

func TestCheckRefusesWhatIsOutsideTheRange(t *testing.T) {
	for _, l := range []Level{{"metadata.version", 6}, {"metadata.version", 34}, {"share.version", 3}, {"kraft.version", -1}, {"no.such", 0}} {
		if Check(l.Name, l.Level) == nil {
			t.Errorf("%v was accepted", l)
		}
	}
}

func TestMetadataVersionNamesRoundTrip(t *testing.T) {
	if len(versions) != MetadataLatest-MetadataMin+1 {
		t.Fatalf("%d names for levels %d to %d", len(versions), MetadataMin, MetadataLatest)
	}
	for level := int16(MetadataMin); level <= MetadataLatest; level++ {
		got, err := ParseMetadataVersion(MetadataVersionName(level))
		if err != nil || got != level {
			t.Errorf("level %d: %v %v", level, got, err)
		}
	}
	for in, want := range map[string]int16{"4.4": 33, "3.7": 19, "33": 33, "4.0-IV1": 23} {
		if got, err := ParseMetadataVersion(in); err != nil || got != want {
			t.Errorf("%s: %v %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "4", "5.0", "34", "6", "4.4-IV9"} {
		if got, err := ParseMetadataVersion(in); err == nil {
			t.Errorf("%q was read as %d", in, got)
		}
	}
	if got := MetadataVersionName(40); got != "unknown metadata.version 40" {
		t.Error(got)
	}
}

func TestMetadataDowngradeStopsAtALevelThatChangedRecords(t *testing.T) {
	for _, c := range []struct {
		from, to int16
		want     bool
	}{{33, 33, true}, {33, 32, false}, {31, 30, true}, {31, 29, false}, {29, 24, true}, {29, 23, true}, {23, 22, false}, {40, 33, false}} {
		if got := MetadataDowngradeSafe(c.from, c.to); got != c.want {
			t.Errorf("%d to %d: %v", c.from, c.to, got)
		}
	}
}
