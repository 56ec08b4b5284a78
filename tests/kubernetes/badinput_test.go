package kubernetes

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

// mistake is an object that cannot be carried out, and the condition that says so.
type mistake struct {
	name, kind, spec             string
	condition, reason, mentioned string
}

const ofWeb = `parentRefs: [{group: "", kind: Service, name: web}]`

// mistakes of routes in namespace shop, which is bound to waypoint wp. Each is named for what is wrong.
var mistakes = []mistake{
	{"backend-missing", "HTTPRoute", ofWeb + `, rules: [{backendRefs: [{name: nowhere, port: 80}]}]`, "ResolvedRefs", "BackendNotFound", "nowhere"},
	{"backend-port-missing", "HTTPRoute", ofWeb + `, rules: [{backendRefs: [{name: web, port: 81}]}]`, "ResolvedRefs", "BackendNotFound", "81"},
	{"backend-of-no-kind", "HTTPRoute", ofWeb + `, rules: [{backendRefs: [{group: example.com, kind: Bucket, name: b}]}]`, "ResolvedRefs", "InvalidKind", "Bucket"},
	{"no-such-port", "HTTPRoute", `parentRefs: [{group: "", kind: Service, name: web, port: 99}], rules: [{backendRefs: [{name: web, port: 80}]}]`, "Accepted", "NoMatchingParent", "no such TCP port"},
	{"no-such-parent", "HTTPRoute", `parentRefs: [{group: "", kind: Service, name: nowhere}], rules: [{backendRefs: [{name: web, port: 80}]}]`, "Accepted", "NoMatchingParent", "nowhere"},
	{"bad-expression", "HTTPRoute", ofWeb + `, rules: [{matches: [{path: {type: RegularExpression, value: "/(["}}], backendRefs: [{name: web, port: 80}]}]`, "Accepted", "UnsupportedValue", "not a regular expression"},
}

func apiVersionOf(kind string) string {
	if strings.HasSuffix(kind, "Route") || kind == "Gateway" {
		return "gateway.networking.k8s.io/v1"
	}
	return "ambit-mesh.io/v1alpha1"
}

// conditionsOf gives all conditions of an object, wherever its status has them.
func conditionsOf(t *testing.T, s *apitest.Server, kind, name string) []metav1.Condition {
	t.Helper()
	var object struct {
		Status struct {
			Conditions         []metav1.Condition
			Parents, Ancestors []struct{ Conditions []metav1.Condition }
			Listeners          []struct{ Conditions []metav1.Condition }
		}
	}
	if err := json.Unmarshal([]byte(kubectl(t, s, "", "get", "-n", "shop", kind, name, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	out := object.Status.Conditions
	for _, list := range append(append(object.Status.Parents, object.Status.Ancestors...), object.Status.Listeners...) {
		out = append(out, list.Conditions...)
	}
	return out
}

// TestBadInput: each mistake is named in the status of the object that has it, and what
// is right beside it stays in force.
func TestBadInput(t *testing.T) {
	s := apitest.Start(t)
	install(t, s, map[string]any{"admission": map[string]any{"enabled": false}}) // which would not let some of them in
	kubectl(t, s, twoNodes(), "apply", "--server-side", "--force-conflicts", "-f", "-")
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/use-waypoint=wp")
	kubectl(t, s, "", "patch", "pod", "-n", "shop", "wp-1", "--subresource=status", "-p", `{"status":{"phase":"Running","podIP":"10.1.0.3","podIPs":[{"ip":"10.1.0.3"}],"conditions":[{"type":"Ready","status":"True"}]}}`)
	object := func(kind, name, spec string) string {
		return fmt.Sprintf("---\n{apiVersion: %s, kind: %s, metadata: {name: %s, namespace: shop}, spec: {%s}}\n", apiVersionOf(kind), kind, name, spec)
	}
	good := object("HTTPRoute", "good", ofWeb+`, rules: [{matches: [{path: {value: /good}}], backendRefs: [{name: web, port: 80}]}]`) +
		object("TimeoutPolicy", "first", `targetRefs: [{kind: Service, name: web}], request: 1s`) +
		object("GRPCRoute", "first", `parentRefs: [{group: "", kind: Service, name: both}], rules: [{backendRefs: [{name: both, port: 80}]}]`) +
		"---\n{apiVersion: v1, kind: Service, metadata: {name: both, namespace: shop}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n"
	kubectl(t, s, good, "apply", "-f", "-")
	cfg := config(t, s)
	cfg.WaypointImage = "ambit/waypoint:1"
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	fine := func(when string) {
		t.Helper()
		for kind, name := range map[string]string{"HTTPRoute": "good", "TimeoutPolicy": "first", "GRPCRoute": "first"} {
			testkit.Until(t, when+": "+kind+" "+name+" is accepted", func() bool {
				for _, c := range conditionsOf(t, s, kind, name) {
					if c.Type == "Accepted" && c.Status == metav1.ConditionTrue {
						return true
					}
				}
				return false
			})
		}
		testkit.Until(t, when+": its rule is told", func() bool { return r.tells("shop/web", "/good") })
	}
	fine("alone")
	var all strings.Builder
	for _, m := range mistakes {
		all.WriteString(object(m.kind, m.name, m.spec))
	}
	kubectl(t, s, all.String(), "apply", "-f", "-")
	for _, m := range mistakes {
		t.Run(m.kind+" "+m.name, func(t *testing.T) {
			var last []metav1.Condition
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("conditions: %+v", last)
				}
			})
			testkit.Until(t, "named in its status", func() bool {
				last = conditionsOf(t, s, m.kind, m.name)
				for _, c := range last {
					if c.Type == m.condition && c.Status == metav1.ConditionFalse && (m.reason == "" || c.Reason == m.reason) && strings.Contains(c.Message, m.mentioned) {
						return true
					}
				}
				return false
			})
		})
	}
	fine("beside all mistakes")
}

