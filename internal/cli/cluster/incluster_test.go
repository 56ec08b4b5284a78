package cluster

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const shopObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {nodeName: n1, serviceAccountName: cart, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 8080, targetPort: http}]}
`

// cluster gives a real API server with the kinds of the Gateway API, and what runs
// the command line on it.
func cluster(t *testing.T) (s *apitest.Server, ambit func(args ...string) (int, string, string)) {
	t.Helper()
	s = apitest.Start(t)
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	must(t, s, "", "apply", "--server-side", "-k", filepath.Join(strings.TrimSpace(string(out)), "config", "crd"))
	must(t, s, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	return s, func(args ...string) (int, string, string) {
		t.Helper()
		return invoke(t, append(args, "--kubeconfig="+s.Kubeconfig)...)
	}
}

func must(t *testing.T, s *apitest.Server, stdin string, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run is a pod that runs, and is captured or not.
func run(t *testing.T, s *apitest.Server, name, ip, captured string) {
	t.Helper()
	must(t, s, "", "patch", "-n", "shop", "pod", name, "--subresource=status", "-p",
		`{"status":{"phase":"Running","podIP":"`+ip+`","podIPs":[{"ip":"`+ip+`"}],"conditions":[{"type":"Ready","status":"True"},{"type":"ambit-mesh.io/Captured","status":"`+captured+`","reason":"R","message":"no room"}]}}`)
}

// wants checks what a command line gave.
func wants(t *testing.T, code int, out, errOut string, want int, texts ...string) {
	t.Helper()
	if code != want {
		t.Errorf("exit code %d, want %d:\n%s%s", code, want, out, errOut)
	}
	for _, text := range texts {
		if !strings.Contains(out+errOut, text) {
			t.Errorf("%q is not in:\n%s%s", text, out, errOut)
		}
	}
}

// check, status and explain on a real API server: nothing installed, installed and
// not ready, pods captured and not.
func TestStatusInCluster(t *testing.T) {
	s, ambit := cluster(t)
	code, out, text := ambit("status")
	wants(t, code, out, text, cli.ExitUnwell, "ambit is not installed in namespace ambit-system", "ambit install")
	code, out, text = ambit("check")
	wants(t, code, out, text, cli.ExitUnwell, "ambit is not installed")
	code, out, text = ambit("check", "--pre")
	wants(t, code, out, text, 0, "Gateway API", "you may install")
	code, out, text = ambit("install", "--dry-run")
	wants(t, code, out, text, 0, "kind: DaemonSet")
	code, out, text = ambit("install", "--wait=false")
	wants(t, code, out, text, 0, "is installed (revision 1)", "ambit enroll")

	must(t, s, shopObjects, "apply", "-f", "-")
	run(t, s, "web", "10.1.0.1", "True")
	run(t, s, "cart", "10.1.0.2", "False")
	code, out, text = ambit("status")
	wants(t, code, out, text, cli.ExitUnwell, "revision 1", "ambit-controlplane", "0/2", "1 captured, 1 not: shop/cart: no room")
	code, out, text = ambit("status", "-o", "json")
	var st meshStatus
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != cli.ExitUnwell {
		t.Fatalf("exit code %d: %v\n%s%s", code, err, out, text)
	}
	if len(st.Namespaces) != 1 || st.Namespaces[0].Name != "shop" || st.Namespaces[0].Enrolled != 2 || st.Namespaces[0].Captured != 1 {
		t.Errorf("namespaces %+v", st.Namespaces)
	}
	run(t, s, "cart", "10.1.0.2", "True")
	code, out, text = ambit("check")
	wants(t, code, out, text, cli.ExitUnwell, "2 captured", "ConfigMap ambit-root-cert is missing")

	code, out, text = ambit("explain", "web.shop -> cart.shop:8080")
	wants(t, code, out, text, 0, "spiffe://cluster.local/ns/shop/sa/web", "not bound to a waypoint")
	must(t, s, `{apiVersion: ambit-mesh.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: none, namespace: shop}, spec: {action: DENY, targetRefs: [{group: "", kind: Service, name: cart}], rules: [{name: web, sources: [{type: ServiceAccount, serviceAccount: {name: web}}]}]}}`, "apply", "-f", "-")
	code, out, text = ambit("explain", "web.shop", "cart.shop:8080")
	wants(t, code, out, text, 0, "refused", "none")
	code, out, text = ambit("explain", "nobody.shop", "cart.shop:8080")
	wants(t, code, out, text, cli.ExitFailed, "there is no pod of nobody.shop")

	// There is a ztunnel, but no kubelet that would forward its port.
	code, out, text = ambit("observe")
	wants(t, code, out, text, cli.ExitFailed, "no proxy runs in namespace ambit-system")
	must(t, s, `{apiVersion: v1, kind: Pod, metadata: {name: zt, namespace: ambit-system, labels: {app.kubernetes.io/name: ambit-ztunnel}}, spec: {nodeName: n1, containers: [{name: c, image: i}]}}`, "apply", "-f", "-")
	must(t, s, "", "patch", "-n", "ambit-system", "pod", "zt", "--subresource=status", "-p", `{"status":{"phase":"Running"}}`)
	for _, command := range []string{"observe", "observe -f", "edges"} {
		code, out, text = ambit(strings.Fields(command)...)
		wants(t, code, out, text, cli.ExitFailed, "ambit-system/zt on n1 tells nothing: port 15000 of pod ambit-system/zt: ", "none of the proxies can be reached (1 asked)")
	}
	_, file := s.As("guest", "guests")
	code, out, text = invoke(t, "observe", "--kubeconfig="+file)
	wants(t, code, out, text, cli.ExitFailed, `find ztunnels: pods is forbidden: User "guest" cannot list resource "pods"`)

	s.Pause()
	code, out, text = ambit("observe")
	wants(t, code, out, text, cli.ExitUnreachable, "the cluster cannot be reached")
	code, out, text = ambit("status")
	wants(t, code, out, text, cli.ExitUnreachable, "the cluster cannot be reached", "kubectl config current-context")
	code, out, text = ambit("check")
	wants(t, code, out, text, cli.ExitUnreachable, "the cluster cannot be reached")
}

// A waypoint is made, bound, listed, looked at and deleted.
func TestWaypointInCluster(t *testing.T) {
	s, ambit := cluster(t)
	must(t, s, shopObjects, "apply", "-f", "-")
	code, out, text := ambit("waypoint", "status", "waypoint", "-n", "shop")
	wants(t, code, out, text, cli.ExitFailed, "there is no waypoint waypoint in namespace shop")
	code, out, text = ambit("waypoint", "apply", "-n", "shop", "--timeout=10ms", "--bind")
	wants(t, code, out, text, cli.ExitTimeout, "waypoint shop/waypoint")
	if got := must(t, s, "", "get", "namespace", "shop", "-o", "jsonpath={.metadata.labels}"); strings.Contains(got, "use-waypoint") {
		t.Errorf("bound to a waypoint that is not there: %s", got)
	}
	code, out, text = ambit("waypoint", "apply", "-n", "shop", "--wait=false", "--for=all", "--replicas=3", "--bind")
	wants(t, code, out, text, 0, "its services use waypoint waypoint")
	if got := must(t, s, "", "get", "gateway", "-n", "shop", "waypoint", "-o", "jsonpath={.spec.gatewayClassName} {.metadata.labels} {.metadata.annotations}"); !strings.Contains(got, "ambit-waypoint ") || !strings.Contains(got, `"all"`) || !strings.Contains(got, `"3"`) {
		t.Errorf("gateway: %s", got)
	}
	code, out, text = ambit("waypoint", "list", "-A")
	wants(t, code, out, text, 0, "shop", "waypoint", "all", "no")
	code, out, text = ambit("waypoint", "status", "-n", "shop")
	wants(t, code, out, text, cli.ExitUnwell, "not programmed: shop/waypoint")
	must(t, s, "", "patch", "-n", "shop", "gateway", "waypoint", "--subresource=status", "--type=merge", "-p",
		`{"status":{"addresses":[{"type":"Hostname","value":"waypoint.shop.svc"}],"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","observedGeneration":1,"lastTransitionTime":"2020-01-01T00:00:00Z"},{"type":"Programmed","status":"True","reason":"Programmed","message":"3 ready","observedGeneration":1,"lastTransitionTime":"2020-01-01T00:00:00Z"}]}}`)
	code, out, text = ambit("waypoint", "status", "waypoint", "-n", "shop")
	wants(t, code, out, text, 0, "waypoint.shop.svc", "yes")
	code, out, text = ambit("waypoint", "delete", "waypoint", "-n", "shop")
	wants(t, code, out, text, cli.ExitFailed, "say --unbind")
	code, out, text = ambit("waypoint", "delete", "waypoint", "-n", "shop", "--unbind")
	wants(t, code, out, text, 0)
	if got := must(t, s, "", "get", "namespace", "shop", "-o", "jsonpath={.metadata.labels}"); strings.Contains(got, "use-waypoint") {
		t.Errorf("still bound: %s", got)
	}
	code, out, text = ambit("waypoint", "list", "-n", "shop", "-o", "json")
	if code != 0 || strings.Contains(out, "shop") {
		t.Errorf("exit code %d\n%s%s", code, out, text)
	}
	code, out, text = ambit("waypoint", "delete", "waypoint", "-n", "shop")
	wants(t, code, out, text, cli.ExitFailed, "ambit waypoint list -A")
}
