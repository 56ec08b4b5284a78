package hbone_test

import (
	"context"
	"io"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// An extended CONNECT brings its protocol and path to the handler, and carries
// bytes like any other.
func TestExtendedConnect(t *testing.T) {
	seen := make(chan string, 1)
	tn := newTunnel(t, hbone.Config{Protocol: "connect-udp"}, func(_ context.Context, in *hbone.Incoming) {
		seen <- in.Protocol + " " + in.Path + " " + in.Authority
		s, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		c := s.Conn(in.LocalAddr, in.RemoteAddr)
		_, _ = io.Copy(c, c)
		_ = c.Close()
	})
	s, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "10.0.0.1:15008", Protocol: "connect-udp", Path: "/a/b/"})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "connect-udp /a/b/ 10.0.0.1:15008" {
		t.Errorf("handler saw %q", got)
	}
	c := s.Conn(nil, nil)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
}
