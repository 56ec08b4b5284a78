package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

// loot is a token that an attacker has found, and the control plane it is shown to.
type loot struct {
	t   *testing.T
	cc  *grpc.ClientConn
	csr string // with the attacker's own key
}

// find opens a connection that shows a token with each call.
func find(t *testing.T, r *replica, token string) *loot {
	t.Helper()
	show := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	cc, err := grpc.NewClient(r.XDSAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return call(show(ctx), method, in, out, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(show(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return &loot{t: t, cc: cc, csr: encode("CERTIFICATE REQUEST", der)}
}

// certificate asks for an identity and gives the chain.
func (l *loot) certificate(id string) ([]string, error) {
	answer, err := capb.NewIstioCertificateServiceClient(l.cc).CreateCertificate(l.t.Context(), &capb.IstioCertificateRequest{
		Csr: l.csr, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(id)}},
	})
	return answer.GetCertChain(), err
}

// refused asks for identities that must not be had, each with the reason.
func (l *loot) refused(code codes.Code, identities map[string]string) {
	l.t.Helper()
	for id, why := range identities {
		if _, err := l.certificate(id); status.Code(err) != code || !strings.Contains(err.Error(), why) {
			l.t.Errorf("%s: %v; want %s that says %q", id, err, code, why)
		}
	}
}

// resources asks for all resources of a type and gives the names of the first answer.
func (l *loot) resources(typeURL string, names ...string) ([]string, error) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(l.cc).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names}); err != nil && !errors.Is(err, io.EOF) { // why it ended is for who receives
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, res := range answer.GetResources() {
		out = append(out, res.GetName())
	}
	slices.Sort(out)
	return out, nil
}

// report says of pods that they are captured, and gives the answer.
func (l *loot) report(uids ...string) error {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	stream, err := nodepb.NewNodeServiceClient(l.cc).Report(ctx)
	if err != nil {
		return err
	}
	r := &nodepb.ReportRequest{Sequence: 1, Snapshot: true}
	for _, uid := range uids {
		r.Pods = append(r.Pods, &nodepb.PodState{Uid: uid, State: nodepb.PodState_CAPTURED})
	}
	if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) { // the same
		return err
	}
	_, err = stream.Recv()
	return err
}

// nothingOf says that an account may do nothing in the Kubernetes API beyond what
// everybody may: ask what it may do, and what the server is.
func nothingOf(t *testing.T, s *apitest.Server, namespace, name, token string) {
	t.Helper()
	// Not even who it is: the token is for another audience.
	cfg := rest.AnonymousClientConfig(s.Config)
	cfg.BearerToken = token
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("the token of %s/%s at the API server: %v, want Unauthorized", namespace, name, err)
	}
	// And were it for the API server, it would be of no use.
	as := rest.CopyConfig(s.Config)
	as.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	if client, err = kubernetes.NewForConfig(as); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{namespace, "kube-system", "bank"} {
		got, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}}, metav1.CreateOptions{})
		if err != nil || got.Status.Incomplete {
			t.Fatal(err, got)
		}
		if len(got.Status.ResourceRules) == 0 {
			t.Error("no rules at all: the review tells nothing")
		}
		for _, r := range got.Status.ResourceRules {
			for _, resource := range r.Resources {
				if !strings.HasPrefix(resource, "self") {
					t.Errorf("%s/%s may in namespace %s %v %s", namespace, name, ns, r.Verbs, resource)
				}
			}
		}
		for _, r := range got.Status.NonResourceRules {
			if !slices.Equal(r.Verbs, []string{"get"}) {
				t.Errorf("%s/%s may %v %v", namespace, name, r.Verbs, r.NonResourceURLs)
			}
		}
	}
}

