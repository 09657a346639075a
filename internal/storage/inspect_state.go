package storage

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"strings"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// ProducerEntry is what a producer snapshot knows of one producer.
type ProducerEntry struct {
	Producer         model.Producer
	LastSequence     int32        // of its last batch, -1 if there is none in this epoch
	LastOffset       model.Offset // of that batch, NoOffset
	OffsetDelta      int32        // last offset minus first of that batch
	Timestamp        int64
	CoordinatorEpoch int32        // of the last marker, -1 if there was none
	TxnStart         model.Offset // first offset of its open transaction, NoOffset if none
}

const meansSnapshot = "a start takes an older snapshot and reads the log from there, or from its beginning"

// InspectProducers walks over a .snapshot. One that is damaged has no entries: it
// counts as a whole.
func InspectProducers(fsys vfs.FS, path string) iter.Seq2[ProducerEntry, error] {
	return func(yield func(ProducerEntry, error) bool) {
		err := withFile(fsys, path, func(f vfs.File, size int64) error {
			if err := checkProducers(f, size); err != nil {
				return err
			}
			in := bufio.NewReaderSize(io.NewSectionReader(f, snapshotHeader, size-snapshotHeader), inspectBuffer)
			var e [snapshotEntry]byte
			for at := int64(snapshotHeader); at < size; at += snapshotEntry {
				if _, err := io.ReadFull(in, e[:]); err != nil {
					return fmt.Errorf("reading at position %d: %w", at, err)
				}
				if !yield(producerEntry(e[:]), nil) {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(ProducerEntry{}, err)
		}
	}
}

// checkProducers checks version, size and checksum of a producer snapshot.
func checkProducers(f vfs.File, size int64) error {
	var head [snapshotHeader]byte
	if size < snapshotHeader {
		return damaged(0, model.NoOffset, meansSnapshot, "%d bytes are too few for a producer snapshot, which has %d at least", size, snapshotHeader)
	}
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if v := int16(binary.BigEndian.Uint16(head[:])); v != 1 {
		return damaged(0, model.NoOffset, meansSnapshot, "the snapshot has version %d, only 1 is known", v)
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(sum, io.NewSectionReader(f, 6, size-6)); err != nil {
		return err
	}
	if want := binary.BigEndian.Uint32(head[2:]); sum.Sum32() != want {
		return damaged(2, model.NoOffset, meansSnapshot, "the snapshot has CRC %08x, its bytes give %08x", want, sum.Sum32())
	}
	if n := int64(int32(binary.BigEndian.Uint32(head[6:]))); n*snapshotEntry != size-snapshotHeader {
		return damaged(6, model.NoOffset, meansSnapshot, "the snapshot says it has %d producers, its %d bytes have room for %d", n, size, (size-snapshotHeader)/snapshotEntry)
	}
	return nil
}

func producerEntry(e []byte) ProducerEntry {
	be := binary.BigEndian
	return ProducerEntry{
		Producer:         model.Producer{ID: int64(be.Uint64(e)), Epoch: int16(be.Uint16(e[8:]))},
		LastSequence:     int32(be.Uint32(e[10:])),
		LastOffset:       model.Offset(be.Uint64(e[14:])),
		OffsetDelta:      int32(be.Uint32(e[22:])),
		Timestamp:        int64(be.Uint64(e[26:])),
		CoordinatorEpoch: int32(be.Uint32(e[34:])),
		TxnStart:         model.Offset(be.Uint64(e[38:])),
	}
}

// EpochStart says that an epoch's records begin at an offset.
type EpochStart struct {
	Epoch model.Epoch
	Start model.Offset
}

// PartitionOffset is a line of a folder's checkpoint.
type PartitionOffset struct {
	model.TopicPartition
	Offset model.Offset
}

// InspectEpochs reads a leader-epoch-checkpoint.
func InspectEpochs(fsys vfs.FS, path string) ([]EpochStart, error) {
	text, err := vfs.ReadFile(fsys, path, maxCheckpoint)
	if err != nil {
		return nil, err
	}
	list, err := parseEpochs(text)
	if err != nil {
		return nil, whole(err, "a start makes it anew by walking over all of the log")
	}
	out := make([]EpochStart, len(list))
	for i, e := range list {
		out[i] = EpochStart{e.epoch, e.start}
	}
	return out, nil
}

// InspectOffsets reads one of a folder's checkpoints, in the order of its lines.
func InspectOffsets(fsys vfs.FS, path string) ([]PartitionOffset, error) {
	text, err := vfs.ReadFile(fsys, path, maxCheckpoint)
	if err != nil {
		return nil, err
	}
	offsets, err := parseOffsets(text)
	if err != nil {
		return nil, whole(err, "a start takes it for empty and walks over more of the logs")
	}
	out := make([]PartitionOffset, 0, len(offsets))
	_ = parseLines(text, func(fields []string) error { // it parses: for the order
		var p int32
		if _, err := fmt.Sscan(fields[1], &p); err != nil {
			return err
		}
		tp := model.TopicPartition{Topic: fields[0], Partition: p}
		out = append(out, PartitionOffset{tp, offsets[tp]})
		return nil
	})
	return out, nil
}

// InspectTopicID reads a partition.metadata.
func InspectTopicID(fsys vfs.FS, path string) (model.UUID, error) {
	text, err := vfs.ReadFile(fsys, path, maxMeta)
	if err != nil {
		return model.UUID{}, err
	}
	id, err := parseTopicID(text)
	return id, whole(err, "the folder cannot be told to be of today's topic of its name")
}

// InspectMeta reads a meta.properties.
func InspectMeta(fsys vfs.FS, path string) (Meta, error) {
	text, err := vfs.ReadFile(fsys, path, maxMeta)
	if err != nil {
		return Meta{}, err
	}
	m, err := parseMeta(text)
	return m, whole(err, "no node starts on this folder")
}

// InspectClean reads a .kafka_cleanshutdown: the broker epoch of the life that
// closed the folder, -1 if the file does not say.
func InspectClean(fsys vfs.FS, path string) (model.BrokerEpoch, error) {
	text, err := vfs.ReadFile(fsys, path, maxMeta)
	if err != nil {
		return -1, err
	}
	c := cleanShutdown{BrokerEpoch: -1}
	if strings.TrimSpace(string(text)) == "" { // as Kafka before 3.7 wrote it
		return -1, nil
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return -1, whole(err, "the file's being there counts; only the broker's epoch is lost")
	}
	return c.BrokerEpoch, nil
}

// whole is damage of a small file, in the words of its parser; nil for nil.
func whole(err error, means string) error {
	if err == nil {
		return nil
	}
	return damaged(-1, model.NoOffset, means, "%s", strip(err))
}
