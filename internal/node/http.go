package node

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"ottla.dev/ottla/internal/config"
)

// httpServer answers what watches a node: /metrics for Prometheus, /healthz
// (the process works) and /readyz (clients are served) for whoever starts and
// stops it. All methods work on nil.
type httpServer struct {
	ready  atomic.Bool
	socket net.Listener
	server *http.Server
}

// listenHTTP opens ottla.http.listener, unless it is empty.
func (n *Node) listenHTTP() error {
	addr := n.cfg.Settings.String(config.OttlaHTTPListener)
	if addr == "" {
		return nil
	}
	socket, err := n.cfg.Network.Listen(addr)
	if err != nil {
		return bindError(string(config.OttlaHTTPListener), addr, err)
	}
	h := &httpServer{socket: socket}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", n.metrics.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !h.ready.Load() {
			http.Error(w, "starting or stopping", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	h.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() { _ = h.server.Serve(socket) }() // ends with close
	n.http = h
	return nil
}

func (h *httpServer) setReady(ready bool) {
	if h != nil {
		h.ready.Store(ready)
	}
}

func (h *httpServer) close() {
	if h != nil {
		_ = h.server.Close()
	}
}

// HTTPAddr is where /metrics is, "" if nowhere.
func (n *Node) HTTPAddr() string {
	if n.http == nil {
		return ""
	}
	return n.http.socket.Addr().String()
}
