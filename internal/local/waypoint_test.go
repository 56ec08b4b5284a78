package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// fakeWaypoint tells what it was started with and what it finds.
func fakeWaypoint(ctx context.Context) error {
	token, err := os.ReadFile(flagValue("token-file"))
	if err != nil {
		return err
	}
	root, err := os.ReadFile(flagValue("xds-root"))
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(os.Args[1:], " "))
	fmt.Printf("token of %d bytes, root %q, pod %s of %s at %s\n", len(token), root, os.Getenv("POD_NAME"), os.Getenv("POD_NAMESPACE"), os.Getenv("POD_IPS"))
	return listenAndServe(ctx, ":15021", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz/ready" {
			http.NotFound(w, r)
		}
	}), 0)
}

const waypointNamespace = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp}}
`

const waypointGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: big, namespace: shop, annotations: {ambit-mesh.io/waypoint-replicas: "2"}}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`

// workloadsIn gives the pods that the control plane's credentials file names.
func workloadsIn(t *testing.T, m *testMesh) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.state, "credentials", "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Nodes []struct {
			Node, TokenSHA256 string
			Workload          *struct{ Namespace, Pod, UID, ServiceAccount, Gateway string }
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	nodes := 0
	for _, n := range file.Nodes {
		if n.Workload == nil {
			nodes++
			continue
		}
		out[n.Workload.Namespace+"/"+n.Workload.Pod] = n.Node + " " + n.Workload.ServiceAccount + " " + n.Workload.Gateway
	}
	if nodes != 2 {
		t.Errorf("%d nodes in the credentials file, want 2", nodes)
	}
	return out
}

// A namespace's label and a Gateway become pods of their own, each with a token
// that it alone sees, and are gone when they are no longer asked for.
func TestWaypoints(t *testing.T) {
	o := withMesh(t, options(t, map[string]string{"ns.yaml": waypointNamespace, "gateway.yaml": waypointGateway, "client.yaml": client}))
	o.Args = map[string][]string{"waypoint": {"--extra=1"}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(o.BinDir, "ambit-waypoint")); err != nil {
		t.Fatal(err)
	}
	m := up(t, o)
	st := m.status()
	if len(st.Problems) > 0 {
		t.Errorf("problems %v", st.Problems)
	}
	if len(st.Waypoints) != 2 || st.Waypoints[0].Name != "big" || st.Waypoints[1].Name != "wp" ||
		!st.Waypoints[0].Programmed || !st.Waypoints[1].Programmed || st.Waypoints[0].Message != "2 of 2 pods are ready" ||
		!slices.Contains(st.Waypoints[1].Addresses, "wp.shop.svc.cluster.local") {
		t.Fatalf("waypoints %+v", st.Waypoints)
	}
	known := workloadsIn(t, m)
	for _, p := range st.Pods {
		if p.Namespace != "shop" {
			continue
		}
		gateway, _, _ := strings.Cut(p.Name, "-")
		if want := p.Node + " " + gateway + " " + gateway; known["shop/"+p.Name] != want {
			t.Errorf("credential of %s: %q, want %q", p.Name, known["shop/"+p.Name], want)
		}
	}
	if len(known) != 3 {
		t.Errorf("credentials %v, want those of three pods", known)
	}

	i := slices.IndexFunc(st.Pods, func(p control.Pod) bool { return strings.HasPrefix(p.Name, "wp-") })
	pod := st.Pods[i]
	var log control.LogsAnswer
	ctx, cancel := m.context()
	defer cancel()
	if err := m.Call(ctx, control.OpLogs, control.Target{Name: pod.Name, Namespace: "shop"}, &log); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"--gateway=shop/wp --pod=" + pod.Name + " --pod-uid=", " --service-account=wp --node=" + pod.Node, "--xds-address=172.18.0.1:15012", "--extra=1",
		`token of 26 bytes, root "root", pod ` + pod.Name + " of shop at " + strings.Join(pod.IPs, ","),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the waypoint was not given %q: %s", want, text)
		}
	}
	if r := m.run("client", "ls", "/run/secrets/ambit"); r.code != 0 || r.out != "" {
		t.Errorf("another pod sees a waypoint's secrets: %+v", r)
	}

	for _, f := range []string{"ns.yaml", "gateway.yaml"} {
		if err := os.Remove(filepath.Join(m.files, f)); err != nil {
			t.Fatal(err)
		}
	}
	m.await("the waypoints are gone", func(st control.Status) bool { return len(st.Pods) == 1 && len(st.Waypoints) == 0 })
	if known := workloadsIn(t, m); len(known) != 0 {
		t.Errorf("credentials of pods that are gone: %v", known)
	}
}

// A waypoint whose program is not there is a problem of who asks for it.
func TestWaypointWithoutProgram(t *testing.T) {
	m := up(t, withMesh(t, options(t, map[string]string{"ns.yaml": waypointNamespace})))
	st := m.status()
	if len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "ns.yaml:2: Namespace shop: a waypoint needs a program") || !strings.Contains(st.Problems[0], "ambit-waypoint") {
		t.Errorf("problems %v", st.Problems)
	}
	if len(st.Waypoints) != 1 || st.Waypoints[0].Programmed {
		t.Errorf("waypoints %+v", st.Waypoints)
	}
}

// An object that has the name of one that a waypoint is made of is a problem that
// names both.
func TestWaypointNameTaken(t *testing.T) {
	const taken = `
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {selector: {app: other}, ports: [{port: 80}]}
`
	o := withMesh(t, options(t, map[string]string{"ns.yaml": waypointNamespace, "taken.yaml": taken}))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(o.BinDir, "ambit-waypoint")); err != nil {
		t.Fatal(err)
	}
	const want = "taken.yaml:4: Service shop/wp: metadata.name: waypoint shop/wp needs this name"
	if st := up(t, o).status(); len(st.Problems) != 1 || !strings.Contains(st.Problems[0], want) {
		t.Errorf("problems %v, want %q", st.Problems, want)
	}
}
