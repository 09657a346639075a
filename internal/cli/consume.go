package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const consumeLong = `Prints the records of a topic, from the beginning on, and waits for more.

--format says how a record is printed: %v value, %k key, %t topic, %p partition,
%o offset, %d timestamp, %h{%k=%v } headers, \n and \t as usual.`

type consumeFlags struct {
	format, from string
	count        int
	end          bool
	partitions   []int32
	committed    bool
}

func newConsume(h Host) *cobra.Command {
	c := new(cluster)
	var f consumeFlags
	cmd := &cobra.Command{
		Use:     "consume TOPIC",
		Short:   "Print the records of a topic",
		Long:    consumeLong,
		Example: "  ottla consume hello --end\n  ottla consume orders --from latest --format '%p/%o %k: %v\\n'\n  ottla consume orders --from 2026-11-01T00:00:00Z -n 10",
		Args:    arguments(1, 1),

		ValidArgsFunction: c.completeTopics(1),

		RunE: func(cmd *cobra.Command, args []string) error {
			return c.explain(consume(cmd.Context(), h, c, args[0], f))
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVarP(&f.format, "format", "f", `%v\n`, "`layout` of the output, see above")
	cmd.Flags().StringVarP(&f.from, "from", "o", "earliest", "`place` to begin: earliest, latest, an offset, -N for the last N, or a time (RFC 3339)")
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "stop after this `number` of records")
	cmd.Flags().BoolVarP(&f.end, "end", "e", false, "stop at what is the end now")
	cmd.Flags().Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these `partitions`, as in 0,2")
	cmd.Flags().BoolVar(&f.committed, "read-committed", false, "only records of committed transactions")
	return cmd
}

// span is what is consumed of a partition: from begin, with --end up to end.
type span struct{ begin, end int64 }

func consume(ctx context.Context, h Host, c *cluster, topic string, f consumeFlags) error {
	format, err := kgo.NewRecordFormatter(f.format)
	if err != nil {
		return usageError{fmt.Errorf("--format: %w", err)}
	}
	admin, err := c.client()
	if err != nil {
		return err
	}
	defer admin.Close()
	spans, err := f.spans(ctx, c, kadm.NewClient(admin), topic)
	if err != nil {
		return err
	}
	assigned := make(map[int32]kgo.Offset, len(spans))
	for p, s := range spans {
		assigned[p] = kgo.NewOffset().At(s.begin)
	}
	opts := []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}), kgo.KeepControlRecords()}
	if f.committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	client, err := c.client(opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	return f.print(ctx, h, client, format, spans)
}

// spans finds where to begin and what is the end now, for each wanted partition.
func (f *consumeFlags) spans(ctx context.Context, c *cluster, adm *kadm.Client, topic string) (map[int32]span, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	end := adm.ListEndOffsets
	if f.committed {
		end = adm.ListCommittedOffsets
	}
	ends, err := listOffsets(ctx, end, topic)
	if err != nil {
		return nil, err
	}
	starts, err := listOffsets(ctx, adm.ListStartOffsets, topic)
	if err != nil {
		return nil, err
	}
	begin, err := f.begin(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	out := make(map[int32]span, len(ends))
	for p, e := range ends {
		out[p] = span{begin(p, starts[p], e), e}
	}
	if len(f.partitions) == 0 {
		return out, f.reach(topic, out)
	}
	some := make(map[int32]span)
	for _, p := range f.partitions {
		s, ok := out[p]
		if !ok {
			return nil, noPartition(topic, p, len(out))
		}
		some[p] = s
	}
	return some, f.reach(topic, some)
}

// reach finds an offset in --from that no partition has reached. In a partition
// that is shorter than others consuming begins at its end.
func (f *consumeFlags) reach(topic string, spans map[int32]span) error {
	var end int64
	for p, s := range spans {
		end = max(end, s.end)
		spans[p] = span{min(s.begin, s.end), s.end}
	}
	if n, err := strconv.ParseInt(f.from, 10, 64); err == nil && n > end {
		return fmt.Errorf("--from %d: topic %s ends before offset %d", n, topic, end)
	}
	return nil
}

// begin turns --from into the offset for a partition with this start and end.
func (f *consumeFlags) begin(ctx context.Context, adm *kadm.Client, topic string) (func(p int32, start, end int64) int64, error) {
	switch f.from {
	case "earliest", "beginning":
		return func(_ int32, start, _ int64) int64 { return start }, nil
	case "latest", "end":
		return func(_ int32, _, end int64) int64 { return end }, nil
	}
	if n, err := strconv.ParseInt(f.from, 10, 64); err == nil {
		return func(_ int32, start, end int64) int64 {
			if n < 0 {
				return max(start, end+n)
			}
			return max(start, n)
		}, nil
	}
	t, err := time.Parse(time.RFC3339, f.from)
	if err != nil {
		return nil, usageError{fmt.Errorf("--from %q: want earliest, latest, an offset, -N, or a time like 2026-11-01T00:00:00Z", f.from)}
	}
	after := func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
		return adm.ListOffsetsAfterMilli(ctx, t.UnixMilli(), topics...)
	}
	at, err := listOffsets(ctx, after, topic)
	return func(p int32, _, end int64) int64 {
		if o, ok := at[p]; ok && o >= 0 {
			return o
		}
		return end
	}, err
}

func listOffsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topic string) (map[int32]int64, error) {
	listed, err := list(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, about(topic, err)
	}
	out := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

func (f *consumeFlags) print(ctx context.Context, h Host, client *kgo.Client, format *kgo.RecordFormatter, spans map[int32]span) error {
	out := bufio.NewWriterSize(h.Out, 64<<10)
	defer out.Flush()
	left := make(map[int32]bool) // partitions that have not reached their end
	for p, s := range spans {
		if s.begin < s.end {
			left[p] = true
		}
	}
	var line []byte
	for n := 0; !f.end || len(left) > 0; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return about(fmt.Sprintf("%s, partition %d", e.Topic, e.Partition), e.Err)
		}
		for r := range fetches.RecordsAll() {
			end := spans[r.Partition].end
			if r.Offset >= end-1 { // the last one itself may be compacted away
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() || f.end && r.Offset >= end {
				continue
			}
			line = format.AppendRecord(line[:0], r)
			if _, err := out.Write(line); err != nil {
				return errors.Join(err, out.Flush())
			}
			if n++; f.count > 0 && n == f.count {
				return out.Flush()
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}
