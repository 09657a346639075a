package storage

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"ottla.dev/ottla/internal/model"
)

// Checkpoints are text, so that an operator can read them:
//
//	0                     version
//	2                     number of entries
//	orders 0 4711         topic partition offset     in a folder's checkpoints
//	orders 1 12
//
//	0
//	1
//	7 4711                epoch startOffset          in leader-epoch-checkpoint
//
// A checkpoint is replaced as a whole (temporary file, sync, rename), so a reader
// sees an old one or a new one, never a torn one. An empty file is an empty
// checkpoint: Kafka creates it so.
const (
	recoveryFile = "recovery-point-offset-checkpoint"
	highFile     = "replication-offset-checkpoint"
	startFile    = "log-start-offset-checkpoint"
	cleanedFile  = "cleaner-offset-checkpoint"
	epochFile    = "leader-epoch-checkpoint"
	topicFile    = "partition.metadata"

	// maxCheckpoint bounds what is read of one: 300 bytes for each of a million
	// partitions.
	maxCheckpoint = 300 << 20
)

// appendOffsets encodes a folder's checkpoint. n is the number of entries.
func appendOffsets(dst []byte, n int, entries iter.Seq2[model.TopicPartition, model.Offset]) []byte {
	dst = append(dst, "0\n"...)
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, '\n')
	for tp, offset := range entries {
		dst = append(dst, tp.Topic...)
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(tp.Partition), 10)
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(offset), 10)
		dst = append(dst, '\n')
	}
	return dst
}

// parseOffsets reads a folder's checkpoint.
func parseOffsets(text []byte) (map[model.TopicPartition]model.Offset, error) {
	offsets := make(map[model.TopicPartition]model.Offset)
	err := parseLines(text, func(fields []string) error {
		if len(fields) != 3 {
			return fmt.Errorf("want topic, partition and offset")
		}
		partition, err := strconv.ParseInt(fields[1], 10, 32)
		if err != nil || partition < 0 {
			return fmt.Errorf("partition %q is not a number from 0", fields[1])
		}
		offset, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil || offset < 0 {
			return fmt.Errorf("offset %q is not a number from 0", fields[2])
		}
		offsets[model.TopicPartition{Topic: strings.Clone(fields[0]), Partition: int32(partition)}] = model.Offset(offset)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return offsets, nil
}

// appendEpochs encodes leader-epoch-checkpoint.
func appendEpochs(dst []byte, epochs []epochStart) []byte {
	dst = append(dst, "0\n"...)
	dst = strconv.AppendInt(dst, int64(len(epochs)), 10)
	dst = append(dst, '\n')
	for _, e := range epochs {
		dst = strconv.AppendInt(dst, int64(e.epoch), 10)
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(e.start), 10)
		dst = append(dst, '\n')
	}
	return dst
}

// parseEpochs reads leader-epoch-checkpoint. Entries must ascend in both columns.
func parseEpochs(text []byte) ([]epochStart, error) {
	var epochs []epochStart
	err := parseLines(text, func(fields []string) error {
		if len(fields) != 2 {
			return fmt.Errorf("want epoch and start offset")
		}
		epoch, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil || epoch < 0 {
			return fmt.Errorf("epoch %q is not a number from 0", fields[0])
		}
		start, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || start < 0 {
			return fmt.Errorf("offset %q is not a number from 0", fields[1])
		}
		e := epochStart{epoch: model.Epoch(epoch), start: model.Offset(start)}
		if n := len(epochs); n > 0 && (epochs[n-1].epoch >= e.epoch || epochs[n-1].start > e.start) {
			return fmt.Errorf("epoch %d at offset %d does not follow epoch %d at %d", e.epoch, e.start, epochs[n-1].epoch, epochs[n-1].start)
		}
		epochs = append(epochs, e)
		return nil
	})
	return epochs, err
}

// parseLines checks version and count and gives each entry's fields to line.
func parseLines(text []byte, line func(fields []string) error) error {
	if len(text) == 0 {
		return nil
	}
	n, want := 0, int64(math.MinInt64)
	for raw := range bytes.Lines(text) {
		n++
		if raw[len(raw)-1] != '\n' {
			return fmt.Errorf("%w: checkpoint's line %d has no end", errCorrupt, n)
		}
		s := strings.TrimSpace(string(raw))
		switch n {
		case 1:
			if s != "0" {
				return fmt.Errorf("%w: checkpoint has version %q, only 0 is known", errCorrupt, s)
			}
		case 2:
			count, err := strconv.ParseInt(s, 10, 32)
			if err != nil || count < 0 {
				return fmt.Errorf("%w: checkpoint has %q for the number of its entries", errCorrupt, s)
			}
			want = count
		default:
			if err := line(strings.Fields(s)); err != nil {
				return fmt.Errorf("%w: checkpoint's line %d: %w", errCorrupt, n, err)
			}
		}
	}
	if int64(n-2) != want {
		return fmt.Errorf("%w: checkpoint has %d entries but says %d", errCorrupt, n-2, want)
	}
	return nil
}

// appendTopicID encodes partition.metadata, which says which topic of its name a
// folder belongs to. There is no newline at its end.
func appendTopicID(dst []byte, id model.UUID) []byte {
	dst = append(dst, "version: 0\ntopic_id: "...)
	return append(dst, id.String()...)
}

// parseTopicID reads partition.metadata.
func parseTopicID(text []byte) (model.UUID, error) {
	var id model.UUID
	version := ""
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			return id, fmt.Errorf("%w: partition.metadata has the line %q", errCorrupt, line)
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "version":
			version = value
		case "topic_id":
			var err error
			if id, err = model.ParseUUID(value); err != nil {
				return id, fmt.Errorf("%w: partition.metadata: %w", errCorrupt, err)
			}
		}
	}
	switch {
	case version != "0":
		return id, fmt.Errorf("%w: partition.metadata has version %q, only 0 is known", errCorrupt, version)
	case id == model.ZeroUUID:
		return id, fmt.Errorf("%w: partition.metadata has no topic_id", errCorrupt)
	}
	return id, nil
}
