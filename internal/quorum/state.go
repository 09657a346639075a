package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/vfs"
)

// stateName is the file that holds what Raft must not forget. It lies beside
// Kafka's quorum-state, which has no commit index.
//
// Two slots of the file are written in turn. A write that is not synced may be
// torn, so it never goes to the slot that the last sync made safe; unsynced
// writes (only the commit index moved) go to the other slot, again and again.
//
//	0        slotSize
//	+--------+--------+
//	| slot 0 | slot 1 |     the valid slot with the larger sequence counts
//	+--------+--------+
//
//	slot: | magic 4B "OQS1" | length 4B | CRC-32C 4B | sequence 8B | body |
//
// length is that of the body; the CRC covers sequence and body. Numbers are big
// endian. Body: term 8, vote 8, commit 8, trim index 8 and term 8, snapshot end
// offset 8, epoch 4, index 8, term 8, count of voters 4, then per voter: id 4,
// directory id 16, port 2, name and host each with length 2.
const (
	stateName = "ottla-quorum-state"
	slotSize  = 16 << 10
	slotHead  = 4 + 4 + 4 + 8
)

var (
	stateMagic = [4]byte{'O', 'Q', 'S', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A position is an entry of the Raft log.
type position struct{ index, term uint64 }

// A state is the content of the state file.
type state struct {
	// term and vote are durable before anything of that term is sent.
	term, vote uint64
	// commit may lag behind what is committed, never run ahead.
	commit uint64
	// trim is the last entry that the Raft log gave up; zero for none.
	trim position
	// snapshot is the newest snapshot that counts, at the entry position; its file
	// exists. End 0 for none.
	snapshot SnapshotID
	at       position
	// voters are those in force at commit.
	voters []Voter
}

// stateFile is the open state file. It is owned by the writer goroutine, and by
// Open before that.
type stateFile struct {
	f    vfs.File
	seq  uint64 // of the newest write
	safe int    // the slot that was synced last, -1 before the first sync
	buf  []byte
}

// openState opens or creates the state file and reads what counts. found is false
// for a new file.
func openState(fsys vfs.FS, dir string) (s *stateFile, st state, found bool, err error) {
	name := join(dir, stateName)
	f, err := fsys.OpenFile(name, os.O_RDWR, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err == nil {
			err = fsys.SyncDir(dir)
		}
	}
	if err != nil {
		return nil, st, false, fmt.Errorf("quorum state %s: %w", name, err)
	}
	s = &stateFile{f: f, safe: -1}
	size, err := f.Size()
	if err != nil {
		return nil, st, false, fmt.Errorf("quorum state %s: %w", name, errors.Join(err, f.Close()))
	}
	var why error
	for slot := range 2 {
		seq, body, err := readSlot(f, slot, size)
		if err != nil {
			why = err
			continue
		}
		got, err := parseState(body)
		if err != nil {
			why = err
			continue
		}
		if !found || seq > s.seq {
			s.seq, s.safe, st, found = seq, slot, got, true
		}
	}
	if !found && size > 0 && why != nil && !errors.Is(why, errNeverWritten) {
		return nil, st, false, errors.Join(fmt.Errorf("quorum state %s: %w: neither slot is valid (%w); the votes given are unknown, so this node must come back with a new directory id", name, ErrCorrupt, why), f.Close())
	}
	return s, st, found, nil
}

// errNeverWritten is a slot without a byte in it: a crash came before the first
// write was durable, and nothing was sent before that.
var errNeverWritten = errors.New("never written")

func readSlot(f io.ReaderAt, slot int, size int64) (seq uint64, body []byte, err error) {
	at := int64(slot) * slotSize
	buf := make([]byte, max(0, min(slotSize, size-at)))
	if _, err := f.ReadAt(buf, at); err != nil && err != io.EOF {
		return 0, nil, err
	}
	blank := true
	for _, b := range buf {
		blank = blank && b == 0
	}
	if blank {
		return 0, nil, errNeverWritten
	}
	if len(buf) < slotHead || [4]byte(buf[:4]) != stateMagic {
		return 0, nil, fmt.Errorf("slot %d has no magic", slot)
	}
	n := binary.BigEndian.Uint32(buf[4:])
	if int64(n) > int64(len(buf)-slotHead) {
		return 0, nil, fmt.Errorf("slot %d has length %d", slot, n)
	}
	if crc32.Checksum(buf[12:slotHead+n], castagnoli) != binary.BigEndian.Uint32(buf[8:]) {
		return 0, nil, fmt.Errorf("slot %d has a wrong checksum", slot)
	}
	return binary.BigEndian.Uint64(buf[12:]), buf[slotHead : slotHead+n], nil
}

// write puts st into the slot that may be written, and makes it durable if asked.
func (s *stateFile) write(st *state, durable bool) error {
	s.seq++
	b := append(s.buf[:0], stateMagic[:]...)
	b = append(b, make([]byte, 8)...)
	b = binary.BigEndian.AppendUint64(b, s.seq)
	b = appendState(b, st)
	s.buf = b
	if len(b) > slotSize {
		return fmt.Errorf("quorum state: %d bytes do not fit into %d: too many voters or too long hosts", len(b), slotSize)
	}
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-slotHead))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	slot := 0
	if s.safe == 0 {
		slot = 1
	}
	if _, err := s.f.WriteAt(b, int64(slot)*slotSize); err != nil {
		return fmt.Errorf("writing the quorum state: %w", err)
	}
	if !durable {
		return nil
	}
	if err := s.f.Sync(); err != nil {
		return fmt.Errorf("syncing the quorum state: %w", err)
	}
	s.safe = slot
	return nil
}

