package wire

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/metric"
)

// stats are a listener's metrics, looked up once: counting is an atomic add.
type stats struct {
	conns    prometheus.Gauge
	refused  prometheus.Counter
	parked   prometheus.Gauge
	in, out  prometheus.Counter
	requests [kmsg.MaxKey + 1]prometheus.Counter
	others   prometheus.Counter // keys that Kafka does not have
}

func newStats(m *metric.Registry, listener string) *stats {
	bytes := m.Counter("ottla_wire_bytes_total", "Bytes of requests received and of answers sent.", "listener", "direction")
	requests := m.Counter("ottla_wire_requests_total", "Requests started.", "listener", "api")
	s := &stats{
		conns:   m.Gauge("ottla_wire_connections", "Open connections.", "listener").WithLabelValues(listener),
		refused: m.Counter("ottla_wire_connections_refused_total", "Connections closed at once because their address had too many.", "listener").WithLabelValues(listener),
		parked:  m.Gauge("ottla_wire_requests_outstanding", "Requests started and not yet answered, seen every few seconds.", "listener").WithLabelValues(listener),
		in:      bytes.WithLabelValues(listener, "in"),
		out:     bytes.WithLabelValues(listener, "out"),
		others:  requests.WithLabelValues(listener, "other"),
	}
	for key := range s.requests {
		name := kmsg.NameForKey(int16(key))
		if name == "" {
			name = strconv.Itoa(key)
		}
		s.requests[key] = requests.WithLabelValues(listener, name)
	}
	return s
}

// request counts one request with a body of n bytes.
func (s *stats) request(key int16, n int) {
	if key >= 0 && int(key) < len(s.requests) {
		s.requests[key].Inc()
	} else {
		s.others.Inc()
	}
	s.in.Add(float64(n))
}

// sent counts n bytes written.
func (s *stats) sent(n int) { s.out.Add(float64(n)) }
