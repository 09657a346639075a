package ottlatest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla.dev/ottla/ottlatest"
)

// A test gets a cluster of its own and talks to it with any Kafka client. What is
// below stands in a test function; t is its *testing.T.
func ExampleNewCluster() {
	t := newT()
	defer t.end()

	c := ottlatest.NewCluster(t, ottlatest.Property("num.partitions", "1"))
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.Bootstrap()...),
		kgo.AllowAutoTopicCreation(),
		kgo.ConsumeTopics("orders"),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	ctx := context.Background()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("two teas")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, r := range client.PollFetches(ctx).Records() {
		fmt.Printf("offset %d: %s\n", r.Offset, r.Value)
	}
	// Output: offset 0: two teas
}

// exampleT stands in for a *testing.T, which an example does not have.
type exampleT struct {
	testing.TB
	ends []func()
}

func newT() *exampleT { return &exampleT{} }

func (t *exampleT) Helper()          {}
func (t *exampleT) Cleanup(f func()) { t.ends = append(t.ends, f) }
func (t *exampleT) Fatal(args ...any) {
	panic(fmt.Sprint(args...))
}
func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleT) TempDir() string {
	dir, err := os.MkdirTemp("", "ottlatest")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end does what the end of a test does.
func (t *exampleT) end() {
	for i := len(t.ends) - 1; i >= 0; i-- {
		t.ends[i]()
	}
}
