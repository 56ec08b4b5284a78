package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// TestServer: nobody is answered before there is a mesh to judge by, and the end does
// not wait for who says nothing.
func TestServer(t *testing.T) {
	borrowed := httptest.NewUnstartedServer(nil)
	borrowed.StartTLS()
	defer borrowed.Close()
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())

	asked := make(chan struct{})
	h, _ := handler(t, meshFunc(func(graph.Object) []compile.Finding { close(asked); return nil }), never)
	after := make(chan struct{})
	s, err := Listen("127.0.0.1:0", &tls.Config{Certificates: borrowed.TLS.Certificates, MinVersion: tls.VersionTLS13}, h, after, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	answered := make(chan error, 1)
	go func() {
		resp, err := (&http.Client{Transport: transport}).Post("https://"+s.Addr().String()+"/", "application/json", bytes.NewReader(review("HTTPRoute", someRoute)))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Errorf("answered over %s", resp.Proto)
			}
		}
		answered <- err
	}()
	select {
	case <-asked:
		t.Error("asked before there is a mesh")
	default:
	}
	close(after)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	<-asked

	silent, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

// A stop before there is a mesh closes the port.
func TestStopBeforeTheMesh(t *testing.T) {
	s, err := Listen("127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13}, http.NotFoundHandler(), nil, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := Listen("nowhere:0", &tls.Config{MinVersion: tls.VersionTLS13}, http.NotFoundHandler(), nil, zaptest.NewLogger(t)); err == nil {
		t.Error("an address that there is not is listened on")
	}
}
