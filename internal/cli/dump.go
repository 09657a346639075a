package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
)

const dumpLong = `Prints the files of a log folder in words: segments, indexes, snapshots,
checkpoints, the metadata log. A folder is printed with all that is in it.

The files may be Ottla's or Apache Kafka's. Nothing is locked or changed, so the
node may be running; what it is writing at this moment then looks cut off.

A segment's batches are a line each. --records adds their records; in the metadata
log and its snapshots they are always shown, decoded. With -o json every line is an
object; there secrets of metadata records (SCRAM keys) are not hidden.

Checksums, order and form are always checked. --verify also holds indexes against
their segments and looks into every batch. The exit code is 1 if anything is damaged.`

type dumpFlags struct {
	records, metadata, verify bool
	format, output            string
}

func newDump(h Host) *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use:   "dump FILE|FOLDER…",
		Short: "Print Kafka's files in words and find damage",
		Long:  dumpLong,
		Example: `  ottla dump ottla-data/hello-0/00000000000000000000.log --records
  ottla dump ottla-data/__cluster_metadata-0
  ottla dump --verify ottla-data >/dev/null && echo sound`,
		Args: arguments(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := newDumper(h, f)
			if err != nil {
				return err
			}
			return d.run(args)
		},
	}
	cmd.Flags().BoolVarP(&f.records, "records", "r", false, "print the records of each batch")
	cmd.Flags().BoolVar(&f.metadata, "metadata", false, "take records for metadata records, wherever the file lies")
	cmd.Flags().BoolVar(&f.verify, "verify", false, "hold indexes against their segments, look into every batch")
	cmd.Flags().StringVarP(&f.format, "format", "f", "text", "`form` of keys and values: text, hex or json (values that are JSON as they are)")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "`form` of the output: text, or json, an object a line")
	return cmd
}

// dumper prints files one after another.
type dumper struct {
	dumpFlags
	fs     vfs.FS
	out    *bufio.Writer
	codecs *batch.Codecs

	path    string // the file being printed
	before  segmentEnd
	bad     bool     // damage was found in it
	files   int      // printed
	damaged []string // files with damage
}

func newDumper(h Host, f dumpFlags) (*dumper, error) {
	switch f.format {
	case "text", "hex", "json":
	default:
		return nil, usageError{fmt.Errorf("--format %q: want text, hex or json", f.format)}
	}
	switch f.output {
	case "text", "json":
	default:
		return nil, usageError{fmt.Errorf("--output %q: want text or json", f.output)}
	}
	return &dumper{dumpFlags: f, fs: vfs.OS(), out: bufio.NewWriterSize(h.Out, 64<<10), codecs: batch.NewCodecs()}, nil
}

// run prints all paths and says at the end which files are damaged.
func (d *dumper) run(paths []string) error {
	err := d.all(paths)
	if ferr := d.out.Flush(); err == nil {
		err = ferr
	}
	if err == nil && len(d.damaged) > 0 {
		const most = 5
		names, more := d.damaged, ""
		if len(names) > most {
			names, more = names[:most], ", …"
		}
		err = fmt.Errorf("damage in %d of %d files: %s%s", len(d.damaged), d.files, strings.Join(names, ", "), more)
	}
	return err
}

func (d *dumper) all(paths []string) error {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			if err := d.file(path, info.Size()); err != nil {
				return err
			}
			continue
		}
		if err := d.folder(path); err != nil {
			return err
		}
	}
	return nil
}

// folder prints all that is in a folder and below it. What a running node removes
// meanwhile is left out.
func (d *dumper) folder(path string) error {
	return filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil && known(name) {
				err = d.file(name, info.Size())
			}
		}
		if errors.Is(err, fs.ErrNotExist) && name != path {
			return nil
		}
		return err
	})
}

// known reports whether a file is one that is printed.
func known(path string) bool {
	name := filepath.Base(path)
	return storage.KindOf(path) != storage.OtherFile || name == quorumFile || name == raftStateFile
}

