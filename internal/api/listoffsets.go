package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

// Special timestamps of ListOffsets (KAFKA.md 3.7).
const (
	tsLatest          = -1
	tsEarliest        = -2
	tsMax             = -3
	tsEarliestLocal   = -4
	tsLatestTiered    = -5
	tsEarliestPending = -6
)

// specialSince is the version from which a special timestamp is understood.
var specialSince = map[int64]int16{tsLatest: 1, tsEarliest: 1, tsMax: 7, tsEarliestLocal: 8, tsLatestTiered: 9, tsEarliestPending: 11}

// listOffsets is ListOffsets, key 2, versions 1 to 11: an offset by timestamp or
// special value. v2 isolation, v4 leader epochs, v7 to v11 more special values.
func (c call) listOffsets() {
	req, resp := c.msg.(*kmsg.ListOffsetsRequest), kmsg.NewPtrListOffsetsResponse()
	img := c.image()
	seen := make(map[model.TopicPartition]int)
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			seen[model.TopicPartition{Topic: rt.Topic, Partition: rp.Partition}]++
		}
	}
	for _, rt := range req.Topics {
		if len(rt.Partitions) == 0 {
			continue
		}
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition, p.Timestamp, p.Offset, p.LeaderEpoch = rp.Partition, -1, -1, -1
			var err error
			if seen[model.TopicPartition{Topic: rt.Topic, Partition: rp.Partition}] > 1 {
				err = kerr.InvalidRequest
			} else {
				err = c.offset(img, rt.Topic, rp, req, &p)
			}
			p.ErrorCode = code(err)
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	c.reply(resp)
}

// offset answers for one partition.
func (c call) offset(img *image.Image, topic string, rp kmsg.ListOffsetsRequestTopicPartition, req *kmsg.ListOffsetsRequest, out *kmsg.ListOffsetsResponseTopicPartition) error {
	p, err := c.s.partition(img, topic, rp.Partition)
	if err != nil {
		return err
	}
	if _, err := p.Lead(model.Epoch(rp.CurrentLeaderEpoch)); err != nil {
		return err
	}
	limit := p.High()
	switch {
	case req.ReplicaID >= 0:
		limit = p.Log().EndOffset()
	case req.IsolationLevel == 1:
		limit = p.Stable()
	}
	if rp.Timestamp < 0 {
		if since, ok := specialSince[rp.Timestamp]; !ok || c.Version < since {
			return kerr.UnsupportedVersion
		}
	}
	return find(p, rp.Timestamp, limit, out)
}

func find(p *broker.Partition, ts int64, limit model.Offset, out *kmsg.ListOffsetsResponseTopicPartition) error {
	log := p.Log()
	set := func(o model.Offset) {
		out.Offset = int64(o)
		if e, ok := log.EpochOf(o); ok {
			out.LeaderEpoch = int32(e)
		}
	}
	switch ts {
	case tsLatest:
		out.Offset = int64(limit)
		out.LeaderEpoch = int32(p.Role().Epoch)
	case tsEarliest, tsEarliestLocal:
		set(log.StartOffset())
	case tsLatestTiered, tsEarliestPending:
		// Nothing is tiered.
	default:
		var at storage.OffsetTime
		var ok bool
		var err error
		if ts == tsMax {
			at, ok, err = log.MaxTimestamp(limit)
		} else {
			at, ok, err = log.OffsetForTime(ts, limit)
		}
		if err != nil || !ok {
			return err
		}
		out.Offset, out.Timestamp, out.LeaderEpoch = int64(at.Offset), at.Timestamp, int32(at.Epoch)
	}
	return nil
}
