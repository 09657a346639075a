package controller

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/feature"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
	"ottla.dev/ottla/internal/record"
)

var allFeatures = regexp.MustCompile(`features=\[\{.*?\}\]`)

var rewrite = flag.Bool("rewrite", false, "write the scripts' outputs anew; read the difference before you commit it")

// TestScripts plays testdata/*.txt. A script is blocks, separated by empty lines:
//
//	# comments
//	command arguments
//	----
//	the response, then the records
//
// The commands are the methods of play. Ids are shown by name: t.foo for the
// topic's id, b1.2 for the second life of broker 1, d1a for a log folder.
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
	w := newWorld(Config{Rebalance: 5 * time.Minute})
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(string(data), "\n")+"\n", "\n\n") {
		command, want, _ := strings.Cut(block, "----\n")
		var got strings.Builder
		for line := range strings.Lines(command) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				got.WriteString(w.play(t, line))
			}
		}
		if got.Len() == 0 {
			out.WriteString(strings.TrimRight(command, "\n") + "\n\n")
			continue
		}
		if !*rewrite && strings.TrimRight(want, "\n") != strings.TrimRight(got.String(), "\n") {
			t.Errorf("%s:\n%sgot\n%sexpected\n%s", file, command, got.String(), want)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n", strings.TrimRight(command, "\n"), got.String())
	}
	w.checkReplay(t)
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// world is a controller with its image, as the quorum would drive it.
type world struct {
	c    *Controller
	img  *image.Image
	now  time.Time
	rand *rand.Rand
	log  []record.Metadata
	live map[int]int // broker → its life
	// names of ids, for people
	names map[string]string
}

func newWorld(cfg Config) *world {
	cfg.NodeID, cfg.ClusterID, cfg.Incarnation = 100, model.UUID{1, 2, 3}, model.UUID{0xcc}
	cfg.Endpoints = []image.Endpoint{{Name: "CONTROLLER", Host: "c", Port: 9093}}
	cfg.Configs.CheckTopic = func(k, v string) error {
		if k == "min.insync.replicas" || k == "cleanup.policy" || k == "unclean.leader.election.enable" || k == "retention.ms" {
			return nil
		}
		return fmt.Errorf("unknown topic config name: %s", k)
	}
	cfg.Configs.List = func(_ int8, k string) (bool, string) { return k == "cleanup.policy", "delete" }
	w := &world{
		c: New(cfg), img: image.Empty(), now: time.Unix(1000, 0), rand: rand.New(rand.NewPCG(1, 2)),
		live: map[int]int{}, names: map[string]string{model.DirUnassigned.String(): "unassigned", model.DirLost.String(): "lost", model.UUID{0xcc}.String(): "c100"},
	}
	return w
}

func (w *world) env() Env {
	return Env{Now: w.now, Image: w.img, Next: w.img.Offset() + 1, Rand: w.rand}
}

// commit applies a result as the quorum does.
func (w *world) commit(r Result) error {
	recs := r.Records
	if len(recs) == 0 {
		return nil
	}
	if r.Txn {
		recs = append(append([]record.Metadata{record.NewBeginTransactionRecord()}, recs...), record.NewEndTransactionRecord())
	}
	img, delta, err := w.img.Apply(w.img.Offset()+1, 1, recs)
	if err != nil {
		return err
	}
	w.img, w.log = img, append(w.log, recs...)
	w.c.Replay(delta)
	for t := range img.Topics() {
		w.names[t.ID.String()] = "t." + t.Name
	}
	return nil
}

// checkReplay holds the image against one made of all records at once.
func (w *world) checkReplay(t tb) {
	t.Helper()
	img, _, err := image.Empty().Apply(0, 1, w.log)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := dump(img), dump(w.img); a != b {
		t.Errorf("replay gives\n%s\nlive is\n%s", a, b)
	}
}

