package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// beyond is a set that knows a host outside, at an address which no host outside can
// have: that it is tried shows, and nothing is sent. Port 80 wants TLS, port 81 nothing.
func beyond(t *testing.T) *Set {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	options, err := anypb.New(&workloadpb.ServiceOptions{External: true, Ports: []*workloadpb.NamedPort{
		{Protocol: "tcp", Port: 80, OriginatesTls: true}, {Name: "plain", Protocol: "tcp", Port: 81},
	}})
	if err != nil {
		t.Fatal(err)
	}
	store := wds.New()
	store.Update(func(ch wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"ns/a.example": {Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
				Name: "a", Namespace: "ns", Hostname: "a.example", Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 443}, {ServicePort: 81, TargetPort: 81}},
				Extensions: []*workloadpb.Extension{{Name: workloadpb.ServiceExtension, Config: options}},
			}}},
			"w": {Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{
				Uid: "w", Name: "a/a.example", Namespace: "ns", Addresses: [][]byte{{127, 0, 0, 1}}, Services: map[string]*workloadpb.PortList{"ns/a.example": {}},
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

// Until it is known how TLS is done, and while it cannot be, a host outside that wants
// it is not even connected to, whatever is sent; but for what a client encrypts itself.
func TestNoPlaintextOutside(t *testing.T) {
	for name, tc := range map[string]struct {
		backend *waypoint.Backend
		port    uint16
		want    string // "" is that it is connected to
	}{
		"nothing has come":   {nil, 80, "has not come from the control plane"},
		"of another port":    {&waypoint.Backend{Tls: []*waypoint.BackendTLS{{Port: 81, Policy: "ns/p", Hostname: "a.example", SystemCertificates: true}}}, 80, "has not come"},
		"invalid":            {&waypoint.Backend{Tls: []*waypoint.BackendTLS{{Port: 80, Policy: "ns/p", Invalid: "there is no ConfigMap ns/ca"}}}, 80, "BackendTLSPolicy ns/p: there is no ConfigMap ns/ca"},
		"sound":              {&waypoint.Backend{Tls: []*waypoint.BackendTLS{{Port: 80, Policy: "ns/p", Hostname: "a.example", SystemCertificates: true}}}, 80, ""},
		"a port without TLS": {nil, 81, ""},
	} {
		t.Run(name, func(t *testing.T) {
			set := beyond(t)
			set.SetPolicy("ns/a.example", tc.backend)
			c := set.Cluster("ns/a.example", tc.port)
			if got := c.Secured(); got != (tc.port == 80) {
				t.Errorf("secured: %v", got)
			}
			check := func(what string, err error) {
				t.Helper()
				var connect *ConnectError
				if !errors.As(err, &connect) {
					t.Fatalf("%s: %v", what, err)
				}
				tried := errors.Is(err, ErrProhibited)
				if tried != (tc.want == "") || tried == errors.Is(err, ErrBackendTLS) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: %v, want %q", what, err, tc.want)
				}
			}
			for _, proto := range []waypoint.Protocol{waypoint.Protocol_PROTOCOL_HTTP1, waypoint.Protocol_PROTOCOL_HTTP2} {
				_, err := send(t, c, proto)
				check(proto.String(), err)
			}
			e, err := c.Choose(Pick{})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.Pass(t.Context(), e, &Client{}, 0, false)
			check("bytes", err)
			if _, _, err = c.Pass(t.Context(), e, &Client{}, 0, true); !errors.Is(err, ErrProhibited) {
				t.Errorf("what the client encrypts: %v", err)
			}
		})
	}
}
