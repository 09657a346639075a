package storage

import (
	"context"
	"fmt"
	"testing"

	"ottla.dev/ottla/internal/vfs"
)

// D1: a write whose bytes are in the file but not yet in the segment's size is not
// covered by a sync that began before it, even if that ends now.
func TestASyncThatEndsDuringAWriteDoesNotCoverIt(t *testing.T) {
	mem := vfs.NewMem()
	l := openPart(t, openFolder(t, mem), LogConfig{FlushMessages: Never})
	lead(t, l, plain(1, 1, "first"))
	if err := l.do(func() error {
		job := &syncJob{}
		if !l.takeJob(job) {
			return fmt.Errorf("no job")
		}
		if err := l.runJob(job); err != nil {
			return err
		}
		l.stage(&Append{Batch: plain(1, 2, "second")})
		if err := l.write(); err != nil {
			return err
		}
		l.settle(job, nil)
		l.endJob(job, nil)
		l.publish()
		l.report()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	again := openPart(t, openFolder(t, mem.CrashClone(nil)), LogConfig{FlushMessages: Never})
	if again.EndOffset() != 2 {
		t.Errorf("after a power failure the log ends at %d although it was synced at 2", again.EndOffset())
	}
}
