// Package memnet is a network in memory: listeners and connections that behave
// as TCP's on Linux do, without sockets, for many nodes in one process. Tests
// and simulations use it where the node takes a net.Listener and a dial
// function; its links can be cut and healed.
//
// The one idea: a connection is two streams, one per direction, each a bounded
// buffer between a writer and a reader, with what has been sent kept apart from
// what has arrived. A cut link is a stream on which nothing arrives; healing it
// lets everything arrive in order, as TCP's retransmission would.
//
// Hosts are plain names and need not be declared: "node-1" and "127.0.0.1" are
// two hosts. A listener on the host "", "0.0.0.0" or "::" answers for every
// host that has no listener of its own on that port.
//
// All waiting is on sync.Cond and channels, all times are package time's, so in
// a testing/synctest bubble a blocked connection is durably blocked and
// deadlines run in the bubble's time. The Network must then be made in the
// bubble. There are no goroutines here, so nothing leaks.
//
// Locks: Network.mu, then stream.mu; no stream's under another's.
package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

const (
	// backlog is how many connections wait in a listener to be accepted; as
	// with TCP they are established, and the next ones wait in Dial.
	backlog = 128

	// Ports that the network chooses: of listeners, of dialers.
	firstPort, firstDialPort = 10000, 32768
)

// Network is a set of hosts that reach each other. All methods are safe for
// concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[Addr]*listener
	conns     map[*conn]struct{} // the dialing ends of those not closed on both
	cuts      map[link]bool
	healed    chan struct{} // closed, and replaced, when a link is healed
	port      int           // the last one chosen for a listener
	dialPort  int           // and for a dialer
}

// link is a pair of hosts, the lesser first.
type link struct{ a, b string }

func linkOf(a, b string) link { return link{min(a, b), max(a, b)} }

// New returns a network without hosts.
func New() *Network {
	return &Network{
		listeners: map[Addr]*listener{},
		conns:     map[*conn]struct{}{},
		cuts:      map[link]bool{},
		healed:    make(chan struct{}),
		port:      firstPort - 1,
		dialPort:  firstDialPort - 1,
	}
}

// Addr is the address of one end of a connection.
type Addr struct {
	Host string
	Port int
}

// Network returns "mem".
func (a Addr) Network() string { return "mem" }

// String returns "host:port".
func (a Addr) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

func parseAddr(s string) (Addr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Addr{}, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Addr{}, &net.AddrError{Err: "port is not a number of 0 to 65535", Addr: s}
	}
	return Addr{host, int(p)}, nil
}

// opError names an operation as package net does.
func opError(op string, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "mem", Source: source, Addr: addr, Err: err}
}

// Listen listens on "host:port". Port 0 has the network choose one, which
// Listener.Addr tells. An address in use is syscall.EADDRINUSE.
func (n *Network) Listen(addr string) (net.Listener, error) {
	a, err := parseAddr(addr)
	if err != nil {
		return nil, opError("listen", nil, nil, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for tries := 0; a.Port == 0 || n.listeners[a] != nil; tries++ {
		if a.Port != 0 && tries == 0 || tries > firstDialPort-firstPort {
			return nil, opError("listen", nil, a, os.NewSyscallError("bind", syscall.EADDRINUSE))
		}
		if n.port++; n.port == firstDialPort {
			n.port = firstPort
		}
		a.Port = n.port
	}
	l := &listener{n: n, addr: a, queue: make(chan *conn, backlog), done: make(chan struct{})}
	n.listeners[a] = l
	return l, nil
}

// Dial connects the host from to a listener. Nobody there is
// syscall.ECONNREFUSED; behind a cut link, or at a listener whose backlog is
// full, Dial waits until that ends or ctx does.
func (n *Network) Dial(ctx context.Context, from, addr string) (net.Conn, error) {
	to, err := parseAddr(addr)
	if err != nil {
		return nil, opError("dial", nil, nil, err)
	}
	if err := n.await(ctx, linkOf(from, to.Host)); err != nil {
		return nil, opError("dial", nil, to, err)
	}
	c, l := n.connect(from, to)
	if l == nil {
		return nil, opError("dial", nil, to, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	select {
	case l.queue <- c.peer:
		select {
		case <-l.done: // Close may have emptied the queue before
			err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
		default:
			return c, nil
		}
	case <-l.done:
		err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.abort()
	c.peer.abort()
	return nil, opError("dial", c.local, to, err)
}

// await waits until the link is not cut.
func (n *Network) await(ctx context.Context, l link) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n.mu.Lock()
		cut, healed := n.cuts[l], n.healed
		n.mu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-healed:
		case <-ctx.Done():
		}
	}
}

// connect makes a connection from a host to a listener, which is nil if there
// is none. Cut finds the connection from now on.
func (n *Network) connect(from string, to Addr) (*conn, *listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[to]
	for _, any := range []string{"", "0.0.0.0", "::"} {
		if l == nil {
			l = n.listeners[Addr{any, to.Port}]
		}
	}
	if l == nil {
		return nil, nil
	}
	if n.dialPort++; n.dialPort > 65535 {
		n.dialPort = firstDialPort
	}
	c := newConn(n, Addr{from, n.dialPort}, to, n.cuts[linkOf(from, to.Host)])
	n.conns[c] = struct{}{}
	return c, l
}

// Dialer returns Dial from one host, in the shape of net.Dialer.DialContext.
func (n *Network) Dialer(from string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, from, addr) }
}

// Cut cuts the link between two hosts, or heals it. While it is cut nothing
// arrives from either side: what is written waits in the connection's buffer,
// then the writer does; a close is not noticed; Dial waits. Bytes that had
// arrived before can be read. Healing lets all arrive. There is no time after
// which a connection gives up: that is for its users' deadlines.
func (n *Network) Cut(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := linkOf(a, b)
	if n.cuts[l] == cut {
		return
	}
	if cut {
		n.cuts[l] = true
	} else {
		delete(n.cuts, l)
		close(n.healed)
		n.healed = make(chan struct{})
	}
	for c := range n.conns {
		if linkOf(c.local.Host, c.remote.Host) == l {
			c.in.setCut(cut)
			c.out.setCut(cut)
		}
	}
}

// Kill does what the kernel does when a host's processes die: its listeners are
// closed, and its connections reset.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	var ends []*conn
	for c := range n.conns {
		if c.local.Host == host {
			ends = append(ends, c)
		}
		if c.remote.Host == host {
			ends = append(ends, c.peer)
		}
	}
	var ls []*listener
	for a, l := range n.listeners {
		if a.Host == host {
			ls = append(ls, l)
		}
	}
	n.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
	for _, c := range ends {
		c.abort()
	}
}

// String describes the network for a failing test.
func (n *Network) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("%d listeners, %d connections, %d links cut", len(n.listeners), len(n.conns), len(n.cuts))
}

// listener is a net.Listener.
type listener struct {
	n     *Network
	addr  Addr
	queue chan *conn    // the accepting ends of established connections
	done  chan struct{} // closed by Close
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	default:
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.done:
		}
	}
	return nil, opError("accept", nil, l.addr, net.ErrClosed)
}

// Close ends the listener and resets the connections that nobody accepted.
func (l *listener) Close() error {
	err := opError("close", nil, l.addr, net.ErrClosed)
	l.once.Do(func() {
		err = nil
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr)
		l.n.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.abort()
			default:
				return
			}
		}
	})
	return err
}

func (l *listener) Addr() net.Addr { return l.addr }
