package compat_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A peerBroker is one of the two brokers, and what is the same for all tellings.
type peerBroker struct {
	*broker
	listeners map[string]string // name to address
	cluster   string
	ranges    map[string]map[kmsg.Key][2]int16 // versions that each listener accepts
}

// A side is one broker during one telling of a case: connections, and what it has
// told so far.
type side struct {
	*peerBroker
	prefix string
	roles  *strings.Replacer
	ports  map[int64]string
	conns  map[string]net.Conn
	corr   int32

	ids      map[string][16]byte // topic by name
	names    map[[16]byte]string
	pids     map[int64]int
	sessions map[int64]int
	vars     map[string]any
	last     *answer
}

func newPeer(b *broker) (*peerBroker, error) {
	p := &peerBroker{broker: b, ranges: map[string]map[kmsg.Key][2]int16{}}
	text, err := os.ReadFile(b.properties())
	if err != nil {
		return nil, err
	}
	voters := regexp.MustCompile(`controller.quorum.voters=1@(\S+)`).FindSubmatch(text)
	p.listeners = map[string]string{"broker": b.addr, "controller": string(voters[1])}
	s := p.side("")
	defer s.close()
	for at := range p.listeners {
		resp := kmsg.NewPtrApiVersionsResponse()
		if err := s.ask(at, 3, &kmsg.ApiVersionsRequest{ClientSoftwareName: "diff", ClientSoftwareVersion: "1"}, resp); err != nil {
			return nil, err
		}
		p.ranges[at] = map[kmsg.Key][2]int16{}
		for _, k := range resp.ApiKeys {
			if k.ApiKey == int16(kmsg.Produce) {
				k.MinVersion = 3 // offered from 0 for the sake of old clients, but not accepted
			}
			p.ranges[at][kmsg.Key(k.ApiKey)] = [2]int16{k.MinVersion, k.MaxVersion}
		}
	}
	resp := kmsg.NewPtrDescribeClusterResponse()
	err = s.ask("broker", 0, kmsg.NewPtrDescribeClusterRequest(), resp)
	p.cluster = resp.ClusterID
	return p, err
}

func (p *peerBroker) side(prefix string) *side {
	s := &side{
		peerBroker: p, prefix: prefix, ports: map[int64]string{}, conns: map[string]net.Conn{},
		ids: map[string][16]byte{}, names: map[[16]byte]string{}, pids: map[int64]int{}, sessions: map[int64]int{},
		vars: map[string]any{"cluster": p.cluster},
	}
	pairs := []string{p.dir, "(folder)", prefix, "$"}
	if p.cluster != "" {
		pairs = append(pairs, p.cluster, "(cluster)")
	}
	for name, addr := range p.listeners {
		_, port, _ := net.SplitHostPort(addr)
		n, _ := strconv.ParseInt(port, 10, 64)
		s.ports[n] = name
		pairs = append(pairs, addr, "("+name+")")
	}
	if prefix == "" {
		pairs[2], pairs[3] = p.dir, "(folder)"
	}
	s.roles = strings.NewReplacer(pairs...)
	return s
}

func (s *side) close() {
	for at := range s.conns {
		s.drop(at)
	}
}

func (s *side) drop(at string) {
	if c := s.conns[at]; c != nil {
		c.Close()
		delete(s.conns, at)
	}
}

var (
	errSilence = errors.New("no reply")
	errClosed  = errors.New("closed without a reply")
)

// exchange sends one request body and gives the reply's, without headers.
func (s *side) exchange(at string, key kmsg.Key, version int16, flexible bool, body []byte, wait time.Duration) ([]byte, error) {
	s.corr++
	if err := s.send(at, key, version, flexible, body); err != nil {
		return nil, err
	}
	return s.receive(at, flexible && key != kmsg.ApiVersions, wait)
}

func (s *side) send(at string, key kmsg.Key, version int16, flexible bool, body []byte) error {
	c, err := s.dial(at)
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(key)<<16|uint32(uint16(version)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(s.corr))
	frame = append(frame, 0, 4, 'd', 'i', 'f', 'f')
	if flexible {
		frame = append(frame, 0)
	}
	frame = append(frame, body...)
	be(frame, len(frame)-4)
	_, _ = c.Write(frame) // a peer that has closed is noticed when reading
	return nil
}

func (s *side) dial(at string) (net.Conn, error) {
	if c := s.conns[at]; c != nil {
		return c, nil
	}
	c, err := net.DialTimeout("tcp", s.listeners[at], 5*time.Second)
	if err == nil {
		s.conns[at] = c
	}
	return c, err
}

