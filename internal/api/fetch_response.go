package api

import (
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/wire"
)

// sendfileFrom is the size from which record data goes out by sendfile; smaller
// pieces are read into the answer, which costs one system call less.
const sendfileFrom = 64 << 10

// sizeHint is about how long the answer gets, without what sendfile adds.
func (f *fetch) sizeHint() int {
	n := 64
	for i := range f.items {
		n += 96
		if f.items[i].got < sendfileFrom {
			n += int(f.items[i].got)
		}
	}
	return n
}

// encode writes the answer (KAFKA-SCHEMAS: FetchResponse 4-18). Record data that
// is large stays in its file: f.files says where it goes in.
func (f *fetch) encode(b []byte, errCode int16, sessionID int32, img *image.Image) []byte {
	v := f.r.Version
	w := writer{b: b, flex: v >= 12}
	f.files = f.files[:0]
	w.int32(0) // throttle time
	if v >= 7 {
		w.int16(errCode)
		w.int32(sessionID)
	}
	topics := 0
	for i := range f.items {
		if f.items[i].answered && (topics == 0 || !f.sameTopic(i)) {
			topics++
		}
	}
	w.array(topics)
	var hints []leaderNode
	for i := 0; i < len(f.items); {
		if !f.items[i].answered {
			i++
			continue
		}
		end, n := f.topicRun(i)
		if v >= 13 {
			w.uuid(f.items[i].key.id)
		} else {
			w.string(f.items[i].name)
		}
		w.array(n)
		for ; i < end; i++ {
			if f.items[i].answered {
				hints = f.encodePart(&w, &f.items[i], img, hints)
			}
		}
		w.noTags()
	}
	if v < 16 || len(hints) == 0 {
		w.noTags()
		return w.b
	}
	w.tag(hintList(hints))
	return w.b
}

// sameTopic reports whether the answered item before i is of i's topic.
func (f *fetch) sameTopic(i int) bool {
	for j := i - 1; j >= 0; j-- {
		if f.items[j].answered {
			return f.items[j].key.id == f.items[i].key.id && f.items[j].name == f.items[i].name
		}
	}
	return false
}

// topicRun gives where the run of items of i's topic ends, and how many of them
// stand in the answer.
func (f *fetch) topicRun(i int) (end, answered int) {
	last := i
	for j := i; j < len(f.items); j++ {
		if !f.items[j].answered {
			continue
		}
		if f.items[j].key.id != f.items[i].key.id || f.items[j].name != f.items[i].name {
			break
		}
		answered++
		last = j
	}
	return last + 1, answered
}

func (f *fetch) encodePart(w *writer, it *fetchItem, img *image.Image, hints []leaderNode) []leaderNode {
	v := f.r.Version
	s := &it.slice
	w.int32(it.key.partition)
	w.int16(code(s.Err))
	w.int64(int64(s.High))
	w.int64(int64(s.Stable))
	if v >= 5 {
		w.int64(int64(s.Start))
	}
	f.encodeAborted(w, it)
	if v >= 11 {
		w.int32(int32(model.NoNode)) // preferred read replica
	}
	f.encodeRecords(w, it)
	if v < 12 {
		return hints
	}
	leader, epoch, ep, hint := it.leaderHint(img, f.r.Conn().Listener())
	hint = hint && v >= 16
	tags := 0
	if s.Diverges {
		tags++
	}
	if hint {
		tags++
	}
	w.uvarint(uint64(tags))
	if s.Diverges { // tag 0: epoch, end offset, no tags
		w.uvarint(0)
		w.uvarint(13)
		w.int32(int32(s.DivergeEpoch))
		w.int64(int64(s.DivergeEnd))
		w.uvarint(0)
	}
	if hint { // tag 1: leader id, epoch, no tags
		w.uvarint(1)
		w.uvarint(9)
		w.int32(int32(leader))
		w.int32(int32(epoch))
		w.uvarint(0)
		if ep.Host != "" && it.want.Replica < 0 { // followers know where everyone is
			hints = append(hints, leaderNode{leader, ep})
		}
	}
	return hints
}

func (f *fetch) encodeAborted(w *writer, it *fetchItem) {
	switch {
	case it.err != nil: // the partition is not here
		w.array(0)
		return
	case !it.want.Committed || it.slice.Err != nil:
		w.nullArray()
		return
	}
	w.array(len(it.slice.Aborted))
	for _, a := range it.slice.Aborted {
		w.int64(a.Producer)
		w.int64(int64(a.First))
		w.noTags()
	}
}

// encodeRecords writes the length and either the bytes or a hole for sendfile.
func (f *fetch) encodeRecords(w *writer, it *fetchItem) {
	n := it.got
	if w.flex {
		w.uvarint(uint64(n) + 1)
	} else {
		w.int32(int32(n))
	}
	if n == 0 {
		return
	}
	it.got = 0 // the chunk is taken care of below
	if n >= sendfileFrom {
		f.files = append(f.files, filePart(len(w.b), n, it.slice.Chunk))
		return
	}
	at := len(w.b)
	w.grow(int(n))
	if _, err := it.slice.Chunk.ReadAt(w.b[at:], 0); err != nil {
		// The length is out already: give the client a batch that fails its CRC
		// rather than another record's bytes.
		clear(w.b[at:])
	}
	it.slice.Chunk.Close()
}

// filePart hands a chunk to wire, which closes it when its bytes are sent.
func filePart(at int, n int64, chunk storage.Chunk) wire.FilePart {
	file, off := chunk.File()
	part := wire.FilePart{At: at, File: file, Off: off, N: n, Release: func() { chunk.Close() }}
	if file == nil {
		part.Src, part.Off = &chunk, 0
	}
	return part
}

// leaderNode is where a leader hint leads.
type leaderNode struct {
	id model.NodeID
	ep image.Endpoint
}

// hintList encodes NodeEndpoints, tag 0 of the answer.
func hintList(hints []leaderNode) []byte {
	w := writer{flex: true}
	var unique []leaderNode
next:
	for _, h := range hints {
		for _, u := range unique {
			if u.id == h.id {
				continue next
			}
		}
		unique = append(unique, h)
	}
	w.array(len(unique))
	for _, h := range unique {
		w.int32(int32(h.id))
		w.string(h.ep.Host)
		w.int32(int32(h.ep.Port))
		w.uvarint(0) // rack: null
		w.noTags()
	}
	return w.b
}
