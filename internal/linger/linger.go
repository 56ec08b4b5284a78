// Package linger closes connections without losing what is on its way. Closing a socket
// with bytes unread, or before its peer has sent its last, resets the connection, and a
// reset discards what the peer has not got or read yet: the alert or GOAWAY that says why
// it ends, and the rest of what it was sent.
package linger

import (
	"net"
	"sync"
	"time"
)

// Longest is how many times its patience a Linger waits for a peer that goes on sending.
const Longest = 3

// Linger waits for the peer of a connection that nothing more is sent on.
type Linger struct {
	conn  net.Conn
	brief time.Duration

	mu       sync.Mutex
	patience time.Duration // guarded by mu
	last     time.Time     // when it is over in any case; zero before Close; guarded by mu
}

// New makes one that waits briefly: for as long as the connection takes to end, and no
// longer, whatever the peer sends.
func New(conn net.Conn, brief time.Duration) *Linger {
	return &Linger{conn: conn, brief: brief, patience: brief}
}

// Patient has Close wait until the peer has been silent for d, and Longest times that at
// most. It does nothing if d is no more than a brief wait, or once Close waits.
func (l *Linger) Patient(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.IsZero() {
		l.patience = max(l.brief, d)
	}
}

// Hurry makes what is left of the wait a brief one. It may be called at any time.
func (l *Linger) Hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.patience == l.brief {
		return
	}
	l.patience = l.brief
	if !l.last.IsZero() {
		l.last = time.Now().Add(l.brief)
		_ = l.conn.SetReadDeadline(l.last)
	}
}

// Close reads into scrap until the peer has closed its end, or the wait is over, and closes
// the connection.
func (l *Linger) Close(scrap []byte) {
	for {
		l.extend()
		if _, err := l.conn.Read(scrap); err != nil {
			_ = l.conn.Close()
			return
		}
	}
}

func (l *Linger) extend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.last.IsZero() {
		l.last = now.Add(l.brief)
		if l.patience > l.brief {
			l.last = now.Add(Longest * l.patience)
		}
	}
	until := now.Add(l.patience)
	if until.After(l.last) {
		until = l.last
	}
	_ = l.conn.SetReadDeadline(until)
}
