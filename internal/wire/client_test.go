package wire

import (
	"context"
	"errors"
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