func (s *side) receive(at string, tagged bool, wait time.Duration) ([]byte, error) {
	c := s.conns[at]
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		s.drop(at)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errSilence
		}
		return nil, errClosed
	}
	body := make([]byte, u32(head))
	if _, err := io.ReadFull(c, body); err != nil {
		s.drop(at)
		return nil, fmt.Errorf("reply cut: %w", err)
	}
	if len(body) < 4 || int32(u32(body)) != s.corr {
		s.drop(at)
		return nil, fmt.Errorf("reply to another request: %x", body[:min(len(body), 16)])
	}
	body = body[4:]
	if tagged {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("reply header with tags")
		}
		body = body[1:]
	}
	return body, nil
}

// ask is exchange for what must succeed.
func (s *side) ask(at string, version int16, req kmsg.Request, resp kmsg.Response) error {
	req.SetVersion(version)
	resp.SetVersion(version)
	body, err := s.exchange(at, kmsg.Key(req.Key()), version, req.IsFlexible(), req.AppendTo(nil), 20*time.Second)
	if err != nil {
		return err
	}
	return resp.ReadFrom(body)
}

// tell plays a case's steps and gives an answer for each request.
func (s *side) tell(c *diffCase, version int16, listener string) (answers []*answer, err error) {
	defer s.close()
	var until [2]string
	for _, step := range c.steps {
		if err := s.verb(step, &until); err != nil {
			return answers, fmt.Errorf("line %d: %w", step.line, err)
		}
		if step.verb != "" {
			continue
		}
		at := "broker"
		if step.swept {
			at = listener
		}
		if step.at != "" {
			at = step.at
		}
		v := int16(step.version)
		switch {
		case step.swept:
			v = version
		case step.version == -1:
			v = s.ranges[at][step.api][1]
		}
		deadline := time.Now().Add(10 * time.Second)
		for {
			if s.last, err = s.request(step, v, at); err != nil {
				return answers, fmt.Errorf("line %d: %w", step.line, err)
			}
			if until[0] == "" || first(s.last.text[until[0]]) == until[1] || time.Now().After(deadline) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		until = [2]string{}
		answers = append(answers, s.last)
	}
	return answers, nil
}

// first is the first word: the number of an error, not its name.
func first(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// verb does a step that is no request.
func (s *side) verb(step diffStep, until *[2]string) error {
	switch step.verb {
	case "topic":
		return s.topic(step.args)
	case "put":
		return s.put(step.args)
	case "close":
		s.close()
	case "until":
		path, value, _ := strings.Cut(step.args[0].text, "=")
		*until = [2]string{path, value}
	case "let":
		if s.last == nil {
			return errors.New("let: there is no reply before")
		}
		v, ok := s.last.value[step.args[1].text]
		if !ok {
			return fmt.Errorf("let: the reply has no %s but %q", step.args[1].text, s.last.paths)
		}
		s.vars[step.args[0].text] = v
	}
	return nil
}

// request sends a request of a case and describes what comes of it.
func (s *side) request(step diffStep, version int16, at string) (*answer, error) {
	req := kmsg.RequestForKey(int16(step.api))
	defaults(reflect.ValueOf(req))
	req.SetVersion(version)
	if err := s.fill(reflect.ValueOf(req).Elem(), step.fields); err != nil {
		return nil, err
	}
	body := req.AppendTo(nil)
	if raw, ok := step.options["raw"]; ok {
		body = unhex(raw)
	}
	body = append(body, unhex(step.options["extra"])...)
	if n, err := strconv.Atoi(step.options["cut"]); err == nil {
		body = body[:max(0, len(body)-n)]
	}
	if frame, ok := step.options["frame"]; ok {
		return s.frame(at, unhex(frame))
	}
	key := step.api
	if n, err := strconv.Atoi(step.options["key"]); err == nil {
		key = kmsg.Key(n)
	}
	wait := 10 * time.Second
	if d, err := time.ParseDuration(step.options["wait"]); err == nil {
		wait = d
	}
	if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
		return s.withoutReply(at, version, req.IsFlexible(), body)
	}
	reply, err := s.exchange(at, key, version, req.IsFlexible(), body, wait)
	if err != nil {
		return outcome(err.Error()), nil
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	if step.api == kmsg.ApiVersions && (version < 0 || version > 5) {
		resp.SetVersion(0) // for clients that are too new
	}
	if err := resp.ReadFrom(reply); err != nil {
		return outcome(fmt.Sprintf("cannot be decoded: %v", err)), nil
	}
	a := s.describe(resp, reply)
	return a, s.settle(step.api)
}

// frame sends bytes as they are and tells what comes back.
func (s *side) frame(at string, b []byte) (*answer, error) {
	c, err := s.dial(at)
	if err != nil {
		return nil, err
	}
	_, _ = c.Write(b)
	s.corr = 7 // what frames that deserve a reply have
	if _, err := s.receive(at, false, 2*time.Second); err != nil {
		return outcome(err.Error()), nil
	}
	return outcome("a reply"), nil // APIs answer differently long
}

func unhex(text string) []byte {
	b := make([]byte, len(text)/2)
	for i := range b {
		n, _ := strconv.ParseUint(text[2*i:2*i+2], 16, 8)
		b[i] = byte(n)
	}
	return b
}

// withoutReply sends a produce with acks=0 and then asks something else, to see
// whether the connection lives.
func (s *side) withoutReply(at string, version int16, flexible bool, body []byte) (*answer, error) {
	s.corr++
	if err := s.send(at, kmsg.Produce, version, flexible, body); err != nil {
		return nil, err
	}
	if _, err := s.exchange(at, kmsg.ApiVersions, 0, false, nil, 10*time.Second); err != nil {
		return outcome(err.Error()), nil
	}
	return outcome("no reply, connection open"), nil
}

// settle waits after a change until the broker has heard of it. The epoch of
// ApiVersions is the metadata offset that a node has reached.
func (s *side) settle(api kmsg.Key) error {
	switch api {
	case kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.CreatePartitions, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs:
	default:
		return nil
	}
	want, err := s.decided()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		reached, err := s.metadataOffset("broker")
		if err != nil || reached >= want {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the broker is at metadata offset %d, its controller at %d", reached, want)
		}
	}
}

// decided is the offset of the last metadata that is committed. Apache Kafka's
// controllers listen to themselves with a delay, so their quorum is asked.
func (s *side) decided() (int64, error) {
	if _, ok := s.ranges["controller"][kmsg.DescribeQuorum]; !ok {
		return s.metadataOffset("controller")
	}
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = "__cluster_metadata"
	t.Partitions = []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}
	req.Topics = append(req.Topics, t)
	resp := kmsg.NewPtrDescribeQuorumResponse()
	if err := s.ask("controller", 0, req, resp); err != nil {
		return 0, err
	}
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return s.metadataOffset("controller")
	}
	return resp.Topics[0].Partitions[0].HighWatermark - 1, nil
}

