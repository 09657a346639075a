package wire

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/metric"
)

// stats are a listener's metrics, looked up once: counting is an atomic add.
type stats struct {
	listener string
	conns    prometheus.Gauge
	refused  prometheus.Counter
	parked   prometheus.Gauge // set by the scan
	in, out  prometheus.Counter

	byAPI *prometheus.CounterVec
	// requests are the children of byAPI by key, made when first used; the last is
	// for keys that Kafka does not have.
	requests [kmsg.MaxKey + 2]atomic.Pointer[prometheus.Counter]
}

func newStats(m *metric.Registry, listener string) *stats {
	bytes := m.Counter("ottla_wire_bytes_total", "Bytes of requests' bodies received and of answers sent.", "listener", "direction")
	return &stats{
		listener: listener,
		conns:    m.Gauge("ottla_wire_connections", "Open connections.", "listener").WithLabelValues(listener),
		refused:  m.Counter("ottla_wire_connections_refused_total", "Connections closed at once because their address had too many.", "listener").WithLabelValues(listener),
		parked:   m.Gauge("ottla_wire_requests_outstanding", "Requests started and not yet answered, seen every few seconds.", "listener").WithLabelValues(listener),
		in:       bytes.WithLabelValues(listener, "in"),
		out:      bytes.WithLabelValues(listener, "out"),
		byAPI:    m.Counter("ottla_wire_requests_total", "Requests started.", "listener", "api"),
	}
}

// request counts one request with a body of n bytes.
func (s *stats) request(key int16, n int) {
	if key < 0 || key > kmsg.MaxKey {
		key = kmsg.MaxKey + 1
	}
	c := s.requests[key].Load()
	if c == nil {
		name := kmsg.NameForKey(key)
		if key > kmsg.MaxKey {
			name = "other"
		}
		child := s.byAPI.WithLabelValues(s.listener, name)
		c = &child
		s.requests[key].Store(c)
	}
	(*c).Inc()
	s.in.Add(float64(n))
}

// sent counts n bytes written.
func (s *stats) sent(n int) { s.out.Add(float64(n)) }
