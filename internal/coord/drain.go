package coord

import (
	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/model"
)

// drain gathers the decisions of one go.
type drain struct {
	next    model.Offset // what the next record will get
	records []drained
	answers []answer     // of decisions with records
	abouts  []string     // what those are about
	free    []freeAnswer // of decisions without
}

type drained struct {
	by        model.Producer
	timestamp int64
	Record
}

type freeAnswer struct {
	about   string
	answers []answer
}

func (d *drain) begin(end model.Offset) {
	*d = drain{next: end, records: d.records[:0], free: d.free[:0]}
}

// add takes a record and tells the offset it will have.
func (d *drain) add(by model.Producer, now int64, r Record) model.Offset {
	d.records = append(d.records, drained{by, now, r})
	d.next++
	return d.next - 1
}

// wait takes the answers of a decision.
func (d *drain) wait(about string, wrote bool, answers []answer) {
	if wrote {
		d.abouts = append(d.abouts, about)
		d.answers = append(d.answers, answers...)
		return
	}
	if len(answers) == 0 {
		return
	}
	for _, a := range d.abouts { // something before in this very drain
		if a == about || a == "" {
			d.answers = append(d.answers, answers...)
			return
		}
	}
	d.free = append(d.free, freeAnswer{about, answers})
}

func (d *drain) fail(err error) {
	deliver(nil, d.answers, err)
	for _, f := range d.free {
		deliver(nil, f.answers, err)
	}
}

// batches encodes the records: one batch for each run of the same producer, and
// another where one would get too large.
func (d *drain) batches(codecs *batch.Codecs, epoch model.Epoch, limit int) ([]batch.Batch, error) {
	var out []batch.Batch
	for from := 0; from < len(d.records); {
		by := d.records[from].by
		opts := batch.Plain(0, epoch)
		if by != model.NoProducer {
			opts.Producer, opts.Transactional = by, true
		}
		b := codecs.NewBuilder(opts)
		at := from
		for ; at < len(d.records) && d.records[at].by == by && (at == from || b.Size() < limit); at++ {
			r := &d.records[at]
			b.Add(r.timestamp, r.Key, r.Value)
		}
		one, err := b.Build()
		if err != nil {
			return nil, err
		}
		out = append(out, one)
		from = at
	}
	return out, nil
}
