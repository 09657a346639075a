package memnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestCutLinkHoldsBytesUntilHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		send(t, a, "before ")
		n.Cut("b", "a", true)
		send(t, a, "during ")
		mustRead(t, b, "before ")
		read := mustBlock(t, "read", func() error { return readOne(b) })
		time.Sleep(time.Hour)
		n.Cut("a", "b", false)
		must(t, read())
		send(t, a, "after")
		mustRead(t, b, "uring after")
	})
}

func TestCutLinkHasWritersWaitAtTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.Cut("a", "b", true)
		fill(t, a)
		write := mustBlock(t, "write", func() error { return writeOne(a) })
		n.Cut("a", "b", false)
		must(t, readOne(b))
		must(t, write())
	})
}

func TestCutLinkHidesCloseAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		for _, unread := range []bool{false, true} {
			a, b := pair(t, n)
			if unread {
				send(t, b, "never read")
			}
			n.Cut("a", "b", true)
			send(t, a, "x")
			must(t, a.Close())
			read := mustBlock(t, "read", func() error { return readOne(b) })
			must(t, writeOne(b)) // b cannot know
			n.Cut("a", "b", false)
			if unread {
				mustFail(t, read(), syscall.ECONNRESET) // x was in flight, and is lost
			} else {
				must(t, read())
				mustFail(t, readOne(b), io.EOF)
			}
			mustFail(t, writeOne(b), syscall.ECONNRESET)
			must(t, b.Close())
		}
	})
}

func TestCutLinkHasDialWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("b:1")
		must(t, err)
		defer l.Close()
		n.Cut("a", "b", true)
		dial := mustBlock(t, "dial", func() error {
			c, err := n.Dial(context.Background(), "a", "b:1")
			if err == nil {
				c.Close()
			}
			return err
		})
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err = n.Dial(ctx, "a", "b:1")
		mustFail(t, err, context.DeadlineExceeded)
		c, err := n.Dial(context.Background(), "c", "b:1") // another link
		must(t, err)
		c.Close()
		n.Cut("a", "b", false)
		must(t, dial())
	})
}

func TestCutIsOfOneLink(t *testing.T) {
	n := New()
	a, b := pair(t, n)
	n.Cut("a", "c", true)
	n.Cut("b", "c", true)
	send(t, a, "x")
	mustRead(t, b, "x")
}

func TestKillResetsTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		for _, host := range []string{"a", "b"} {
			l, err := n.Listen(host + ":1")
			must(t, err)
			a, b := pair(t, n)
			live, dead := a, b
			if host == "a" {
				live, dead = b, a
			}
			read := mustBlock(t, "read", func() error { return readOne(live) })
			n.Kill(host)
			mustFail(t, read(), syscall.ECONNRESET)
			mustFail(t, readOne(dead), net.ErrClosed)
			_, err = l.Accept()
			mustFail(t, err, net.ErrClosed)
			_, err = n.Dial(context.Background(), "c", host+":1")
			mustFail(t, err, syscall.ECONNREFUSED)
			l, err = n.Listen(host + ":1") // the host may come back
			must(t, err)
			must(t, l.Close())
			must(t, live.Close())
		}
	})
}

func serve(n *Network, addr string, h http.Handler) (client *http.Client, stop func(), err error) {
	l, err := n.Listen(addr)
	if err != nil {
		return nil, nil, err
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	tr := &http.Transport{DialContext: n.Dialer("client")}
	return &http.Client{Transport: tr}, func() { tr.CloseIdleConnections(); s.Close() }, nil
}

func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestHTTPInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, stop, err := serve(n, "web:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			fmt.Fprint(w, strings.Repeat("x", 1<<20))
		}))
		must(t, err)
		defer stop()
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if body, err := get(c, "http://web/"); len(body) != 1<<20 || err != nil {
					t.Errorf("%d bytes, %v", len(body), err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d != time.Minute {
			t.Fatalf("ten requests at once took %v", d)
		}
		n.Cut("client", "web", true)
		c.Timeout = 10 * time.Second
		if _, err := get(c, "http://web/"); err == nil || !err.(net.Error).Timeout() {
			t.Fatalf("request over a cut link: %v", err)
		}
		n.Cut("client", "web", false)
		c.Timeout = 0
		_, err = get(c, "http://web/")
		must(t, err)
	})
}
