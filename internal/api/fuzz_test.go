package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"ottla.dev/ottla/internal/batch"
	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/memnet"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
	"ottla.dev/ottla/internal/storage"
	"ottla.dev/ottla/internal/vfs"
	"ottla.dev/ottla/internal/wire"
)

// The two hand-written decoders are held against kmsg's, on any bytes: what we
// accept it accepts, with equal fields; what it accepts we accept, unless it
// breaks one of the limits that kmsg does not know.

// patient reports whether kmsg can decode the bytes in reasonable time: it
// believes the count of a tagged section whatever it is.
func patient(body []byte) bool {
	for i := range body {
		if v, n := binary.Uvarint(body[i:]); n <= 0 && i+10 < len(body) || n > 0 && v > maxTags && v <= math.MaxUint32 {
			return false
		}
	}
	return len(body) < 4096
}

func FuzzProduceParse(f *testing.F) {
	for v := int16(3); v <= 13; v++ {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 1500
		for range 2 {
			t := kmsg.NewProduceRequestTopic()
			t.Topic, t.TopicID = "topic", [16]byte{1, 2}
			for i := range int32(2) {
				p := kmsg.NewProduceRequestTopicPartition()
				p.Partition, p.Records = i, []byte("records")
				t.Partitions = append(t.Partitions, p)
			}
			req.Topics = append(req.Topics, t)
		}
		req.SetVersion(v)
		f.Add(v, req.AppendTo(nil))
	}
	f.Add(int16(9), []byte{0, 0, 1, 0, 0, 0, 1, 2, 1, 1, 0, 0}) // a topic of three bytes
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		version = 3 + ((version-3)%11+11)%11
		p := newProduce(nil)
		ok := p.parse(body, version)
		if !ok && !patient(body) {
			return
		}
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		err := req.ReadFrom(body)
		if ok != (err == nil) {
			t.Fatalf("version %d: we accept: %v; kmsg: %v", version, ok, err)
		}
		if ok {
			sameProduce(t, p, req)
		}
	})
}

func sameProduce(t *testing.T, p *produce, req *kmsg.ProduceRequest) {
	if p.txn != (req.TransactionID != nil) || p.acks != req.Acks || p.timeout != time.Duration(req.TimeoutMillis)*time.Millisecond || len(p.topics) != len(req.Topics) {
		t.Fatalf("txn %v acks %d timeout %v topics %d; kmsg has %+v", p.txn, p.acks, p.timeout, len(p.topics), req)
	}
	at := 0
	for i, want := range req.Topics {
		got := p.topics[i]
		if got.name != want.Topic || got.id != want.TopicID || got.n != len(want.Partitions) {
			t.Fatalf("topic %d: %+v, kmsg has %+v", i, got, want)
		}
		for _, wp := range want.Partitions {
			part := p.parts[at]
			at++
			if part.index != wp.Partition || !bytes.Equal(part.records, wp.Records) || (part.records == nil) != (wp.Records == nil) {
				t.Fatalf("topic %d: partition %d with % x, kmsg has %+v", i, part.index, part.records, wp)
			}
		}
	}
	if at != p.used {
		t.Fatalf("%d partitions, kmsg has %d", p.used, at)
	}
}

func FuzzFetchParse(f *testing.F) {
	for v := int16(4); v <= 18; v++ {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 500, 1, 1<<20, 1
		req.SessionID, req.SessionEpoch, req.Rack = 3, 4, "rack"
		if req.ReplicaID = 2; v >= 15 { // kmsg writes the tag whatever the version
			req.ReplicaState.ID, req.ReplicaState.Epoch = 2, 9
		}
		for range 2 {
			t, g := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestForgottenTopic()
			t.Topic, t.TopicID, g.Topic, g.TopicID = "topic", [16]byte{1, 2}, "gone", [16]byte{3}
			g.Partitions = []int32{5, 6}
			for i := range int32(2) {
				p := kmsg.NewFetchRequestTopicPartition()
				p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = i, 77, 1000, 3, 2, 1
				t.Partitions = append(t.Partitions, p)
			}
			req.Topics, req.ForgottenTopics = append(req.Topics, t), append(req.ForgottenTopics, g)
		}
		req.SetVersion(v)
		f.Add(v, req.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		version = 4 + ((version-4)%15+15)%15
		q := newFetch(nil)
		ok := q.parse(body, version)
		if !ok && !patient(body) {
			return
		}
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(version)
		err := req.ReadFrom(body)
		if ok != (err == nil) {
			t.Fatalf("version %d: we accept: %v; kmsg: %v", version, ok, err)
		}
		if ok {
			sameFetch(t, &q.ask, req)
		}
	})
}

