package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// The port is bound before the broker has its place in the cluster. Who connects
// then waits, and finds a broker that can do what it is asked.
func TestAClientThatComesWithThePortFindsAWholeBroker(t *testing.T) {
	disk := vfs.NewMem()
	for range 20 {
		network := memnet.New()
		failed := make(chan int16, 1)
		go func() {
			for {
				nc, err := network.Dial(context.Background(), "10.0.0.1", "127.0.0.1:9092")
				if err != nil {
					continue // not bound yet
				}
				c := wire.NewClient(nc, wire.ClientConfig{})
				defer c.Close()
				req := kmsg.NewPtrCreateTopicsRequest()
				topic := kmsg.NewCreateTopicsRequestTopic()
				topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "early", 1, 1
				req.Topics, req.TimeoutMillis, req.ValidateOnly = append(req.Topics, topic), 10000, true
				req.SetVersion(7)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				resp, err := c.Do(ctx, req)
				if err != nil {
					t.Error(err)
					failed <- -1
					return
				}
				failed <- resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
				return
			}
		}()
		n := open(t, disk, network, nil)
		if code := <-failed; code != 0 {
			t.Errorf("creating a topic: error %d", code)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
