package wire

import (
	"io"
	"os"
	"syscall"
	"time"
)

// Request is one request of a connection, on loan to the handler until it is
// answered: by exactly one of Reply, ReplyV0, NoReply and Close, from any
// goroutine. Nothing of it may be touched after that.
//
// Its own fields are the handler's to read and never to keep.
type Request struct {
	Key, Version  int16 // Key is -1 for a bare frame (Conn.SetBare)
	CorrelationID int32
	ClientID      *string // nil is null; the string may be kept
	// Body is what follows the header. It lies in pooled memory and is valid
	// until the request is answered or released.
	Body []byte

	conn  *Conn
	next  *Request // in arrival order, in Conn.queue or in a batch being written; guarded by conn.mu while queued
	frame *buf     // memory of Body; nil once released
	grant grant    // what frame is charged to the budget

	reply *buf              // from Buffer; nil if none
	head  [maxRespHead]byte // response header where it does not stand in reply
	out   [2][]byte         // the answer: header, body; or all of it, nil
	files []FilePart        // in the order of At

	mute   time.Duration
	cause  error // why the connection closes when the answer is written
	last   bool  // the connection closes when the answer is written
	silent bool  // there is nothing to write
	done   bool  // answered; guarded by conn.mu
}

// FilePart is a piece of a file inside an answer.
type FilePart struct {
	// At is the position in the answer's body before which the bytes go. Parts
	// come in ascending order of At.
	At int
	// Src reads the bytes where File is nil or the connection cannot take them
	// from a file (TLS, memory). It may be nil when File is not.
	Src io.ReaderAt
	// File, if not nil, holds the bytes. Its position is not used. It stays
	// open until Release; a concurrent Close waits for the bytes on their way.
	File *os.File
	// Raw, if not nil, is File's SyscallConn: who answers from the same file
	// often keeps it, as each call of SyscallConn allocates.
	Raw syscall.RawConn
	// Off and N are the range in bytes. A file that proves shorter closes the
	// connection, whose peer was promised N bytes.
	Off, N int64
	// Release, if not nil, is called once when the bytes are written or never
	// will be, on any goroutine.
	Release func()
}

// Conn is the connection the request came on.
func (r *Request) Conn() *Conn { return r.conn }

// Buffer returns a pooled buffer of length 0 and capacity ≥ n for the body of
// the answer. Growing it by append is allowed, and costs the garbage collector
// a buffer. A second call takes the first buffer back.
func (r *Request) Buffer(n int) []byte {
	pool := &r.conn.srv.pool
	pool.put(r.reply)
	r.reply = pool.get(headroom + max(n, 1))
	return r.reply.b[headroom:headroom]
}

// Release gives back the memory of Body and its share of the budget before the
// answer. Whoever parks a request for long calls it as soon as nothing decoded
// from Body is kept but what is bounded elsewhere (members of a group, a fetch
// session): a parked request that keeps its share keeps others out.
func (r *Request) Release() {
	srv := r.conn.srv
	srv.pool.put(r.frame)
	srv.cfg.Budget.release(r.grant)
	r.frame, r.grant, r.Body = nil, grant{}, nil
}

// Reply answers with body b, into which files go at their positions. wire
// writes length, correlation id and tags, and owns b from now on: b may come
// from Buffer or from anywhere, but must not alias Body. The slice of files
// stays the caller's.
func (r *Request) Reply(b []byte, files ...FilePart) {
	r.answer(b, files, responseHead(r.Key, r.Version))
}

// ReplyV0 answers with response header v0 whatever the version of the request
// says: for ApiVersions in versions that do not exist. (ApiVersions has header
// v0 in Reply too.)
func (r *Request) ReplyV0(b []byte, files ...FilePart) {
	r.answer(b, files, maxRespHead-1)
}

// NoReply answers with nothing: Produce with acks=0.
func (r *Request) NoReply() {
	r.silent = true
	r.conn.complete(r)
}

// Close answers by closing the connection, once the requests before this one
// are answered: Kafka's reply to nonsense. Later requests are not started. err
// is for the log.
func (r *Request) Close(err error) {
	r.silent = true
	r.CloseAfter(err)
	r.conn.complete(r)
}

// CloseAfter makes the answer, which is still to be given, the connection's
// last: no further request is started, and the connection is closed when the
// answer is written (a failed login).
func (r *Request) CloseAfter(err error) {
	r.last, r.cause = true, err
	r.Barrier()
}

// Barrier keeps the connection's next request from being started before this
// one is answered. It is called in Serve, before the request is answered or
// handed to another goroutine.
func (r *Request) Barrier() {
	c := r.conn
	c.mu.Lock()
	c.queue.barrier = r
	c.mu.Unlock()
}

// Mute keeps the connection's next request from being started for d after this
// one is answered (KAFKA.md 3.4): what a client over its quota gets, which has
// its answer at once. It is called before the answer. Requests that were
// started meanwhile are not held.
func (r *Request) Mute(d time.Duration) { r.mute = d }

// answer lays out header, body and files, and completes the request.
func (r *Request) answer(b []byte, files []FilePart, head int) {
	total := int64(len(b))
	for i := range files {
		total += files[i].N
	}
	if r.reply != nil && cap(b) > 0 && &b[:1][0] == &r.reply.b[headroom] {
		whole := r.reply.b[headroom-head : headroom+len(b)]
		putResponseHead(whole[:head], r.CorrelationID, total)
		r.out = [2][]byte{whole[:head:head], whole[head:]}
	} else {
		putResponseHead(r.head[:head], r.CorrelationID, total)
		r.out = [2][]byte{r.head[:head], b}
	}
	r.files = append(r.files[:0], files...)
	r.conn.complete(r)
}

// size is what the answer holds in memory.
func (r *Request) size() int { return len(r.out[0]) + len(r.out[1]) }

// free gives back all that the request holds, and the request.
func (r *Request) free() {
	srv := r.conn.srv
	for i := range r.files {
		if f := r.files[i].Release; f != nil {
			f()
		}
	}
	srv.pool.put(r.reply)
	clear(r.files)
	*r = Request{files: r.files[:0]}
	srv.requests.Put(r)
}