func dump(img *image.Image) string {
	var b strings.Builder
	for r := range img.Records() {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// args are a command's words: plain ones and key=value.
type args struct {
	words []string
	keys  map[string][]string
}

func parse(line string) (string, args) {
	list := strings.Fields(line)
	a := args{keys: map[string][]string{}}
	for _, word := range list[1:] {
		if k, v, ok := strings.Cut(word, "="); ok {
			a.keys[k] = append(a.keys[k], v)
		} else {
			a.words = append(a.words, word)
		}
	}
	return list[0], a
}

func (a args) has(word string) bool { return slices.Contains(a.words, word) }

func (a args) num(key string, def int64) int64 {
	if v := a.keys[key]; len(v) > 0 {
		n, err := strconv.ParseInt(v[0], 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	return def
}

func (a args) broker() int { return int(must(strconv.Atoi(a.words[0]))) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ints reads "1,2,3".
func ints(s string) (out []int32) {
	for f := range strings.SplitSeq(s, ",") {
		if f != "" {
			out = append(out, int32(must(strconv.Atoi(f))))
		}
	}
	return out
}

// dir is the id of a log folder, such as "1a".
func (w *world) dir(name string) model.UUID {
	u := model.UUID{0: 0xdd}
	copy(u[1:], name)
	w.names[u.String()] = "d" + name
	return u
}

// play runs one command and gives what came of it.
func (w *world) play(t tb, line string) string {
	t.Helper()
	name, a := parse(line)
	var out strings.Builder
	show := func(r Result) {
		if r.Response != nil {
			fmt.Fprintln(&out, respond(r.Response))
		}
		if err := w.commit(r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for i, rec := range r.Records {
			if i == 0 && r.Txn {
				out.WriteString("transaction\n")
			}
			fmt.Fprintf(&out, "  %s\n", rec)
		}
	}
	switch name {
	case "activate":
		show(w.c.Activate(w.env()))
	case "sleep":
		w.now = w.now.Add(must(time.ParseDuration(a.words[0])))
	case "tick":
		for _, r := range w.c.Tick(w.env()) {
			show(r)
		}
		if out.Len() == 0 {
			out.WriteString("nothing\n")
		}
	case "partition":
		tp := strings.Split(a.words[0], "/")
		topic, _ := w.img.Topic(tp[0])
		p, _ := topic.Partition(int32(must(strconv.Atoi(tp[1]))))
		fmt.Fprintf(&out, "replicas %v isr %v leader %d epoch %d/%d recovery %d elr %v last %v adding %v removing %v\n",
			p.Replicas, p.ISR, p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.RecoveryState, p.ELR, p.LastKnownELR, p.Adding, p.Removing)
	default:
		req, who := w.request(t, name, a)
		r, err := w.c.Handle(w.env(), req, who)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		show(r)
	}
	return w.rename(out.String())
}

func (w *world) rename(s string) string {
	var pairs []string
	for id, name := range w.names {
		pairs = append(pairs, id, name)
	}
	s = strings.NewReplacer(pairs...).Replace(s)
	return allFeatures.ReplaceAllString(s, "features=…") // a broker's are always the same
}

func (w *world) request(t tb, name string, a args) (kmsg.Request, Requester) {
	t.Helper()
	who := Requester{Local: a.has("local")}
	switch name {
	case "register":
		return w.registration(a), who
	case "beat":
		return w.beat(a), who
	case "unregister":
		req := kmsg.NewPtrUnregisterBrokerRequest()
		req.BrokerID = int32(a.broker())
		return req, who
	case "pids":
		req := kmsg.NewPtrAllocateProducerIDsRequest()
		req.BrokerID, req.BrokerEpoch = int32(a.broker()), w.epoch(a)
		return req, who
	case "create":
		return w.create(a), who
	case "delete":
		return w.delete(a), who
	case "add":
		req := kmsg.NewPtrCreatePartitionsRequest()
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = a.words[0], int32(a.num("count", 0))
		for _, s := range a.keys["assign"] {
			topic.Assignment = append(topic.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: ints(s)})
		}
		req.Topics, req.ValidateOnly = append(req.Topics, topic), a.has("validate")
		return req, who
	case "isr":
		return w.isr(a), who
	case "elect":
		req := kmsg.NewPtrElectLeadersRequest()
		req.ElectionType = int8(a.num("type", 0))
		for _, word := range a.words {
			topic, p, _ := strings.Cut(word, "/")
			req.Topics = append(req.Topics, kmsg.ElectLeadersRequestTopic{Topic: topic, Partitions: ints(p)})
		}
		return req, who
	case "reassign":
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.Version, req.AllowReplicationFactorChange = 1, !a.has("same")
		topic, number, _ := strings.Cut(a.words[0], "/")
		rt := kmsg.AlterPartitionAssignmentsRequestTopic{Topic: topic}
		p := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: ints(number)[0]}
		for _, s := range a.keys["to"] {
			p.Replicas = append([]int32{}, ints(s)...)
		}
		rt.Partitions = append(rt.Partitions, p)
		req.Topics = append(req.Topics, rt)
		return req, who
	case "config", "replace":
		return w.configs(name, a), who
	case "dirs":
		return w.assign(a), who
	}
	t.Fatalf("unknown command %s", name)
	return nil, who
}

// epoch is a broker's epoch, or what epoch= says.
func (w *world) epoch(a args) int64 {
	if b, ok := w.img.Broker(model.NodeID(a.broker())); ok {
		return a.num("epoch", int64(b.Epoch))
	}
	return a.num("epoch", -1)
}

func (w *world) registration(a args) *kmsg.BrokerRegistrationRequest {
	id := a.broker()
	req := kmsg.NewPtrBrokerRegistrationRequest()
	req.Version = 4
	if !a.has("again") {
		w.live[id]++
	}
	req.BrokerID, req.ClusterID = int32(id), w.c.cfg.ClusterID.String()
	req.IncarnationID = model.UUID{0: 0xbb, 1: byte(w.live[id]), 15: byte(id)}
	w.names[model.UUID(req.IncarnationID).String()] = fmt.Sprintf("b%d.%d", id, w.live[id])
	req.PreviousBrokerEpoch = a.num("previous", -1)
	if v := a.keys["cluster"]; v != nil {
		req.ClusterID = v[0]
	}
	if v := a.keys["rack"]; v != nil {
		req.Rack = &v[0]
	}
	dirs := a.keys["dir"]
	if dirs == nil && !a.has("nodirs") {
		dirs = []string{fmt.Sprint(id, "a")}
	}
	for _, d := range dirs {
		if d == "reserved" {
			req.LogDirs = append(req.LogDirs, model.DirLost)
		} else {
			req.LogDirs = append(req.LogDirs, w.dir(d))
		}
	}
	req.Listeners = []kmsg.BrokerRegistrationRequestListener{{Name: "PLAINTEXT", Host: "h", Port: 9092}}
	for _, r := range feature.Supported() {
		if !slices.Contains(a.keys["without"], r.Name) {
			req.Features = append(req.Features, kmsg.BrokerRegistrationRequestFeature{Name: r.Name, MinSupportedVersion: r.Min, MaxSupportedVersion: r.Max})
		}
	}
	return req
}

func (w *world) beat(a args) *kmsg.BrokerHeartbeatRequest {
	req := kmsg.NewPtrBrokerHeartbeatRequest()
	req.Version = 2
	req.BrokerID, req.BrokerEpoch = int32(a.broker()), w.epoch(a)
	req.CurrentMetadataOffset = a.num("offset", int64(w.img.Offset()))
	req.WantFence, req.WantShutdown = a.has("fence"), a.has("shutdown")
	for _, d := range a.keys["offline"] {
		req.OfflineLogDirs = append(req.OfflineLogDirs, w.dir(d))
	}
	for _, d := range a.keys["cordon"] {
		req.CordonedLogDirs = append(req.CordonedLogDirs, w.dir(d))
	}
	return req
}

func (w *world) create(a args) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.ValidateOnly = 7, a.has("validate")
	for _, name := range a.words {
		if name == "validate" {
			continue
		}
		topic := kmsg.NewCreateTopicsRequestTopic()
		if topic.Topic = name; name == "''" {
			topic.Topic = ""
		}
		topic.NumPartitions, topic.ReplicationFactor = int32(a.num("partitions", -1)), int16(a.num("rf", -1))
		for _, s := range a.keys["assign"] {
			p, list, _ := strings.Cut(s, ":")
			topic.ReplicaAssignment = append(topic.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: ints(p)[0], Replicas: ints(list)})
		}
		for _, s := range a.keys["config"] {
			k, v, ok := strings.Cut(s, ":")
			c := kmsg.CreateTopicsRequestTopicConfig{Name: k}
			if ok {
				c.Value = &v
			}
			topic.Configs = append(topic.Configs, c)
		}
		req.Topics = append(req.Topics, topic)
	}
	return req
}

func (w *world) delete(a args) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version = int16(a.num("version", 6))
	if req.Version < 6 {
		req.TopicNames = a.words
		return req
	}
	for i := range a.words {
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &a.words[i]})
	}
	for _, name := range a.keys["id"] {
		id := model.UUID{7}
		if t, ok := w.img.Topic(name); ok {
			id = t.ID
		}
		if name == "zero" {
			id = model.ZeroUUID
		}
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{TopicID: id})
	}
	for _, name := range a.keys["both"] {
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &name, TopicID: model.UUID{7}})
	}
	return req
}

