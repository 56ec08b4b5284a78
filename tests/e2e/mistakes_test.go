package e2e

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// wrong are objects that cannot be carried out, beside a namespace's Services near, far and taken.
const wrong = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: taken}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules: [{matches: [{path: {value: /nowhere}}], backendRefs: [{name: nowhere, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: expression}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules: [{matches: [{path: {type: RegularExpression, value: "/(["}}], backendRefs: [{name: far, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orphan}
spec:
  parentRefs: [{group: "", kind: Service, name: nowhere}]
  rules: [{backendRefs: [{name: far, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: both, labels: {ambit-mesh.io/use-waypoint: waypoint}}
spec: {selector: {app: far}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: winner}
spec:
  parentRefs: [{group: "", kind: Service, name: both}]
  rules: [{backendRefs: [{name: both, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: loser}
spec:
  parentRefs: [{group: "", kind: Service, name: both}]
  rules: [{backendRefs: [{name: both, port: 80}]}]
---
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: nowhere}
spec: {targetRefs: [{kind: Service, name: nowhere}], action: DENY, rules: [{name: all}]}
---
apiVersion: ambit-mesh.io/v1alpha1
kind: TimeoutPolicy
metadata: {name: nowhere}
spec: {targetRefs: [{kind: Service, name: nowhere}], request: 1s}
---
apiVersion: ambit-mesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: nowhere}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: absent}]
  rules: [{requests: 3, unit: Hour}]
`

// right is what is wrong's neighbour: the route that the load takes.
const right = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: right}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules: [{backendRefs: [{name: far, port: 80}]}]
`

// testMistakes makes every mistake that a person makes: each is named where a person would look, and what is right beside it
// goes on without one failed request.
func testMistakes(t *testing.T) {
	c := clustertest.Open(t)
	e := enrol(t, c, "mistakes", []string{"near@" + c.Nodes[0], "far@" + c.Nodes[1], "plain@" + c.Nodes[1]})
	ambit(t, c, "waypoint", "apply", "-n", e.ns)
	e.Condition(e.ns, "gateway/waypoint", "Programmed")
	e.Must("-n", e.ns, "label", "service", "far", "ambit-mesh.io/use-waypoint=waypoint")
	c.Apply(e.ns, right)
	for _, url := range []string{"http://far/", "http://plain/"} {
		e.eventually("near", url, "StatusCode=200")
	}
	loads := []*clustertest.Load{
		c.Load(e.ns, "deploy/near", "http://far/", "--interval=20ms"),
		c.Load(e.ns, "deploy/near", "http://plain/", "--interval=20ms"),
	}
	e.objects()
	e.cniConfiguration(c.Nodes[1])
	e.authority()
	for _, l := range loads {
		l.Stop()
	}
}

// objects are wrong, and their status says what is.
func (e enrolled) objects() {
	e.t.Helper()
	e.t.Log("objects that cannot be carried out")
	const theirs = "{apiVersion: v1, kind: Service, metadata: {name: taken}, spec: {selector: {app: far}, ports: [{port: 80, targetPort: 8080}]}}"
	e.Apply(e.ns, theirs)
	e.Apply(e.ns, wrong)
	for _, m := range []struct{ object, condition, reason, said string }{
		{"gateway/taken", "Programmed", "Invalid", "Service " + e.ns + "/taken"},
		{"httproute/nowhere", "ResolvedRefs", "BackendNotFound", "nowhere"},
		{"httproute/expression", "Accepted", "UnsupportedValue", "not a regular expression"},
		{"httproute/orphan", "Accepted", "NoMatchingParent", "nowhere"},
		{"httproute/loser", "Accepted", "Conflicted", "port 80 of Service " + e.ns + "/both"},
		{"authorizationpolicy/nowhere", "Accepted", "TargetNotFound", "nowhere"},
		{"timeoutpolicy/nowhere", "Accepted", "TargetNotFound", "nowhere"},
		{"ratelimitpolicy/nowhere", "Accepted", "TargetNotFound", "absent"},
	} {
		e.Until(m.object+" says what is wrong", time.Minute, func() error { return e.says(m.object, m.condition, m.reason, m.said) })
	}
	// What is somebody else's is as it was, and when it makes room the waypoint is made.
	e.eventually("near", "http://taken/", "Hostname=far-")
	e.Must("-n", e.ns, "delete", "service", "taken")
	e.Condition(e.ns, "gateway/taken", "Programmed")
}

// says looks for a condition that is False, wherever the object's status has it.
func (e enrolled) says(object, condition, reason, said string) error {
	type conditions []struct{ Type, Status, Reason, Message string }
	var o struct {
		Status struct {
			Conditions         conditions
			Parents, Ancestors []struct{ Conditions conditions }
		}
	}
	text, err := e.Kubectl("-n", e.ns, "get", object, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &o)
	}
	if err != nil {
		return err
	}
	all := o.Status.Conditions
	for _, p := range append(o.Status.Parents, o.Status.Ancestors...) {
		all = append(all, p.Conditions...)
	}
	for _, c := range all {
		if c.Type == condition && c.Status == "False" && (reason == "" || c.Reason == reason) && strings.Contains(c.Message, said) {
			return nil
		}
	}
	return fmt.Errorf("want %s=False, %s, %q, have %+v", condition, reason, said, all)
}

// cniConfiguration of a node gets a file that nobody can read, as other installers have left behind. The agent names it, and
// when it is gone pods start in the mesh again.
func (e enrolled) cniConfiguration(node string) {
	e.t.Helper()
	e.t.Log("a CNI configuration that is cut off")
	const bad = "/etc/cni/net.d/00-broken.conflist"
	if out, err := e.InNode(node, "sh", "-ec", `printf '{"cniVersion": "1.0.0", "plug' > `+bad); err != nil {
		e.t.Fatal(err, out)
	}
	remove := func() error { _, err := e.InNode(node, "rm", "-f", bad); return err }
	gone := false
	defer func() {
		if !gone {
			if err := remove(); err != nil {
				e.t.Error(err)
			}
		}
	}()
	agent := e.Must("-n", system, "get", "pods", "-l", "app.kubernetes.io/name=ambit-nodeagent", "--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[*].metadata.name}")
	e.logged("pod/"+agent, bad, "put it right or remove it")
	e.Condition(system, "pod/"+agent, "Ready=False")
	if content, err := e.InNode(node, "cat", bad); err != nil || content != `{"cniVersion": "1.0.0", "plug` {
		e.t.Errorf("it is not left alone: %q, %v", content, err)
	}
	if err := remove(); err != nil {
		e.t.Fatal(err)
	}
	gone = true
	e.Condition(system, "pod/"+agent, "Ready")
	e.Apply(e.ns, echoApp("later", node))
	e.Ready(e.ns, "deploy/later")
	e.captured("-l", "app=later")
	e.eventually("near", "http://later/", "Hostname=later-")
}

// logged waits until one line of a log has all texts.
func (e enrolled) logged(pod string, texts ...string) {
	e.t.Helper()
	e.Until(fmt.Sprintf("the log of %s says %q", pod, texts), 2*time.Minute, func() error {
		out, err := e.Kubectl("-n", system, "logs", pod, "--tail=-1")
		if err != nil {
			return err
		}
	next:
		for line := range strings.Lines(out) {
			for _, s := range texts {
				if !strings.Contains(line, s) {
					continue next
				}
			}
			return nil
		}
		return errors.New("no line has")
	})
}

// authority of which the Secret is cut off, or has expired: those who run go on issuing and say so, those who start refuse to,
// and when it is put back all is as before.
func (e enrolled) authority() {
	e.t.Helper()
	const key = "authority.json"
	whole := e.Must("-n", system, "get", "secret", "ambit-ca", "-o", `jsonpath={.data.authority\.json}`)
	patch := func(encoded string) []string {
		return []string{"-n", system, "patch", "secret", "ambit-ca", "-p", fmt.Sprintf(`{"data":{%q:%q}}`, key, encoded)}
	}
	e.Later(patch(whole)...)
	record, err := base64.StdEncoding.DecodeString(whole)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range []struct{ what, said, record string }{
		{"cut-off", "is damaged", string(record[:len(record)/2])},
		{"expired", "the root expired at", expired(e.t, record)},
	} {
		e.t.Log("the authority's Secret is", m.what)
		before := e.replicas()
		e.Must(patch(base64.StdEncoding.EncodeToString([]byte(m.record)))...)
		for _, p := range before {
			e.logged("pod/"+p, "Secret "+system+"/ambit-ca, key "+key, m.said, "restore the Secret from a backup")
		}
		name := m.what
		e.Apply(e.ns, echoApp(name, e.Nodes[1])) // it has a certificate of its own
		e.Ready(e.ns, "deploy/"+name)
		e.captured("-l", "app="+name)
		e.eventually("near", "http://"+name+"/", "Hostname="+name+"-")

		e.Must("-n", system, "rollout", "restart", "deploy/ambit-controlplane")
		e.Until("who starts refuses to, and those who serve stay", 2*time.Minute, func() error {
			state := e.Must("-n", system, "get", "pods", "-l", "app.kubernetes.io/name=ambit-controlplane", "-o",
				`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
			for _, p := range before {
				if !strings.Contains(state, p+" true") {
					e.t.Fatalf("%s serves no longer:\n%s", p, state)
				}
			}
			for line := range strings.Lines(state) {
				if f := strings.Fields(line); len(f) == 3 && f[1] == "false" && f[2] != "0" {
					return nil
				}
			}
			return fmt.Errorf("none has been refused:\n%s", state)
		})
		e.Must(patch(whole)...)
		// The one that was refused would be started again after minutes.
		e.Must("-n", system, "rollout", "restart", "deploy/ambit-controlplane")
		e.Ready(system, "deploy/ambit-controlplane")
	}
	e.eventually("near", "http://far/", "Hostname=far-")
}

// replicas are the control plane's, once none is ending any more.
func (e enrolled) replicas() (names []string) {
	e.t.Helper()
	want := e.Must("-n", system, "get", "deploy/ambit-controlplane", "-o", "jsonpath={.spec.replicas}")
	e.Until("the control plane has "+want+" replicas", 2*time.Minute, func() error {
		names = pods(e.Cluster, "controlplane")
		if strconv.Itoa(len(names)) != want {
			return fmt.Errorf("there are %v", names)
		}
		return nil
	})
	return names
}

// expired gives the record of an authority whose root is the same, but of last year.
func expired(t *testing.T, text []byte) string {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	issuing, ok := record["issuing"].(map[string]any)
	if !ok {
		t.Fatalf("no issuing in %v", record)
	}
	part := func(name string) []byte {
		s, _ := issuing[name].(string)
		block, _ := pem.Decode([]byte(s))
		if block == nil {
			t.Fatalf("%s is not PEM", name)
		}
		return block.Bytes
	}
	root, err := x509.ParseCertificate(part("rootCert"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(part("rootKey"))
	if err != nil {
		t.Fatal(err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the root's key is a %T", key)
	}
	root.NotBefore, root.NotAfter = root.NotBefore.AddDate(-1, 0, 0), root.NotBefore.AddDate(0, 0, -1)
	der, err := x509.CreateCertificate(rand.Reader, root, root, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	issuing["rootCert"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	out, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
