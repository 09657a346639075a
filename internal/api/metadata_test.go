package api

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMetadataAnswersATopicOnceAndIDsBeforeNames(t *testing.T) {
	name := func(s string) kmsg.MetadataRequestTopic { return kmsg.MetadataRequestTopic{Topic: &s} }
	id := func(b byte) kmsg.MetadataRequestTopic { return kmsg.MetadataRequestTopic{TopicID: [16]byte{b}} }
	both := name("c")
	both.TopicID = [16]byte{3}
	for _, c := range []struct {
		ask  []kmsg.MetadataRequestTopic
		want string
	}{
		{[]kmsg.MetadataRequestTopic{name("a"), name("b"), name("a")}, "a b "},
		{[]kmsg.MetadataRequestTopic{id(1), id(2), id(1)}, "1 2 "},
		{[]kmsg.MetadataRequestTopic{name("a"), id(1), both, id(3)}, "1 3 "},
		{nil, ""},
	} {
		got := ""
		for _, t := range once(c.ask) {
			if t.TopicID != [16]byte{} {
				got += string('0'+rune(t.TopicID[0])) + " "
			} else {
				got += *t.Topic + " "
			}
		}
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
