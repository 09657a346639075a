package controller

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/record"
)

// handle decides and commits a request.
func handle[R kmsg.Response](t *testing.T, w *world, req kmsg.Request) (R, []record.Metadata) {
	t.Helper()
	r, err := w.c.Handle(w.env(), req, Requester{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.commit(r); err != nil {
		t.Fatal(err)
	}
	return r.Response.(R), r.Records
}

func acl(resource int8, name string, pattern int8, principal, host string, op, permission int8) kmsg.CreateACLsRequestCreation {
	return kmsg.CreateACLsRequestCreation{
		ResourceType: kmsg.ACLResourceType(resource), ResourceName: name, ResourcePatternType: kmsg.ACLResourcePatternType(pattern),
		Principal: principal, Host: host, Operation: kmsg.ACLOperation(op), PermissionType: kmsg.ACLPermissionType(permission),
	}
}

func createACLs(list ...kmsg.CreateACLsRequestCreation) *kmsg.CreateACLsRequest {
	req := kmsg.NewPtrCreateACLsRequest()
	req.Version, req.Creations = 3, list
	return req
}

func TestACLsAreJudgedOneByOne(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	good := acl(2, "orders", 3, "User:alice", "*", 3, 3)
	for _, test := range []struct {
		want kmsg.CreateACLsRequestCreation
		code int16
	}{
		{good, 0},
		{acl(4, "kafka-cluster", 3, "User:alice", "10.0.0.0/8", 9, 3), 0},
		{acl(2, "orders", 3, "User:alice", "10.0.0.0/99", 3, 3), 42},
		{acl(2, "orders", 3, "User:alice", "", 3, 3), 42},
		{acl(4, "other", 3, "User:alice", "*", 9, 3), 42},
		{acl(2, "", 3, "User:alice", "*", 3, 3), 42},
		{acl(1, "x", 3, "User:alice", "*", 3, 3), 42},
		{acl(8, "x", 3, "User:alice", "*", 3, 3), 42},
		{acl(2, "x", 2, "User:alice", "*", 3, 3), 42},
		{acl(2, "x", 3, "alice", "*", 3, 3), 42},
		{acl(2, "x", 3, "User:alice", "*", 1, 3), 42},
		{acl(2, "x", 3, "User:alice", "*", 3, 1), 42},
	} {
		resp, recs := handle[*kmsg.CreateACLsResponse](t, w, createACLs(test.want))
		if got := resp.Results[0].ErrorCode; got != test.code || (got == 0) != (len(recs) == 1) {
			t.Errorf("%+v: %d with %d records, expected %d", test.want, got, len(recs), test.code)
		}
	}
	if resp, recs := handle[*kmsg.CreateACLsResponse](t, w, createACLs(good, good)); resp.Results[0].ErrorCode != 0 || len(recs) != 0 {
		t.Errorf("one that exists: %+v, %v", resp.Results, recs)
	}
}

func TestACLFilters(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	handle[*kmsg.CreateACLsResponse](t, w, createACLs(
		acl(2, "orders", 3, "User:alice", "*", 3, 3),
		acl(2, "or", 4, "User:bob", "*", 4, 3),
		acl(2, "*", 3, "User:carol", "*", 3, 2),
		acl(2, "other", 3, "User:dave", "1.2.3.4", 3, 3),
		acl(3, "orders", 3, "User:erin", "*", 3, 3),
	))
	filter := func(resource int8, name string, pattern int8) kmsg.DeleteACLsRequestFilter {
		f := kmsg.DeleteACLsRequestFilter{
			ResourceType: kmsg.ACLResourceType(resource), ResourcePatternType: kmsg.ACLResourcePatternType(pattern), Operation: 1, PermissionType: 1,
		}
		if name != "" {
			f.ResourceName = &name
		}
		return f
	}
	for _, test := range []struct {
		f    kmsg.DeleteACLsRequestFilter
		want string
	}{
		{filter(2, "orders", 3), "alice"},
		{filter(2, "orders", 2), "alice bob carol"},
		{filter(2, "orders", 1), "alice"},
		{filter(2, "or", 4), "bob"},
		{filter(1, "orders", 1), "alice erin"},
		{filter(2, "", 2), "alice bob carol dave"},
		{filter(2, "zzz", 2), "carol"},
	} {
		var found []string
		for a := range w.img.ACLs() {
			if finds(&test.f, a) {
				found = append(found, strings.TrimPrefix(a.Principal, "User:"))
			}
		}
		slices.Sort(found)
		if got := strings.Join(found, " "); got != test.want {
			t.Errorf("type %d, name %v, pattern %d finds %q, expected %q", test.f.ResourceType, test.f.ResourceName, test.f.ResourcePatternType, got, test.want)
		}
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	req.Version = 3
	req.Filters = []kmsg.DeleteACLsRequestFilter{filter(2, "orders", 2), filter(2, "orders", 3), filter(0, "x", 3)}
	resp, recs := handle[*kmsg.DeleteACLsResponse](t, w, req)
	if len(resp.Results[0].MatchingACLs) != 3 || len(resp.Results[1].MatchingACLs) != 1 || resp.Results[2].ErrorCode != 42 || len(recs) != 3 {
		t.Errorf("%+v with %d records", resp.Results, len(recs))
	}
	w.checkReplay(t)
}

// The example of RFC 7677: user "user", password "pencil".
func TestScramKeepsWhatRFC7677Says(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	salted, err := pbkdf2.Key(sha256.New, "pencil", salt, 4096, 32)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "user", Mechanism: 1, Iterations: 4096, Salt: salt, SaltedPassword: salted}}
	resp, _ := handle[*kmsg.AlterUserSCRAMCredentialsResponse](t, w, req)
	if resp.Results[0].ErrorCode != 0 {
		t.Fatal(resp.Results)
	}
	got, ok := w.img.ScramUser("user", 1)
	if !ok {
		t.Fatal("not there")
	}
	if s := base64.StdEncoding.EncodeToString(got.StoredKey); s != "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=" {
		t.Errorf("stored key %s", s)
	}
	if s := base64.StdEncoding.EncodeToString(got.ServerKey); s != "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=" {
		t.Errorf("server key %s", s)
	}
}

func TestScramUsersAreAlteredWhollyOrNotAtAll(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	up := func(user string, mechanism int8, iterations int32) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
		return kmsg.AlterUserSCRAMCredentialsRequestUpsertion{Name: user, Mechanism: mechanism, Iterations: iterations, Salt: []byte{1}, SaltedPassword: []byte{2}}
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "ghost", Mechanism: 1}, {Name: "half", Mechanism: 2}}
	req.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		up("good", 1, 4096), up("good", 2, 8192), up("half", 1, 4096), up("few", 1, 4095), up("many", 1, 16385), up("what", 3, 4096), up("", 1, 4096),
		up("twice", 1, 4096), up("twice", 1, 5000),
	}
	resp, recs := handle[*kmsg.AlterUserSCRAMCredentialsResponse](t, w, req)
	var got []string
	for _, r := range resp.Results {
		got = append(got, fmt.Sprint(r.User, "=", r.ErrorCode))
	}
	if want := "[ghost=91 half=91 good=0 few=93 many=93 what=33 =93 twice=92]"; fmt.Sprint(got) != want || len(recs) != 2 {
		t.Errorf("%v with %d records, expected %s", got, len(recs), want)
	}
}