// file prints one file. Damage is printed and remembered; the error is of the disk
// or of the output.
func (d *dumper) file(path string, size int64) error {
	if !known(path) {
		return fmt.Errorf("%s: not a file of a log folder; known are NNN.log, .index, .timeindex, .txnindex and .snapshot, NNN-NNN.checkpoint, "+
			"the …-checkpoint files, partition.metadata, meta.properties, .kafka_cleanshutdown and quorum-state", path)
	}
	d.path, d.bad = path, false
	d.files++
	err := d.content(path, size)
	if d.bad {
		d.damaged = append(d.damaged, path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (d *dumper) content(path string, size int64) error {
	base, hasBase := storage.BaseOf(path)
	switch kind := storage.KindOf(path); kind {
	case storage.SegmentFile, storage.SnapshotFile:
		return d.segment(path, size, kind == storage.SnapshotFile)
	case storage.IndexFile, storage.TimeIndexFile, storage.TxnIndexFile:
		if !hasBase {
			return errors.New("an index is named by its segment's offset in 20 digits; without it its entries mean nothing")
		}
		return d.index(path, size, kind, base)
	case storage.ProducerFile:
		return d.producers(path, size)
	case storage.EpochFile:
		return d.epochs(path, size)
	case storage.OffsetFile:
		return d.offsets(path, size)
	case storage.TopicIDFile:
		return d.topicID(path, size)
	case storage.MetaFile:
		return d.meta(path, size)
	case storage.CleanFile:
		return d.clean(path, size)
	}
	if filepath.Base(path) == quorumFile {
		return d.quorumState(path, size)
	}
	return d.raftState(path, size)
}

// A row is a line of output: its exported fields are the JSON form.
type row interface{ text() string }

// emit prints a row at a depth; is names it in JSON.
func (d *dumper) emit(depth int, is string, r row) error {
	if d.output == "json" {
		body, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("BUG: %s has no JSON form: %w", is, err)
		}
		head, err := json.Marshal(struct {
			File string `json:"file"`
			Is   string `json:"is"`
		}{d.path, is})
		if err != nil {
			return err
		}
		line := head
		if len(body) > 2 { // not {}
			line = append(append(head[:len(head)-1], ','), body[1:]...)
		}
		_, err = d.out.Write(append(line, '\n'))
		return err
	}
	_, err := fmt.Fprintf(d.out, "%*s%s\n", 2*depth, "", r.text())
	return err
}

// heading begins a file.
func (d *dumper) heading(what string, size int64) error {
	return d.emit(0, "file", headingRow{path: d.path, What: what, Bytes: size})
}

type headingRow struct {
	path  string
	What  string `json:"what"`
	Bytes int64  `json:"bytes"`
}

func (r headingRow) text() string { return fmt.Sprintf("%s: %s, %d bytes", r.path, r.What, r.Bytes) }

// note is a remark for people that is no damage.
func (d *dumper) note(format string, args ...any) error {
	return d.emit(1, "note", noteRow{fmt.Sprintf(format, args...)})
}

type noteRow struct {
	Note string `json:"note"`
}

func (r noteRow) text() string { return r.Note }

// fault prints damage; any other error comes back.
func (d *dumper) fault(err error) error {
	var dmg *storage.Damage
	if err == nil || !errors.As(err, &dmg) {
		return err
	}
	d.bad = true
	r := damageRow{What: dmg.What, Means: dmg.Means, dmg: dmg}
	if dmg.Pos >= 0 {
		r.Position = &dmg.Pos
	}
	if dmg.Offset >= 0 {
		o := int64(dmg.Offset)
		r.Offset = &o
	}
	return d.emit(1, "damage", r)
}

type damageRow struct {
	Position *int64 `json:"position,omitempty"`
	Offset   *int64 `json:"offset,omitempty"`
	What     string `json:"what"`
	Means    string `json:"means,omitempty"`
	dmg      *storage.Damage
}

func (r damageRow) text() string { return "DAMAGED: " + r.dmg.Error() }
