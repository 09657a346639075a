// Package storage keeps the logs of partitions on disk in Apache Kafka's
// formats (KAFKA.md 4 and 5), and the folders (log.dirs) that hold them.
//
// The one idea: a log has exactly one writer at a time and the writer is whoever
// came first. An append is put into the log's queue; the caller that finds the
// queue idle drains it, writing everything that others have put there meanwhile
// with one pwritev (flat combining). Structural changes (truncation, a new leader
// epoch, closing) are operations in the same queue, so they need no locks against
// appends and no lock is ever held across disk I/O.
//
//	Append ─▶ queue ─▶ drain: check, stamp, one WriteVec ─▶ Done, Notify.Appended
//	                                     │
//	                     Syncer's pool: fdatasync ─▶ flushed offset, Notify.Flushed
//
// Durability is a separate stage. A log has an end offset (written) and a flushed
// offset (on disk); a Syncer, one per folder, keeps several fdatasyncs in flight,
// also of one log (each on a descriptor of its own), and each covers all that was
// written to its log before it began. These rules are law, and the code cites them:
//
//	D1  The flushed offset never passes data that is not on disk: segment data,
//	    the names of its file and folder, partition.metadata, and the epoch
//	    checkpoint when the data belongs to an epoch that is not in it yet.
//	D2  The recovery point never passes a segment whose indexes, producer
//	    snapshot and names are not on disk: a segment below it is not scanned.
//	D3  After a crash the recovered tail is synced before the log opens.
//	D4  A failed fdatasync is final for the Syncer: nothing is acknowledged from
//	    then on. A failed write is cut back, durably, before the next one.
//	D5  A descriptor with unsynced data is pinned: it cannot be evicted.
//	D6  Truncated bytes are gone durably before anything is written in their
//	    place; otherwise a crash could mix old batches among new ones.
//	D7  What the folder's checkpoints say of a log never exceeds the log: they are
//	    rewritten before a truncated or new log takes its first append.
//	D8  A log's start is in the folder's checkpoint before the first segment below it
//	    goes, and stays there until the removal is durable.
//	D9  What compaction wrote is durable before it counts (.swap), and the recovery
//	    point is above all that it replaces: gaps between segments are no losses.
//
// An idle partition costs a Log of under 1 KB: no goroutine, no timer, no open
// file, no buffers. Descriptors are opened on use and evicted by a clock hand;
// buffers of the writer are released by the folder's housekeeping.
//
// Concurrency: all exported methods are safe for concurrent use. Callbacks
// (Append.Done, Notify) run without locks and must not block. replication's
// drivers, the quorum and the coordinators' logs call this package.
package storage