func TestQuotas(t *testing.T) {
	w := newWorld(Config{})
	w.play(t, "activate")
	alice, client, empty := "alice", "app", ""
	set := func(key string, value float64, entity ...kmsg.AlterClientQuotasRequestEntryEntity) (int16, int) {
		req := kmsg.NewPtrAlterClientQuotasRequest()
		req.Entries = []kmsg.AlterClientQuotasRequestEntry{{Entity: entity, Ops: []kmsg.AlterClientQuotasRequestEntryOp{{Key: key, Value: value, Remove: value < 0}}}}
		resp, recs := handle[*kmsg.AlterClientQuotasResponse](t, w, req)
		return resp.Entries[0].ErrorCode, len(recs)
	}
	type part = kmsg.AlterClientQuotasRequestEntryEntity
	user, def, ip := part{Type: "user", Name: &alice}, part{Type: "client-id"}, part{Type: "ip", Name: &client}
	for i, test := range []struct {
		key    string
		value  float64
		entity []part
		code   int16
		recs   int
	}{
		{"producer_byte_rate", 1000, []part{user}, 0, 1},
		{"producer_byte_rate", 1000, []part{user}, 0, 0}, // as it is
		{"producer_byte_rate", 1000, []part{def, user}, 0, 1},
		{"producer_byte_rate", 1000, []part{user, def}, 0, 0}, // the same entity
		{"producer_byte_rate", -1, []part{user}, 0, 1},
		{"producer_byte_rate", -1, []part{user}, 0, 0},
		{"producer_byte_rate", 0.5, []part{user}, 42, 0},
		{"request_percentage", 0.5, []part{user}, 0, 1},
		{"request_percentage", 0, []part{user}, 42, 0},
		{"connection_creation_rate", 5, []part{user}, 42, 0},
		{"connection_creation_rate", 5, []part{ip}, 0, 1},
		{"connection_creation_rate", 5, []part{ip, user}, 42, 0},
		{"producer_byte_rate", 5, nil, 42, 0},
		{"producer_byte_rate", 5, []part{user, user}, 42, 0},
		{"producer_byte_rate", 5, []part{{Type: "user", Name: &empty}}, 42, 0},
		{"producer_byte_rate", 5, []part{{Type: "group", Name: &alice}}, 42, 0},
		{"nonsense", 5, []part{user}, 42, 0},
	} {
		if code, recs := set(test.key, test.value, test.entity...); code != test.code || recs != test.recs {
			t.Errorf("%d: %s=%v: code %d with %d records, expected %d with %d", i, test.key, test.value, code, recs, test.code, test.recs)
		}
	}
	w.checkReplay(t)
}