func (s *side) metadataOffset(at string) (int64, error) {
	resp := kmsg.NewPtrApiVersionsResponse()
	err := s.ask(at, 3, &kmsg.ApiVersionsRequest{ClientSoftwareName: "diff", ClientSoftwareVersion: "1"}, resp)
	return resp.FinalizedFeaturesEpoch, err
}

// topic creates a topic and waits until its leaders serve.
func (s *side) topic(args []node) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = s.expand(args[0].text), 1, 1
	for _, a := range args[1:] {
		name, value := a.fields[0].name, a.fields[0].value.text
		if name == "partitions" {
			n, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			t.NumPartitions = int32(n)
			continue
		}
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	resp := kmsg.NewPtrCreateTopicsResponse()
	if err := s.ask("broker", 7, req, resp); err != nil {
		return err
	}
	if err := kerrOf(resp.Topics[0].ErrorCode); err != nil {
		return fmt.Errorf("topic %s: %w", t.Topic, err)
	}
	s.learn(reflect.ValueOf(resp).Elem())
	return s.awaitLeaders(t.Topic, t.NumPartitions)
}

func (s *side) awaitLeaders(topic string, partitions int32) error {
	list := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = topic
	for i := range partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = i, -1
		lt.Partitions = append(lt.Partitions, lp)
	}
	list.Topics = append(list.Topics, lt)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		resp := kmsg.NewPtrListOffsetsResponse()
		if err := s.ask("broker", 7, list, resp); err != nil {
			return err
		}
		ready := len(resp.Topics) > 0
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				ready = ready && p.ErrorCode == 0
			}
		}
		if ready {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("topic %s has no leaders", topic)
		}
	}
}

// put produces batches that are no part of the comparison: put topic partition batch(…)….
func (s *side) put(args []node) error {
	for _, a := range args[2:] {
		records, err := s.bytes(a)
		if err != nil {
			return err
		}
		index, err := strconv.Atoi(args[1].text)
		if err != nil {
			return err
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 10000
		t := kmsg.NewProduceRequestTopic()
		t.Topic = s.expand(args[0].text)
		t.Partitions = []kmsg.ProduceRequestTopicPartition{{Partition: int32(index), Records: records}}
		req.Topics = append(req.Topics, t)
		resp := kmsg.NewPtrProduceResponse()
		if err := s.ask("broker", 9, req, resp); err != nil {
			return err
		}
		if err := kerrOf(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
			return fmt.Errorf("put %s: %w", t.Topic, err)
		}
	}
	return nil
}
