package wire

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"ottla.dev/ottla/internal/metric"
)

func TestMetricsCountByListenerAndAPI(t *testing.T) {
	m := metric.New()
	inside := dial(t, serve(t, Config{Metrics: m, Name: "INSIDE"}))
	outside := dial(t, serve(t, Config{Metrics: m, Name: "OUTSIDE"}))
	for _, c := range []struct {
		conn io.ReadWriter
		key  int16
		n    int
	}{{inside, 3, 2}, {outside, 3, 1}, {outside, 18, 3}, {outside, 4000, 1}} {
		for range c.n {
			if _, err := c.conn.Write(frame(c.key, 0, 1, "body")); err != nil {
				t.Fatal(err)
			}
			answer(t, c.conn)
		}
	}
	for _, line := range []string{
		`ottla_wire_requests_total{api="Metadata",listener="INSIDE"} 2`,
		`ottla_wire_requests_total{api="Metadata",listener="OUTSIDE"} 1`,
		`ottla_wire_requests_total{api="ApiVersions",listener="OUTSIDE"} 3`,
		`ottla_wire_requests_total{api="other",listener="OUTSIDE"} 1`,
		`ottla_wire_connections{listener="INSIDE"} 1`,
		`ottla_wire_bytes_total{direction="in",listener="INSIDE"} 8`,
		`ottla_wire_bytes_total{direction="out",listener="INSIDE"} 24`,
	} {
		waitFor(t, line, func() bool {
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			return strings.Contains(w.Body.String(), line+"\n")
		})
	}
}