func sameFetch(t *testing.T, q *fetchRequest, req *kmsg.FetchRequest) {
	replica := req.ReplicaID
	if req.Version >= 15 {
		replica = req.ReplicaState.ID
	}
	head := func(replica, wait, minBytes, maxBytes int32, committed bool, session, epoch int32, rack string) string {
		return fmt.Sprintln(replica, max(wait, 0), minBytes, maxBytes, committed, session, epoch, rack)
	}
	got := head(int32(q.replica), int32(q.maxWait/time.Millisecond), q.minBytes, q.maxBytes, q.committed, q.sessionID, q.sessionEpoch, q.rack)
	want := head(replica, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel == 1, req.SessionID, req.SessionEpoch, req.Rack)
	if got != want {
		t.Fatalf("version %d: got %s, kmsg has %s", req.Version, got, want)
	}
	var parts []fetchPart
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			most := rp.PartitionMaxBytes
			if most < 0 {
				most = math.MaxInt32
			}
			parts = append(parts, fetchPart{
				key: partKey{rt.Topic, rt.TopicID, rp.Partition},
				read: broker.Read{
					Offset: model.Offset(rp.FetchOffset), Epoch: model.Epoch(rp.CurrentLeaderEpoch), LastEpoch: model.Epoch(rp.LastFetchedEpoch),
					Replica: model.NodeID(replica), Committed: req.IsolationLevel == 1,
				},
				logStart: model.Offset(rp.LogStartOffset), max: most,
			})
		}
	}
	if !slices.Equal(q.parts, parts) {
		t.Fatalf("version %d:\ngot %+v\nkmsg %+v", req.Version, q.parts, parts)
	}
	var forget []partKey
	for _, ft := range req.ForgottenTopics {
		for _, p := range ft.Partitions {
			forget = append(forget, partKey{ft.Topic, ft.TopicID, p})
		}
	}
	if !slices.Equal(q.forget, forget) {
		t.Fatalf("version %d: got %+v, kmsg %+v", req.Version, q.forget, forget)
	}
}

// encoder is what an answer is encoded with: a request on a connection, a log to
// take records from, brokers for leader hints.
type encoder struct {
	req *wire.Request
	log *storage.Log
	img *image.Image
}

// catcher hands on one request.
type catcher chan *wire.Request

func (c catcher) Serve(r *wire.Request) { c <- r }

func newEncoder(t *testing.T) *encoder {
	t.Helper()
	network := memnet.New()
	l, err := network.Listen("node:9092")
	if err != nil {
		t.Fatal(err)
	}
	caught := make(catcher, 1)
	s := wire.NewServer(wire.Config{Listener: l, Name: "PLAINTEXT", Handler: caught})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(context.Background()) }()
	c, err := network.Dial(context.Background(), "client", "node:9092")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte{0, 0, 0, 10, 0, 1, 0, 4, 0, 0, 0, 1, 0xff, 0xff})
	e := &encoder{req: <-caught, img: image.Empty()}
	folder, err := storage.OpenFolder(storage.FolderConfig{
		FS: vfs.NewMem(), Path: "/data", ClusterID: model.UUID{1}, NodeID: 1, NewID: func() model.UUID { return model.UUID{2} },
	})
	if err != nil {
		t.Fatal(err)
	}
	e.log, err = folder.Open(model.TopicPartition{Topic: "t"}, model.UUID{3}, storage.LogOptions{})
	if err == nil {
		err = e.log.SetLeaderEpoch(0)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		b := batch.NewCodecs().NewBuilder(batch.BuilderOptions{Producer: model.NoProducer, Sequence: -1})
		b.Add(1, nil, bytes.Repeat([]byte{byte(i)}, 10<<(i%15)))
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		appended := make(chan struct{})
		a := &storage.Append{Batch: built, Done: func(*storage.Append) { close(appended) }}
		e.log.Append(a)
		if <-appended; a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	var recs []record.Metadata
	for id := range int32(3) {
		r := record.NewRegisterBrokerRecord()
		r.BrokerID, r.EndPoints = id, []record.BrokerEndpoint{{Name: "PLAINTEXT", Host: fmt.Sprint("host-", id), Port: uint16(9000 + id)}}
		recs = append(recs, r)
	}
	if e.img, _, err = e.img.Apply(0, 1, recs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.req.NoReply()
		c.Close()
		s.Close()
		<-done
		if err := folder.Close(1); err != nil {
			t.Error(err)
		}
	})
	return e
}