// isr is AlterPartition: "isr 1 t/0 to=1,2", the epochs as they are unless given.
func (w *world) isr(a args) *kmsg.AlterPartitionRequest {
	req := kmsg.NewPtrAlterPartitionRequest()
	req.Version = 3
	req.BrokerID, req.BrokerEpoch = int32(a.broker()), w.epoch(a)
	name, number, _ := strings.Cut(a.words[1], "/")
	p := kmsg.NewAlterPartitionRequestTopicPartition()
	topic := kmsg.AlterPartitionRequestTopic{TopicID: model.UUID{7}}
	p.Partition = ints(number)[0]
	var is image.Partition
	if t, ok := w.img.Topic(name); ok {
		topic.TopicID = t.ID
		if have, ok := t.Partition(p.Partition); ok {
			is = *have
		}
	}
	p.LeaderEpoch, p.PartitionEpoch = int32(a.num("leaderEpoch", int64(is.LeaderEpoch))), int32(a.num("partitionEpoch", int64(is.PartitionEpoch)))
	p.LeaderRecoveryState = int8(a.num("recovery", 0))
	for _, id := range ints(a.keys["to"][0]) {
		e := kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: id, BrokerEpoch: -1}
		if b, ok := w.img.Broker(model.NodeID(id)); ok {
			e.BrokerEpoch = a.num("memberEpoch", int64(b.Epoch))
		}
		p.NewEpochISR = append(p.NewEpochISR, e)
	}
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	return req
}

