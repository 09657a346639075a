package image

import (
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/record"
)

var samples = flag.Bool("samples", false, "print the input for Apache Kafka's classes instead of testing")

// seededStory draws records from a seed, each to follow those before it.
func seededStory(seed uint64) []record.Metadata {
	pick := chooser(rand.New(rand.NewPCG(seed, 44)).IntN)
	recs := []record.Metadata{
		&record.FeatureLevelRecord{Name: feature.MetadataVersion, FeatureLevel: 33},
		&record.FeatureLevelRecord{Name: feature.EligibleLeaderVersion, FeatureLevel: 1},
	}
	now, _, err := Empty().Apply(0, 1, recs)
	if err != nil {
		panic(err)
	}
	for range 60 {
		r := pick.record(now, now.Offset()+1)
		if next, _, err := now.Apply(now.Offset()+1, 1, []record.Metadata{r}); err == nil {
			now, recs = next, append(recs, r)
		}
	}
	return recs
}

func hexes(recs []record.Metadata) []string {
	var lines []string
	for _, r := range recs {
		lines = append(lines, hex.EncodeToString(record.AppendFramed(nil, r, record.MetadataVersionOf(r.Type(), 33))))
	}
	return lines
}

const stories = 40

// Apache Kafka 4.4.0's MetadataDelta and MetadataImage make the same snapshot of
// the same records. testdata/kafka.snapshot holds, for each seed, the records as
// Kafka writes them, sorted; testdata/Replay.java makes it from what -samples prints.
func TestSnapshotsAreKafkas(t *testing.T) {
	if *samples {
		for seed := range uint64(stories) {
			fmt.Printf("story %d\n%s\n", seed, strings.Join(hexes(seededStory(seed)), "\n"))
		}
		return
	}
	text, err := os.ReadFile("testdata/kafka.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	var got []string
	for seed := range uint64(stories) {
		image, _, err := Empty().Apply(0, 1, seededStory(seed))
		if err != nil {
			t.Fatal(err)
		}
		lines := hexes(slices.Collect(image.Records()))
		slices.Sort(lines)
		got = append(append(got, fmt.Sprint("story ", seed)), lines...)
	}
	for n := range max(len(got), len(want)) {
		if n >= len(got) || n >= len(want) || got[n] != want[n] {
			t.Fatalf("line %d differs\n got %s\nwant %s", n+1, describe(got, n), describe(want, n))
		}
	}
}

func describe(lines []string, n int) string {
	if n >= len(lines) {
		return "nothing"
	}
	b, err := hex.DecodeString(lines[n])
	if err != nil {
		return lines[n]
	}
	r, version, err := record.DecodeFramed(b)
	if err != nil {
		return fmt.Sprint(lines[n], " ", err)
	}
	return fmt.Sprintf("%s\n     version %d %s", lines[n], version, short(r.String()))
}
