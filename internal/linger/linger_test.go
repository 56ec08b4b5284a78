package linger_test

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/linger"
)

const (
	brief = 2 * time.Second
	long  = 20 * time.Second
)

// How long it takes, by what the peer does.
func TestClose(t *testing.T) {
	silent := func(net.Conn) {}
	closes := func(c net.Conn) {
		<-time.After(time.Second)
		_ = c.Close()
	}
	// talks says something each second, as a slow reader does that gives window back.
	talks := func(c net.Conn) {
		for {
			if _, err := c.Write([]byte("window")); err != nil {
				return
			}
			<-time.After(time.Second)
		}
	}
	once := func(c net.Conn) {
		<-time.After(10 * time.Second)
		_, _ = c.Write([]byte("window"))
	}
	for name, tc := range map[string]struct {
		patience time.Duration
		hurry    time.Duration // when; 0 for never
		peer     func(net.Conn)
		want     time.Duration
	}{
		"brief, the peer closes":                 {peer: closes, want: time.Second},
		"brief, the peer is silent":              {peer: silent, want: brief},
		"brief, the peer goes on":                {peer: talks, want: brief},
		"patient, the peer closes":               {patience: long, peer: closes, want: time.Second},
		"patient, the peer is silent":            {patience: long, peer: silent, want: long},
		"patient, the peer says something":       {patience: long, peer: once, want: 10*time.Second + long},
		"patient, the peer goes on":              {patience: long, peer: talks, want: linger.Longest * long},
		"less patient than briefly":              {patience: time.Second, peer: silent, want: brief},
		"patient, and then in a hurry":           {patience: long, hurry: 5 * time.Second, peer: silent, want: 5*time.Second + brief},
		"in a hurry with a peer that goes on":    {patience: long, hurry: 5 * time.Second, peer: talks, want: 5*time.Second + brief},
		"in a hurry, which briefly is as it was": {hurry: time.Second, peer: silent, want: brief},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				left := make(chan struct{})
				go func() {
					defer close(left)
					tc.peer(theirs)
				}()
				l := linger.New(ours, brief)
				if tc.patience > 0 {
					l.Patient(tc.patience)
				}
				if tc.hurry > 0 {
					time.AfterFunc(tc.hurry, l.Hurry)
				}
				began := time.Now()
				l.Close(make([]byte, 16))
				if took := time.Since(began); took != tc.want {
					t.Errorf("took %s, want %s", took, tc.want)
				}
				if _, err := ours.Write([]byte("x")); err == nil {
					t.Error("it is still open")
				}
				_ = theirs.Close()
				<-left
			})
		})
	}
}

// Who is in a hurry before it begins does not wait for long.
func TestHurryBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		l := linger.New(ours, brief)
		l.Patient(long)
		l.Hurry()
		began := time.Now()
		l.Close(make([]byte, 16))
		if took := time.Since(began); took != brief {
			t.Errorf("took %s, want %s", took, brief)
		}
	})
}
