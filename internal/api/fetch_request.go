package api

import (
	"math"
	"time"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/model"
)

// fetchRequest is a decoded Fetch request. Strings are views of the body.
type fetchRequest struct {
	replica      model.NodeID
	maxWait      time.Duration
	minBytes     int32
	maxBytes     int32
	committed    bool
	sessionID    int32
	sessionEpoch int32
	parts        []fetchPart
	forget       []partKey
	rack         string
}

// fetchPart is one partition that the request adds or changes.
type fetchPart struct {
	key      partKey
	read     broker.Read
	logStart model.Offset // the follower's
	max      int32
}

// partKey identifies a partition within a session: by topic name up to v12, by
// id from v13.
type partKey struct {
	name      string
	id        model.UUID
	partition int32
}

// keptPartitions is up to how many partitions memory is kept for the next request.
const keptPartitions = 4096

// drop lets go of the body.
func (q *fetchRequest) drop() {
	clear(q.parts)
	clear(q.forget)
	q.parts, q.forget, q.rack = q.parts[:0], q.forget[:0], ""
	if cap(q.parts) > keptPartitions {
		q.parts = nil
	}
	if cap(q.forget) > keptPartitions {
		q.forget = nil
	}
}

// parse reads the request in place (KAFKA-SCHEMAS: FetchRequest 4-18).
func (f *fetch) parse(body []byte, version int16) bool {
	r := reader{b: body, flex: version >= 12}
	q := &f.ask
	*q = fetchRequest{replica: -1, sessionEpoch: -1, parts: q.parts[:0], forget: q.forget[:0]}
	if version <= 14 {
		q.replica = model.NodeID(r.int32())
	}
	q.maxWait = time.Duration(max(0, r.int32())) * time.Millisecond
	q.minBytes, q.maxBytes = r.int32(), r.int32()
	q.committed = r.int8() == 1
	if version >= 7 {
		q.sessionID, q.sessionEpoch = r.int32(), r.int32()
	}
	for range r.array(minTopic(r.flex)) {
		key := f.parseTopic(&r, version)
		for range r.array(16) {
			f.parsePartition(&r, version, key)
			if r.bad {
				return false
			}
		}
		r.tags(nil)
	}
	if version >= 7 {
		for range r.array(minTopic(r.flex)) {
			key := f.parseTopic(&r, version)
			for range r.array(4) {
				key.partition = r.int32()
				q.forget = append(q.forget, key)
			}
			r.tags(nil)
		}
	}
	if version >= 11 {
		q.rack = r.text()
	}
	r.tags(func(tag uint32, body *reader) {
		switch tag {
		case 0: // ClusterId
			body.string()
		case 1: // ReplicaState
			id := model.NodeID(body.int32())
			body.int64()
			body.tags(nil)
			if version >= 15 {
				q.replica = id
			}
		}
	})
	for i := range q.parts {
		q.parts[i].read.Replica, q.parts[i].read.Committed = q.replica, q.committed
	}
	return !r.bad
}

func (f *fetch) parseTopic(r *reader, version int16) (key partKey) {
	if version >= 13 {
		key.id = r.uuid()
	} else {
		key.name = r.text()
	}
	return key
}

func (f *fetch) parsePartition(r *reader, version int16, key partKey) {
	p := fetchPart{key: key, logStart: model.NoOffset}
	p.read = broker.Read{Epoch: model.NoEpoch, LastEpoch: model.NoEpoch}
	p.key.partition = r.int32()
	if version >= 9 {
		p.read.Epoch = model.Epoch(r.int32())
	}
	p.read.Offset = model.Offset(r.int64())
	if version >= 12 {
		p.read.LastEpoch = model.Epoch(r.int32())
	}
	if version >= 5 {
		p.logStart = model.Offset(r.int64())
	}
	if p.max = r.int32(); p.max < 0 {
		p.max = math.MaxInt32
	}
	r.tags(checkPartTag)
	f.ask.parts = append(f.ask.parts, p)
}

// checkPartTag reads the tagged fields of a partition, which nothing here needs,
// to refuse what Kafka could not decode.
func checkPartTag(tag uint32, body *reader) {
	switch tag {
	case 0: // ReplicaDirectoryId
		body.uuid()
	case 1: // HighWatermark
		body.int64()
	}
}
