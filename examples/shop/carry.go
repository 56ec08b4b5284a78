package main

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
)

// carried are the headers that a program which serves a request passes on with
// the calls that it makes for it: they belong to the whole purchase.
var carried = [...]string{"Traceparent", "Tracestate", "Baggage", "B3", "X-Request-Id", "X-Group"}

// carry passes headers on from a request to one that is made for it.
func carry(from, to http.Header) {
	for _, name := range carried {
		if v := from.Values(name); len(v) > 0 {
			to[name] = v
		}
	}
}

// carryRPC does the same for calls.
func carryRPC(ctx context.Context, from http.Header) context.Context {
	md := metadata.MD{}
	for _, name := range carried {
		if v := from.Values(name); len(v) > 0 {
			md.Set(strings.ToLower(name), v...)
		}
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// maxSeen is how many ids are remembered.
const maxSeen = 1000

// sightings counts how often a server has seen the id of a request.
type sightings struct {
	mu    sync.Mutex
	count map[string]int // guarded by mu
	order []string       // of first sight; guarded by mu
}

// note counts one more and gives their number.
func (s *sightings) note(id string) int {
	if id == "" {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[string]int)
	}
	if s.count[id]++; s.count[id] == 1 {
		s.order = append(s.order, id)
	}
	if len(s.order) > maxSeen {
		delete(s.count, s.order[0])
		s.order = s.order[1:]
	}
	return s.count[id]
}

// of gives the number of times that an id was seen.
func (s *sightings) of(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[id]
}
