package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadataByCount answers Metadata with the number of topics asked for.
func metadataByCount(r *Request) {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(r.Version)
	if err := req.ReadFrom(r.Body); err != nil {
		r.Close(err)
		return
	}
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	resp.SetVersion(r.Version)
	resp.ControllerID = int32(len(req.Topics))
	r.Reply(resp.AppendTo(r.Buffer(256)))
}

func client(t testing.TB, s *Server) *Client {
	t.Helper()
	c, err := Dial(t.Context(), (&net.Dialer{}).DialContext, s.Addr().String(), ClientConfig{ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientsAnswersMatchRequests(t *testing.T) {
	c := client(t, serve(t, Config{Handler: handlerFunc(metadataByCount)}))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			req := kmsg.NewPtrMetadataRequest()
			req.SetVersion(int16(i % 14)) // both header versions
			req.Topics = make([]kmsg.MetadataRequestTopic, i)
			for j := range req.Topics {
				req.Topics[j].Topic = kmsg.StringPtr("t")
			}
			resp, err := c.Do(t.Context(), req)
			if err != nil {
				t.Error(err)
				return
			}
			want := int32(i)
			if req.Version == 0 {
				want = 0 // v0 has no controller id
			}
			if got := resp.(*kmsg.MetadataResponse).ControllerID; req.Version > 0 && got != want {
				t.Errorf("version %d: answer of another request: %d, expected %d", req.Version, got, want)
			}
		})
	}
	wg.Wait()
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	parked := make(chan *Request, 1)
	c := client(t, serve(t, Config{Handler: handlerFunc(func(r *Request) {
		if r.Version == 5 {
			parked <- r
			return
		}
		metadataByCount(r)
	})}))
	ctx, cancel := context.WithCancel(t.Context())
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 5
	errc := make(chan error)
	go func() {
		_, err := c.Do(ctx, req)
		errc <- err
	}()
	r := <-parked
	cancel()
	if err := <-errc; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, expected %v", err, context.Canceled)
	}
	metadataByCount(r)
	next := kmsg.NewPtrMetadataRequest()
	next.Version = 9
	if _, err := c.Do(t.Context(), next); err != nil {
		t.Fatalf("request after an abandoned one: %v", err)
	}
}

func TestClientFailsAllCallsWhenTheConnectionBreaks(t *testing.T) {
	parked := make(chan *Request, 3)
	s := serve(t, Config{Handler: handlerFunc(func(r *Request) { parked <- r })})
	c := client(t, s)
	errc := make(chan error)
	for range 3 {
		go func() {
			_, err := c.Do(context.Background(), kmsg.NewPtrMetadataRequest())
			errc <- err
		}()
	}
	for range 3 {
		defer (<-parked).NoReply()
	}
	s.Close()
	for range 3 {
		if err := <-errc; !errors.Is(err, ErrBroken) {
			t.Fatalf("got %v, expected %v", err, ErrBroken)
		}
	}
	if _, err := c.Do(context.Background(), kmsg.NewPtrMetadataRequest()); !errors.Is(err, ErrBroken) {
		t.Fatalf("a broken client: got %v, expected %v", err, ErrBroken)
	}
}

func TestClientReadsAnswersOfAnySize(t *testing.T) {
	c := client(t, serve(t, Config{Handler: handlerFunc(func(r *Request) {
		n := int(binary.BigEndian.Uint32(r.Body))
		r.Reply(bytes.Repeat([]byte{byte(n)}, n))
	})}))
	sizes := []int{0, 1, 300_000, 5, firstFrameBuf, 1 << 20, 1 << 20, 31}
	for range 2 * smallFrames { // long enough for a large buffer to be given up
		sizes = append(sizes, 100)
	}
	sizes = append(sizes, 2<<20, 7)
	var wg sync.WaitGroup
	for _, n := range sizes {
		wg.Go(func() {
			err := c.Call(t.Context(), 0, 0, func(dst []byte) []byte {
				return binary.BigEndian.AppendUint32(dst, uint32(n))
			}, func(body []byte) error {
				if want := bytes.Repeat([]byte{byte(n)}, n); !bytes.Equal(body, want) {
					t.Errorf("answer of %d bytes: got %d bytes, or others", n, len(body))
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		if n == 100 {
			wg.Wait() // one at a time
		}
	}
	wg.Wait()
}

func TestClientReturnsTheErrorOfItsReader(t *testing.T) {
	c := client(t, serve(t, Config{}))
	bad := errors.New("bad")
	write := func(dst []byte) []byte { return append(dst, 1) }
	if err := c.Call(t.Context(), 0, 0, write, func([]byte) error { return bad }); err != bad {
		t.Fatalf("got %v", err)
	}
	if err := c.Call(t.Context(), 0, 0, write, func([]byte) error { return nil }); err != nil {
		t.Fatalf("the connection is to live on: %v", err)
	}
}

// FuzzClient answers requests with any bytes: the calls must end, and the right
// answer must be told from wrong ones.
func FuzzClient(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08\x00\x00\x00\x01body"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		server, nc := net.Pipe()
		c := NewClient(nc, ClientConfig{MaxFrame: 1 << 16})
		go io.Copy(io.Discard, server)
		errs := make(chan error)
		for range 3 {
			go func() {
				errs <- c.Call(context.Background(), 3, 9, func(dst []byte) []byte { return dst }, func([]byte) error { return nil })
			}()
		}
		go func() {
			server.Write(in)
			server.Close()
		}()
		for range 3 {
			if err := <-errs; err != nil && !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
		}
		<-c.Done()
	})
}
