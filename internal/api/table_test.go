package api

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestEveryKeyOfKafkaStandsInTheTableOnce(t *testing.T) {
	seen := map[kmsg.Key]bool{}
	for _, e := range entries {
		if seen[e.key] {
			t.Errorf("%s stands twice", e.key.Name())
		}
		seen[e.key] = true
		if (e.serve == nil) == (e.refused == "") {
			t.Errorf("%s must have either a handler or a reason to be refused", e.key.Name())
		}
		if e.serve != nil && e.on == 0 {
			t.Errorf("%s is served on no listener", e.key.Name())
		}
	}
	for k := int16(0); k <= lastKey; k++ {
		if kmsg.RequestForKey(k) != nil && !seen[kmsg.Key(k)] {
			t.Errorf("%s (%d) is missing", kmsg.NameForKey(k), k)
		}
	}
	if kmsg.RequestForKey(lastKey+1) != nil {
		t.Errorf("key %d exists: the table ends too early", lastKey+1)
	}
}

// kafkaMax are the newest versions of Kafka 4.4 where kmsg knows newer ones.
var kafkaMax = map[kmsg.Key]int16{}

func TestServedVersionsAreWhatKmsgCanDecode(t *testing.T) {
	for _, e := range entries {
		if e.serve == nil {
			continue
		}
		want := kmsg.RequestForKey(int16(e.key)).MaxVersion()
		if m, ok := kafkaMax[e.key]; ok {
			want = m
		}
		if e.max != want {
			t.Errorf("%s is served up to version %d, want %d", e.key.Name(), e.max, want)
		}
	}
}
