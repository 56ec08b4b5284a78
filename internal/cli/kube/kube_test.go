package kube

import (
	"net"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// An API server that takes the connection and never says a word is given up.
func TestSilentServer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = serverVersion(&rest.Config{Host: "https://" + l.Addr().String()}, 50*time.Millisecond)
	if err == nil || !Unreachable(&UnreachableError{err}) || !strings.Contains(err.Error(), "Timeout") && !strings.Contains(err.Error(), "deadline") {
		t.Errorf("%v", err)
	}
}
