package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/storage"
)

const (
	// maxDumpBatch is the largest batch whose records are looked at: they need it
	// in memory whole.
	maxDumpBatch = 256 << 20

	// maxDumpBody is how far a compressed batch is decompressed.
	maxDumpBody = 1 << 30
)

// flavour is what the records of a log are.
type flavour int8

const (
	plainLog flavour = iota
	metadataLog
	raftLog // whose records hold batches of the metadata log
)

// flavourOf tells what records a file has by where it lies.
func flavourOf(path string) flavour {
	folder := filepath.Dir(path)
	metadata := model.MetadataTopic + "-0"
	switch {
	case filepath.Base(folder) == metadata || strings.Contains(filepath.Base(path), ".checkpoint"):
		return metadataLog
	case filepath.Base(folder) == "raft" && filepath.Base(filepath.Dir(folder)) == metadata:
		return raftLog
	}
	return plainLog
}

// segment prints the batches of a segment or of a metadata snapshot.
func (d *dumper) segment(path string, size int64, snapshot bool) error {
	p := logPrinter{dumper: d, kind: flavourOf(path)}
	what := "segment"
	switch base, ok := storage.BaseOf(path); {
	case snapshot:
		what = "snapshot of the metadata"
	case p.kind == raftLog:
		what = fmt.Sprintf("segment of the Raft log from offset %d", base)
	case ok:
		what = fmt.Sprintf("segment from offset %d", base)
	}
	if d.metadata && p.kind == plainLog {
		p.kind = metadataLog
	}
	if err := d.heading(what, size); err != nil {
		return err
	}
	for b, err := range storage.InspectBatches(d.fs, path) {
		if err == nil {
			err = p.batch(&b)
		}
		if err := d.fault(err); err != nil {
			return err
		}
	}
	if err := p.finish(path, size, snapshot); err != nil {
		return err
	}
	if d.verify && !snapshot && p.kind == plainLog {
		return d.verifyTxns(path)
	}
	return nil
}

// verifyTxns finds abort markers of a segment that has no transaction index; where
// there is one it is verified when it is printed.
func (d *dumper) verifyTxns(segment string) error {
	index := strings.TrimSuffix(segment, ".log") + ".txnindex"
	if index == segment+".txnindex" || d.exists(index) {
		return nil
	}
	for err := range storage.VerifyTxns(d.fs, index, segment) {
		if err := d.fault(err); err != nil {
			return err
		}
	}
	return nil
}

// logPrinter prints one segment.
type logPrinter struct {
	*dumper
	kind flavour

	batches, records int64
	first, last      model.Offset
	end              int64 // position behind the last batch
	pos              int64 // of the batch whose records are looked at
	seen             int64 // records looked at
	header, footer   bool  // of a snapshot: its first and last record so far are those
}

func (p *logPrinter) batch(b *storage.BatchAt) error {
	h := b.Header
	if p.batches == 0 {
		p.first = h.BaseOffset()
		if err := errors.Join(p.named(b), p.follows(b)); err != nil {
			return err
		}
	}
	p.batches++
	p.records += int64(max(h.Count(), 0))
	p.last, p.end = h.LastOffset(), b.Pos+b.Size
	if err := p.emit(1, "batch", newBatchRow(b)); err != nil {
		return err
	}
	show := p.dumper.records || p.kind != plainLog || h.Control()
	if !show && !p.verify {
		return nil
	}
	return p.body(b, show)
}

// named holds a segment's first batch against the file's name.
func (p *logPrinter) named(b *storage.BatchAt) error {
	first := b.Header.BaseOffset()
	base, ok := storage.BaseOf(p.path)
	if !ok || first >= base {
		return nil
	}
	return p.fault(&storage.Damage{
		Pos: b.Pos, Offset: first, What: fmt.Sprintf("the first batch begins at offset %d, the file is named by %d", first, base),
		Means: "the file was renamed, or belongs to another log",
	})
}

// segmentEnd is where the segment ended that was printed last.
type segmentEnd struct {
	folder string
	next   model.Offset // the offset behind it
}

// follows holds a segment's first batch against the end of the segment before, if
// that was printed too: a folder's segments come in their order.
func (p *logPrinter) follows(b *storage.BatchAt) error {
	was, first := p.before, b.Header.BaseOffset()
	if was.folder != filepath.Dir(p.path) || filepath.Ext(p.path) != ".log" {
		return nil
	}
	switch {
	case first < was.next:
		return p.fault(&storage.Damage{
			Pos: b.Pos, Offset: first, What: fmt.Sprintf("the segment begins at offset %d, the one before it ends at %d", first, was.next-1),
			Means: "offsets are there twice; a recovery drops this segment",
		})
	case first > was.next:
		return p.note("missing between the segments: offset %s; compacted away, or lost", span64(int64(was.next), int64(first-1)))
	}
	return nil
}

// body looks at the records of a batch, and prints them if asked to.
func (p *logPrinter) body(b *storage.BatchAt, show bool) error {
	h := b.Header
	all, err := b.Load(maxDumpBatch)
	if errors.Is(err, batch.ErrTooLarge) {
		return p.note("%v: its records are not shown", err)
	}
	if err != nil {
		return err
	}
	p.pos = b.Pos
	next := h.BaseOffset()
	for r, err := range p.codecs.Records(all, maxDumpBody) {
		switch {
		case errors.Is(err, batch.ErrTooLarge):
			return p.note("the batch at position %d: %v: its other records are not shown", b.Pos, err)
		case err != nil && !b.GoodCRC: // no wonder, and said already
			return p.note("its records cannot be read: %v", err)
		case err != nil:
			return &storage.Damage{Pos: b.Pos, Offset: h.BaseOffset(), What: err.Error(), Means: "the checksum is right, so it was written like this; consumers fail on it"}
		case r.Offset < next || r.Offset > h.LastOffset():
			return &storage.Damage{Pos: b.Pos, Offset: r.Offset, What: fmt.Sprintf("a record has offset %d where %d to %d may come", r.Offset, next, h.LastOffset()), Means: "consumers skip records or get them twice"}
		}
		next = r.Offset + 1
		p.seen++
		if err := p.fault(p.record(h, &r, show)); err != nil {
			return err
		}
	}
	return nil
}

