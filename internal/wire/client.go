package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ClientConfig is what a Client needs; the zero value is valid.
type ClientConfig struct {
	ClientID string
	// MaxFrame bounds an answer's payload in bytes; 0 means 100 MiB.
	MaxFrame int32
	// WriteTimeout bounds the writing of one request; 0 means 30 s. A request
	// that does not get out in this time breaks the connection.
	WriteTimeout time.Duration
}

// ErrBroken is wrapped by what Do returns when the connection has failed: the
// request may have been served or not, and the Client is of no more use.
var ErrBroken = errors.New("wire: connection broken")

// Client is one connection to a server, for brokers and controllers speaking to
// each other. Requests of several goroutines are pipelined; answers come in
// order. All methods are safe for concurrent use.
//
// A Client never reconnects: what to do after a failure depends on the caller.
type Client struct {
	nc  net.Conn
	cfg ClientConfig
	// turn is held while a request is queued and written, so that both happen in
	// one order. It is a channel, so that waiting for it ends with a context.
	turn chan struct{}
	gone chan struct{} // closed when broken
	out  []byte        // the frame being written; guarded by turn

	mu          sync.Mutex
	calls       []*call // whose answers are to come, in order
	correlation int32
	err         error // why the connection broke
}

// call is one request whose answer is awaited.
type call struct {
	key, version int16
	correlation  int32
	// read takes the answer's body, which is valid until it returns. It runs on
	// the connection's goroutine, under mu unless the caller has given up.
	read func(body []byte) error
	done chan struct{} // closed when err is set

	mu        sync.Mutex
	abandoned bool
	err       error
}

// Dial connects to addr with dial (for example (&net.Dialer{}).DialContext, or
// one that wraps its connection in TLS) and returns a Client.
func Dial(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string, cfg ClientConfig) (*Client, error) {
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("wire: dial %s: %w", addr, err)
	}
	return NewClient(nc, cfg), nil
}

// NewClient returns a Client on a connection, which it owns.
func NewClient(nc net.Conn, cfg ClientConfig) *Client {
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = 100 << 20
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = 30 * time.Second
	}
	c := &Client{nc: nc, cfg: cfg, turn: make(chan struct{}, 1), gone: make(chan struct{})}
	go c.readLoop()
	return c
}

// Do sends a request in the version it is set to and returns its answer. When
// ctx ends first the answer, still to come, is dropped.
func (c *Client) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	err := c.Call(ctx, req.Key(), req.GetVersion(), req.AppendTo, func(body []byte) error {
		// kmsg lets byte slices of the answer lie in what it decodes.
		return resp.ReadFrom(append([]byte(nil), body...))
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Call sends a request whose body write appends, and gives the body of its
// answer to read. The body lies in memory that is used again when read returns:
// a follower appends fetched batches to its log within read. While read runs the
// connection's other answers wait. read is not called when Call fails for
// another reason than read's own error.
func (c *Client) Call(ctx context.Context, key, version int16, write func(dst []byte) []byte, read func(body []byte) error) error {
	w := &call{key: key, version: version, read: read, done: make(chan struct{})}
	if err := c.send(ctx, w, write); err != nil {
		return err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	default:
		w.abandoned = true
		return ctx.Err()
	}
}

// Done is closed when the connection is broken or closed.
func (c *Client) Done() <-chan struct{} { return c.gone }

// Close closes the connection; requests without answer fail.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// RemoteAddr is the server's address.
func (c *Client) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// send queues a call and writes its request.
func (c *Client) send(ctx context.Context, w *call, write func([]byte) []byte) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.gone:
		return c.broken()
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.broken()
	}
	c.correlation++
	w.correlation = c.correlation
	c.calls = append(c.calls, w)
	c.mu.Unlock()

	frame := appendRequestHeader(c.out[:0], w.key, w.version, w.correlation, c.cfg.ClientID)
	frame = write(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-lengthSize))
	if c.out = frame; cap(frame) > scratchSize {
		c.out = nil
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
	if _, err := c.nc.Write(frame); err != nil {
		c.fail(err) // the reader's calls fail, this one among them
	}
	return nil
}

// readLoop gives each answer to the call in turn.
func (c *Client) readLoop() {
	in := &frameReader{src: c.nc, max: c.cfg.MaxFrame}
	for {
		payload, err := in.next()
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		if len(c.calls) == 0 {
			c.mu.Unlock()
			c.fail(fmt.Errorf("%w: an answer that nobody asked for", ErrMalformed))
			return
		}
		w := c.calls[0]
		c.calls[0] = nil
		c.calls = c.calls[1:]
		c.mu.Unlock()
		body, err := w.body(payload)
		if err != nil {
			w.finish(fmt.Errorf("%w: %w", ErrBroken, err))
			c.fail(err)
			return
		}
		w.answer(body)
	}
}

// body checks an answer's header and returns what follows it.
func (w *call) body(payload []byte) ([]byte, error) {
	if len(payload) < 4 {
		return nil, fmt.Errorf("%w: answer of %d bytes", ErrMalformed, len(payload))
	}
	if got := int32(binary.BigEndian.Uint32(payload)); got != w.correlation {
		return nil, fmt.Errorf("%w: answer with correlation id %d, expected %d", ErrMalformed, got, w.correlation)
	}
	if responseHead(w.key, w.version) == maxRespHead {
		return skipTags(payload[4:])
	}
	return payload[4:], nil
}

func (w *call) answer(body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.abandoned {
		w.err = w.read(body)
	}
	close(w.done)
}

func (w *call) finish(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	close(w.done)
}

// fail breaks the connection and fails all calls.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	close(c.gone)
	c.nc.Close()
	for _, w := range calls {
		w.finish(c.broken())
	}
}

func (c *Client) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrBroken, c.err)
}

// frameReader reads length-prefixed frames into one buffer that grows and, after
// a large frame, shrinks again.
type frameReader struct {
	src io.Reader
	max int32
	buf []byte
	r   int // buf[r:w] is read and not yet returned
	w   int
	// small counts frames in a row that would fit into a quarter of buf.
	small int
}

const (
	firstFrameBuf = 4 << 10
	smallFrames   = 64 // in a row, before a large buffer is given up
)

// next returns the next frame's payload, valid until the call after.
func (f *frameReader) next() ([]byte, error) {
	if err := f.need(lengthSize); err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(f.buf[f.r:]))
	if n < 0 || n > f.max {
		return nil, fmt.Errorf("%w: answer of length %d, allowed are 0 to %d", ErrMalformed, n, f.max)
	}
	f.r += lengthSize
	if f.small++; int(n) > len(f.buf)/4 {
		f.small = 0
	}
	if err := f.need(int(n)); err != nil {
		return nil, err
	}
	p := f.buf[f.r : f.r+int(n) : f.r+int(n)]
	f.r += int(n)
	return p, nil
}

// need makes n bytes available at buf[r:].
func (f *frameReader) need(n int) error {
	have := f.w - f.r
	if have >= n {
		return nil
	}
	size := len(f.buf)
	switch {
	case size < n:
		size = max(n, firstFrameBuf)
	case size > scratchSize && f.small > smallFrames && n < scratchSize:
		size = scratchSize
	}
	switch {
	case size != len(f.buf) && have <= size:
		grown := make([]byte, size)
		copy(grown, f.buf[f.r:f.w])
		f.buf, f.r, f.w = grown, 0, have
	case f.r+n > len(f.buf) || have == 0:
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	for f.w-f.r < n {
		got, err := f.src.Read(f.buf[f.w:])
		f.w += got
		if err != nil && f.w-f.r < n {
			if f.w > f.r && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
