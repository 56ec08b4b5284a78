package upstream

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// secured is a cluster whose endpoint is a TLS server for example.com, *.example.com
// and 127.0.0.1, as net/http/httptest makes one.
func secured(t *testing.T, http2 bool) (set *Set, c *Cluster, ca string) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-sni", r.TLS.ServerName)
		w.Header().Set("x-proto", r.Proto)
	}))
	srv.EnableHTTP2 = http2
	srv.StartTLS()
	t.Cleanup(srv.Close)
	u, _ := url.Parse(srv.URL)
	set = setOf(t, netip.MustParseAddrPort(u.Host))
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	return set, set.Cluster("ns/svc", 80), ca
}

// setOf is a set with a service, ns/svc, that has an endpoint.
func setOf(t *testing.T, at netip.AddrPort) *Set {
	t.Helper()
	store := wds.New()
	store.Update(func(ch wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"ns/svc": {Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
				Name: "svc", Namespace: "ns", Hostname: "svc", Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: uint32(at.Port())}},
			}}},
			"w": {Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{
				Uid: "w", Name: "w", Namespace: "ns", Addresses: [][]byte{at.Addr().AsSlice()}, Services: map[string]*workloadpb.PortList{"ns/svc": {}},
			}}},
		} {
			if err := ch.Put(name, a); err != nil {
				t.Fatal(err)
			}
		}
	})
	d := &Dialer{}
	d.Open()
	set := NewSet(Config{Store: store, Dialer: d})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		set.Close(ctx)
		d.Close(ctx)
	})
	return set
}

func send(t *testing.T, c *Cluster, proto waypoint.Protocol) (*message.Response, error) {
	t.Helper()
	e, err := c.Choose(Pick{})
	if err != nil {
		t.Fatal(err)
	}
	req := &message.Request{Method: "GET", Scheme: "https", Authority: "svc", Path: "/", Version: message.HTTP11}
	resp, _, err := c.RoundTrip(t.Context(), e, &Client{}, proto, 0, req, nil)
	if err == nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	return resp, err
}

func TestTLSToBackends(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(b *waypoint.BackendTLS)
		proto  waypoint.Protocol
		old    bool // the server speaks HTTP/1.1 only
		want   string
	}{
		"name":         {},
		"another host": {change: func(b *waypoint.BackendTLS) { b.Hostname = "elsewhere.org" }, want: "elsewhere.org"},
		"another host, and a name": {change: func(b *waypoint.BackendTLS) {
			b.Hostname, b.DnsNames = "elsewhere.org", []string{"x.org", "example.com"}
		}},
		"a name that it has not":    {change: func(b *waypoint.BackendTLS) { b.DnsNames = []string{"x.org"} }, want: "none of the subject alternative names x.org"},
		"a URI that it has not":     {change: func(b *waypoint.BackendTLS) { b.Uris = []string{"spiffe://a/b"} }, want: "spiffe://a/b"},
		"a wildcard":                {change: func(b *waypoint.BackendTLS) { b.DnsNames = []string{"*.example.com"} }},
		"a wildcard that is not it": {change: func(b *waypoint.BackendTLS) { b.DnsNames = []string{"*.com.org"} }, want: "*.com.org"},
		"authorities of the system": {change: func(b *waypoint.BackendTLS) { b.CaCertificates, b.SystemCertificates = "", true }, want: "unknown authority"},
		"no authority":              {change: func(b *waypoint.BackendTLS) { b.CaCertificates = "x" }, want: "no CA certificate"},
		"invalid":                   {change: func(b *waypoint.BackendTLS) { b.Invalid = "there is no ConfigMap ns/ca" }, want: "BackendTLSPolicy ns/p: there is no ConfigMap ns/ca"},
		"HTTP/2":                    {proto: waypoint.Protocol_PROTOCOL_HTTP2},
		"HTTP/2 is not spoken":      {proto: waypoint.Protocol_PROTOCOL_HTTP2, old: true, want: "ambit"},
	} {
		t.Run(name, func(t *testing.T) {
			set, c, ca := secured(t, !tc.old)
			b := &waypoint.BackendTLS{Port: 80, Policy: "ns/p", Hostname: "example.com", CaCertificates: ca}
			if tc.change != nil {
				tc.change(b)
			}
			set.SetPolicy("ns/svc", &waypoint.Backend{Tls: []*waypoint.BackendTLS{b}})
			resp, err := send(t, c, tc.proto)
			if tc.want == "" {
				if err != nil || resp.Status != 200 {
					t.Fatalf("%v, %v", resp, err)
				}
				if got := resp.Fields.Get("x-sni"); got != b.GetHostname() {
					t.Errorf("server name %q", got)
				}
				return
			}
			var ce *ConnectError
			if !errors.As(err, &ce) || !errors.Is(err, ErrBackendTLS) {
				t.Fatalf("%v, want a ConnectError of TLS", err)
			}
			if tc.want != "ambit" && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v does not say %q", err, tc.want)
			}
		})
	}
}

// What was verified by a policy that is not the present one carries no request.
func TestTLSPolicyChanges(t *testing.T) {
	for _, proto := range []waypoint.Protocol{waypoint.Protocol_PROTOCOL_HTTP1, waypoint.Protocol_PROTOCOL_HTTP2} {
		t.Run(proto.String(), func(t *testing.T) {
			set, c, ca := secured(t, true)
			b := &waypoint.BackendTLS{Port: 80, Policy: "ns/p", Hostname: "example.com", CaCertificates: ca}
			set.SetPolicy("ns/svc", &waypoint.Backend{Tls: []*waypoint.BackendTLS{b}})
			if _, err := send(t, c, proto); err != nil {
				t.Fatal(err)
			}
			set.SetPolicy("ns/svc", &waypoint.Backend{Tls: []*waypoint.BackendTLS{{Port: 80, Policy: "ns/p", Hostname: "example.com", Invalid: "gone"}}})
			if _, err := send(t, c, proto); !errors.Is(err, ErrBackendTLS) {
				t.Error(err)
			}
			set.SetPolicy("ns/svc", &waypoint.Backend{Tls: []*waypoint.BackendTLS{b}})
			if _, err := send(t, c, proto); err != nil {
				t.Error(err)
			}
		})
	}
}

var _ interface {
	net.Conn
	CloseWrite() error
} = (*tls.Conn)(nil)
