// Package coord runs Kafka's coordinators: state machines over a partition of an
// internal topic (groups and their offsets, transactions). The machines are
// pure and live in packages below this one; here are their types and the Shard,
// which drives one machine on one log.
//
//	Do ─▶ queue ─▶ Handle ─▶ Replay ─▶ … next event …      all of one drain
//	                                    │
//	                                    ▼ one append, fenced by the leader epoch
//	answers ◀── high watermark ◀──── the log
//
// The one idea: a decision is records. They are replayed at once, so the next
// decision sees them, and appended together with those of the same drain; the
// answers leave when the high watermark has passed them. If the append fails, the
// machine is thrown away and loaded again from the log, and everyone who waits
// is told to come again: there is no undo, and so no history of old states.
//
// INV-COORD-1: replaying the log into an empty machine gives the live one's hard
// state. INV-COORD-2: a drain is appended only after the one before it is
// written, so the log never has a decision without what it was based on.
//
// Concurrency: a Shard has one goroutine while it is busy, and none while it is
// idle; that goroutine owns the machine. Do may be called by anyone.
package coord

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// Why a request was not decided. All are worth another try.
var (
	// ErrLoading means that the partition is being read.
	ErrLoading = errors.New("the coordinator is loading")
	// ErrNotCoordinator means that this node does not lead the partition.
	ErrNotCoordinator = errors.New("this node is not the coordinator")
	// ErrFailed means that the decision could not be written.
	ErrFailed = errors.New("the coordinator could not write its decision")
)

// Env is everything that a decision may look at.
type Env struct {
	Now   time.Time
	Image *image.Image
	Rand  *rand.Rand
}

// Record is one record of the internal topic. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

// Token names a request whose answer may come later.
type Token uint64

// Client says who asks.
type Client struct {
	ID        string // client.id
	Host      string // address, as Kafka writes it: /127.0.0.1
	Principal string // "User:name"
}

// Result is one decision.
type Result struct {
	// About is what the decision is about, a group for example: an answer
	// without records waits for the last write about the same. Records about ""
	// are about everything.
	About string

	Records []Record

	// By is the producer whose transaction the records belong to, ID -1 for none.
	// The zero value counts as none when there are no records.
	By model.Producer

	// Response answers the request in hand; nil parks it until a Wake names its token.
	Response kmsg.Response

	// Wake answers requests that were parked.
	Wake []Wake

	// Timers are set, by key; a zero At cancels.
	Timers []Timer

	// Effects are handed out when the high watermark has passed the records.
	Effects []any
}

// Wake is the answer to a parked request.
type Wake struct {
	Token    Token
	Response kmsg.Response
}

// Timer asks for a Timeout.
type Timer struct {
	Key string
	At  time.Time
}

// Machine is the state of one coordinator partition. It has no clock,
// randomness or I/O. Its hard state changes in Replay and EndTxn only; soft
// state, as timers and who waits for whom, may be touched by every method and
// is rebuilt by Loaded.
type Machine interface {
	// Replay takes a record of the log, whoever wrote it. It is total: what it
	// does not know it passes over.
	Replay(offset model.Offset, timestamp int64, by model.Producer, r Record)
	// EndTxn takes a transaction marker.
	EndTxn(by model.Producer, commit bool)
	// Loaded comes once, after the log was replayed. A Changed that follows may
	// tell what Loaded's image had already.
	Loaded(Env) Result
	// Handle decides a request.
	Handle(env Env, t Token, req kmsg.Request, who Client) Result
	// Timeout decides what the end of a timer means.
	Timeout(env Env, key string) Result
	// Changed takes a change of the cluster's metadata.
	Changed(env Env, d *image.Delta) Result
}

// Log is the partition under a Shard.
type Log interface {
	// Append appends batches in one write. written is called when they are in
	// the log or refused, committed when the high watermark has passed them or
	// never will; committed is not called after written had an error.
	Append(batches []batch.Batch, epoch model.Epoch, written func(end model.Offset, err error), committed func(error))
	// Committed calls f when the high watermark is at offset or beyond, or never will be.
	Committed(offset model.Offset, f func(error))
	// Read gives whole batches from an offset on, up to the log's end; none at the end.
	Read(from model.Offset, max int64) ([]byte, error)
	Start() model.Offset
	End() model.Offset
}
