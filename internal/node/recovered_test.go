package node_test

import (
	"testing"
	"time"

	"ottla.dev/ottla/internal/vfs"
)

// KIP-704: a partition that was elected uncleanly stays "recovering" until its
// leader says that it is sound.
func TestPartitionsAreCalledRecoveredAfterACrash(t *testing.T) {
	disk := vfs.NewMem()
	f := start(t, disk, nil)
	c := f.dial()
	c.create("t", 3)
	c.produce("t", -1, build(plain(), "x"))
	again := start(t, disk.CrashClone(nil), nil)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		topic, ok := again.node.Image().Topic("t")
		if !ok {
			t.Fatal("the topic is gone")
		}
		sound := 0
		for _, p := range topic.Partitions() {
			if p.RecoveryState == 0 && p.Leader == 1 {
				sound++
			}
		}
		if sound == 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 3 partitions are called sound", sound)
		}
	}
}
