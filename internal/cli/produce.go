package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const produceLong = `Reads records from standard input and writes them to a topic, a line each.

--format says how the input is read: %v value, %k key, with what stands between them,
as in '%k\t%v\n'; or with sizes before them, as in '%K{big32}%k%V{big32}%v'.

A topic that is not there is made if the cluster allows it (auto.create.topics.enable).`

type produceFlags struct {
	format, key, compression, acks string
	headers                        []string
	partition                      int32
}

func newProduce(h Host) *cobra.Command {
	c := new(cluster)
	var f produceFlags
	cmd := &cobra.Command{
		Use:     "produce TOPIC",
		Short:   "Write records from standard input to a topic",
		Long:    produceLong,
		Example: "  echo 'Hello, Kafka' | ottla produce hello\n  ottla produce orders --format '%k=%v\\n' <orders.txt",
		Args:    arguments(1, 1),

		ValidArgsFunction: c.completeTopics(1),

		RunE: func(cmd *cobra.Command, args []string) error {
			return c.explain(produce(cmd.Context(), h, c, args[0], f))
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVarP(&f.format, "format", "f", `%v\n`, "`layout` of the input, see above")
	cmd.Flags().StringVarP(&f.key, "key", "k", "", "`key` of every record")
	cmd.Flags().StringVarP(&f.compression, "compression", "z", "none", "`codec`: "+strings.Join(codecs, ", "))
	cmd.Flags().StringVar(&f.acks, "acks", "all", "`replicas` to wait for: all, 1 (the leader) or 0 (none)")
	cmd.Flags().StringArrayVarP(&f.headers, "header", "H", nil, "header of every record, `key=value` (may be repeated)")
	cmd.Flags().Int32VarP(&f.partition, "partition", "p", -1, "`partition` for every record; -1 chooses by key")
	return cmd
}

func (f *produceFlags) options(topic string) ([]kgo.Opt, error) {
	if err := checkCodec(f.compression); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation(), kgo.ProducerBatchCompression(map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[f.compression])}
	switch f.acks {
	case "all", "-1":
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, usageError{fmt.Errorf("--acks %q: want all, 1 or 0", f.acks)}
	}
	if f.partition >= 0 {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	return opts, nil
}

func produce(ctx context.Context, h Host, c *cluster, topic string, f produceFlags) error {
	opts, err := f.options(topic)
	if err != nil {
		return err
	}
	read, err := kgo.NewRecordReader(h.In, f.format)
	if err != nil {
		return usageError{fmt.Errorf("--format: %w", err)}
	}
	fixed, err := headers(f.headers)
	if err != nil {
		return err
	}
	client, err := c.client(append(opts, kgo.RecordDeliveryTimeout(c.timeout))...)
	if err != nil {
		return err
	}
	defer client.Close()
	var first atomic.Pointer[error]
	for n := 1; first.Load() == nil; n++ {
		r, err := read.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("record %d of the input: %w", n, err)
		}
		r.Headers = append(r.Headers, fixed...)
		if f.key != "" {
			r.Key = []byte(f.key)
		}
		if f.partition >= 0 {
			r.Partition = f.partition
		}
		client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := first.Load(); err != nil {
		return f.explain(ctx, client, topic, *err)
	}
	return nil
}

// explain puts into words why a record was refused.
func (f *produceFlags) explain(ctx context.Context, client *kgo.Client, topic string, err error) error {
	if f.partition < 0 {
		return about(topic, err)
	}
	topics, lerr := kadm.NewClient(client).ListTopics(ctx, topic)
	if n := len(topics[topic].Partitions); lerr == nil && n > 0 && int(f.partition) >= n {
		return noPartition(topic, f.partition, n)
	}
	return about(topic, err)
}

func noPartition(topic string, p int32, n int) error {
	if n == 1 {
		return fmt.Errorf("topic %s has no partition %d, only 0", topic, p)
	}
	return fmt.Errorf("topic %s has no partition %d, only 0 to %d", topic, p, n-1)
}

func headers(kvs []string) ([]kgo.RecordHeader, error) {
	var out []kgo.RecordHeader
	for _, kv := range kvs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--header %q: want key=value", kv)}
		}
		out = append(out, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	return out, nil
}
