package coord

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

const (
	loadBytes = 1 << 20  // read at once
	loadMax   = 64 << 20 // one batch's decompressed body

	// reloadPause is how long a Shard rests that could not write.
	reloadPause = time.Second
)

// load replays the log into an empty machine and waits until the high watermark
// has reached what was loaded: before that it could be taken back.
func (s *Shard) load() error {
	began := time.Now()
	s.machine = s.cfg.Machine()
	s.parked = make(map[Token]func(kmsg.Response, error))
	s.written = make(map[string]model.Offset)
	s.timers = timers{}
	at, err := s.replay(s.cfg.Log.Start(), s.cfg.Log.End())
	if err == nil {
		err = s.awaitCommitted(at)
	}
	if err != nil {
		return err
	}
	if took := time.Since(began); took > time.Second {
		s.cfg.Logger.Info("coordinator: loaded", "end", at, "took", took)
	}
	return nil
}

// settle has the machine decide what follows from what was loaded.
func (s *Shard) settle() error {
	s.drain.begin(s.cfg.Log.End())
	s.take(s.machine.Loaded(s.env()), nil)
	return s.flush()
}

func (s *Shard) awaitCommitted(end model.Offset) error {
	done := make(chan error, 1)
	s.cfg.Log.Committed(end, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-s.quit:
		return errClosed
	}
}

// replay reads the log from one offset to another.
func (s *Shard) replay(from, end model.Offset) (model.Offset, error) {
	for from < end {
		if s.isClosed() {
			return from, errClosed
		}
		data, err := s.cfg.Log.Read(from, loadBytes)
		if err != nil {
			return from, err
		}
		next, err := s.replayData(data, from)
		if err != nil {
			return from, err
		}
		if next == from {
			return from, fmt.Errorf("nothing to read at offset %d of %d", from, end)
		}
		from = next
	}
	return from, nil
}

// replayData replays whole batches; a cut one at the end is left for later.
func (s *Shard) replayData(data []byte, from model.Offset) (model.Offset, error) {
	for len(data) > 0 {
		size, err := batch.Peek(data)
		if errors.Is(err, batch.ErrShort) || err == nil && size > len(data) {
			break
		}
		if err != nil {
			return from, err
		}
		b := batch.Batch(data[:size])
		data = data[size:]
		if b.NextOffset() <= from {
			continue
		}
		if err := s.replayBatch(b, from); err != nil {
			return from, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
		}
		from = b.NextOffset()
	}
	return from, nil
}

func (s *Shard) replayBatch(b batch.Batch, from model.Offset) error {
	by := model.NoProducer
	if b.Transactional() {
		by = b.Producer()
	}
	for r, err := range s.cfg.Codecs.Records(b, loadMax) {
		if err != nil {
			return err
		}
		switch {
		case r.Offset < from:
		case b.Control():
			if t, err := batch.ParseControlKey(r.Key); err == nil && (t == batch.Commit || t == batch.Abort) {
				s.machine.EndTxn(by, t == batch.Commit)
			}
		default:
			s.machine.Replay(r.Offset, r.Timestamp, by, Record{Key: clone(r.Key), Value: clone(r.Value)})
		}
	}
	return nil
}

// clone copies bytes that are used again; nil stays nil.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}