// twoNodes is a mesh of two namespaces on two nodes, each with a waypoint; a batch job
// of shop has ended.
func twoNodes() string {
	var out strings.Builder
	fmt.Fprint(&out, mesh, "---\n{apiVersion: v1, kind: Namespace, metadata: {name: bank, labels: {ambit-mesh.io/dataplane-mode: ambient, ambit-mesh.io/use-waypoint: wp}}}\n",
		"---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: ambit-ztunnel, namespace: ambit-system}}\n")
	for _, ns := range []string{"shop", "bank"} {
		fmt.Fprintf(&out, "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: wp, namespace: %s}, spec: {gatewayClassName: ambit-waypoint, %s}}\n", ns, hbone)
	}
	for _, p := range []struct{ ns, account, name, node, labels string }{
		{"ambit-system", "ambit-ztunnel", "ztunnel", "n1", ""},
		{"shop", "batch", "ended", "n1", ""},
		{"shop", "cart", "cart", "n2", ""},
		{"shop", "wp", "wp-1", "n1", "gateway.networking.k8s.io/gateway-name: wp"},
		{"bank", "vault", "vault", "n2", "app: vault"},
		{"bank", "wp", "wp-1", "n2", "gateway.networking.k8s.io/gateway-name: wp"},
	} {
		fmt.Fprintf(&out, "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: %s, namespace: %s}}\n", p.account, p.ns)
		fmt.Fprintf(&out, "---\n{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {%s}}, spec: {nodeName: %s, serviceAccountName: %s, containers: [{name: c, image: i}]}}\n", p.name, p.ns, p.labels, p.node, p.account)
	}
	fmt.Fprint(&out, "---\n{apiVersion: v1, kind: Service, metadata: {name: vault, namespace: bank}, spec: {selector: {app: vault}, ports: [{port: 80}]}}\n")
	return out.String()
}

