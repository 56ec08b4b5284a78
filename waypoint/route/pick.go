package route

import (
	"sort"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// PickBackend chooses a backend by weight and a random number. Without a backend,
// or with one that is Invalid, the request is answered with 500 for the reason
// that is given.
func (r *Rule) PickBackend(random uint64) (*Backend, string) {
	if r.Invalid != "" {
		return nil, r.Invalid
	}
	n := len(r.sums)
	if n == 0 || r.sums[n-1] == 0 {
		return nil, r.noBackend()
	}
	x := below(random, r.sums[n-1])
	b := &r.Backends[sort.Search(n, func(i int) bool { return r.sums[i] > x })]
	return b, b.Invalid
}

func (r *Rule) noBackend() string {
	if len(r.Backends) == 0 {
		return r.String() + " has no backend; add one to backendRefs"
	}
	return r.String() + " has only backends of weight 0; give one of them a weight"
}

// Assignment is where a request goes.
type Assignment struct {
	// Backend is nil when there is none; Reason says why, or why it is invalid.
	Backend *Backend
	Reason  string
	// Pinned says that the client's session has named the backend.
	Pinned bool
	// Endpoint is the HashEndpoint of the endpoint that the session has named; 0
	// is none.
	Endpoint uint64

	token Token
}

// Assign chooses a backend: the one of the client's session if the rule has
// sessions and still sends requests there, or else by weight.
func (r *Rule) Assign(req *message.Request, random uint64, now time.Time) Assignment {
	if r.Session != nil && r.Invalid == "" {
		if t, ok := r.Session.Read(req); ok && !r.Session.Expired(t, now) {
			if b := r.backend(t.Backend); b != nil {
				return Assignment{Backend: b, Pinned: true, Endpoint: t.Endpoint, token: t}
			}
		}
	}
	b, reason := r.PickBackend(random)
	return Assignment{Backend: b, Reason: reason}
}

// backend gives a backend that is in use by its ID. One that has become invalid
// does not keep its sessions.
func (r *Rule) backend(id uint64) *Backend {
	for i := range r.Backends {
		if b := &r.Backends[i]; b.ID == id && b.Weight > 0 && b.Invalid == "" {
			return b
		}
	}
	return nil
}

// NextToken gives the token for the endpoint that was chosen, and whether the
// client has to be sent it: because it is new, or because the session has an idle
// timeout, of which at least a tenth has gone by.
func (a Assignment) NextToken(s *Session, endpoint uint64, now time.Time) (Token, bool) {
	if a.Backend == nil || s == nil {
		return Token{}, false
	}
	now = now.Truncate(time.Second)
	next := Token{Backend: a.Backend.ID, Endpoint: endpoint, Created: now, Used: now}
	if !a.Pinned {
		return next, true
	}
	next.Created = a.token.Created
	return next, endpoint != a.token.Endpoint || s.IdleTimeout > 0 && now.Sub(a.token.Used) >= s.IdleTimeout/10
}
