package batch

import (
	"fmt"
)

// rewrite copies a batch that validation has walked, with another codec, and with
// offset deltas 0, 1, 2, …. The bytes pass through a window into the compressor, so
// that only the result lies in memory, and no more than limit bytes of it. size is
// that of the uncompressed body, to guess what the result needs. Header fields stay
// as they are, but for length and CRC.
func (c *Codecs) rewrite(b Batch, codec Codec, level, limit int, size int64) (Batch, error) {
	if limit <= 0 {
		limit = MaxSize
	}
	guess := int64(len(b))
	switch {
	case codec == None:
		guess = size + 1024
	case b.Codec() == None:
		guess = size / 2
	}
	out := append(make([]byte, 0, HeaderSize+min(guess, int64(limit))), b[:HeaderSize]...)
	sink, err := c.openSink(out, codec, level, limit)
	if err != nil {
		return nil, err
	}
	defer sink.close()
	if b.Codec() == None {
		err = copyPlain(sink, b.Body(), b.Count())
	} else {
		err = c.copyCompressed(sink, b)
	}
	if err != nil {
		return nil, fmt.Errorf("rewrite batch from %s to %s: %w", b.Codec(), codec, err)
	}
	res, err := sink.finish()
	if err != nil {
		return nil, fmt.Errorf("rewrite batch from %s to %s: %w", b.Codec(), codec, err)
	}
	Batch(res).seal()
	return res, nil
}

func copyPlain(sink *sink, body []byte, count int32) error {
	var scratch [prefixSize]byte
	for i := range count {
		n, at := varint(body, 0)
		record := body[at : at+int(n)]
		body = body[at+int(n):]
		prefix, used := renumber(scratch[:0], record, int(n), i)
		if err := sink.write(prefix); err != nil {
			return err
		}
		if err := sink.write(record[used:]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Codecs) copyCompressed(sink *sink, b Batch) error {
	s, err := c.open(b.Codec(), b.Body(), bodyLimit(b))
	if err != nil {
		return err
	}
	defer s.close()
	var scratch [prefixSize]byte
	for i := range b.Count() {
		n, err := s.length()
		if err != nil {
			return err
		}
		if err := s.want(min(n, prefixSize)); err != nil {
			return endsEarly(err)
		}
		prefix, used := renumber(scratch[:0], s.window(), n, i)
		s.pos += used
		if err := sink.write(prefix); err != nil {
			return err
		}
		for left := n - used; left > 0; {
			if err := s.want(1); err != nil {
				return endsEarly(err)
			}
			part := s.window()
			part = part[:min(left, len(part))]
			if err := sink.write(part); err != nil {
				return err
			}
			s.pos += len(part)
			left -= len(part)
		}
	}
	return nil
}

// prefixSize is the most that a record's length, attributes and two deltas take.
const prefixSize = 5 + 1 + 10 + 5

// renumber appends a new beginning of a record to dst: its length, attributes,
// timestamp delta and the offset delta index. body begins with the record's body,
// which has size bytes in all; used is where the old offset delta ends in it.
// Attributes become 0: they have no meaning yet.
func renumber(dst, body []byte, size int, index int32) (prefix []byte, used int) {
	ts, used := varlong(body, 1)
	_, used = varint(body, used)
	size += 1 + varintSize(ts) + varintSize(int64(index)) - used
	dst = appendVarint(dst, int64(size))
	dst = append(dst, 0)
	dst = appendVarint(dst, ts)
	return appendVarint(dst, int64(index)), used
}
