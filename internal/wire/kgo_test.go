package wire

import (
	"net"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A real client finds its way: version negotiation, metadata, many requests at
// once, answered by goroutines.
func TestARealClientIsServed(t *testing.T) {
	var host string
	var port int32
	s := serve(t, Config{TLS: serverTLS(t), Budget: NewBudget(1 << 20), Handler: handlerFunc(func(r *Request) {
		req := kmsg.RequestForKey(r.Key)
		req.SetVersion(r.Version)
		if err := req.ReadFrom(r.Body); err != nil {
			r.Close(err)
			return
		}
		resp := req.ResponseKind()
		resp.SetVersion(r.Version)
		switch resp := resp.(type) {
		case *kmsg.ApiVersionsResponse:
			for _, k := range []int16{3, 18} {
				resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: kmsg.RequestForKey(k).MaxVersion()})
			}
		case *kmsg.MetadataResponse:
			resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: host, Port: port}}
		}
		go func() { r.Reply(resp.AppendTo(r.Buffer(512))) }()
	})})
	h, p, _ := net.SplitHostPort(s.Addr().String())
	n, _ := strconv.Atoi(p)
	host, port = h, int32(n)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Addr().String()), kgo.DialTLSConfig(clientTLS(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	errs := make(chan error)
	for range 50 {
		go func() {
			_, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), cl)
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}
