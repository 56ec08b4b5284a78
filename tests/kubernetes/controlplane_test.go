package kubernetes

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane"
	onkubernetes "github.com/ambit-mesh/ambit/controlplane/kubernetes"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const root = "ambit-system"

type replica struct {
	*controlplane.ControlPlane
	t    *testing.T
	stop func()
}

func config(t *testing.T, s *apitest.Server) controlplane.Config {
	return controlplane.Config{
		Source: controlplane.SourceKubernetes, Kubernetes: onkubernetes.New, Kubeconfig: s.Kubeconfig, ReleaseTimeout: time.Second,
		XDSAddress: "127.0.0.1:0", AdminAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", ReadyAddress: "127.0.0.1:0",
		Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
	}
}

func run(t *testing.T, c *controlplane.ControlPlane) *replica {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r := &replica{ControlPlane: c, t: t, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})}
	t.Cleanup(r.stop)
	testkit.Until(t, "ready", func() bool { return r.get("http://"+c.ReadyAddr().String()+"/healthz/ready", nil) })
	return r
}

func (r *replica) get(url string, into any) bool {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return false
	}
	return into == nil || json.Unmarshal(body, into) == nil
}

// tells says whether a replica distributes an address with a text in it.
func (r *replica) tells(name, text string) bool {
	var dump map[string][]struct {
		Name string
		Body json.RawMessage
	}
	if !r.get("http://"+r.AdminAddr().String()+"/config_dump", &dump) {
		return false
	}
	for _, list := range dump {
		for _, res := range list {
			if strings.Contains(res.Name, name) && strings.Contains(string(res.Body), text) {
				return true
			}
		}
	}
	return false
}

func kubectl(t *testing.T, s *apitest.Server, stdin string, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const mesh = `
apiVersion: v1
kind: Namespace
metadata: {name: ambit-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ambit-nodeagent, namespace: ambit-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: ambit-system}
spec: {nodeName: n1, hostNetwork: true, serviceAccountName: ambit-nodeagent, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
`

func start(t *testing.T) (*apitest.Server, kubernetes.Interface) {
	s := apitest.Start(t)
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, s, mesh, "apply", "-f", "-")
	kubectl(t, s, "", "patch", "pod", "-n", "shop", "web", "--subresource=status", "-p",
		`{"status":{"phase":"Running","podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"}],"conditions":[{"type":"Ready","status":"True"}]}}`)
	return s, client
}

// token is one of a ServiceAccount, bound to a pod, as the kubelet gets it.
func token(t *testing.T, c kubernetes.Interface, ns, account, pod, audience string) string {
	t.Helper()
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
	if pod != "" {
		p, err := c.CoreV1().Pods(ns).Get(t.Context(), pod, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		req.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: p.UID}
	}
	out, err := c.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), account, req, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out.Status.Token
}

// report opens a stream as a node's agent with a token.
func report(t *testing.T, r *replica, token string) nodepb.NodeService_ReportClient {
	t.Helper()
	conn, err := grpc.NewClient(r.XDSAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token))
	t.Cleanup(cancel)
	stream, err := nodepb.NewNodeServiceClient(conn).Report(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func condition(t *testing.T, c kubernetes.Interface) string {
	t.Helper()
	p, err := c.CoreV1().Pods("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == "ambit-mesh.io/Captured" {
			return string(cond.Status) + "/" + cond.Reason
		}
	}
	return ""
}

