package api

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla.dev/ottla/internal/broker"
	"ottla.dev/ottla/internal/image"
	"ottla.dev/ottla/internal/model"
)

// topic finds what a request means by a topic's id or name. It is nil without an
// error where the topic exists and this node hosts nothing of it.
func (s *Server) topic(img *image.Image, byID bool, name string, id model.UUID) (*broker.Topic, error) {
	if byID {
		topic := s.cfg.Broker.TopicByID(id)
		if topic == nil {
			if _, ok := img.TopicByID(id); !ok {
				return nil, kerr.UnknownTopicID
			}
		}
		return topic, nil
	}
	topic := s.cfg.Broker.Topic(name)
	if topic == nil {
		if _, ok := img.Topic(name); !ok {
			return nil, kerr.UnknownTopicOrPartition
		}
	}
	return topic, nil
}

// partition finds a hosted partition by name.
func (s *Server) partition(img *image.Image, name string, index int32) (*broker.Partition, error) {
	topic, err := s.topic(img, false, name, model.ZeroUUID)
	if err != nil {
		return nil, err
	}
	if topic != nil {
		if p := topic.Partition(index); p != nil {
			return p, nil
		}
	}
	return nil, missing(img, topic, index)
}

// missing tells a partition that is elsewhere from one that does not exist.
func missing(img *image.Image, topic *broker.Topic, index int32) error {
	if topic == nil {
		return kerr.NotLeaderForPartition
	}
	if t, ok := img.TopicByID(topic.ID); ok {
		if _, ok := t.Partition(index); ok {
			return kerr.NotLeaderForPartition
		}
	}
	return kerr.UnknownTopicOrPartition
}
