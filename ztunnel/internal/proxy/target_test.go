package proxy

import (
	"errors"
	"net/netip"
	"testing"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// pod makes a Pod that knows of one workload, itself, behind one service.
func pod(t testing.TB) (*Pod, *wds.Workload) {
	t.Helper()
	s := wds.New()
	s.Update(func(c wds.Change) {
		for name, a := range map[string]*workloadpb.Address{
			"Kubernetes//Pod/shop/web": {Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{
				Uid: "Kubernetes//Pod/shop/web", Name: "web", Namespace: "shop", Addresses: [][]byte{{10, 0, 0, 1}},
				Services: map[string]*workloadpb.PortList{"shop/web.shop.svc.cluster.local": {Ports: []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 81, TargetPort: 15008}}}},
			}}},
			"shop/web.shop.svc.cluster.local": {Type: &workloadpb.Address_Service{Service: &workloadpb.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}}},
		} {
			if err := c.Put(name, a); err != nil {
				t.Fatal(err)
			}
		}
	})
	return &Pod{cfg: Config{Store: s}, info: Info{Namespace: "shop", Name: "web"}}, s.WorkloadByName("shop", "web")
}

func TestTargetOfAuthority(t *testing.T) {
	p, w := pod(t)
	local := netip.MustParseAddr("10.0.0.1")
	for _, tt := range []struct {
		authority string
		want      string // the target, or
		status    int
	}{
		{authority: "10.0.0.1:8080", want: "10.0.0.1:8080"},
		{authority: "[::ffff:10.0.0.1]:8080", want: "10.0.0.1:8080"},
		{authority: "web.shop.svc.cluster.local:80", want: "10.0.0.1:8080"},
		{authority: "10.0.0.2:8080", status: 400},
		{authority: "127.0.0.1:8080", status: 400},
		{authority: "[::1]:8080", status: 400},
		{authority: "0.0.0.0:8080", status: 400},
		{authority: "[fe80::1%eth0]:8080", status: 400},
		{authority: "10.0.0.1", status: 400},
		{authority: "10.0.0.1:", status: 400},
		{authority: "10.0.0.1:0", status: 400},
		{authority: "10.0.0.1:65536", status: 400},
		{authority: "10.0.0.1:http", status: 400},
		{authority: ":8080", status: 400},
		{authority: "user@10.0.0.1:8080", status: 400},
		{authority: "a/b:80", status: 400},
		{authority: "web.shop.svc.cluster.local:82", status: 503},
		{authority: "other.shop.svc.cluster.local:80", status: 503},
		{authority: "10.0.0.1:15001", status: 503},
		{authority: "10.0.0.1:15006", status: 503},
		{authority: "10.0.0.1:15008", status: 503},
		{authority: "10.0.0.1:15053", status: 503},
		// A service may name one of our ports as its target; that changes nothing.
		{authority: "web.shop.svc.cluster.local:81", status: 503},
	} {
		got, _, err := p.target(tt.authority, local, w)
		var r *refusal
		switch {
		case tt.status == 0 && (err != nil || got.String() != tt.want):
			t.Errorf("%s: %v, %v, want %s", tt.authority, got, err, tt.want)
		case tt.status != 0 && (!errors.As(err, &r) || r.status != tt.status):
			t.Errorf("%s: %v, %v, want status %d", tt.authority, got, err, tt.status)
		}
	}
}

func FuzzTargetOfAuthority(f *testing.F) {
	for _, a := range []string{"10.0.0.1:80", "[::1]:80", "web.shop.svc.cluster.local:80", ":", "[", "%:1", "a@b:1"} {
		f.Add(a)
	}
	p, w := pod(f)
	local := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, authority string) {
		got, _, err := p.target(authority, local, w)
		if err == nil && (got.Addr() != local || got.Port() == 0 || illegalPort(got.Port())) {
			t.Fatalf("%q leads to %s", authority, got)
		}
	})
}

func TestBaggage(t *testing.T) {
	w := &wds.Workload{Namespace: "shop", Type: "deployment", Owner: "web", CanonicalName: "web", CanonicalRevision: "v1"}
	want := "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1"
	if got := baggage(w, "Kubernetes"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
