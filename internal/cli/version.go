package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"ottla.dev/ottla/internal/feature"
)

// kafkaRelease is the release of Apache Kafka whose protocol and formats Ottla has.
const kafkaRelease = "4.4"

func newVersion(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(0, 0),
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(h.Out, "ottla %s (Apache Kafka %s, metadata version %s; %s %s/%s)\n",
				version(), kafkaRelease, feature.MetadataVersionName(feature.MetadataLatest), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// version is what the build knows of itself: a tag, or a revision.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
