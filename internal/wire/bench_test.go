//go:build linux

package wire

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The benchmarks run client and server in one process over loopback: their
// time and CPU are those of both, the kernel included. Each has a floor beside
// it, the same bytes over bare sockets, and what counts is the difference.

// cpu is the process's CPU time.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured reports the CPU time per operation and, for bulk, per GB.
func measured(b *testing.B, bytes int64, f func()) {
	b.ReportAllocs()
	if bytes > 0 {
		b.SetBytes(bytes)
	}
	b.ResetTimer()
	before := cpu()
	f()
	spent := cpu() - before
	b.StopTimer()
	if bytes > 0 {
		b.ReportMetric(spent.Seconds()/(float64(bytes)*float64(b.N)/1e9), "cpu-s/GB")
	} else {
		b.ReportMetric(float64(spent)/float64(b.N), "cpu-ns/op")
	}
}

// floor accepts one connection and gives it to f.
func floor(b *testing.B, f func(net.Conn)) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			f(c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// pingPong sends f and reads an answer of n bytes, b.N times.
func pingPong(b *testing.B, c net.Conn, f []byte, n int) {
	in := make([]byte, n)
	measured(b, 0, func() {
		for range b.N {
			if _, err := c.Write(f); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPingPong(b *testing.B) {
	f := frame(0, 0, 1, string(make([]byte, 100)))
	b.Run("floor", func(b *testing.B) {
		c := floor(b, func(c net.Conn) {
			buf := make([]byte, len(f))
			for {
				if _, err := io.ReadFull(c, buf); err != nil {
					return
				}
				c.Write(buf[:108])
			}
		})
		pingPong(b, c, f, 108)
	})
	b.Run("synchronous", func(b *testing.B) {
		s := serve(b, Config{})
		c := dial(b, s)
		c.SetDeadline(time.Time{})
		pingPong(b, c, f, 108)
	})
	b.Run("asynchronous", func(b *testing.B) {
		work := make(chan *Request, 16)
		s := serve(b, Config{Handler: handlerFunc(func(r *Request) { work <- r })})
		go func() {
			for r := range work {
				echo(r)
			}
		}()
		c := dial(b, s)
		c.SetDeadline(time.Time{})
		pingPong(b, c, f, 108)
	})
}

// BenchmarkGroup has conns connections with depth requests in flight each; one
// goroutine answers all requests that came up meanwhile at once, as the end of
// an fsync does.
func BenchmarkGroup(b *testing.B) {
	for _, shape := range []struct{ conns, depth int }{{1, 1}, {1, 16}, {16, 1}, {16, 5}, {64, 1}} {
		b.Run("conns="+strconv.Itoa(shape.conns)+"/depth="+strconv.Itoa(shape.depth), func(b *testing.B) {
			benchGroup(b, shape.conns, shape.depth)
		})
	}
}

func benchGroup(b *testing.B, conns, depth int) {
	var mu sync.Mutex
	var queued []*Request
	kick := make(chan struct{}, 1)
	s := serve(b, Config{Handler: handlerFunc(func(r *Request) {
		mu.Lock()
		queued = append(queued, r)
		mu.Unlock()
		select {
		case kick <- struct{}{}:
		default:
		}
	})})
	go func() {
		var batch []*Request
		for range kick {
			mu.Lock()
			batch, queued = queued, batch[:0]
			mu.Unlock()
			for _, r := range batch {
				echo(r)
			}
		}
	}()
	f := frame(0, 0, 1, string(make([]byte, 100)))
	var wg sync.WaitGroup
	cs := make([]net.Conn, conns)
	for i := range cs {
		cs[i] = dial(b, s)
		cs[i].SetDeadline(time.Time{})
	}
	measured(b, 0, func() {
		for i, c := range cs {
			n := b.N / conns
			if i == 0 {
				n += b.N % conns
			}
			wg.Go(func() { load(b, c, f, 108, n, depth) })
		}
		wg.Wait()
	})
}

// load sends n requests with depth in flight.
func load(b *testing.B, c net.Conn, f []byte, answer, n, depth int) {
	r := bufio.NewReaderSize(c, 64<<10)
	in := make([]byte, answer)
	sent := 0
	for got := 0; got < n; {
		k := min(depth-(sent-got), n-sent)
		for range k {
			if _, err := c.Write(f); err != nil {
				b.Error(err)
				return
			}
			sent++
		}
		for more := true; more && got < sent; more = r.Buffered() >= answer {
			if _, err := io.ReadFull(r, in); err != nil {
				b.Error(err)
				return
			}
			got++
		}
	}
}

func BenchmarkPipelined(b *testing.B) {
	// One connection, written in bunches of 64.
	f := frame(0, 0, 1, string(make([]byte, 100)))
	var bunch []byte
	for range 64 {
		bunch = append(bunch, f...)
	}
	s := serve(b, Config{})
	c := dial(b, s)
	c.SetDeadline(time.Time{})
	in := make([]byte, 64*108)
	measured(b, 0, func() {
		for i := 0; i < b.N; i += 64 {
			n := min(64, b.N-i)
			if _, err := c.Write(bunch[:n*len(f)]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, in[:n*108]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLargeIn sends frames with five in flight, as a producer does.
func BenchmarkLargeIn(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		f := frame(0, 0, 1, string(make([]byte, size)))
		b.Run("floor/"+strconv.Itoa(size), func(b *testing.B) {
			c := floor(b, func(c net.Conn) {
				buf := make([]byte, len(f))
				for {
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					c.Write(buf[:8])
				}
			})
			measured(b, int64(size), func() { load(b, c, f, 8, b.N, 5) })
		})
		b.Run("wire/"+strconv.Itoa(size), func(b *testing.B) {
			s := serve(b, Config{Budget: NewBudget(64 << 20), Handler: handlerFunc(func(r *Request) { r.Reply(r.Buffer(0)) })})
			c := dial(b, s)
			c.SetDeadline(time.Time{})
			measured(b, int64(size), func() { load(b, c, f, 8, b.N, 5) })
		})
	}
}

// BenchmarkFileOut answers with 1 MiB of a file; two requests are in flight.
func BenchmarkFileOut(b *testing.B) {
	const size = 1 << 20
	name := filepath.Join("/dev/shm", "ottla-wire-bench")
	if err := os.WriteFile(name, make([]byte, 64*size), 0o600); err != nil {
		name = filepath.Join(b.TempDir(), "file")
		if err := os.WriteFile(name, make([]byte, 64*size), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { os.Remove(name) })
	file, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { file.Close() })
	raw, _ := file.SyscallConn()
	f := frame(1, 0, 1, "")
	for _, mode := range []string{"floor", "sendfile", "copy"} {
		b.Run(mode, func(b *testing.B) {
			var c net.Conn
			if mode == "floor" {
				c = floor(b, func(c net.Conn) { sendFloor(c, file, f, size) })
			} else {
				s := serve(b, Config{Handler: handlerFunc(func(r *Request) {
					p := FilePart{Src: file, Off: int64(r.CorrelationID%64) * size, N: size}
					if mode == "sendfile" {
						p.File, p.Raw = file, raw
					}
					r.Reply(r.Buffer(16), p)
				})})
				c = dial(b, s)
				c.SetDeadline(time.Time{})
			}
			measured(b, size, func() { load(b, c, f, 8+size, b.N, 2) })
		})
	}
}

// sendFloor answers frames with nothing but sendfile.
func sendFloor(c net.Conn, file *os.File, f []byte, size int) {
	buf := make([]byte, len(f))
	rc, _ := c.(*net.TCPConn).SyscallConn()
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		c.Write(buf[:8])
		var off int64
		left := size
		_ = rc.Write(func(fd uintptr) bool {
			for left > 0 {
				n, err := syscall.Sendfile(int(fd), int(file.Fd()), &off, left)
				if err == syscall.EAGAIN {
					return false
				}
				if err != nil {
					return true
				}
				left -= n
			}
			return true
		})
	}
}

// BenchmarkIdleConnections tells what a silent connection costs the server.
func BenchmarkIdleConnections(b *testing.B) {
	const n = 1000
	s := serve(b, Config{})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	f := frame(0, 0, 1, string(make([]byte, 100)))
	for b.Loop() {
		conns := make([]int, 0, n)
		before := heap()
		for range n {
			conns = append(conns, bareDial(b, s.Addr().(*net.TCPAddr).Port, f))
		}
		b.ReportMetric(float64(heap()-before)/n, "B/conn")
		for _, fd := range conns {
			syscall.Close(fd)
		}
		for len(s.list()) > 0 {
			runtime.Gosched()
		}
	}
}

// bareDial connects without Go's poller, whose memory would be counted too, and
// has one request answered.
func bareDial(b *testing.B, port int, f []byte) int {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.Fatal(err)
	}
	in := make([]byte, 108)
	if _, err := syscall.Write(fd, f); err != nil {
		b.Fatal(err)
	}
	for got := 0; got < len(in); {
		n, err := syscall.Read(fd, in[got:])
		if n <= 0 {
			b.Fatal(err)
		}
		got += n
	}
	return fd
}
