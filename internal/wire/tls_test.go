package wire

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"sync"
	"testing"
)

// testTLS has a certificate for 127.0.0.1, which httptest brings.
var testTLS = sync.OnceValues(func() (server, client *tls.Config) {
	h := httptest.NewTLSServer(nil)
	defer h.Close()
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	return &tls.Config{Certificates: h.TLS.Certificates}, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
})

func serverTLS(testing.TB) *tls.Config { s, _ := testTLS(); return s }
func clientTLS(testing.TB) *tls.Config { _, c := testTLS(); return c }

func TestTLSHandshakeComesBeforeOpened(t *testing.T) {
	states := make(chan *tls.ConnectionState, 1)
	s := serve(t, Config{TLS: serverTLS(t), Opened: func(c *Conn) error {
		states <- c.TLS()
		return nil
	}})
	c := connect(t, s, true)
	defer c.Close()
	if _, err := c.Write(frame(0, 0, 1, "body")); err != nil {
		t.Fatal(err)
	}
	if id, got := answer(t, c); id != 1 || got != "body" {
		t.Fatalf("got %d, %q", id, got)
	}
	if state := <-states; state == nil || !state.HandshakeComplete {
		t.Fatalf("Opened saw %+v", state)
	}
}

func TestPlainBytesOnATLSListenerCloseTheConnection(t *testing.T) {
	c := dial(t, serve(t, Config{TLS: serverTLS(t)}))
	if _, err := c.Write(frame(0, 0, 1, "body")); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, c)
}
