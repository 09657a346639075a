// Package wire is Kafka's connections: frames, headers, order, back-pressure,
// limits and sendfile, over any net.Listener; and the client side of the same.
// It knows API keys and header versions, and nothing of what is in a body.
//
// # The one idea
//
// Requests of a connection are started in arrival order and answered in that
// order, but completed in any. Kafka's own broker looks at the next request of a
// connection when the one before is answered; here the next is started at once,
// so that pipelined appends share an fsync, and only its answer waits.
//
//	socket ─▶ reader ─▶ Handler.Serve(r) ─▶ work elsewhere ─▶ r.Reply
//	            │ start                                          │ complete
//	            ▼                                                ▼
//	         queue:  [answered] [answered] [open] [answered] [being served]
//	            │ pop what is answered at the front
//	            ▼
//	         whoever holds the writer role ─▶ one writev or sendfile ─▶ socket
//
// # Goroutines
//
// A connection has one goroutine, its reader. It reads as much as a read brings,
// starts each request, and before anything that may block it writes, itself, what
// was answered meanwhile: a request answered within Serve costs no switch, and
// many pipelined ones share one read and one write.
//
// An answer given later, by any goroutine, starts a goroutine that takes the
// writer role, writes all that is ready and ends. Measured against letting the
// completing goroutine write (2 cores, 100-byte requests, one completer for all,
// CPU of client and server per request): with one request in flight both take
// 7.5 µs; with 16 on a connection 3.1 against 4.7 µs, with 5 on each of 16
// connections 2.6 against 4.6 µs, since answers gather while the writer starts.
// And a completer, which may be the end of an fsync that hundreds wait for, never
// waits for a slow peer's socket. No lock is held across a write.
//
// # Memory
//
// Requests lie in pooled buffers of size classes. Small requests are copied out
// of the read's scratch buffer; one that fills half of it takes the buffer
// itself, and the next frame is guessed to have the last one's size, so that
// large frames are read in place. On Linux sockets a buffer is taken only when
// the socket is readable: an idle connection costs 5 KB (goroutine, net.Conn,
// state), measured by BenchmarkIdleConnections. A Budget bounds the requests in
// work over all connections. It believes the length that a frame claims only while
// it is less than half full; then large frames are booked in steps, as their bytes
// arrive, into buffers that double. maxParkedBytes and Config.MaxParked the answers that
// wait in one connection. File bytes go from file to socket by sendfile and are
// never held. In steady state a request allocates nothing.
//
// # Time
//
// No request looks at a clock. One scan per server, every few seconds, closes
// connections that are idle, that leave a frame unfinished, or that do not read
// their answers; what it looks at is a counter of progress. While frames wait for
// the budget it looks every half a second, and an unfinished frame that holds a
// part of the budget has two seconds for each step of progress.
//
// # Locks
//
// Server.mu, Limits.mu, Budget.mu and Conn.mu are never held together, and never
// across I/O or the handler.
//
// # Who calls
//
// The node makes a Server per listener, with a Handler of internal/api; link,
// replication's fetchers and the coordinators' markers use Client.
package wire