// TestSecretIsSpoiled: what becomes of the authority's Secret while the control plane
// runs is named in the log, and certificates go on being issued.
func TestSecretIsSpoiled(t *testing.T) {
	s, client := start(t)
	core, logs := observer.New(zap.WarnLevel)
	cfg := config(t, s)
	cfg.Log = zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel), zaptest.WrapOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewTee(c, core) })))
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	l := find(t, r, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	named := func(what, said string) {
		t.Helper()
		testkit.Until(t, what+" is named", func() bool {
			for _, e := range logs.All() {
				text := fmt.Sprint(e.Message, e.ContextMap())
				if e.Level == zap.ErrorLevel && strings.Contains(text, "Secret ambit-system/ambit-ca, key authority.json") && strings.Contains(text, said) {
					return true
				}
			}
			return false
		})
		if _, err := l.certificate("spiffe://cluster.local/ns/shop/sa/web"); err != nil {
			t.Errorf("%s: no certificate: %v", what, err)
		}
	}
	spoil := func(what, patch, said string) {
		t.Helper()
		logs.TakeAll()
		kubectl(t, s, "", "patch", "secret", "-n", root, "ambit-ca", "-p", patch)
		named(what, said)
	}
	before, err := client.CoreV1().Secrets(root).Get(t.Context(), "ambit-ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spoil("a damaged record", `{"stringData":{"authority.json":"{"}}`, "is damaged")
	spoil("a record that is not there", `{"data":{"authority.json":null}}`, "missing or empty")
	// Somebody deletes it, and who begins then makes another, with another root.
	kubectl(t, s, "", "delete", "secret", "-n", root, "ambit-ca")
	other, err := controlplane.New(config(t, s))
	if err != nil {
		t.Fatal(err)
	}
	stranger := run(t, other)
	named("another authority's record", "holds another authority")
	stranger.stop()
	// What was restored is taken again.
	patch, err := json.Marshal(map[string]any{"data": before.Data})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, s, "", "patch", "secret", "-n", root, "ambit-ca", "-p", string(patch))
	r.stop()
	again, err := controlplane.New(config(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if after := run(t, again); after.XDSAddr() == nil {
		t.Error("it does not serve")
	}
}

// TestAPIAway: while the API server is away, who has proved itself before is served, and
// who has not is told to try again; then all is as before.
func TestAPIAway(t *testing.T) {
	s, client := start(t)
	made, err := controlplane.New(config(t, s))
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	const web = "spiffe://cluster.local/ns/shop/sa/web"
	known := find(t, r, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	stranger := find(t, r, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	if _, err := known.certificate(web); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if _, err := known.certificate(web); err != nil {
		t.Errorf("who was known before: %v", err)
	}
	if got, err := known.resources("type.googleapis.com/istio.workload.Address", "*"); err != nil || len(got) == 0 {
		t.Errorf("who was known before is told %v, %v", got, err)
	}
	if _, err := stranger.certificate(web); err == nil || !strings.Contains(err.Error(), "the Kubernetes API does not review the token now, try again") {
		t.Errorf("who was not: %v", err)
	}
	s.Resume()
	testkit.Until(t, "who was not known is let in", func() bool {
		_, err := stranger.certificate(web)
		return err == nil
	})
}