// TestTakenOver: an attacker has a node, a waypoint or a pod, with all of its
// credentials, and makes of them what can be made.
func TestTakenOver(t *testing.T) {
	s := apitest.Start(t)
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	install(t, s, nil)
	kubectl(t, s, twoNodes(), "apply", "--server-side", "--force-conflicts", "-f", "-")
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/use-waypoint=wp")
	for i, pod := range []string{"shop web", "shop cart", "shop wp-1", "bank vault", "bank wp-1", "shop ended"} {
		ns, name, _ := strings.Cut(pod, " ")
		phase := "Running"
		if name == "ended" {
			phase = "Succeeded"
		}
		kubectl(t, s, "", "patch", "pod", "-n", ns, name, "--subresource=status", "-p",
			fmt.Sprintf(`{"status":{"phase":%q,"podIP":"10.1.0.%d","podIPs":[{"ip":"10.1.0.%[2]d"}],"conditions":[{"type":"Ready","status":"True"}]}}`, phase, i+1))
	}
	_, kubeconfig := s.As(account, "system:serviceaccounts")
	cfg := config(t, s)
	cfg.Kubeconfig = kubeconfig
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	uid := func(ns, name string) string {
		return kubectl(t, s, "", "get", "pod", "-n", ns, name, "-o", "jsonpath={.metadata.uid}")
	}
	testkit.Until(t, "both waypoints are told of services", func() bool { return r.tells("bank/vault", "wp") && r.tells("shop/web", "wp") })
	id := func(ns, account string) string { return "spiffe://cluster.local/ns/" + ns + "/sa/" + account }

	for _, program := range []struct{ account, pod string }{{"ambit-ztunnel", "ztunnel"}, {"ambit-nodeagent", "agent"}} {
		t.Run("node by "+program.account, func(t *testing.T) {
			stolen := token(t, client, root, program.account, program.pod, "ambit-mesh.io")
			l := find(t, r, stolen)
			if _, err := l.certificate(id("shop", "web")); err != nil {
				t.Errorf("a pod that runs there: %v", err)
			}
			l.refused(codes.PermissionDenied, map[string]string{
				id("bank", "vault"):                      "its 1 live pods are not on node n1",
				id("shop", "cart"):                       "its 1 live pods are not on node n1",
				id("shop", "batch"):                      "finished and deleted pods do not count",
				id("shop", "wp"):                         "is a waypoint, which asks for itself",
				id("bank", "wp"):                         "not on node n1",
				id("shop", "nobody"):                     "no live pod has this service account",
				id("nowhere", "web"):                     "there is no namespace nowhere",
				id("ambit-system", "ambit-controlplane"): "no live pod has this service account",
				"spiffe://evil.example/ns/shop/sa/web":   "trust domain cluster.local only",
			})
			for _, typeURL := range []string{compile.TypeFrontend, compile.TypeBackend} {
				if got, err := l.resources(typeURL, "*"); status.Code(err) != codes.PermissionDenied {
					t.Errorf("%s: %v, %v", typeURL, got, err)
				}
			}
			pods, err := l.resources(compile.TypePod, "*")
			if err != nil || !slices.Contains(pods, uid("shop", "web")) || slices.Contains(pods, uid("shop", "cart")) || slices.Contains(pods, uid("bank", "vault")) {
				t.Errorf("it is told of pods %v, %v; want those of its node", pods, err)
			}
			// What it says of another node's pod is not heard: peers would send tunnels there.
			if err := l.report(uid("bank", "vault"), uid("shop", "web")); err != nil {
				t.Fatal(err)
			}
			testkit.Until(t, "its own report counts", func() bool { return r.tells("Pod/shop/web", "HBONE") })
			if r.tells("Pod/bank/vault", "HBONE") {
				t.Error("it has another node's pod pass for captured")
			}
			nothingOf(t, s, root, program.account, stolen)
		})
	}

	t.Run("waypoint", func(t *testing.T) {
		stolen := token(t, client, "shop", "wp", "wp-1", "ambit-mesh.io")
		l := find(t, r, stolen)
		if _, err := l.certificate(id("shop", "wp")); err != nil {
			t.Errorf("its own identity: %v", err)
		}
		l.refused(codes.PermissionDenied, map[string]string{
			id("shop", "web"): "its own identity is " + id("shop", "wp"), id("bank", "vault"): "its own identity is", id("bank", "wp"): "its own identity is",
			id(root, "ambit-ztunnel"): "its own identity is", "spiffe://evil.example/ns/shop/sa/wp": "trust domain cluster.local only",
		})
		frontends, err := l.resources(compile.TypeFrontend, "*")
		if err != nil || !slices.ContainsFunc(frontends, func(n string) bool { return strings.HasPrefix(n, "shop/web") }) ||
			slices.ContainsFunc(frontends, func(n string) bool { return strings.HasPrefix(n, "bank/") }) {
			t.Errorf("it is told of the services %v, %v; want those that are bound to it", frontends, err)
		}
		if got, err := l.resources(compile.TypeFrontend, "bank/vault.bank.svc.cluster.local"); err != nil || len(got) > 0 {
			t.Errorf("another waypoint's service by its name: %v, %v", got, err)
		}
		for _, typeURL := range []string{compile.TypePod, compile.TypeNamespace} {
			if got, err := l.resources(typeURL, "*"); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s: %v, %v", typeURL, got, err)
			}
		}
		if err := l.report(uid("shop", "web")); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a report: %v", err)
		}
		nothingOf(t, s, "shop", "wp", stolen)
	})

	t.Run("pod", func(t *testing.T) {
		// Whoever writes a pod may give it a token of any audience.
		stolen := token(t, client, "shop", "web", "web", "ambit-mesh.io")
		l := find(t, r, stolen)
		l.refused(codes.Unauthenticated, map[string]string{id("shop", "web"): "is neither a ztunnel or node agent", id("bank", "vault"): "is neither"})
		for _, typeURL := range []string{compile.TypeAddress, compile.TypeFrontend, compile.TypePod} {
			if got, err := l.resources(typeURL, "*"); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: %v, %v", typeURL, got, err)
			}
		}
		if err := l.report(uid("shop", "web")); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a report: %v", err)
		}
		nothingOf(t, s, "shop", "web", stolen)
	})

	t.Run("what is withdrawn", func(t *testing.T) {
		l := find(t, r, token(t, client, root, "ambit-ztunnel", "ztunnel", "ambit-mesh.io"))
		kubectl(t, s, "", "delete", "pod", "-n", "shop", "web", "--force", "--grace-period=0")
		testkit.Until(t, "the identity of a pod that is gone is refused", func() bool {
			_, err := l.certificate(id("shop", "web"))
			return status.Code(err) == codes.PermissionDenied
		})
		kubectl(t, s, "", "delete", "pod", "-n", root, "ztunnel", "--force", "--grace-period=0")
		testkit.Until(t, "the token of a ztunnel that is gone is of no use", func() bool {
			_, err := l.resources(compile.TypeAddress, "*")
			return err != nil
		})
		// It is not asked what for: nobody is calling any more.
		_, err := l.certificate(id("shop", "web"))
		if code := status.Code(err); code != codes.Unauthenticated && code != codes.Unavailable {
			t.Errorf("a certificate by it: %v", err)
		}
	})
}
