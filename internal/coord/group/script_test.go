package group

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

var rewrite = flag.Bool("rewrite", false, "write the scripts' outputs anew; read the difference before you commit it")

// TestScripts plays testdata/*.txt: blocks, apart by empty lines, of
//
//	# comments
//	command arguments
//	----
//	answers, to whom they go, and records
//
// The commands are in world.play. Members have names; their ids never show.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(string(data), "\n"), "\n\n") {
		command, want, _ := strings.Cut(block+"\n", "----\n")
		ran := false
		for line := range strings.Lines(command) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				w.play(line)
				w.check()
				ran = true
			}
		}
		got := w.named(w.out.String())
		w.out.Reset()
		fmt.Fprintf(&out, "%s\n", strings.TrimRight(command, "\n"))
		if ran {
			fmt.Fprintf(&out, "----\n%s", got)
		}
		out.WriteString("\n")
		if !*rewrite && strings.TrimRight(want, "\n") != strings.TrimRight(got, "\n") {
			t.Errorf("%s:\n%sgot\n%sexpected\n%s", file, command, got, want)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// args are a command's words: plain ones and key=value.
type args struct {
	words []string
	keys  map[string]string
}

func (a args) str(key, def string) string {
	if v, ok := a.keys[key]; ok {
		return v
	}
	return def
}

func (a args) num(key string, def int) int {
	if v, ok := a.keys[key]; ok {
		return must(strconv.Atoi(v))
	}
	return def
}

func (a args) ms(key, def string) int32 {
	return int32(must(time.ParseDuration(a.str(key, def))).Milliseconds())
}

func (a args) ptr(key string) *string {
	if v, ok := a.keys[key]; ok {
		return &v
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// id is a member's by its name; names that are nobody's are ids.
func (w *world) id(name string) string {
	for id, n := range w.names {
		if n == name {
			return id
		}
	}
	return name
}

// play runs one command.
func (w *world) play(line string) {
	f := strings.Fields(line)
	a := args{keys: map[string]string{}}
	for _, word := range f[1:] {
		if k, v, ok := strings.Cut(word, "="); ok {
			a.keys[k] = v
		} else {
			a.words = append(a.words, word)
		}
	}
	commands := map[string]func(args){
		"join": w.playJoin, "sync": w.playSync, "beat": w.playBeat, "leave": w.playLeave, "commit": w.playCommit, "fetch": w.playFetch,
		"describe": w.playDescribe, "list": w.playList, "delete": w.playDelete, "forget": w.playForget, "txn": w.playTxn,
		"reload": func(args) { w.load() },
		"sleep":  func(a args) { w.advance(must(time.ParseDuration(a.words[0]))) },
		"retention": func(a args) {
			w.cfg.OffsetsRetention = must(time.ParseDuration(a.words[0]))
			w.m.cfg = w.cfg
		},
		"delay": func(a args) {
			w.cfg.InitialDelay = must(time.ParseDuration(a.words[0]))
			w.m.cfg = w.cfg
		},
		"topic": func(a args) { w.change(w.create(a.words[0], a.num("partitions", 2))...) },
		"drop": func(a args) {
			t, _ := w.img.Topic(a.words[0])
			r := record.NewRemoveTopicRecord()
			r.TopicID = t.ID
			recs := []record.Metadata{r}
			if _, ok := a.keys["again"]; ok {
				recs = append(recs, w.create(a.words[0], 2)...)
			}
			w.change(recs...)
		},
	}
	if _, ok := a.keys["group"]; !ok && w.alias != "" {
		a.keys["group"] = w.alias
	}
	run := commands[f[0]]
	if run == nil {
		w.t.Fatalf("no command %s", f[0])
	}
	run(a)
}

// join NAME: with the id that the name has, unless new or id=… is given.
func (w *world) playJoin(a args) {
	name := a.words[0]
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.InstanceID = a.str("group", "g"), a.str("id", w.id(name)), a.ptr("instance")
	if r.MemberID == name || slices.Contains(a.words, "new") {
		r.MemberID = a.str("id", "")
	}
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = a.ms("session", "10s"), a.ms("rebalance", "30s"), a.str("type", "consumer")
	for _, p := range list(a.str("protocols", "range")) {
		meta := kmsg.NewConsumerMemberMetadata()
		meta.Topics = list(a.str("topics", "t"))
		jp := kmsg.NewJoinGroupRequestProtocol()
		jp.Name, jp.Metadata = p, meta.AppendTo(nil)
		r.Protocols = append(r.Protocols, jp)
	}
	w.do(r, int16(a.num("v", 9)), func(resp kmsg.Response) {
		j := resp.(*kmsg.JoinGroupResponse)
		if j.MemberID != "" && (j.ErrorCode == 0 || code(j.ErrorCode) == "MEMBER_ID_REQUIRED") {
			for id, n := range w.names {
				if n == name && id != j.MemberID {
					w.names[id] = "old-" + name
				}
			}
			w.names[j.MemberID] = name
		}
		fmt.Fprintf(&w.out, "%s joined: %s", name, code(j.ErrorCode))
		if j.ErrorCode == 0 {
			fmt.Fprintf(&w.out, " gen=%d protocol=%s leader=%s", j.Generation, text(j.Protocol), j.LeaderID)
			for _, m := range j.Members {
				fmt.Fprintf(&w.out, " %s", m.MemberID)
			}
			if j.SkipAssignment {
				w.out.WriteString(" skip")
			}
		} else if j.MemberID != "" {
			fmt.Fprintf(&w.out, " id=%s", j.MemberID)
		}
		w.out.WriteString("\n")
	})
}

// sync NAME gen=N [A=assignment of A]
func (w *world) playSync(a args) {
	name := a.words[0]
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.MemberID, r.Generation, r.InstanceID = a.str("group", "g"), w.id(name), int32(a.num("gen", 1)), a.ptr("instance")
	r.Protocol, r.ProtocolType = a.ptr("protocol"), a.ptr("type")
	for _, other := range a.words[1:] {
		x := kmsg.NewSyncGroupRequestGroupAssignment()
		x.MemberID, x.MemberAssignment = w.id(other), []byte("for "+other)
		r.GroupAssignment = append(r.GroupAssignment, x)
	}
	w.do(r, 5, func(resp kmsg.Response) {
		s := resp.(*kmsg.SyncGroupResponse)
		fmt.Fprintf(&w.out, "%s synced: %s %q\n", name, code(s.ErrorCode), s.MemberAssignment)
	})
}

func (w *world) playBeat(a args) {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.MemberID, r.Generation, r.InstanceID = a.str("group", "g"), w.id(a.words[0]), int32(a.num("gen", 1)), a.ptr("instance")
	w.do(r, 4, func(resp kmsg.Response) {
		fmt.Fprintf(&w.out, "%s beat: %s\n", a.words[0], code(resp.(*kmsg.HeartbeatResponse).ErrorCode))
	})
}

// leave [NAME…] [instance=I]
func (w *world) playLeave(a args) {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Group = a.str("group", "g")
	for _, name := range a.words {
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID, m.InstanceID = w.id(name), a.ptr("instance")
		r.Members, r.MemberID = append(r.Members, m), m.MemberID
	}
	if len(a.words) == 0 && a.ptr("instance") != nil {
		m := kmsg.NewLeaveGroupRequestMember()
		m.InstanceID = a.ptr("instance")
		r.Members = append(r.Members, m)
	}
	w.do(r, int16(a.num("v", 5)), func(resp kmsg.Response) {
		l := resp.(*kmsg.LeaveGroupResponse)
		fmt.Fprintf(&w.out, "left: %s", code(l.ErrorCode))
		for _, m := range l.Members {
			fmt.Fprintf(&w.out, " %s=%s", m.MemberID, code(m.ErrorCode))
		}
		w.out.WriteString("\n")
	})
}

// partition reads "t/0:5".
func partition(word string) (topic string, p int32, offset int64) {
	tp, off, _ := strings.Cut(word, ":")
	topic, n, _ := strings.Cut(tp, "/")
	if off != "" {
		offset = int64(must(strconv.Atoi(off)))
	}
	return topic, int32(must(strconv.Atoi(n))), offset
}

func (w *world) topicID(name string) (id model.UUID) {
	if t, ok := w.img.Topic(name); ok {
		return t.ID
	}
	return id
}

// commit t/0:5 … [member=A gen=N metadata=… epoch=N retention=D]
func (w *world) playCommit(a args) {
	r := kmsg.NewPtrOffsetCommitRequest()
	version := int16(a.num("v", 9))
	r.Group, r.MemberID, r.Generation, r.InstanceID = a.str("group", "g"), w.id(a.str("member", "")), int32(a.num("gen", -1)), a.ptr("instance")
	if _, ok := a.keys["retention"]; ok {
		r.RetentionTimeMillis = int64(a.ms("retention", ""))
	}
	for _, word := range a.words {
		t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		t.Topic, p.Partition, p.Offset = partition(word)
		p.Metadata, p.LeaderEpoch = a.ptr("metadata"), int32(a.num("epoch", -1))
		if version >= 10 {
			t.TopicID, t.Topic = w.topicID(t.Topic), ""
		}
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
	}
	w.do(r, version, func(resp kmsg.Response) {
		w.out.WriteString("committed:")
		for _, t := range resp.(*kmsg.OffsetCommitResponse).Topics {
			fmt.Fprintf(&w.out, " %s", code(t.Partitions[0].ErrorCode))
		}
		w.out.WriteString("\n")
	})
}

// fetch [t/0 …] [stable=true]; without partitions, all.
func (w *world) playFetch(a args) {
	r := kmsg.NewPtrOffsetFetchRequest()
	version := int16(a.num("v", 9))
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, r.RequireStable = a.str("group", "g"), a.keys["stable"] == "true"
	for _, word := range a.words {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		name, p, _ := partition(word)
		t.Topic, t.Partitions = name, []int32{p}
		if version >= 10 {
			t.TopicID, t.Topic = w.topicID(name), ""
		}
		g.Topics = append(g.Topics, t)
	}
	r.Groups = append(r.Groups, g)
	w.do(r, version, func(resp kmsg.Response) {
		out := resp.(*kmsg.OffsetFetchResponse).Groups[0]
		fmt.Fprintf(&w.out, "fetched: %s", code(out.ErrorCode))
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(&w.out, " %s/%d=%d,%d,%q", t.Topic, p.Partition, p.Offset, p.LeaderEpoch, text(p.Metadata))
				if p.ErrorCode != 0 {
					fmt.Fprintf(&w.out, ",%s", code(p.ErrorCode))
				}
			}
		}
		w.out.WriteString("\n")
	})
}

func (w *world) playDescribe(a args) {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Groups = []string{a.str("group", "g")}
	w.do(r, int16(a.num("v", 6)), func(resp kmsg.Response) {
		g := resp.(*kmsg.DescribeGroupsResponse).Groups[0]
		fmt.Fprintf(&w.out, "described: %s %s type=%q protocol=%q %s\n", code(g.ErrorCode), g.State, g.ProtocolType, g.Protocol, text(g.ErrorMessage))
		for _, m := range g.Members {
			fmt.Fprintf(&w.out, "- %s instance=%s %s %s metadata=%d assignment=%q\n", m.MemberID, text(m.InstanceID), m.ClientID, m.ClientHost, len(m.ProtocolMetadata), m.MemberAssignment)
		}
	})
}

func (w *world) playList(a args) {
	r := kmsg.NewPtrListGroupsRequest()
	r.StatesFilter, r.TypesFilter = list(a.str("states", "")), list(a.str("types", ""))
	w.do(r, 5, func(resp kmsg.Response) {
		l := resp.(*kmsg.ListGroupsResponse)
		fmt.Fprintf(&w.out, "listed: %s\n", code(l.ErrorCode))
		for _, g := range l.Groups {
			fmt.Fprintf(&w.out, "- %s type=%q %s %s\n", g.Group, g.ProtocolType, g.GroupState, g.GroupType)
		}
	})
}

func (w *world) playDelete(a args) {
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Groups = []string{a.str("group", "g")}
	w.do(r, 2, func(resp kmsg.Response) {
		fmt.Fprintf(&w.out, "deleted: %s\n", code(resp.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode))
	})
}

// forget t/0 … is OffsetDelete.
func (w *world) playForget(a args) {
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = a.str("group", "g")
	for _, word := range a.words {
		t, p := kmsg.NewOffsetDeleteRequestTopic(), kmsg.NewOffsetDeleteRequestTopicPartition()
		t.Topic, p.Partition, _ = partition(word)
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
	}
	w.do(r, 0, func(resp kmsg.Response) {
		d := resp.(*kmsg.OffsetDeleteResponse)
		fmt.Fprintf(&w.out, "forgotten: %s", code(d.ErrorCode))
		for _, t := range d.Topics {
			fmt.Fprintf(&w.out, " %s", code(t.Partitions[0].ErrorCode))
		}
		w.out.WriteString("\n")
	})
}

// txn P t/0:5 … commits in the transaction of producer P; txn P commit or abort ends it.
func (w *world) playTxn(a args) {
	by := model.Producer{ID: int64(must(strconv.Atoi(a.words[0])))}
	for _, word := range a.words[1:] {
		if word == "commit" || word == "abort" {
			w.log = append(w.log, entry{by: by, marker: true, commit: word == "commit"})
			w.m.EndTxn(by, word == "commit")
			continue
		}
		topic, p, at := partition(word)
		d := w.m.begin(w.env(), nil)
		d.writeOffset(a.str("group", "g"), topic, p, offset{offset: at, epoch: -1, at: w.now.UnixMilli(), expires: -1, topicID: w.topicID(topic)})
		w.append(entry{by: by, r: d.Records[0]})
	}
}
