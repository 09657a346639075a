package controller

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla.dev/ottla/internal/record"
)

// Bounds of SCRAM's rounds. What a client chose lies in the metadata log and is
// paid for at each login.
const (
	minIterations = 4096
	maxIterations = 16384
)

// scramHash is the hash of a mechanism, nil for an unknown one.
func scramHash(mechanism int8) func() hash.Hash {
	switch mechanism {
	case 1:
		return sha256.New
	case 2:
		return sha512.New
	}
	return nil
}

// A credential is one user's secret for one mechanism.
type credential struct {
	user      string
	mechanism int8
}

// alterScram decides AlterUserScramCredentials v0 (KAFKA.md 10.1). Each user's
// alterations are made together or not at all. Of a password only what proves it
// is kept (RFC 5802): StoredKey and ServerKey.
func (c *Controller) alterScram(env Env, req *kmsg.AlterUserSCRAMCredentialsRequest) Result {
	resp := kmsg.NewPtrAlterUserSCRAMCredentialsResponse()
	var users []string
	errs := map[string]*refusal{}
	recs := map[string][]record.Metadata{}
	seen := map[credential]bool{}
	add := func(k credential, r record.Metadata, e *refusal) {
		if _, known := recs[k.user]; !known {
			users = append(users, k.user)
		}
		if e == nil && seen[k] {
			e = refuse(kerr.DuplicateResource, "A user credential cannot be altered twice in the same request")
		}
		seen[k] = true
		if e != nil && errs[k.user] == nil {
			errs[k.user] = e
		}
		recs[k.user] = append(recs[k.user], r)
	}
	for _, d := range req.Deletions {
		k := credential{d.Name, d.Mechanism}
		e := checkCredential(k)
		if e == nil {
			if _, ok := env.Image.ScramUser(d.Name, d.Mechanism); !ok {
				e = refuse(kerr.ResourceNotFound, "Attempt to delete a user credential that does not exist")
			}
		}
		r := record.NewRemoveUserScramCredentialRecord()
		r.Name, r.Mechanism = d.Name, d.Mechanism
		add(k, r, e)
	}
	for i := range req.Upsertions {
		u := &req.Upsertions[i]
		k := credential{u.Name, u.Mechanism}
		r, e := newCredential(k, u)
		add(k, r, e)
	}
	var out []record.Metadata
	for _, user := range users {
		rr := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		rr.User = user
		if e := errs[user]; e != nil {
			rr.ErrorCode, rr.ErrorMessage = e.code, text(e.text)
		} else {
			out = append(out, recs[user]...)
		}
		resp.Results = append(resp.Results, rr)
	}
	return Result{Records: out, Response: resp}
}

func checkCredential(k credential) *refusal {
	if k.user == "" {
		return refuse(kerr.UnacceptableCredential, "Username must not be empty")
	}
	if scramHash(k.mechanism) == nil {
		return refuse(kerr.UnsupportedSaslMechanism, "Unknown SCRAM mechanism %d", k.mechanism)
	}
	return nil
}

func newCredential(k credential, u *kmsg.AlterUserSCRAMCredentialsRequestUpsertion) (record.Metadata, *refusal) {
	if e := checkCredential(k); e != nil {
		return nil, e
	}
	switch {
	case u.Iterations < minIterations:
		return nil, refuse(kerr.UnacceptableCredential, "Too few iterations")
	case u.Iterations > maxIterations:
		return nil, refuse(kerr.UnacceptableCredential, "Too many iterations")
	case len(u.Salt) == 0 || len(u.SaltedPassword) == 0:
		return nil, refuse(kerr.UnacceptableCredential, "Salt and salted password must not be empty")
	}
	newHash := scramHash(k.mechanism)
	mac := func(key []byte, msg string) []byte {
		m := hmac.New(newHash, key)
		m.Write([]byte(msg))
		return m.Sum(nil)
	}
	stored := newHash()
	stored.Write(mac(u.SaltedPassword, "Client Key"))
	r := record.NewUserScramCredentialRecord()
	r.Name, r.Mechanism, r.Iterations = k.user, k.mechanism, u.Iterations
	r.Salt = slices.Clone(u.Salt)
	r.StoredKey, r.ServerKey = stored.Sum(nil), mac(u.SaltedPassword, "Server Key")
	return r, nil
}