// configs: "config 2:t set=k:v delete=k append=k:v subtract=k:v", "replace 2:t set=k:v".
func (w *world) configs(name string, a args) kmsg.Request {
	typ, res, _ := strings.Cut(a.words[0], ":")
	resource := kmsg.ConfigResourceType(must(strconv.Atoi(typ)))
	if name == "replace" {
		req := kmsg.NewPtrAlterConfigsRequest()
		r := kmsg.AlterConfigsRequestResource{ResourceType: resource, ResourceName: res}
		for _, s := range a.keys["set"] {
			k, v, _ := strings.Cut(s, ":")
			r.Configs = append(r.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: k, Value: &v})
		}
		req.Resources = append(req.Resources, r)
		return req
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.ValidateOnly = a.has("validate")
	r := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: resource, ResourceName: res}
	for op, key := range []string{"set", "delete", "append", "subtract"} {
		for _, s := range a.keys[key] {
			k, v, ok := strings.Cut(s, ":")
			c := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: k, Op: kmsg.IncrementalAlterConfigOp(op)}
			if ok {
				c.Value = &v
			}
			r.Configs = append(r.Configs, c)
		}
	}
	req.Resources = append(req.Resources, r)
	return req
}

// assign is AssignReplicasToDirs: "dirs 1 t/0 to=1b".
func (w *world) assign(a args) *kmsg.AssignReplicasToDirsRequest {
	req := kmsg.NewPtrAssignReplicasToDirsRequest()
	req.BrokerID, req.BrokerEpoch = int32(a.broker()), w.epoch(a)
	name, number, _ := strings.Cut(a.words[1], "/")
	topic := kmsg.AssignReplicasToDirsRequestDirectoryTopic{TopicID: model.UUID{7}}
	if t, ok := w.img.Topic(name); ok {
		topic.TopicID = t.ID
	}
	topic.Partitions = []kmsg.AssignReplicasToDirsRequestDirectoryTopicPartition{{Partition: ints(number)[0]}}
	req.Directories = []kmsg.AssignReplicasToDirsRequestDirectory{{ID: w.dir(a.keys["to"][0]), Topics: []kmsg.AssignReplicasToDirsRequestDirectoryTopic{topic}}}
	return req
}

