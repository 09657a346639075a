package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
)

// wantClosed fails unless the server closes c, whatever it sent before.
func wantClosed(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection was not closed")
	}
}

func TestNonsenseClosesOnlyItsConnection(t *testing.T) {
	length := func(n int32, rest string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + rest
	}
	valid := string(frame(0, 0, 1, "body"))
	long := string(frame(0, 0, 1, strings.Repeat("x", 2000)))
	flexible := string(appendRequestHeader(nil, 0, 9, 1, "id")[lengthSize:])
	flexible = flexible[:len(flexible)-1] // without its count of tags
	for name, in := range map[string]string{
		"negative length":            length(-1, valid),
		"most negative length":       length(math.MinInt32, valid),
		"length above the bound":     length(1<<20+1, valid),
		"largest length":             length(math.MaxInt32, valid),
		"empty frame":                length(0, valid),
		"too short for a header":     length(9, valid),
		"above the bound of the API": string(frame(19, 0, 1, strings.Repeat("x", 2000))),
		"refused API":                string(frame(20, 0, 1, "")),
		"negative key":               string(frame(-5, 0, 1, "")),
		"negative version":           string(frame(0, -1, 1, "")),
		"client id beyond the frame": length(10, "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x05"+long),
		"client id of length -2":     length(12, "\x00\x00\x00\x00\x00\x00\x00\x01\xff\xfexx"),
		"no tags":                    length(int32(len(flexible)), flexible),
		"too many tags":              length(int32(len(flexible))+4, flexible+"\xff\xff\xff\x01"),
		"endless count of tags":      length(int32(len(flexible))+10, flexible+strings.Repeat("\xff", 10)),
		"tag beyond the frame":       length(int32(len(flexible))+3, flexible+"\x01\x00\x05"),
		"tag of endless size":        length(int32(len(flexible))+12, flexible+"\x01\x00"+strings.Repeat("\xff", 9)+"\x01"),
		"text":                       "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{
				MaxFrame: 1 << 20,
				MaxRequest: func(key, _ int16) int64 {
					switch key {
					case 19:
						return 1000
					case 20:
						return 0
					}
					return math.MaxInt64
				},
			})
			good := dial(t, s)
			bad := dial(t, s)
			if _, err := io.WriteString(bad, valid+in); err != nil {
				t.Fatal(err)
			}
			if id, got := answer(t, bad); id != 1 || got != "body" {
				t.Fatalf("the request before it: got %d, %q", id, got)
			}
			wantClosed(t, bad)
			if _, err := io.WriteString(good, valid); err != nil {
				t.Fatal(err)
			}
			if id, got := answer(t, good); id != 1 || got != "body" {
				t.Fatalf("another connection: got %d, %q", id, got)
			}
		})
	}
}

func TestFramesCutShortAreNotServed(t *testing.T) {
	served := make(chan string, 10)
	s := serve(t, Config{Handler: handlerFunc(func(r *Request) {
		served <- string(r.Body)
		echo(r)
	})})
	for _, size := range []int{10, 5000, 300_000} {
		f := frame(0, 0, 1, strings.Repeat("x", size))
		for _, n := range []int{1, 3, 4, 7, 8, 15, len(f) / 2, len(f) - 1} {
			c := dial(t, s)
			if _, err := c.Write(f[:n]); err != nil {
				t.Fatal(err)
			}
			c.(*net.TCPConn).CloseWrite()
			wantClosed(t, c)
		}
	}
	if len(served) > 0 {
		t.Fatalf("served %d bytes", len(<-served))
	}
}

func TestMaxFrameOfAConnection(t *testing.T) {
	s := serve(t, Config{
		Opened: func(c *Conn) error {
			c.SetMaxFrame(100)
			return nil
		},
		Handler: handlerFunc(func(r *Request) {
			r.Barrier()
			r.Conn().SetMaxFrame(1000)
			echo(r)
		}),
	})
	large := frame(0, 0, 2, strings.Repeat("x", 500))
	early := dial(t, s)
	if _, err := early.Write(large); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, early)
	late := dial(t, s)
	if _, err := late.Write(append(frame(0, 0, 1, "login"), large...)); err != nil {
		t.Fatal(err)
	}
	for want := range int32(2) {
		if id, _ := answer(t, late); id != want+1 {
			t.Fatalf("got answer %d", id)
		}
	}
}

// FuzzConnection sends bytes to a server: it must neither fail nor keep a
// connection whose peer has gone.
func FuzzConnection(f *testing.F) {
	f.Add(frame(0, 0, 1, "body"), uint8(3))
	f.Add(append(frame(18, 3, 1, "body"), frame(1, 12, 2, "")...), uint8(20))
	f.Add(frame(-1, 0, 1, "body"), uint8(0))
	f.Add([]byte("\xff\xff\xff\xff"), uint8(2))
	f.Add([]byte("\x00\x00\x00\x0a\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff"), uint8(9))
	budget := NewBudget(1 << 20)
	s := serve(f, Config{Budget: budget, MaxFrame: 1 << 16})
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		c := dial(t, s)
		n := min(int(cut), len(in))
		c.Write(in[:n])
		c.Write(in[n:])
		c.(*net.TCPConn).CloseWrite()
		wantClosed(t, c)
		waitFor(t, "the connection's end", func() bool { return len(s.list()) == 0 })
		if used, side := budget.Used(); used != 0 || side {
			t.Fatalf("%d bytes of the budget are not given back", used)
		}
	})
}

// FuzzHeader decodes payloads: what is accepted must be written again the same,
// tags apart.
func FuzzHeader(f *testing.F) {
	f.Add(frame(0, 0, 1, "body")[lengthSize:])
	f.Add(frame(18, 3, -1, "body")[lengthSize:])
	f.Add([]byte("\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff\x01\x07\x02ab"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, body, err := parseHeader(p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if h.clientID == nil {
			return
		}
		again := append(appendRequestHeader(nil, h.key, h.version, h.correlation, string(h.clientID)), body...)
		h2, body2, err := parseHeader(again[lengthSize:])
		if err != nil || h2.key != h.key || h2.version != h.version || h2.correlation != h.correlation ||
			string(h2.clientID) != string(h.clientID) || string(body2) != string(body) {
			t.Fatalf("%+v became %+v, %v", h, h2, err)
		}
	})
}
