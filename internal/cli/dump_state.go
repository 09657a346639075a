package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"ottla.dev/ottla/internal/storage"
)

// producers prints a producer snapshot.
func (d *dumper) producers(path string, size int64) error {
	what := "producers"
	if base, ok := storage.BaseOf(path); ok {
		what = fmt.Sprintf("producers below offset %d", base)
	}
	if err := d.heading(what, size); err != nil {
		return err
	}
	n := 0
	for e, err := range storage.InspectProducers(d.fs, path) {
		if err == nil {
			n++
			err = d.emit(1, "producer", newProducerRow(e))
		}
		if err := d.fault(err); err != nil {
			return err
		}
	}
	if n == 0 && !d.bad {
		return d.note("no producers")
	}
	return nil
}

type producerRow struct {
	ID               int64 `json:"id"`
	Epoch            int16 `json:"epoch"`
	LastSequence     int32 `json:"last_sequence"`
	LastOffset       int64 `json:"last_offset"`
	OffsetDelta      int32 `json:"offset_delta"`
	Timestamp        int64 `json:"timestamp"`
	CoordinatorEpoch int32 `json:"coordinator_epoch"`
	TxnStart         int64 `json:"transaction_first_offset"`
}

func newProducerRow(e storage.ProducerEntry) producerRow {
	return producerRow{
		e.Producer.ID, e.Producer.Epoch, e.LastSequence, int64(e.LastOffset), e.OffsetDelta, e.Timestamp, e.CoordinatorEpoch, int64(e.TxnStart),
	}
}

func (r producerRow) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "producer %d epoch %d: ", r.ID, r.Epoch)
	if r.LastOffset >= 0 {
		fmt.Fprintf(&b, "last batch %s, sequence up to %d", span64(r.LastOffset-int64(r.OffsetDelta), r.LastOffset), r.LastSequence)
	} else {
		b.WriteString("no batch in this epoch")
	}
	fmt.Fprintf(&b, ", %s", clock(r.Timestamp))
	if r.CoordinatorEpoch >= 0 {
		fmt.Fprintf(&b, ", coordinator epoch %d", r.CoordinatorEpoch)
	}
	if r.TxnStart >= 0 {
		fmt.Fprintf(&b, ", transaction open since offset %d", r.TxnStart)
	}
	return b.String()
}

// epochs prints a leader-epoch-checkpoint.
func (d *dumper) epochs(path string, size int64) error {
	if err := d.heading("leader epochs", size); err != nil {
		return err
	}
	list, err := storage.InspectEpochs(d.fs, path)
	if err != nil {
		return d.fault(err)
	}
	for _, e := range list {
		if err := d.emit(1, "epoch", epochRow{int32(e.Epoch), int64(e.Start)}); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return d.note("none")
	}
	return nil
}

type epochRow struct {
	Epoch int32 `json:"epoch"`
	Start int64 `json:"start_offset"`
}

func (r epochRow) text() string { return fmt.Sprintf("epoch %d begins at offset %d", r.Epoch, r.Start) }

// offsets prints one of a folder's checkpoints.
func (d *dumper) offsets(path string, size int64) error {
	what := map[string]string{
		"recovery-point-offset-checkpoint": "recovery points: what is below is on disk",
		"replication-offset-checkpoint":    "high watermarks: what is below is on all replicas in sync",
		"log-start-offset-checkpoint":      "log starts: what is below is deleted",
		"cleaner-offset-checkpoint":        "compaction: what is below has been cleaned",
	}[filepath.Base(path)]
	if err := d.heading(what, size); err != nil {
		return err
	}
	list, err := storage.InspectOffsets(d.fs, path)
	if err != nil {
		return d.fault(err)
	}
	for _, o := range list {
		if err := d.emit(1, "offset", offsetRow{o.Topic, o.Partition, int64(o.Offset)}); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return d.note("none")
	}
	return nil
}

type offsetRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (r offsetRow) text() string {
	return fmt.Sprintf("%s-%d: offset %d", r.Topic, r.Partition, r.Offset)
}

// topicID prints a partition.metadata.
func (d *dumper) topicID(path string, size int64) error {
	if err := d.heading("which topic the partition is of", size); err != nil {
		return err
	}
	id, err := storage.InspectTopicID(d.fs, path)
	if err != nil {
		return d.fault(err)
	}
	return d.emit(1, "topic", topicRow{id.String()})
}

type topicRow struct {
	TopicID string `json:"topic_id"`
}

func (r topicRow) text() string { return "topic id " + r.TopicID }

// meta prints a meta.properties.
func (d *dumper) meta(path string, size int64) error {
	if err := d.heading("identity of the log folder", size); err != nil {
		return err
	}
	m, err := storage.InspectMeta(d.fs, path)
	if err != nil {
		return d.fault(err)
	}
	return d.emit(1, "meta", metaRow{int32(m.NodeID), m.ClusterID.String(), m.DirectoryID.String()})
}

type metaRow struct {
	NodeID      int32  `json:"node_id"`
	ClusterID   string `json:"cluster_id"`
	DirectoryID string `json:"directory_id"`
}

func (r metaRow) text() string {
	return fmt.Sprintf("node %d of cluster %s, directory %s", r.NodeID, r.ClusterID, r.DirectoryID)
}

// clean prints a .kafka_cleanshutdown.
func (d *dumper) clean(path string, size int64) error {
	if err := d.heading("the folder was closed in order", size); err != nil {
		return err
	}
	epoch, err := storage.InspectClean(d.fs, path)
	if err != nil {
		return d.fault(err)
	}
	return d.emit(1, "clean", cleanRow{int64(epoch)})
}

type cleanRow struct {
	BrokerEpoch int64 `json:"broker_epoch"`
}

func (r cleanRow) text() string {
	if r.BrokerEpoch < 0 {
		return "the broker's epoch is not in it"
	}
	return fmt.Sprintf("by the broker that had epoch %d", r.BrokerEpoch)
}