// TestMesh: two replicas make one authority, read the mesh, agree about a capture that
// one of them was told of, release it, and a later definition needs no restart.
func TestMesh(t *testing.T) {
	s, client := start(t)
	var made [2]*controlplane.ControlPlane
	var wg sync.WaitGroup
	for i := range made {
		cfg := config(t, s)
		wg.Go(func() {
			c, err := controlplane.New(cfg)
			if err != nil {
				t.Error(err)
			}
			made[i] = c
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	a, b := run(t, made[0]), run(t, made[1])
	var roots [2]struct {
		CA struct{ Roots []struct{ Serial string } }
	}
	for i, r := range []*replica{a, b} {
		if !r.get("http://"+r.AdminAddr().String()+"/debug/status", &roots[i]) {
			t.Fatal("no status")
		}
		if !r.tells("shop/web", `"targetPort":8080`) && !r.tells("Pod/shop/web", "8080") {
			t.Error("the pod's named port is not told")
		}
	}
	if x, y := roots[0].CA.Roots, roots[1].CA.Roots; len(x) != 1 || len(y) != 1 || x[0].Serial != y[0].Serial {
		t.Fatalf("two roots: %v, %v", x, y)
	}
	testkit.Until(t, "roots in namespace shop", func() bool {
		cm, err := client.CoreV1().ConfigMaps("shop").Get(t.Context(), "ambit-root-cert", metav1.GetOptions{})
		return err == nil && strings.Contains(cm.Data["root-cert.pem"], "BEGIN CERTIFICATE")
	})

	for name, bad := range map[string]string{
		"not bound to a pod": token(t, client, root, "ambit-nodeagent", "", "ambit-mesh.io"),
		"not for audience":   token(t, client, root, "ambit-nodeagent", "agent", "other"),
		"neither":            token(t, client, "shop", "web", "web", "ambit-mesh.io"),
		"no ServiceAccount":  "secret",
	} {
		if _, err := report(t, a, bad).Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), name) {
			t.Errorf("token %s: %v", name, err)
		}
	}

	web, err := client.CoreV1().Pods("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	agent := report(t, a, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	say := func(state nodepb.PodState_State, snapshot bool) {
		t.Helper()
		if err := agent.Send(&nodepb.ReportRequest{Sequence: 1, Snapshot: snapshot, Pods: []*nodepb.PodState{{Uid: string(web.UID), State: state}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	say(nodepb.PodState_CAPTURED, true)
	if got := condition(t, client); got != "True/Captured" {
		t.Fatalf("acknowledged with condition %q", got)
	}
	if !a.tells("Pod/shop/web", "HBONE") {
		t.Error("acknowledged, and not distributed")
	}
	testkit.Until(t, "the other replica tells it too", func() bool { return b.tells("Pod/shop/web", "HBONE") })

	b.stop()
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/dataplane-mode-")
	testkit.Until(t, "releasing", func() bool { return condition(t, client) == "True/Releasing" })
	if a.tells("Pod/shop/web", "HBONE") {
		t.Error("released while peers are told of a tunnel")
	}
	testkit.Until(t, "agent told", func() bool {
		return a.tells(string(web.UID), `"serviceAccount"`) && !a.tells(string(web.UID), `"captured":true`)
	})
	say(nodepb.PodState_RELEASED, false)
	if got := condition(t, client); got != "False/Released" {
		t.Fatalf("released with condition %q", got)
	}

	crds, err := filepath.Glob("../../manifests/crds/*.yaml")
	if err != nil || len(crds) == 0 {
		t.Fatal("no definitions", err)
	}
	kubectl(t, s, "", "apply", "--server-side", "-f", "../../manifests/crds")
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "--all")
	kubectl(t, s, `{"apiVersion": "ambit-mesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {"name": "late", "namespace": "shop"}, "spec": {"action": "ALLOW", "targetRefs": [{"group": "", "kind": "Namespace"}]}}`, "apply", "-f", "-")
	testkit.Until(t, "a policy of a definition that came later", func() bool { return a.tells("shop/late", "") })
	kubectl(t, s, "", "delete", "crd", "authorizationpolicies.ambit-mesh.io")
	testkit.Until(t, "the policy is gone with its definition", func() bool { return !a.tells("shop/late", "") })

	kubectl(t, s, "", "delete", "pod", "-n", root, "agent", "--force", "--grace-period=0")
	if _, err := agent.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream of a pod that is gone: %v", err)
	}
}

// TestBadSecret: a Secret that cannot be used is named, with the key and what to do.
func TestBadSecret(t *testing.T) {
	s, client := start(t)
	for name, data := range map[string]map[string][]byte{
		"missing or empty": {"other": []byte("x")},
		"is damaged":       {"authority.json": []byte("{")},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ambit-ca", Namespace: root}, Data: data}
		if _, err := client.CoreV1().Secrets(root).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := controlplane.New(config(t, s))
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "Secret ambit-system/ambit-ca, key authority.json") || !strings.Contains(err.Error(), "delete") {
			t.Errorf("%s: %v", name, err)
		}
		if err := client.CoreV1().Secrets(root).Delete(t.Context(), "ambit-ca", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
