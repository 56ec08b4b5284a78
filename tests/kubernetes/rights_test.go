package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/cli/chart"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
	"github.com/ambit-mesh/ambit/tests/cluster/definitions"
)

// auditPolicy has a watch logged when it begins, and not only when it has ended, which
// is a while after its client has gone.
const (
	account     = "system:serviceaccount:ambit-system:ambit-controlplane"
	auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}`
)

// right is one of a rule, for one verb.
type right struct{ namespace, group, resource, name, verb string }

func (r right) String() string {
	out := r.verb + " " + r.resource
	if r.group != "" {
		out += "." + r.group
	}
	if r.name != "" {
		out += " " + r.name
	}
	if r.namespace != "" {
		out += " in " + r.namespace
	}
	return out
}

// given are the rights that the chart gives the control plane.
func given(t *testing.T, text string) map[right]bool {
	t.Helper()
	out := make(map[right]bool)
	add := func(namespace string, rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						for _, name := range append(r.ResourceNames, "")[:max(1, len(r.ResourceNames))] {
							out[right{namespace, group, resource, name, verb}] = false
						}
					}
				}
			}
		}
	}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var role rbacv1.ClusterRole // a Role has the same fields
		if err := yaml.Unmarshal([]byte(doc), &role); err != nil {
			t.Fatal(err)
		}
		var binding rbacv1.ClusterRoleBinding
		if err := yaml.Unmarshal([]byte(doc), &binding); err == nil && strings.HasSuffix(binding.Kind, "RoleBinding") {
			for _, subject := range binding.Subjects {
				if subject.Name != "ambit-controlplane" || subject.Namespace != root || subject.Kind != rbacv1.ServiceAccountKind {
					t.Errorf("%s %s gives rights to %+v", binding.Kind, binding.Name, subject)
				}
			}
		}
		switch {
		case role.Kind == "ClusterRole" && role.Name == "ambit-controlplane":
			add("", role.Rules)
		case role.Kind == "Role" && role.Name == "ambit-controlplane":
			add(role.Namespace, role.Rules)
		}
	}
	return out
}

// events are the control plane's requests, in order.
func events(t *testing.T, log string) []auditv1.Event {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var out []auditv1.Event
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditv1.Event
		// The last line may be half written.
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.User.Username == account && e.ObjectRef != nil {
			out = append(out, e)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// atRest says whether the last things that were written are all the leader's lease,
// which takes two seconds between each two of them.
func atRest(t *testing.T, log string) bool {
	t.Helper()
	renewals := 0
	for _, e := range events(t, log) {
		switch {
		case slices.Contains([]string{"get", "list", "watch"}, e.Verb) || e.ObjectRef.Resource == "tokenreviews":
		case e.ObjectRef.Resource == "leases":
			renewals++
		default:
			renewals = 0
		}
	}
	return renewals >= 4
}

// use marks the rights that requests have used, and names those that were refused.
func use(t *testing.T, log string, rights map[right]bool) {
	t.Helper()
	refused := make(map[string]int)
	for _, e := range events(t, log) {
		ref, resource := e.ObjectRef, e.ObjectRef.Resource
		if ref.Subresource != "" {
			resource += "/" + ref.Subresource
		}
		verbs := []string{e.Verb}
		if e.ResponseStatus != nil && e.Verb == "patch" && e.ResponseStatus.Code == http.StatusCreated {
			verbs = append(verbs, "create") // what is applied first is made, and needs both
		}
		if e.ResponseStatus != nil && e.ResponseStatus.Code == http.StatusForbidden && e.Annotations["authorization.k8s.io/decision"] == "forbid" {
			refused[right{ref.Namespace, ref.APIGroup, resource, ref.Name, e.Verb}.String()]++
		}
		for r := range rights {
			if slices.Contains(verbs, r.verb) && r.group == ref.APIGroup && r.resource == resource &&
				(r.name == "" || r.name == ref.Name) && (r.namespace == "" || r.namespace == ref.Namespace) {
				rights[r] = true
			}
		}
	}
	for _, r := range slices.Sorted(maps.Keys(refused)) {
		t.Errorf("the chart does not let the control plane %s (asked %d times)", r, refused[r])
	}
}

// needless gives what was not used. Two cannot be: events that repeat are patched, which
// takes minutes to come, and lists are for API servers that do not stream them by watch.
func needless(rights map[right]bool) []string {
	var out []string
	for r, used := range rights {
		streamed := r
		streamed.verb = "watch"
		if !used && (r.resource != "events" || r.verb != "patch") && (r.verb != "list" || !rights[streamed]) {
			out = append(out, r.String())
		}
	}
	slices.Sort(out)
	return out
}

// gatewayAPI gives the folder of the module's definitions.
func gatewayAPI(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "experimental")
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// install puts the chart on an API server and gives its text.
func install(t *testing.T, s *apitest.Server, values map[string]any) string {
	t.Helper()
	kubectl(t, s, "", "apply", "--server-side", "-k", gatewayAPI(t))
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	text, err := chart.Render("0.0.0", values, chart.Target{APIs: []string{chart.GatewayAPI}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, s, "{apiVersion: v1, kind: Namespace, metadata: {name: "+root+"}}", "apply", "--server-side", "-f", "-")
	kubectl(t, s, text, "apply", "--server-side", "--force-conflicts", "-f", "-")
	if strings.Contains(text, "kind: ValidatingWebhookConfiguration") {
		ask(t, s, "https://127.0.0.1:1") // nobody: there are no Services here
	}
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	return text
}

// ask has the API server ask at a URL instead of a Service.
func ask(t *testing.T, s *apitest.Server, url string) {
	t.Helper()
	kubectl(t, s, "", "patch", "validatingwebhookconfiguration", "findings.ambit-mesh.io", "--type=merge",
		"-p", "{\"webhooks\":"+webhooksAt(t, s, url)+"}")
}

// webhooksAt gives the webhooks of the mesh with another address.
func webhooksAt(t *testing.T, s *apitest.Server, url string) string {
	t.Helper()
	var there admissionregistrationv1.ValidatingWebhookConfiguration
	if err := json.Unmarshal([]byte(kubectl(t, s, "", "get", "validatingwebhookconfiguration", "findings.ambit-mesh.io", "-o", "json")), &there); err != nil {
		t.Fatal(err)
	}
	for i := range there.Webhooks {
		c := &there.Webhooks[i].ClientConfig
		c.Service, c.URL = nil, &url
	}
	out, err := json.Marshal(there.Webhooks)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// policies is one of every kind of policy, each of which gets a status.
func policies() string {
	var out strings.Builder
	for kind, spec := range map[string]string{
		"AuthorizationPolicy":         "targetRefs: [{kind: Service, name: web}], action: ALLOW",
		"PeerAuthentication":          "targetRefs: [{kind: Namespace}], mtls: {mode: STRICT}",
		"RetryPolicy":                 "targetRefs: [{kind: Service, name: web}]",
		"TimeoutPolicy":               "targetRefs: [{kind: Service, name: web}], request: 1s",
		"FaultInjection":              "targetRefs: [{kind: Service, name: web}], rules: [{abort: {httpStatus: 503}}]",
		"RateLimitPolicy":             "targetRefs: [{kind: Service, name: web}], rules: [{requests: 1, unit: Second}]",
		"LoadBalancingPolicy":         "targetRefs: [{kind: Service, name: web}]",
		"CircuitBreakerPolicy":        "targetRefs: [{kind: Service, name: web}], maxRequests: 1",
		"OutlierDetectionPolicy":      "targetRefs: [{kind: Service, name: web}]",
		"HealthCheckPolicy":           "targetRefs: [{kind: Service, name: web}], type: TCP",
		"SessionPersistencePolicy":    "targetRefs: [{kind: Service, name: web}]",
		"JWTAuthentication":           "targetRefs: [{kind: Service, name: web}], providers: [{name: p, issuer: i, jwks: {inline: '{\"keys\":[]}'}}]",
		"ExternalAuthorizationPolicy": "targetRefs: [{kind: Service, name: web}], protocol: GRPC, backendRef: {name: web, port: 80}",
		"TracingPolicy":               "targetRefs: [{kind: Namespace}], sampling: {percent: 1}",
		"ExternalService":             "hosts: [p.example], ports: [{name: http, port: 80, protocol: HTTP}], resolution: DNS",
	} {
		fmt.Fprintf(&out, "---\napiVersion: ambit-mesh.io/v1alpha1\nkind: %s\nmetadata: {name: p, namespace: shop}\nspec: {%s}\n", kind, spec)
	}
	return out.String()
}

const everything = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, annotations: {ambit-mesh.io/waypoint-replicas: "2"}}
spec:
  gatewayClassName: ambit-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: sizes}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: scaled, namespace: shop, annotations: {ambit-mesh.io/waypoint-replicas: "2", ambit-mesh.io/waypoint-max-replicas: "4"}}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: sizes, namespace: shop}
data: {deployment: "{spec: {minReadySeconds: 5}}"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], hostnames: [a.example], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], retryConstraint: {budget: {percent: 20, interval: 10s}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: r, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], validation: {wellKnownCACertificates: System, hostname: web.example}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: p, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], tracing: {mode: Enabled, provider: {backendRef: {name: web, port: 80}}}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: ambit}
spec: {controllerName: ambit-mesh.io/controller}
`