// item draws one partition of an answer.
func (e *encoder) item(r *rapid.T, topic int) fetchItem {
	name := fmt.Sprint("topic-", topic)
	it := fetchItem{key: partKey{name: name, id: model.UUID{byte(topic)}, partition: rapid.Int32Range(0, 9).Draw(r, "partition")}, name: name}
	it.answered = rapid.IntRange(0, 4).Draw(r, "answered") > 0
	it.where, it.want.Replica = &broker.Partition{}, model.NoNode
	it.want.Committed = rapid.Bool().Draw(r, "committed")
	s := &it.slice
	s.High, s.Stable, s.Start = model.Offset(rapid.Int64().Draw(r, "high")), model.Offset(rapid.Int64().Draw(r, "stable")), model.Offset(rapid.Int64().Draw(r, "start"))
	s.Role = &broker.Role{Leader: model.NodeID(rapid.IntRange(-1, 4).Draw(r, "leader")), Epoch: model.Epoch(rapid.Int32Range(0, 99).Draw(r, "epoch"))}
	switch rapid.IntRange(0, 3).Draw(r, "kind") {
	case 0:
		s.Err = rapid.SampledFrom([]error{broker.ErrNotLeader, broker.ErrFencedEpoch, broker.ErrFolder, kerr.UnknownTopicID, errors.New("?")}).Draw(r, "error")
	case 1:
		s.Diverges, s.DivergeEpoch, s.DivergeEnd = true, 5, 500
	default:
		from := model.Offset(rapid.IntRange(0, 39).Draw(r, "from"))
		most := int64(1) << rapid.IntRange(0, 20).Draw(r, "most")
		chunk, err := e.log.Read(from, e.log.EndOffset(), most, true)
		if err != nil {
			r.Fatal(err)
		}
		s.Chunk, it.got = chunk, chunk.Len()
		for range rapid.IntRange(0, 3).Draw(r, "aborted") {
			s.Aborted = append(s.Aborted, storage.AbortedTxn{Producer: rapid.Int64().Draw(r, "producer"), First: 8})
		}
	}
	return it
}

// contents are the record bytes that an item must carry.
func contents(r *rapid.T, it *fetchItem) []byte {
	b := make([]byte, it.got)
	if it.got > 0 {
		if _, err := it.slice.Chunk.ReadAt(b, 0); err != nil {
			r.Fatal(err)
		}
	}
	return b
}

func TestFetchAnswersAreWhatKmsgReads(t *testing.T) {
	e := newEncoder(t)
	rapid.Check(t, func(r *rapid.T) {
		f := newFetch(nil)
		f.r = e.req
		e.req.Version = int16(rapid.IntRange(4, 18).Draw(r, "version"))
		for topic := range rapid.IntRange(0, 4).Draw(r, "topics") {
			for range rapid.IntRange(0, 4).Draw(r, "partitions") {
				f.items = append(f.items, e.item(r, topic))
			}
		}
		want := slices.Clone(f.items)
		var data [][]byte
		for i := range want {
			data = append(data, contents(r, &want[i]))
			if !want[i].answered && want[i].got > 0 {
				want[i].slice.Chunk.Close()
			}
		}
		b := f.encode(nil, 70, 12345, e.img)
		resp := kmsg.NewPtrFetchResponse()
		resp.SetVersion(e.req.Version)
		if err := resp.ReadFrom(spliced(r, b, f.files)); err != nil {
			r.Fatalf("kmsg cannot read it: %v", err)
		}
		if resp.Version >= 7 && (resp.ErrorCode != 70 || resp.SessionID != 12345) {
			r.Fatalf("error %d, session %d", resp.ErrorCode, resp.SessionID)
		}
		got := flatten(resp)
		for i := range want {
			if !want[i].answered {
				continue
			}
			if len(got) == 0 {
				r.Fatalf("item %d is missing", i)
			}
			e.compare(r, resp, got[0], &want[i], data[i])
			got = got[1:]
		}
		if len(got) != 0 {
			r.Fatalf("%d partitions too many", len(got))
		}
	})
}