// code names an error code as Kafka does.
func code(c int16) string {
	if c == 0 {
		return "NONE"
	}
	return fmt.Sprintf("%d %s", c, kerr.TypedErrorForCode(c).Message)
}

func said(c int16, text *string) string {
	if text == nil {
		return code(c)
	}
	return code(c) + ": " + *text
}

// respond is a response on a line or a few.
func respond(resp kmsg.Response) string {
	var b strings.Builder
	switch r := resp.(type) {
	case *kmsg.BrokerRegistrationResponse:
		fmt.Fprintf(&b, "%s epoch %d", code(r.ErrorCode), r.BrokerEpoch)
	case *kmsg.BrokerHeartbeatResponse:
		fmt.Fprintf(&b, "%s caughtUp %t fenced %t shutdown %t", code(r.ErrorCode), r.IsCaughtUp, r.IsFenced, r.ShouldShutdown)
	case *kmsg.UnregisterBrokerResponse:
		b.WriteString(said(r.ErrorCode, r.ErrorMessage))
	case *kmsg.AllocateProducerIDsResponse:
		fmt.Fprintf(&b, "%s from %d, %d", code(r.ErrorCode), r.ProducerIDStart, r.ProducerIDLen)
	case *kmsg.CreateTopicsResponse:
		for _, t := range r.Topics {
			fmt.Fprintf(&b, "%s: %s", t.Topic, said(t.ErrorCode, t.ErrorMessage))
			if t.ErrorCode == 0 {
				fmt.Fprintf(&b, ", partitions %d, rf %d, id %s", t.NumPartitions, t.ReplicationFactor, model.UUID(t.TopicID))
			}
			b.WriteString("\n")
		}
	case *kmsg.DeleteTopicsResponse:
		for _, t := range r.Topics {
			name := "?"
			if t.Topic != nil {
				name = *t.Topic
			}
			fmt.Fprintf(&b, "%s: %s\n", name, said(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.CreatePartitionsResponse:
		for _, t := range r.Topics {
			fmt.Fprintf(&b, "%s: %s\n", t.Topic, said(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.AlterPartitionResponse:
		fmt.Fprintf(&b, "%s\n", code(r.ErrorCode))
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(&b, "partition %d: %s leader %d epoch %d/%d isr %v recovery %d\n", p.Partition, code(p.ErrorCode), p.LeaderID, p.LeaderEpoch, p.PartitionEpoch, p.ISR, p.LeaderRecoveryState)
			}
		}
	case *kmsg.AlterPartitionAssignmentsResponse:
		fmt.Fprintf(&b, "%s\n", said(r.ErrorCode, r.ErrorMessage))
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(&b, "%s-%d: %s\n", t.Topic, p.Partition, said(p.ErrorCode, p.ErrorMessage))
			}
		}
	case *kmsg.ElectLeadersResponse:
		fmt.Fprintf(&b, "%s\n", code(r.ErrorCode))
		for _, t := range r.Topics {
			fmt.Fprintf(&b, "%s\n", t.Topic)
			for _, p := range t.Partitions {
				fmt.Fprintf(&b, "  %d: %s\n", p.Partition, said(p.ErrorCode, p.ErrorMessage))
			}
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		for _, t := range r.Resources {
			fmt.Fprintf(&b, "%s %q: %s\n", t.ResourceType, t.ResourceName, said(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.AlterConfigsResponse:
		for _, t := range r.Resources {
			fmt.Fprintf(&b, "%s %q: %s\n", t.ResourceType, t.ResourceName, said(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.AssignReplicasToDirsResponse:
		fmt.Fprintf(&b, "%s\n", code(r.ErrorCode))
		for _, d := range r.Directories {
			for _, t := range d.Topics {
				for _, p := range t.Partitions {
					fmt.Fprintf(&b, "partition %d: %s\n", p.Partition, code(p.ErrorCode))
				}
			}
		}
	default:
		fmt.Fprintf(&b, "%+v", resp)
	}
	return strings.TrimRight(b.String(), "\n")
}
