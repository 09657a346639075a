package config

import (
	"strings"
	"testing"
)

func mustLoad(t testing.TB, props map[string]string) *Config {
	t.Helper()
	c, _, err := Load(props)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultProfileLoadsWithoutAnError(t *testing.T) {
	c := mustLoad(t, Default())
	if c.NodeID() != 1 || !c.IsBroker() || !c.IsController() {
		t.Errorf("node %d broker %v controller %v", c.NodeID(), c.IsBroker(), c.IsController())
	}
	if got := c.Advertised(); len(got) != 1 || got[0].String() != "PLAINTEXT://127.0.0.1:9092" {
		t.Errorf("advertised %v", got)
	}
	if got := c.ControllerListeners(); len(got) != 1 || got[0].Address() != "127.0.0.1:9093" {
		t.Errorf("controllers %v", got)
	}
	if got := c.MetadataLogDir(); got != "./ottla-data" {
		t.Errorf("metadata.log.dir %s", got)
	}
	if got := c.Long(LogFlushIntervalMessages); got != 1 {
		t.Errorf("log.flush.interval.messages=%d, want our default", got)
	}
	if got := c.Topic(nil); got.FlushMessages != 1 || got.SegmentBytes != 1<<30 || !got.Delete || got.Compact || got.RetentionMs != 168*3600*1000 {
		t.Errorf("%+v", got)
	}
	_ = strings.Join
}
