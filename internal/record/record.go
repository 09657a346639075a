// Package record has the codecs of the records that Kafka keeps in its own
// logs: the metadata records of __cluster_metadata and the values of the Raft
// log's control records (KAFKA.md 7.1 to 7.3).
//
// The one idea: a schema says everything once. The files in schema/ list each
// record's fields in a notation of ours (schema/README.md); gen turns them into
// the zz_*.go files here: a struct, a constructor with Kafka's defaults, an
// encoder and a decoder for every version, and one walk over the fields that
// serves both the text and the JSON form. What is written by hand is the small
// codec below them (codec.go, print.go) and the frame around a metadata record:
//
//	+---------------+----------------+------------------+------------------+
//	| frame version | type           | record version   | body             |
//	| uvarint = 1   | uvarint, 0..29 | uvarint          | flexible form    |
//	+---------------+----------------+------------------+------------------+
//
// The body's fields stand in schema order, integers big endian; lengths are
// uvarint n+1, 0 for null; after the fields of each struct come its tagged
// fields, (tag, size, value) by ascending tag, without those at their default.
//
// Records are plain data without locks: whoever builds one owns it until he
// hands it on. Decoding copies what it keeps, reads hostile bytes safely (a
// length is held against the bytes that remain before anything is allocated),
// skips tagged fields that it does not know and refuses what it cannot
// understand. The controller and the quorum write records, image replays them,
// the cli dumps them.
package record

import (
	"encoding/binary"
	"fmt"
)

//go:generate go run ./gen schema/broker.txt schema/cluster.txt schema/control.txt schema/security.txt schema/topic.txt
//go:generate go run ./gen -suffix _test.go -types=false testdata/sample.txt

// A Metadata is one record of the metadata log.
type Metadata interface {
	// Type is the number that the frame names the record by.
	Type() int16
	HighestVersion() int16
	// Append encodes the body at a version from 0 to HighestVersion.
	Append(dst []byte, version int16) []byte
	// Read decodes all of src as the body. Errors wrap ErrCorrupt or ErrUnsupported.
	Read(src []byte, version int16) error
	// String is the record on one line, field=value, secrets hidden.
	String() string
}

const frameVersion = 1

// NewMetadata returns the record of a type with Kafka's defaults. The error
// wraps ErrUnsupported.
func NewMetadata(typ int16) (Metadata, error) {
	if r := newMetadata(typ); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: metadata record type %d", ErrUnsupported, typ)
}

// AppendFramed encodes a record as the value of a record in the metadata log.
func AppendFramed(dst []byte, r Metadata, version int16) []byte {
	dst = append(dst, frameVersion)
	dst = binary.AppendUvarint(dst, uint64(r.Type()))
	dst = binary.AppendUvarint(dst, uint64(version))
	return r.Append(dst, version)
}

// DecodeFramed decodes the value of a record of the metadata log and returns it
// with the version that it was written at. It keeps nothing of b. Errors wrap
// ErrCorrupt or ErrUnsupported.
func DecodeFramed(b []byte) (Metadata, int16, error) {
	d := reader{src: b}
	frame, typ, version := d.uvarint(), d.uvarint(), d.uvarint()
	switch {
	case d.err != nil:
		return nil, 0, fmt.Errorf("%w: frame of a metadata record: %w", ErrCorrupt, d.err)
	case frame != frameVersion:
		return nil, 0, fmt.Errorf("%w: frame version %d of a metadata record, known is %d", ErrUnsupported, frame, frameVersion)
	case typ > 1<<15-1 || version > 1<<15-1:
		return nil, 0, fmt.Errorf("%w: metadata record type %d version %d", ErrUnsupported, typ, version)
	}
	r, err := NewMetadata(int16(typ))
	if err != nil {
		return nil, 0, err
	}
	return r, int16(version), r.Read(d.src, int16(version))
}

// MetadataVersionOf is the version of a record type that a cluster at a
// metadata.version writes, so that every member can read it (KAFKA.md 7.2).
func MetadataVersionOf(typ, metadataVersion int16) int16 { return writtenVersion(typ, metadataVersion) }

// TypeName is what Kafka's tools call a record type, as TOPIC_RECORD.
func TypeName(typ int16) string {
	if name := typeName(typ); name != "" {
		return name
	}
	return fmt.Sprintf("UNKNOWN_RECORD_%d", typ)
}