// finish sums a segment up.
func (p *logPrinter) finish(path string, size int64, snapshot bool) error {
	if p.end < size && !p.bad {
		if err := p.note("position %d to %d: zeros, reserved or never written", p.end, size); err != nil {
			return err
		}
	}
	if snapshot && !p.bad && (!p.header || !p.footer) {
		missing := "header"
		if p.header {
			missing = "footer"
		}
		err := p.fault(&storage.Damage{Pos: p.end, Offset: -1, What: "the snapshot has no " + missing, Means: "it was not written to its end, and no node will load it"})
		if err != nil {
			return err
		}
	}
	if p.batches == 0 {
		return p.emit(1, "end", endRow{})
	}
	if filepath.Ext(path) == ".log" {
		p.before = segmentEnd{filepath.Dir(path), p.last + 1}
	}
	return p.emit(1, "end", endRow{Batches: p.batches, Records: p.records, First: int64(p.first), Last: int64(p.last)})
}

type endRow struct {
	Batches int64 `json:"batches"`
	Records int64 `json:"records"`
	First   int64 `json:"first_offset"`
	Last    int64 `json:"last_offset"`
}

func (r endRow) text() string {
	if r.Batches == 0 {
		return "no batches"
	}
	return fmt.Sprintf("%s in %s, offsets %d to %d", count(r.Records, "record", "records"), count(r.Batches, "batch", "batches"), r.First, r.Last)
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// batchRow is a batch's header.
type batchRow struct {
	Position      int64        `json:"position"`
	Size          int64        `json:"size"`
	BaseOffset    int64        `json:"base_offset"`
	LastOffset    int64        `json:"last_offset"`
	Count         int32        `json:"count"`
	Codec         string       `json:"codec"`
	LeaderEpoch   int32        `json:"leader_epoch"`
	Producer      *producedRow `json:"producer,omitempty"`
	BaseTimestamp int64        `json:"base_timestamp"`
	MaxTimestamp  int64        `json:"max_timestamp"`
	LogAppendTime bool         `json:"log_append_time,omitempty"`
	Transactional bool         `json:"transactional,omitempty"`
	Control       bool         `json:"control,omitempty"`
	DeleteHorizon *int64       `json:"delete_horizon,omitempty"`
	CRC           string       `json:"crc"`
	CRCOK         bool         `json:"crc_ok"`
}

type producedRow struct {
	ID            int64 `json:"id"`
	Epoch         int16 `json:"epoch"`
	FirstSequence int32 `json:"first_sequence"`
	LastSequence  int32 `json:"last_sequence"`
}

func newBatchRow(b *storage.BatchAt) batchRow {
	h := b.Header
	r := batchRow{
		Position: b.Pos, Size: b.Size, BaseOffset: int64(h.BaseOffset()), LastOffset: int64(h.LastOffset()), Count: h.Count(),
		Codec: h.Codec().String(), LeaderEpoch: int32(h.LeaderEpoch()), BaseTimestamp: h.BaseTimestamp(), MaxTimestamp: h.MaxTimestamp(),
		LogAppendTime: h.LogAppendTime(), Transactional: h.Transactional(), Control: h.Control(), CRC: fmt.Sprintf("%08x", h.CRC()), CRCOK: b.GoodCRC,
	}
	if p := h.Producer(); p.ID >= 0 {
		r.Producer = &producedRow{p.ID, p.Epoch, h.BaseSequence(), h.LastSequence()}
	}
	if h.HasHorizon() {
		at := h.BaseTimestamp()
		r.DeleteHorizon = &at
	}
	return r
}

func (r batchRow) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s at position %d, %d bytes, %s, leader epoch %d", span64(r.BaseOffset, r.LastOffset), count(int64(r.Count), "record", "records"), r.Position, r.Size, r.Codec, r.LeaderEpoch)
	if p := r.Producer; p != nil {
		fmt.Fprintf(&b, ", producer %d epoch %d", p.ID, p.Epoch)
		if p.FirstSequence >= 0 {
			fmt.Fprintf(&b, " sequence %s", span64(int64(p.FirstSequence), int64(p.LastSequence)))
		}
	}
	switch {
	case r.DeleteHorizon != nil:
		fmt.Fprintf(&b, ", up to %s, may be dropped from %s on", clock(r.MaxTimestamp), clock(*r.DeleteHorizon))
	case r.MaxTimestamp != r.BaseTimestamp:
		fmt.Fprintf(&b, ", %s to %s", clock(r.BaseTimestamp), clock(r.MaxTimestamp))
	default:
		b.WriteString(", " + clock(r.MaxTimestamp))
	}
	if r.LogAppendTime {
		b.WriteString(" (time of the append)")
	}
	if r.Transactional {
		b.WriteString(", transactional")
	}
	if r.Control {
		b.WriteString(", control")
	}
	if r.CRCOK {
		b.WriteString(", CRC ok")
	} else {
		b.WriteString(", CRC BAD")
	}
	return b.String()
}

func span64(first, last int64) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// clock is a timestamp in milliseconds as people read it.
func clock(ms int64) string {
	if ms == batch.NoTimestamp {
		return "no time"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
