package quorum

import (
	"context"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// apply takes committed entries, in order, into the metadata log and the image.
func (q *Quorum) apply(ctx context.Context, entries []*pb.Entry) error {
	c := &q.core
	for _, e := range entries {
		if e.GetType() != pb.EntryNormal {
			return fmt.Errorf("raft entry %d has type %s, which this version does not know", e.GetIndex(), e.GetType())
		}
		l := c.leading
		own := l != nil && e.GetTerm() == l.term
		if len(e.GetData()) > 0 {
			if err := q.applyData(ctx, e, own); err != nil {
				return fmt.Errorf("applying raft entry %d of term %d: %w", e.GetIndex(), e.GetTerm(), err)
			}
		}
		c.applied = position{e.GetIndex(), e.GetTerm()}
		switch {
		case own && l.phase == opening:
			if err := q.announce(); err != nil {
				return err
			}
		case own && l.phase == announcing:
			if err := q.activate(); err != nil {
				return err
			}
		case !own && l == nil && e.GetTerm() == c.term:
			q.meta.setKnown(true)
		}
	}
	return nil
}

// applyData appends an entry's batches to the metadata log. The answers of the
// leader's own proposals leave here.
func (q *Quorum) applyData(ctx context.Context, e *pb.Entry, own bool) error {
	c := &q.core
	var p *proposal
	if own {
		l := c.leading
		if len(l.flight) == 0 {
			return fmt.Errorf("BUG: an entry of this leader that it did not propose")
		}
		p = l.flight[0]
		l.flight[0] = nil
		l.flight = l.flight[1:]
		l.bytes -= len(p.data)
		if p.base != c.end {
			return fmt.Errorf("BUG: decided for offset %d, comes at %d", p.base, c.end) // Q5
		}
	}
	if err := q.appendMeta(ctx, e.GetData(), epochOf(e.GetTerm())); err != nil {
		return err
	}
	if p != nil {
		c.img = p.img
		q.cfg.Controller.Replay(p.delta)
		q.meta.publish(p.img, p.delta, c.end)
		for i := range p.answers {
			p.answers[i].send()
		}
		return nil
	}
	img, delta, err := replay(q.cfg.Codecs, c.img, e.GetData())
	if err != nil {
		return err
	}
	c.img = img
	q.cfg.Controller.Replay(delta)
	q.meta.publish(img, delta, c.end)
	return nil
}

// appendMeta appends an entry's batches to the metadata log. Those that a log
// which was ahead has already are only compared by their offsets.
func (q *Quorum) appendMeta(ctx context.Context, data []byte, epoch model.Epoch) error {
	c := &q.core
	var ends []int
	from, at, next := 0, 0, c.end
	have := q.meta.log.EndOffset()
	for at < len(data) {
		n, err := batch.Peek(data[at:])
		if err != nil || n > len(data)-at {
			return fmt.Errorf("%w: at byte %d of %d: %w", ErrCorrupt, at, len(data), err)
		}
		b := batch.Batch(data[at : at+n])
		if b.BaseOffset() != next || b.LeaderEpoch() != epoch {
			return fmt.Errorf("BUG: batch at offset %d of epoch %d, expected %d of epoch %d", b.BaseOffset(), b.LeaderEpoch(), next, epoch) // Q5
		}
		at += n
		next, c.last = b.NextOffset(), b.MaxTimestamp()
		if next <= have {
			from = at
			continue
		}
		ends = append(ends, at-from)
	}
	if len(ends) > 0 {
		err := whileFull(ctx, q.cfg.Log, func() error { return appendAll(q.meta.log, data[from:], ends) })
		if err != nil {
			return fmt.Errorf("metadata log: %w", err)
		}
	}
	c.end, c.moved = next, q.cfg.Now()
	c.snapshots.bytes += int64(len(data))
	return nil
}

// replay applies batches that lie one behind another to an image.
func replay(codecs *batch.Codecs, from *image.Image, data []byte) (*image.Image, *image.Delta, error) {
	img, sum := from, &image.Delta{From: from, To: from}
	err := eachBatch(data, func(b batch.Batch) error {
		next, delta, err := replayBatch(codecs, img, b)
		if err != nil {
			return err
		}
		img, sum = next, sum.Merge(delta)
		return nil
	})
	return img, sum, err
}

func replayBatch(codecs *batch.Codecs, img *image.Image, b batch.Batch) (*image.Image, *image.Delta, error) {
	recs, err := decodeBatch(codecs, b)
	if err != nil {
		return nil, nil, err
	}
	if b.Control() {
		next := img.At(b.LastOffset(), b.LeaderEpoch())
		return next, &image.Delta{From: img, To: next}, nil
	}
	return img.Apply(b.BaseOffset(), b.LeaderEpoch(), recs)
}
