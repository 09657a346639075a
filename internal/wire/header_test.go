package wire

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestFlexibleVersionsAreKafkas(t *testing.T) {
	for key := range int16(kmsg.MaxKey + 1) {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for v := range req.MaxVersion() + 1 {
			req.SetVersion(v)
			if got, want := Flexible(key, v), req.IsFlexible(); got != want {
				t.Errorf("%s v%d: flexible %v, kmsg says %v", kmsg.NameForKey(key), v, got, want)
			}
		}
	}
}

func TestRequestHeadersAreKafkas(t *testing.T) {
	for _, v := range []int16{0, 9} {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = v
		want := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 77)
		if got := frame(3, v, 77, string(req.AppendTo(nil))); string(got) != string(want) {
			t.Errorf("v%d: got %x, kmsg writes %x", v, got, want)
		}
	}
}

// KAFKA.md 3.2: the answer of Apache Kafka 4.4 to an ApiVersions version that it
// does not know, for correlation id 77.
func TestAnswerToUnknownApiVersions(t *testing.T) {
	const want = "\x00\x00\x00\x10" + "\x00\x00\x00\x4d" + "\x00\x23" + "\x00\x00\x00\x01" + "\x00\x12\x00\x00\x00\x05"
	c := dial(t, serve(t, Config{Handler: handlerFunc(func(r *Request) {
		r.ReplyV0(append(r.Buffer(16), want[8:]...))
	})}))
	if _, err := c.Write(frame(18, 99, 77, "")); err != nil {
		t.Fatal(err)
	}
	id, got := answer(t, c)
	if id != 77 || got != want[8:] {
		t.Fatalf("got %d, %x", id, got)
	}
}

func TestClassesHoldWhatTheyPromise(t *testing.T) {
	last := -1
	for n := 1; n <= maxBuf; n += 1 + n/50 {
		class, size := classOf(n)
		switch {
		case size < n || n > minBuf && size > n+n/4+1:
			t.Fatalf("%d bytes: class of %d", n, size)
		case class < last || class >= numClasses:
			t.Fatalf("%d bytes: class %d after %d", n, class, last)
		}
		if c, s := classOf(size); c != class || s != size {
			t.Fatalf("class %d of %d is not its own: %d of %d", class, size, c, s)
		}
		last = class
	}
	if class, size := classOf(maxBuf); class != numClasses-1 || size != maxBuf {
		t.Fatalf("largest class %d of %d", class, size)
	}
}
