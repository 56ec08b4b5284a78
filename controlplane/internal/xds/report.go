package xds

import (
	"sync"
	"time"
)

// ClientStatus is what the server knows of one stream, for the admin port.
type ClientStatus struct {
	Node string `json:"node"`
	// Workload and Waypoint, as <namespace>/<name>, of a waypoint's stream.
	Workload  string       `json:"workload,omitempty"`
	Waypoint  string       `json:"waypoint,omitempty"`
	ID        string       `json:"id"`
	Peer      string       `json:"peer"`
	Connected time.Time    `json:"connected"`
	Types     []TypeStatus `json:"types"`
}

// TypeStatus is one subscription. Sent and Acked are versions as Apply gives
// them: everything up to them has been sent, and acknowledged.
type TypeStatus struct {
	Type     string    `json:"type"`
	Wildcard bool      `json:"wildcard"`
	Names    int       `json:"names"`
	Sent     uint64    `json:"sent"`
	Acked    uint64    `json:"acked"`
	Pushes   uint64    `json:"pushes"`
	Pushed   uint64    `json:"pushedResources"`
	LastPush time.Time `json:"lastPush,omitzero"`
	Nacks    uint64    `json:"nacks"`
	LastNack string    `json:"lastNack,omitempty"`
}

// report is the part of a client that others than its goroutine read.
type report struct {
	mu     sync.Mutex
	status ClientStatus // guarded by mu; Types in the order of subscription
}

func (r *report) identify(id string) {
	if id == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.ID = clip(id)
}

// update calls f with the status of a type, made if need be.
func (r *report) update(typeURL string, f func(*TypeStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.status.Types {
		if r.status.Types[i].Type == typeURL {
			f(&r.status.Types[i])
			return
		}
	}
	r.status.Types = append(r.status.Types, TypeStatus{Type: typeURL})
	f(&r.status.Types[len(r.status.Types)-1])
}

func (r *report) subscribed(sub *subscription) {
	r.update(sub.typeURL, func(t *TypeStatus) { t.Wildcard, t.Names = sub.all, len(sub.names) })
}

func (r *report) moved(sub *subscription) (changed bool) {
	r.update(sub.typeURL, func(t *TypeStatus) {
		changed = t.Acked != sub.acked || t.Sent != sub.position
		t.Sent, t.Acked = sub.position, sub.acked
	})
	return changed
}

func (r *report) pushed(sub *subscription, names int) {
	now := time.Now()
	r.update(sub.typeURL, func(t *TypeStatus) {
		t.Pushes++
		t.Pushed += uint64(names)
		t.LastPush = now
	})
}

func (r *report) nack(typeURL, detail string) {
	r.update(typeURL, func(t *TypeStatus) { t.Nacks++; t.LastNack = clip(detail) })
}

// lacks says whether a subscriber of the type has not acknowledged a version.
func (r *report) lacks(typeURL string, version uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.status.Types {
		if t := &r.status.Types[i]; t.Type == typeURL {
			return t.Acked < version
		}
	}
	return false
}

// position gives how far a subscription to the type has been sent.
func (r *report) position(typeURL string) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.status.Types {
		if t := &r.status.Types[i]; t.Type == typeURL {
			return t.Sent, true
		}
	}
	return 0, false
}

func (r *report) snapshot() ClientStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Types = append([]TypeStatus(nil), s.Types...)
	return s
}