// spliced puts what goes by sendfile into its places, and lets go of it.
func spliced(r *rapid.T, b []byte, files []wire.FilePart) (out []byte) {
	at := 0
	for _, p := range files {
		piece := make([]byte, p.N)
		src := p.Src
		if src == nil {
			src = p.File
		}
		if _, err := src.ReadAt(piece, p.Off); err != nil {
			r.Fatal(err)
		}
		out = append(append(out, b[at:p.At]...), piece...)
		at = p.At
		p.Release()
	}
	return append(out, b[at:]...)
}

type answered struct {
	topic string
	id    [16]byte
	kmsg.FetchResponseTopicPartition
}

func flatten(resp *kmsg.FetchResponse) (out []answered) {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, answered{t.Topic, t.TopicID, p})
		}
	}
	return out
}

func (e *encoder) compare(r *rapid.T, resp *kmsg.FetchResponse, got answered, it *fetchItem, data []byte) {
	v, s := resp.Version, &it.slice
	want := kmsg.NewFetchResponseTopicPartition()
	want.Partition, want.ErrorCode = it.key.partition, code(s.Err)
	want.HighWatermark, want.LastStableOffset = int64(s.High), int64(s.Stable)
	if v >= 5 {
		want.LogStartOffset = int64(s.Start)
	}
	want.RecordBatches = data
	if s.Diverges && v >= 12 {
		want.DivergingEpoch.Epoch, want.DivergingEpoch.EndOffset = int32(s.DivergeEpoch), int64(s.DivergeEnd)
	}
	if c := want.ErrorCode; v >= 16 && (c == kerr.NotLeaderForPartition.Code || c == kerr.FencedLeaderEpoch.Code) {
		want.CurrentLeader.LeaderID, want.CurrentLeader.LeaderEpoch = int32(s.Role.Leader), int32(s.Role.Epoch)
		known := slices.ContainsFunc(resp.Brokers, func(b kmsg.FetchResponseBroker) bool {
			return b.NodeID == int32(s.Role.Leader) && b.Host == fmt.Sprint("host-", b.NodeID) && b.Port == 9000+b.NodeID
		})
		if exists := s.Role.Leader >= 0 && s.Role.Leader < 3; known != exists {
			r.Fatalf("leader %d: named %v, exists %v: %+v", s.Role.Leader, known, exists, resp.Brokers)
		}
	}
	if it.want.Committed && s.Err == nil {
		want.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
		for _, a := range s.Aborted {
			at := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			at.ProducerID, at.FirstOffset = a.Producer, int64(a.First)
			want.AbortedTransactions = append(want.AbortedTransactions, at)
		}
	}
	if a, b := fmt.Sprintf("%+v", got.FetchResponseTopicPartition), fmt.Sprintf("%+v", want); a != b {
		r.Fatalf("version %d:\ngot  %.600s\nwant %.600s", v, a, b)
	}
	if v >= 13 && got.id != it.key.id || v < 13 && got.topic != it.name {
		r.Fatalf("version %d: topic %q %v, want %q %v", v, got.topic, got.id, it.name, it.key.id)
	}
}

// sessionModel is what KIP-227 says a session is.
type sessionModel struct {
	epoch int32
	byIDs bool
	parts map[partKey]int64 // offset
}

func TestSessionCacheAgainstAModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const slots = 3
		cache := newSessions(slots, rand.New(rand.NewPCG(1, rapid.Uint64().Draw(r, "seed"))).Uint64)
		model := map[int32]*sessionModel{}
		ids := []int32{0, 99}
		for range rapid.IntRange(1, 60).Draw(r, "requests") {
			f := newFetch(nil)
			f.r = &wire.Request{Version: rapid.SampledFrom([]int16{12, 13}).Draw(r, "version")}
			q := &f.ask
			q.sessionID = rapid.SampledFrom(ids).Draw(r, "id")
			q.sessionEpoch = rapid.Int32Range(-1, 4).Draw(r, "epoch")
			if m := model[q.sessionID]; m != nil && rapid.IntRange(0, 2).Draw(r, "right") > 0 {
				q.sessionEpoch = m.epoch
			}
			for range rapid.IntRange(0, 12).Draw(r, "parts") {
				q.parts = append(q.parts, fetchPart{key: drawKey(r), read: broker.Read{Offset: 1 + modelOffset(r)}, max: 10})
			}
			for range rapid.IntRange(0, 4).Draw(r, "forgotten") {
				q.forget = append(q.forget, drawKey(r))
			}
			wantSession, want, wantErr := predict(model, slots, q, f.r.Version >= 13)
			if err := cache.begin(f); err != wantErr {
				r.Fatalf("session %d epoch %d: %v, want %v", q.sessionID, q.sessionEpoch, err, wantErr)
			} else if err != nil {
				continue
			}
			if (f.session != nil) != wantSession {
				r.Fatalf("session %v, want %v", f.session != nil, wantSession)
			}
			if q.sessionEpoch == 0 && f.session != nil {
				ids = append(ids, f.session.id)
				model[f.session.id] = &sessionModel{epoch: 1, byIDs: f.r.Version >= 13, parts: want}
			}
			got := map[partKey]int64{}
			for _, it := range f.items {
				got[it.key] = int64(it.want.Offset)
			}
			if !maps.Equal(got, want) || len(got) != len(f.items) {
				r.Fatalf("items %v (%d), want %v", got, len(f.items), want)
			}
			if cache.count() != len(model) {
				r.Fatalf("%d sessions, want %d", cache.count(), len(model))
			}
		}
		held := int64(0)
		for _, m := range model {
			for key := range m.parts {
				held += partCost + int64(len(key.name))
			}
		}
		if cache.held != held {
			r.Fatalf("%d bytes are booked, want %d", cache.held, held)
		}
	})
}

func drawKey(r *rapid.T) partKey {
	return partKey{name: strings.Repeat("n", rapid.IntRange(1, 4).Draw(r, "name")), partition: rapid.Int32Range(0, 3).Draw(r, "index")}
}

func modelOffset(r *rapid.T) model.Offset {
	return model.Offset(rapid.IntRange(0, 9).Draw(r, "offset"))
}

// predict says what a request gives, and changes the model but for a session
// that is opened, whose id is not known yet.
func predict(sessions map[int32]*sessionModel, slots int, q *fetchRequest, byIDs bool) (session bool, parts map[partKey]int64, err error) {
	direct := map[partKey]int64{}
	for _, p := range q.parts {
		direct[p.key] = int64(p.read.Offset)
	}
	if q.sessionEpoch <= 0 {
		delete(sessions, q.sessionID)
		if q.sessionEpoch < 0 || len(sessions) == slots {
			return false, direct, nil
		}
		for _, key := range q.forget {
			delete(direct, key)
		}
		return true, direct, nil
	}
	m := sessions[q.sessionID]
	switch {
	case m == nil:
		return false, nil, kerr.FetchSessionIDNotFound
	case m.epoch != q.sessionEpoch:
		return false, nil, kerr.InvalidFetchSessionEpoch
	case m.byIDs != byIDs:
		return false, nil, kerr.FetchSessionTopicIDError
	}
	m.epoch++
	maps.Copy(m.parts, direct)
	for _, key := range q.forget {
		delete(m.parts, key)
	}
	if len(m.parts) == 0 {
		delete(sessions, q.sessionID)
		return false, direct, nil
	}
	return true, maps.Clone(m.parts), nil
}
