package api

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// encode writes the answer (KAFKA-SCHEMAS: ProduceResponse 3-13). It allocates
// nothing unless there are errors to explain.
func (p *produce) encode(b []byte) []byte {
	v := p.r.Version
	w := writer{b: b, flex: v >= 9}
	var hints []leaderNode
	n := 0
	for _, t := range p.topics {
		n += min(t.n, 1)
	}
	w.array(n)
	at := 0
	for _, t := range p.topics {
		if t.n == 0 {
			continue // as Kafka does
		}
		if v >= 13 {
			w.uuid(t.id)
		} else {
			w.string(t.name)
		}
		w.array(t.n)
		for range t.n {
			hints = p.encodePart(&w, p.parts[at], hints)
			at++
		}
		w.noTags()
	}
	w.int32(0) // throttle time
	if v < 10 || len(hints) == 0 {
		w.noTags()
		return w.b
	}
	w.tag(hintList(hints))
	return w.b
}

// startAfterError is the log start offset beside an error: Kafka tells it for
// batches that the log looked into and refused.
func (part *producePart) startAfterError(errCode int16) model.Offset {
	switch errCode {
	case kerr.InvalidRecord.Code, kerr.InvalidTimestamp.Code, kerr.OutOfOrderSequenceNumber.Code, kerr.InvalidProducerEpoch.Code, kerr.InvalidTxnState.Code:
		if part.sent {
			return part.where.Log().StartOffset()
		}
	}
	return model.NoOffset
}

func (p *produce) encodePart(w *writer, part *producePart, hints []leaderNode) []leaderNode {
	v := p.r.Version
	errCode := code(part.Err)
	base, appended, start := part.Base, part.AppendTime, part.Start
	if errCode != 0 {
		base, appended, start = model.NoOffset, -1, part.startAfterError(errCode)
	}
	w.int32(part.index)
	w.int16(errCode)
	w.int64(int64(base))
	w.int64(appended)
	if v >= 5 {
		w.int64(int64(start))
	}
	if v >= 8 {
		encodeRecordErrors(w, part.Err)
	}
	if v < 10 || errCode != kerr.NotLeaderForPartition.Code || part.where == nil {
		w.noTags()
		return hints
	}
	role := part.where.Role()
	w.uvarint(1) // tag 0, current leader: id, epoch, no tags
	w.uvarint(0)
	w.uvarint(9)
	w.int32(int32(role.Leader))
	w.int32(int32(role.Epoch))
	w.uvarint(0)
	if ep, ok := endpoint(p.s.cfg.Image(), role.Leader, p.r.Conn().Listener()); ok {
		hints = append(hints, leaderNode{role.Leader, ep})
	}
	return hints
}

// encodeRecordErrors says which records were bad (KIP-467), and the whole in words.
func encodeRecordErrors(w *writer, err error) {
	if err == nil { // apart from the rest, which allocates
		w.array(0)
		w.nullString(nil)
		return
	}
	encodeReasons(w, err)
}

func encodeReasons(w *writer, err error) {
	var bad *batch.RecordErrors
	if !errors.As(err, &bad) {
		w.array(0)
		w.nullString(nil)
		return
	}
	w.array(len(bad.Errors))
	for i := range bad.Errors {
		w.int32(bad.Errors[i].Index)
		w.nullString(&bad.Errors[i].Message)
		w.noTags()
	}
	w.string(bad.Error())
}

// endpoint is a broker's address on the listener that the client came in by.
func endpoint(img *image.Image, id model.NodeID, listener string) (image.Endpoint, bool) {
	b, ok := img.Broker(id)
	if !ok {
		return image.Endpoint{}, false
	}
	for _, ep := range b.Endpoints {
		if ep.Name == listener {
			return ep, true
		}
	}
	return image.Endpoint{}, false
}
