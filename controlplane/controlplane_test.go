package controlplane_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func namespace(mode string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {ambit-mesh.io/dataplane-mode: " + mode + "}}\n"
}

func pod(name, node, phase string) string {
	return podAt(name, node, phase, fmt.Sprintf("10.0.1.%d", len(name)))
}

func podAt(name, node, phase, ip string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: shop, uid: uid-%[1]s}
spec: {nodeName: %[2]s, serviceAccountName: %[1]s, containers: [{name: main}]}
status: {phase: %[3]s, podIP: %[4]s, conditions: [{type: Ready, status: "True"}]}
`, name, node, phase, ip)
}

func TestEditReachesClients(t *testing.T) {
	p := newPlane(t, nil)
	p.manifest("ns.yaml", namespace("none"))
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	f := p.follow("n1", compile.TypeAuthorization, compile.TypeAddress)
	testkit.Until(t, "cart known", func() bool { return f.workload("cart") != nil })
	p.manifest("db.yaml", pod("database", "n2", "Running"))
	testkit.Until(t, "database known", func() bool { w := f.workload("database"); return w != nil && w.Node == "n2" })
	if err := os.Remove(filepath.Join(p.cfg.Manifests[0], "cart.yaml")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "cart gone", func() bool { return f.workload("cart") == nil })
	testkit.Until(t, "edit-to-ack measured", func() bool {
		_, body := p.get("http://" + p.MetricsAddr().String() + "/metrics")
		return strings.Contains(string(body), "ambit_controlplane_edit_to_ack_seconds_count 2")
	})
	_, body := p.get(p.adminURL("/debug/clients"))
	if !strings.Contains(string(body), `"node": "n1"`) {
		t.Errorf("clients: %s", body)
	}
	if _, body = p.get(p.adminURL("/config_dump")); !strings.Contains(string(body), "Kubernetes//Pod/shop/database") {
		t.Errorf("config dump: %s", body)
	}
}

func TestMalformedManifestKeepsTheLastGoodState(t *testing.T) {
	p := newPlane(t, nil)
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	f := p.follow("n1", compile.TypeAddress)
	testkit.Until(t, "cart known", func() bool { return f.workload("cart") != nil })

	p.manifest("cart.yaml", strings.Replace(pod("cart", "n1", "Running"), "nodeName: n1", "nodeName: [n1]", 1))
	testkit.Until(t, "problem reported", func() bool { return len(p.debug().Problems) == 1 })
	if at := p.debug().Problems[0].At; !strings.HasSuffix(at, "cart.yaml:4") {
		t.Errorf("problem at %s, want cart.yaml:4", at)
	}
	testkit.Until(t, "problem logged", func() bool {
		logged := p.logs.FilterMessageSnippet("manifest problem").All()
		return len(logged) == 1 && strings.Contains(fmt.Sprint(logged[0].ContextMap()["at"]), "cart.yaml:4")
	})
	p.manifest("db.yaml", pod("database", "n1", "Running"))
	testkit.Until(t, "database known", func() bool { return f.workload("database") != nil })
	if f.workload("cart") == nil {
		t.Error("last good state is gone")
	}
	p.manifest("cart.yaml", pod("cart", "n2", "Running"))
	testkit.Until(t, "mended", func() bool { return f.workload("cart").GetNode() == "n2" && len(p.debug().Problems) == 0 })
}

func TestEnrolAndRelease(t *testing.T) {
	p := newPlane(t, nil)
	p.manifest("ns.yaml", namespace("none"))
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	ztunnel, agent := p.follow("n2", compile.TypeAuthorization, compile.TypeAddress), p.follow("n1", compile.TypePod, compile.TypeNamespace)
	report := p.agent("n1")
	testkit.Until(t, "cart known", func() bool { return ztunnel.workload("cart") != nil })

	p.manifest("ns.yaml", namespace("ambient"))
	testkit.Until(t, "agent told to capture", func() bool { return agent.captured("uid-cart") })
	if ztunnel.workload("cart").TunnelProtocol != workloadpb.TunnelProtocol_NONE {
		t.Fatal("peers told of a tunnel before there is one")
	}
	p.agent("n2", &nodepb.PodState{Uid: "uid-cart", State: nodepb.PodState_CAPTURED}) // not its pod
	report(&nodepb.PodState{Uid: "uid-cart", State: nodepb.PodState_CAPTURED})
	if got := p.debug().Captured; len(got) != 1 || got[0].UID != "uid-cart" {
		t.Fatalf("captured set %v after the acknowledged report", got)
	}
	testkit.Until(t, "peers told of the tunnel", func() bool {
		return ztunnel.workload("cart").TunnelProtocol == workloadpb.TunnelProtocol_HBONE
	})

	ztunnel.holdAcks()
	p.manifest("ns.yaml", namespace("none"))
	testkit.Until(t, "peers told of no tunnel", func() bool {
		return ztunnel.workload("cart").TunnelProtocol == workloadpb.TunnelProtocol_NONE
	})
	p.manifest("marker.yaml", pod("marker", "n1", "Running")) // reaches the agent after what it must not be told
	testkit.Until(t, "agent up to date", func() bool { return agent.get(compile.TypePod, "uid-marker") != nil })
	if !agent.captured("uid-cart") {
		t.Fatal("released before the peers have acknowledged")
	}
	ztunnel.release()
	testkit.Until(t, "agent told to release", func() bool { return !agent.captured("uid-cart") })
	report(&nodepb.PodState{Uid: "uid-cart"})
	if got := p.debug().Captured; len(got) != 0 {
		t.Fatalf("captured set %v after the release", got)
	}
}

func TestReleaseDoesNotWaitForEver(t *testing.T) {
	p := newPlane(t, func(c *controlplane.Config) { c.ReleaseTimeout = 100 * time.Millisecond })
	p.manifest("ns.yaml", namespace("ambient"))
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	ztunnel, agent := p.follow("n2", compile.TypeAddress), p.follow("n1", compile.TypePod)
	p.agent("n1", &nodepb.PodState{Uid: "uid-cart", State: nodepb.PodState_CAPTURED})
	testkit.Until(t, "tunnel", func() bool { return ztunnel.workload("cart").GetTunnelProtocol() == workloadpb.TunnelProtocol_HBONE })
	ztunnel.holdAcks()
	p.manifest("ns.yaml", namespace("none"))
	testkit.Until(t, "agent told to release", func() bool { return agent.get(compile.TypePod, "uid-cart") != nil && !agent.captured("uid-cart") })
	logged := p.logs.FilterMessageSnippet("have not acknowledged").All()
	if len(logged) != 1 || fmt.Sprint(logged[0].ContextMap()["nodes"]) != "[n2]" {
		t.Errorf("logged %+v", logged)
	}
}

func TestRestartKeepsAuthorityAndCapturedSet(t *testing.T) {
	p := newPlane(t, nil)
	p.manifest("ns.yaml", namespace("ambient"))
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	p.agent("n1", &nodepb.PodState{Uid: "uid-cart", State: nodepb.PodState_CAPTURED})
	before, err := os.ReadFile(filepath.Join(p.cfg.StateDir, "root-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.restart()
	after, err := os.ReadFile(filepath.Join(p.cfg.StateDir, "root-cert.pem"))
	if err != nil || string(after) != string(before) {
		t.Fatalf("another root after the restart, %v", err)
	}
	// Nobody reports: what peers are told first must already be the tunnel.
	f := p.follow("n2", compile.TypeAddress)
	testkit.Until(t, "cart known", func() bool { return f.workload("cart") != nil })
	if got := f.workload("cart").TunnelProtocol; got != workloadpb.TunnelProtocol_HBONE {
		t.Fatalf("tunnel protocol %s after the restart", got)
	}
}

func TestAbuseOfTheAuthority(t *testing.T) {
	p := newPlane(t, nil)
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.manifest("job.yaml", pod("job", "n1", "Succeeded"))
	p.manifest("ledger.yaml", pod("ledger", "n2", "Running"))
	p.manifest("brief.yaml", pod("brief", "n1", "Running"))
	p.start()
	const shop = "spiffe://cluster.local/ns/shop/sa/"
	if _, err := p.certify("n1", shop+"brief", &x509.CertificateRequest{}); err != nil {
		t.Fatalf("granted while the pod lives: %v", err)
	}
	f := p.follow("n1", compile.TypeAddress)
	testkit.Until(t, "brief known", func() bool { return f.workload("brief") != nil })
	if err := os.Remove(filepath.Join(p.cfg.Manifests[0], "brief.yaml")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "brief gone", func() bool { return f.workload("brief") == nil })

	foreign, err := url.Parse(shop + "ledger")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		node, id string
		tmpl     x509.CertificateRequest
		code     codes.Code
		reason   string
	}{
		"rightful":             {"n1", shop + "cart", x509.CertificateRequest{}, codes.OK, ""},
		"foreign SAN":          {"n1", shop + "cart", x509.CertificateRequest{URIs: []*url.URL{foreign}}, codes.InvalidArgument, "csr_foreign_san"},
		"pod of another node":  {"n1", shop + "ledger", x509.CertificateRequest{}, codes.PermissionDenied, "not_authorized"},
		"finished pod":         {"n1", shop + "job", x509.CertificateRequest{}, codes.PermissionDenied, "not_authorized"},
		"deleted pod":          {"n1", shop + "brief", x509.CertificateRequest{}, codes.PermissionDenied, "not_authorized"},
		"nobody's identity":    {"n1", shop + "nobody", x509.CertificateRequest{}, codes.PermissionDenied, "not_authorized"},
		"another trust domain": {"n1", "spiffe://evil.example/ns/shop/sa/cart", x509.CertificateRequest{}, codes.PermissionDenied, "trust_domain"},
		"no credentials":       {"", shop + "cart", x509.CertificateRequest{}, codes.Unauthenticated, "missing"},
		"unknown credentials":  {"n9", shop + "cart", x509.CertificateRequest{}, codes.Unauthenticated, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			p.logs.TakeAll()
			_, err := p.certify(tc.node, tc.id, &tc.tmpl)
			if status.Code(err) != tc.code {
				t.Fatalf("%v, want %s", err, tc.code)
			}
			want := "refused"
			if tc.code == codes.OK {
				want = "granted"
			}
			logged := p.logs.FilterMessageSnippet(want).All()
			if len(logged) != 1 {
				t.Fatalf("logged %+v, want one line that says %s", logged, want)
			}
			if got := logged[0].ContextMap()["reason"]; tc.reason != "" && got != tc.reason {
				t.Errorf("reason %v, want %s", got, tc.reason)
			}
		})
	}
}

func TestRotationByAdmin(t *testing.T) {
	p := newPlane(t, func(c *controlplane.Config) {
		c.CertTTL, c.RotationOverlap = 2*time.Second, 2*time.Second
	})
	p.manifest("cart.yaml", pod("cart", "n1", "Running"))
	p.start()
	first := p.debug().CA.Roots[0].Serial
	if code, body := p.do(http.MethodPost, p.adminURL("/ca/rotate")); code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	if code, _ := p.do(http.MethodPost, p.adminURL("/ca/rotate")); code != http.StatusConflict {
		t.Fatalf("second rotation at once: %d", code)
	}
	oldBundle := p.bundle()
	p.dial("n1") // the serving certificate is good for who has the bundle at any time
	// One certificate per state that is seen: who asks at every look runs into the
	// limit of certificates per second on a slow machine.
	asked := ""
	testkit.Until(t, "rotated", func() bool {
		st := p.debug().CA
		if state := fmt.Sprint(st.Phase, st.Roots); state != asked {
			asked = state
			resp, err := p.certify("n1", "spiffe://cluster.local/ns/shop/sa/cart", &x509.CertificateRequest{})
			if err != nil {
				t.Fatal(err)
			}
			p.verify(resp.CertChain, p.bundle())
			if after := p.debug().CA; len(after.Roots) == 2 {
				p.verify(resp.CertChain, oldBundle) // who learned both roots early trusts all leaves
			}
		}
		return st.Phase == "steady" && st.Roots[0].Serial != first
	})
}

func (p *plane) bundle() []byte {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.cfg.StateDir, "root-cert.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

func (p *plane) verify(chain []string, bundle []byte) {
	p.t.Helper()
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, c := range chain[1 : len(chain)-1] {
		inter.AppendCertsFromPEM([]byte(c))
	}
	block, _ := pem.Decode([]byte(chain[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		p.t.Fatal(err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*controlplane.Config)
		want   string
	}{
		"no manifests":         {func(c *controlplane.Config) { c.Manifests = nil }, "--manifests"},
		"manifests missing":    {func(c *controlplane.Config) { c.Manifests = []string{"/nonexistent"} }, "/nonexistent"},
		"no Kubernetes":        {func(c *controlplane.Config) { c.Source = controlplane.SourceKubernetes }, "run ambit-controlplane"},
		"no state directory":   {func(c *controlplane.Config) { c.StateDir = "" }, "--state-dir"},
		"no credentials":       {func(c *controlplane.Config) { c.NodeCredentials = "" }, "--node-credentials"},
		"address without port": {func(c *controlplane.Config) { c.XDSAddress = "localhost" }, "--xds-address"},
		"admin for all":        {func(c *controlplane.Config) { c.AdminAddress = "0.0.0.0:0" }, "loopback"},
		"trust domain":         {func(c *controlplane.Config) { c.TrustDomain = "No Domain" }, "trust domain"},
		"damaged captured set": {func(c *controlplane.Config) {
			if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(c.StateDir, "captured.journal"), []byte("{"), 0o600); err != nil {
				t.Error(err)
			}
		}, "captured.journal is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t, tc.change)
			_, err := controlplane.New(p.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; want one that says %q", err, tc.want)
			}
		})
	}
}
