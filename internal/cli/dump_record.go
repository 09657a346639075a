package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/storage"
)

// record looks at one record, and prints it if asked to.
func (p *logPrinter) record(h batch.Batch, r *batch.Record, show bool) error {
	switch {
	case h.Control():
		return p.control(r, show)
	case p.kind == metadataLog:
		return p.metadata(r, show)
	case p.kind == raftLog:
		return p.raftEntry(h, r, show)
	case show:
		return p.emit(2, "record", p.newRecordRow(r))
	}
	return nil
}

// recordRow is a record with its bytes in the form that was asked for.
type recordRow struct {
	Offset    int64       `json:"offset"`
	Timestamp int64       `json:"timestamp"`
	Key       content     `json:"key"`
	Value     content     `json:"value"`
	Headers   []headerRow `json:"headers,omitempty"`
}

type headerRow struct {
	Key   string  `json:"key"`
	Value content `json:"value"`
}

func (p *logPrinter) newRecordRow(r *batch.Record) recordRow {
	row := recordRow{int64(r.Offset), r.Timestamp, content{r.Key, p.format}, content{r.Value, p.format}, nil}
	for _, h := range r.Headers {
		row.Headers = append(row.Headers, headerRow{h.Key, content{h.Value, p.format}})
	}
	return row
}

func (r recordRow) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s = %s", r.Offset, clock(r.Timestamp), r.Key.text(), r.Value.text())
	for _, h := range r.Headers {
		fmt.Fprintf(&b, " [%s = %s]", quoteOdd(h.Key), h.Value.text())
	}
	return b.String()
}

// content is a key or value and how to print it.
type content struct {
	b      []byte // nil is null
	format string
}

// text is null, hexadecimal digits, JSON, or a Go string: what is not printable is
// escaped.
func (c content) text() string {
	switch {
	case c.b == nil:
		return "null"
	case c.format == "hex":
		return hex.EncodeToString(c.b)
	case c.format == "json":
		if compact, ok := c.compact(); ok {
			return compact
		}
	}
	if s := string(c.b); strings.Contains(s, `"`) && strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(string(c.b))
}

// MarshalJSON gives what text gives, for programs: bytes that are not UTF-8 are an
// object {"hex": …}.
func (c content) MarshalJSON() ([]byte, error) {
	switch {
	case c.b == nil:
		return []byte("null"), nil
	case c.format == "hex":
		return json.Marshal(hex.EncodeToString(c.b))
	case c.format == "json":
		if compact, ok := c.compact(); ok {
			return []byte(compact), nil
		}
	}
	if !utf8.Valid(c.b) {
		return json.Marshal(map[string]string{"hex": hex.EncodeToString(c.b)})
	}
	return json.Marshal(string(c.b))
}

// compact is a value that is JSON, on one line.
func (c content) compact() (string, bool) {
	var b bytes.Buffer
	if json.Compact(&b, c.b) != nil {
		return "", false
	}
	return b.String(), true
}

// quoteOdd quotes only what would be hard to tell apart from its surroundings.
func quoteOdd(s string) string {
	odd := func(r rune) bool {
		return !unicode.IsPrint(r) || strings.ContainsRune(` "=[]`, r) || r == utf8.RuneError
	}
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

// metadataRow is a record of the metadata log.
type metadataRow struct {
	Offset int64           `json:"offset"`
	Record json.RawMessage `json:"record"`
	words  string
}

func (r metadataRow) text() string { return fmt.Sprintf("%d %s", r.Offset, r.words) }

func (p *logPrinter) metadata(r *batch.Record, show bool) error {
	p.footer = false
	m, version, err := record.DecodeFramed(r.Value)
	if err != nil {
		return &storage.Damage{Pos: p.pos, Offset: r.Offset, What: err.Error(), Means: "a node of this version stops on it; if it is of a later version, dump it with that one"}
	}
	if !show {
		return nil
	}
	return p.emit(2, "metadata", metadataRow{int64(r.Offset), record.AppendJSON(nil, m, version), m.String()})
}

// controlRow is a control record.
type controlRow struct {
	Offset int64  `json:"offset"`
	Type   string `json:"type"`
	Words  string `json:"text,omitempty"`
}

func (r controlRow) text() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Offset, r.Type, r.Words))
}

func (p *logPrinter) control(r *batch.Record, show bool) error {
	kind, err := batch.ParseControlKey(r.Key)
	var words string
	if err == nil {
		words, err = controlWords(kind, r.Value)
	}
	if err != nil {
		return &storage.Damage{Pos: p.pos, Offset: r.Offset, What: fmt.Sprintf("control record: %v", err), Means: "readers of this log fail on it"}
	}
	p.header = p.header || p.seen == 1 && kind == batch.SnapshotHeader
	p.footer = kind == batch.SnapshotFooter
	if !show {
		return nil
	}
	return p.emit(2, "control", controlRow{int64(r.Offset), kind.String(), words})
}

// controlWords decodes the value of a control record; "" for a type that this
// version does not know, which readers skip.
func controlWords(kind batch.ControlType, value []byte) (string, error) {
	var m interface {
		Read([]byte, int16) error
		String() string
	}
	switch kind {
	case batch.Abort, batch.Commit:
		epoch, err := batch.ParseEndTxnValue(value)
		return fmt.Sprintf("coordinatorEpoch=%d", epoch), err
	case batch.LeaderChange:
		m = record.NewLeaderChangeMessage()
	case batch.SnapshotHeader:
		m = record.NewSnapshotHeaderRecord()
	case batch.SnapshotFooter:
		m = record.NewSnapshotFooterRecord()
	case batch.KRaftVersion:
		m = record.NewKRaftVersionRecord()
	case batch.KRaftVoters:
		m = record.NewVotersRecord()
	default:
		return "", nil
	}
	if len(value) < 2 {
		return "", fmt.Errorf("the value has %d bytes, too few for its version", len(value))
	}
	version := int16(uint16(value[0])<<8 | uint16(value[1]))
	if err := m.Read(value, version); err != nil {
		return "", err
	}
	_, fields, _ := strings.Cut(m.String(), " ")
	return fields, nil
}
