package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/model"
)

func newTopic(h Host) *cobra.Command {
	c := new(cluster)
	cmd := group(&cobra.Command{
		Use:   "topic",
		Short: "Create, list, describe and delete topics",
		Long: "Creates, lists, describes and deletes topics.\n\n" +
			"On a terminal lists are tables; in a pipe they are lines of fields separated by tabs,\nwithout a header.",
	})
	c.flags(cmd)
	cmd.AddCommand(newTopicCreate(h, c), newTopicList(h, c), newTopicDescribe(h, c), newTopicDelete(h, c))
	return cmd
}

// admin runs f with an admin client.
func (c *cluster) admin(ctx context.Context, f func(context.Context, *kadm.Client) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.explain(f(ctx, kadm.NewClient(client)))
}

func newTopicCreate(h Host, c *cluster) *cobra.Command {
	var partitions int32
	var factor int16
	var configs []string
	var lenient bool
	cmd := &cobra.Command{
		Use:     "create TOPIC…",
		Short:   "Create topics",
		Example: "  ottla topic create orders --partitions 6 --config retention.ms=86400000",
		Args:    arguments(1, -1),
		RunE: func(cmd *cobra.Command, names []string) error {
			settings, err := pairs(configs)
			if err != nil {
				return err
			}
			return c.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				resp, err := adm.CreateTopics(ctx, partitions, factor, settings, names...)
				if err != nil {
					return err
				}
				var errs []error
				for _, name := range slices.Sorted(maps.Keys(resp)) {
					r := resp[name]
					switch {
					case r.Err == nil:
						fmt.Fprintf(h.Out, "created %s: %s, replication factor %d, id %s\n", r.Topic, count(int64(r.NumPartitions), "partition", "partitions"), r.ReplicationFactor, model.UUID(r.ID))
					case lenient && errors.Is(r.Err, kerr.TopicAlreadyExists):
						fmt.Fprintf(h.Out, "%s exists\n", r.Topic)
					default:
						errs = append(errs, notCreated(r.Topic, reason(r.Err, r.ErrMessage)))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().Int32VarP(&partitions, "partitions", "p", -1, "`number` of partitions; -1 is the cluster's default")
	cmd.Flags().Int16VarP(&factor, "replication-factor", "r", -1, "`number` of replicas of each partition; -1 is the cluster's default")
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "topic config, `key=value` (may be repeated)")
	cmd.Flags().BoolVar(&lenient, "if-not-exists", false, "a topic that exists is no error")
	return cmd
}

func notCreated(topic string, err error) error {
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("topic %s exists already; with --if-not-exists that is no error", topic)
	}
	return fmt.Errorf("topic %s: %w", topic, err)
}

// reason is a code with the broker's own words, where it has any.
func reason(err error, message string) error {
	if message == "" {
		return err
	}
	return brokerError{err, message}
}

// brokerError reads as the broker's message and is the error of its code.
type brokerError struct {
	code    error
	message string
}

func (e brokerError) Error() string { return e.message }
func (e brokerError) Unwrap() error { return e.code }

func pairs(kvs []string) (map[string]*string, error) {
	out := make(map[string]*string, len(kvs))
	for _, kv := range kvs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("%q: want key=value", kv)}
		}
		out[k] = &v
	}
	return out, nil
}

func newTopicList(h Host, c *cluster) *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List topics",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				topics, err := adm.ListTopicsWithInternal(ctx)
				if err != nil {
					return err
				}
				var lines [][]string
				for _, t := range topics.Sorted() {
					if t.IsInternal && !internal {
						continue
					}
					lines = append(lines, []string{t.Topic, strconv.Itoa(len(t.Partitions)), strconv.Itoa(t.Partitions.NumReplicas())})
				}
				rows(h.Out, []string{"topic", "partitions", "replicas"}, lines)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&internal, "internal", false, "list Kafka's internal topics too")
	return cmd
}

func newTopicDescribe(h Host, c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:     "describe [TOPIC…]",
		Short:   "Show the partitions of topics: leaders, replicas, offsets",
		Long:    "Shows the partitions of topics, of all without a name. The fields of a line: topic,\npartition, leader, leader epoch, replicas, replicas in sync, first offset, end offset.",
		Example: "  ottla topic describe orders",

		ValidArgsFunction: c.completeTopics(0),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				topics, err := adm.ListTopics(ctx, names...)
				if err != nil {
					return err
				}
				starts, err := adm.ListStartOffsets(ctx, topics.Names()...)
				if err != nil {
					return err
				}
				ends, err := adm.ListEndOffsets(ctx, topics.Names()...)
				if err != nil {
					return err
				}
				var errs []error
				var lines [][]string
				for _, t := range topics.Sorted() {
					if t.Err != nil {
						errs = append(errs, about(t.Topic, t.Err))
						continue
					}
					for _, p := range t.Partitions.Sorted() {
						lines = append(lines, []string{
							t.Topic, strconv.Itoa(int(p.Partition)), strconv.Itoa(int(p.Leader)), strconv.Itoa(int(p.LeaderEpoch)),
							nodes(p.Replicas), nodes(p.ISR), offset(starts, t.Topic, p.Partition), offset(ends, t.Topic, p.Partition),
						})
					}
				}
				rows(h.Out, []string{"topic", "partition", "leader", "epoch", "replicas", "in sync", "start", "end"}, lines)
				return errors.Join(errs...)
			})
		},
	}
}

func offset(l kadm.ListedOffsets, topic string, partition int32) string {
	o, ok := l.Lookup(topic, partition)
	if !ok || o.Err != nil {
		return "-"
	}
	return strconv.FormatInt(o.Offset, 10)
}

func nodes(ids []int32) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(id)))
	}
	return b.String()
}

func newTopicDelete(h Host, c *cluster) *cobra.Command {
	var lenient bool
	cmd := &cobra.Command{
		Use:     "delete TOPIC…",
		Short:   "Delete topics and their records",
		Long:    "Deletes topics and their records at once: it asks nothing, and nothing brings them back.",
		Example: "  ottla topic delete orders",

		ValidArgsFunction: c.completeTopics(0),

		Args: arguments(1, -1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				resp, err := adm.DeleteTopics(ctx, names...)
				if err != nil {
					return err
				}
				var errs []error
				for _, name := range slices.Sorted(maps.Keys(resp)) {
					r := resp[name]
					switch {
					case r.Err == nil:
						fmt.Fprintf(h.Out, "deleted %s\n", r.Topic)
					case lenient && errors.Is(r.Err, kerr.UnknownTopicOrPartition):
						fmt.Fprintf(h.Out, "%s does not exist\n", r.Topic)
					case errors.Is(r.Err, kerr.UnknownTopicOrPartition):
						errs = append(errs, fmt.Errorf("there is no topic %s; with --if-exists that is no error", r.Topic))
					default:
						errs = append(errs, about(r.Topic, reason(r.Err, r.ErrMessage)))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVar(&lenient, "if-exists", false, "a topic that does not exist is no error")
	return cmd
}

// codecs are the values of --compression.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

func checkCodec(name string) error {
	if slices.Contains(codecs, name) {
		return nil
	}
	return usageError{fmt.Errorf("--compression %q: want one of %s", name, strings.Join(codecs, ", "))}
}
