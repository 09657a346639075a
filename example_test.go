package ottla_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla.dev/ottla"
)

// A node inside a program: start it, write a record, read it back, stop it.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "events")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	n, err := ottla.Open(ctx, ottla.Config{Properties: map[string]string{
		"log.dirs":            dir,
		"listeners":           "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0", // 0: any free port
		"ottla.http.listener": "",
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(ctx)

	client, err := kgo.NewClient(
		kgo.SeedBrokers(n.Addr("PLAINTEXT")),
		kgo.AllowAutoTopicCreation(),
		kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	record := &kgo.Record{Topic: "orders", Key: []byte("4711"), Value: []byte("two teas")}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		log.Fatal(err) // an answer without an error means: it is on disk
	}

	fetches := client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		log.Fatal(err)
	}
	fetches.EachRecord(func(r *kgo.Record) {
		fmt.Printf("%s-%d@%d %s: %s\n", r.Topic, r.Partition, r.Offset, r.Key, r.Value)
	})
	// Output: orders-0@0 4711: two teas
}