func (s *stateFile) close() error { return s.f.Close() }

func appendState(b []byte, st *state) []byte {
	be := binary.BigEndian
	for _, n := range []uint64{st.term, st.vote, st.commit, st.trim.index, st.trim.term, uint64(st.snapshot.End)} {
		b = be.AppendUint64(b, n)
	}
	b = be.AppendUint32(b, uint32(st.snapshot.Epoch))
	b = be.AppendUint64(be.AppendUint64(b, st.at.index), st.at.term)
	b = be.AppendUint32(b, uint32(len(st.voters)))
	for _, v := range st.voters {
		b = appendVoter(b, v)
	}
	return b
}

func appendVoter(b []byte, v Voter) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, uint32(v.ID))
	b = append(b, v.DirectoryID[:]...)
	b = be.AppendUint16(b, v.Port)
	for _, s := range []string{v.Listener, v.Host} {
		s = s[:min(len(s), math.MaxUint16)]
		b = append(be.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

// fields reads numbers in a row and remembers if they ran out.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if len(f.b) < n {
		f.bad = true
		f.b = nil
		return make([]byte, n)
	}
	out := f.b[:n]
	f.b = f.b[n:]
	return out
}

func (f *fields) u64() uint64  { return binary.BigEndian.Uint64(f.take(8)) }
func (f *fields) u32() uint32  { return binary.BigEndian.Uint32(f.take(4)) }
func (f *fields) u16() uint16  { return binary.BigEndian.Uint16(f.take(2)) }
func (f *fields) text() string { return string(f.take(int(f.u16()))) }

func (f *fields) voter() (v Voter) {
	v.ID = model.NodeID(int32(f.u32()))
	v.DirectoryID = model.UUID(f.take(16))
	v.Port = f.u16()
	v.Listener = f.text()
	v.Host = f.text()
	return v
}

func parseState(body []byte) (state, error) {
	f := &fields{b: body}
	var st state
	st.term, st.vote, st.commit = f.u64(), f.u64(), f.u64()
	st.trim = position{f.u64(), f.u64()}
	st.snapshot.End = model.Offset(f.u64())
	st.snapshot.Epoch = model.Epoch(f.u32())
	st.at = position{f.u64(), f.u64()}
	n := f.u32()
	if f.bad || uint64(n)*26 > uint64(len(f.b)) {
		return st, fmt.Errorf("%w: quorum state of %d bytes names %d voters", ErrCorrupt, len(body), n)
	}
	for range n {
		st.voters = append(st.voters, f.voter())
	}
	if f.bad || len(f.b) > 0 {
		return st, fmt.Errorf("%w: quorum state of %d bytes does not parse", ErrCorrupt, len(body))
	}
	return st, nil
}