// TestRights has the control plane do all that it does with the rights of the chart
// and no others. A right that it lacks, and one that it does not use, are errors.
func TestRights(t *testing.T) {
	audit := filepath.Join(t.TempDir(), "audit.log")
	s := apitest.Start(t, "--audit-policy-file="+write(t, "audit.yaml", auditPolicy), "--audit-log-path="+audit,
		"--enable-admission-plugins=OwnerReferencesPermissionEnforcement", // as some distributions have it
		"--feature-gates=ClusterTrustBundle=true", "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true")
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	rights := given(t, install(t, s, nil))
	defer func() { // what is refused is the reason why anything else fails
		use(t, audit, rights)
		if !t.Failed() {
			for _, r := range needless(rights) {
				t.Errorf("the chart lets the control plane %s, which it did not do", r)
			}
		}
	}()
	if len(rights) < 30 {
		t.Fatalf("the chart gives %d rights", len(rights))
	}
	apply := func(text string) {
		t.Helper()
		kubectl(t, s, text, "apply", "--server-side", "--force-conflicts", "-f", "-")
	}
	apply(definitions.XTelemetryPolicy)
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "xtelemetrypolicies.gateway.networking.x-k8s.io", "--timeout=60s")
	apply(mesh)
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/use-waypoint=wp")
	apply(everything)
	apply(policies())

	_, kubeconfig := s.As(account, "system:serviceaccounts")
	cfg := config(t, s)
	cfg.Kubeconfig, cfg.WaypointImage, cfg.WebhookAddress = kubeconfig, "ambit/waypoint:1", "127.0.0.1:0"
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	wait := func(object, path, value string) {
		t.Helper()
		if out, err := s.Kubectl("", "wait", "-n", "shop", object, "--for=jsonpath="+path+"="+value, "--timeout=60s"); err != nil {
			t.Errorf("%s: %s %v", object, out, err)
		}
	}
	wait("gatewayclass/ambit-waypoint", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	wait("xmesh/ambit", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	wait("deployment/wp", "{.spec.minReadySeconds}", "5")
	wait("hpa/scaled", "{.spec.maxReplicas}", "4")
	wait("service/web", `{.status.conditions[?(@.type=="WaypointBound")].type}`, "WaypointBound")
	for _, kind := range []string{"httproute", "grpcroute", "tlsroute", "tcproute", "udproute"} {
		wait(kind+"/r", `{.status.parents[0].controllerName}`, "ambit-mesh.io/controller")
	}
	wait("xtelemetrypolicy/p", `{.status.ancestors[0].conditions[?(@.type=="Accepted")].status}`, "True")
	for _, crd := range strings.Fields(kubectl(t, s, "", "get", "crd", "-o", `jsonpath={.items[?(@.spec.group=="ambit-mesh.io")].metadata.name}`)) {
		wait(crd+"/p", `{.status.conditions[?(@.type=="Accepted")].type}`, "Accepted")
	}
	wait("xbackendtrafficpolicy/p", `{.status.ancestors[0].controllerName}`, "ambit-mesh.io/controller")
	testkit.Until(t, "roots for the cluster", func() bool {
		_, err := s.Kubectl("", "get", "clustertrustbundle", "ambit-root-cert")
		return err == nil
	})
	testkit.Until(t, "events", func() bool {
		out, err := s.Kubectl("", "get", "events.events.k8s.io", "-A", "-o", "name")
		return err == nil && out != ""
	})

	// A node comes, its agent reports, and a pod is captured.
	apply("{apiVersion: v1, kind: Node, metadata: {name: n1}}")
	apply(mesh)
	wait("node/n1", `{.spec.taints[?(@.key=="ambit-mesh.io/agent-not-ready")].effect}`, "NoSchedule")
	kubectl(t, s, "", "patch", "pod", "-n", "shop", "web", "--subresource=status", "-p",
		`{"status":{"phase":"Running","podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"}],"conditions":[{"type":"Ready","status":"True"}]}}`)
	uid := kubectl(t, s, "", "get", "pod", "-n", "shop", "web", "-o", "jsonpath={.metadata.uid}")
	agent := report(t, r, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	if err := agent.Send(&nodepb.ReportRequest{Sequence: 1, Snapshot: true, Pods: []*nodepb.PodState{{Uid: uid, State: nodepb.PodState_CAPTURED}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Recv(); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "captured", func() bool { return condition(t, client) == "True/Captured" })
	wait("node/n1", `{.metadata.annotations.ambit-mesh\.io/agent-reported}`, "true")

	testkit.Until(t, "at rest nothing but the lease is written", func() bool { return atRest(t, audit) })

	// The authority is replaced, and waypoints go.
	post(t, "http://"+r.AdminAddr().String()+"/ca/rotate")
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/use-waypoint-")
	kubectl(t, s, "", "delete", "-n", "shop", "gateway", "--all")
	for _, kind := range []string{"deployment/wp", "service/wp", "serviceaccount/wp", "pdb/wp", "hpa/scaled"} {
		kubectl(t, s, "", "wait", "-n", "shop", kind, "--for=delete", "--timeout=60s")
	}
	r.stop()
}

// TestRightsWithoutWaypoints: a mesh of layer 4 only has fewer rights, and its control
// plane asks for no more than those.
func TestRightsWithoutWaypoints(t *testing.T) {
	audit := filepath.Join(t.TempDir(), "audit.log")
	s := apitest.Start(t, "--audit-policy-file="+write(t, "audit.yaml", auditPolicy), "--audit-log-path="+audit)
	rights := given(t, install(t, s, map[string]any{"waypoints": map[string]any{"enabled": false}}))
	for r := range rights {
		if slices.Contains([]string{"deployments", "horizontalpodautoscalers", "poddisruptionbudgets", "serviceaccounts"}, r.resource) {
			t.Errorf("without waypoints the chart lets the control plane %s", r)
		}
	}
	kubectl(t, s, mesh, "apply", "--server-side", "--force-conflicts", "-f", "-")
	kubectl(t, s, gatewayHead+"name: wp}, spec: {gatewayClassName: ambit-waypoint, "+hbone+"}}", "apply", "--server-side", "-f", "-")
	_, kubeconfig := s.As(account, "system:serviceaccounts")
	cfg := config(t, s)
	cfg.Kubeconfig = kubeconfig
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	kubectl(t, s, "", "wait", "-n", "shop", "gateway/wp", `--for=jsonpath={.status.conditions[?(@.type=="Programmed")].reason}=Invalid`, "--timeout=60s")
	if out := kubectl(t, s, "", "get", "-n", "shop", "gateway", "wp", "-o", "jsonpath={.status.conditions[*].message}"); !strings.Contains(out, "--waypoint-image") {
		t.Errorf("the Gateway says %q", out)
	}
	kubectl(t, s, "", "delete", "-n", "shop", "gateway", "wp")
	testkit.Until(t, "at rest nothing but the lease is written", func() bool { return atRest(t, audit) })
	r.stop()
	use(t, audit, rights)
}

func post(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
}
