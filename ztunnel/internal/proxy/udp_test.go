package proxy

import (
	"net/netip"
	"testing"
	"time"
)

// A flood from one address takes neither the room of others nor more than its own.
func TestSessionLimits(t *testing.T) {
	table := newSessions()
	get := func(from string, port uint16) *session {
		key := flowKey{netip.AddrPortFrom(netip.MustParseAddr(from), port), netip.MustParseAddrPort("10.0.0.1:53")}
		s, _ := table.get(key, maxOfSource, func() *session { return newSession(key, &connection{}) })
		return s
	}
	for port := range uint16(maxOfSource) {
		if get("10.0.0.7", port+1) == nil {
			t.Fatal("no room at all")
		}
	}
	table.mu.Lock()
	for _, s := range table.all {
		s.last.Store(time.Now().Add(-2 * evictAfter).UnixNano())
	}
	table.mu.Unlock()
	if get("10.0.0.7", 9999) == nil || len(table.all) != maxOfSource {
		t.Error("a quiet session was not given up for a new one")
	}
	had := 0
	for port := range uint16(maxOfSource + 100) {
		if get("10.0.0.9", port+1) != nil {
			had++
		}
	}
	if had != maxOfSource {
		t.Errorf("one address got %d sessions, want %d", had, maxOfSource)
	}
	table.sweep(time.Now().Add(udpShort))
	table.sweep(time.Now().Add(udpShort)) // ends, and forgets
	s := get("10.0.0.8", 1)
	if s == nil {
		t.Fatal("another address got none")
	}
	for i := range maxPending + 1 {
		if drop := s.offer([]byte("x")); (drop != "") != (i == maxPending) {
			t.Errorf("datagram %d: %q", i, drop)
		}
	}
	s.end()
	if drop := s.offer([]byte("x")); drop != dropRefused {
		t.Errorf("after the end: %q", drop)
	}
	table.sweep(time.Now().Add(udpRefused))
	if len(table.all) != 0 {
		t.Errorf("%d sessions that are over are known", len(table.all))
	}
	long := get("10.0.0.8", 2)
	for range fewDatagrams {
		long.touch()
	}
	if table.sweep(time.Now().Add(udpShort)); long.over {
		t.Error("a session that was busy ended early")
	}
	table.sweep(time.Now().Add(udpIdle))
	table.sweep(time.Now().Add(udpIdle))
	if len(table.all) != 0 || len(table.from) != 0 {
		t.Errorf("%d sessions of %d addresses are left", len(table.all), len(table.from))
	}
}

// A client that comes again with the port of a session that has ended, as any
// may that takes a new port for each question, gets a new one at once; only what came
// to nothing is dropped for a while.
func TestPortIsUsedAgain(t *testing.T) {
	table := newSessions()
	key := flowKey{netip.MustParseAddrPort("10.0.0.7:40000"), netip.MustParseAddrPort("10.0.0.1:53")}
	get := func() (*session, bool) {
		return table.get(key, maxOfSource, func() *session { return newSession(key, &connection{}) })
	}
	first, _ := get()
	first.ready(func([]byte) error { return nil })
	if s, isNew := get(); isNew || s != first {
		t.Fatal("a session that goes on was replaced")
	}
	first.end()
	second, isNew := get()
	if !isNew || second == first {
		t.Fatal("the session that has ended was given")
	}
	if drop := second.offer([]byte("x")); drop != "" {
		t.Errorf("the new session dropped a datagram: %s", drop)
	}
	second.end() // before it was ready
	if s, isNew := get(); isNew || s.offer([]byte("x")) != dropRefused {
		t.Error("what came to nothing is tried again at once")
	}
	if n := table.from[key.from.Addr()]; n != 1 {
		t.Errorf("%d sessions of the address are counted, want 1", n)
	}
	table.sweep(time.Now().Add(udpRefused))
	if _, isNew := get(); !isNew {
		t.Error("what came to nothing is remembered for ever")
	}
}
