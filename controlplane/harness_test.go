package controlplane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	nodepb "github.com/ambit-mesh/ambit/apis/node"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// plane is a whole control plane in this process, on a directory of manifests.
type plane struct {
	*controlplane.ControlPlane
	t    testing.TB
	dir  string
	cfg  controlplane.Config
	logs *observer.ObservedLogs
	stop func()
}

func token(node string) string { return "secret of " + node }

func newPlane(t testing.TB, change func(*controlplane.Config)) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{t: t, dir: dir}
	p.cfg = controlplane.Config{
		Manifests: []string{filepath.Join(dir, "manifests")}, StateDir: filepath.Join(dir, "state"),
		XDSAddress: "127.0.0.1:0", AdminAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", ReadyAddress: "127.0.0.1:0",
		NodeCredentials: filepath.Join(dir, "nodes.yaml"), ReleaseTimeout: 2 * time.Second,
	}
	if err := os.Mkdir(p.cfg.Manifests[0], 0o700); err != nil {
		t.Fatal(err)
	}
	var nodes strings.Builder
	for _, n := range []string{"n1", "n2"} {
		sum := sha256.Sum256([]byte(token(n)))
		fmt.Fprintf(&nodes, "- {node: %s, tokenSHA256: %s}\n", n, hex.EncodeToString(sum[:]))
	}
	p.writeFile(p.cfg.NodeCredentials, "nodes:\n"+nodes.String())
	if change != nil {
		change(&p.cfg)
	}
	return p
}

// manifest writes a manifest the way an editor does: at once.
func (p *plane) manifest(name, content string) {
	p.t.Helper()
	tmp := filepath.Join(p.dir, "tmp")
	p.writeFile(tmp, content)
	if err := os.Rename(tmp, filepath.Join(p.cfg.Manifests[0], name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) writeFile(path, content string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// start runs the control plane until stop is called or the test ends.
func (p *plane) start() {
	p.t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	p.logs = logs
	cfg := p.cfg
	cfg.Log = zap.New(core)
	c, err := controlplane.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.ControlPlane = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("control plane: %v", err)
		}
	})
	p.t.Cleanup(p.stop)
	testkit.Until(p.t, "ready", func() bool {
		code, _ := p.get("http://" + c.ReadyAddr().String() + "/healthz/ready")
		return code == http.StatusOK
	})
}

func (p *plane) restart() {
	p.stop()
	p.start()
}

func (p *plane) get(url string) (int, []byte) {
	p.t.Helper()
	return p.do(http.MethodGet, url)
}

func (p *plane) do(method, url string) (int, []byte) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Close = true // so that no idle connection outlives the test
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, body
}

func (p *plane) adminURL(path string) string { return "http://" + p.AdminAddr().String() + path }

// debug is what of /debug/status the tests look at.
type debug struct {
	Problems []struct{ At, Message string }
	Captured []compile.CapturedPod
	CA       struct {
		Phase string
		Roots []struct{ Serial string }
	}
}

func (p *plane) debug() debug {
	p.t.Helper()
	_, body := p.get(p.adminURL("/debug/status"))
	var d debug
	if err := json.Unmarshal(body, &d); err != nil {
		p.t.Fatalf("%v in %s", err, body)
	}
	return d
}

// dial connects to the node services as a node; "" has no credential.
func (p *plane) dial(node string) (*grpc.ClientConn, context.Context) {
	p.t.Helper()
	pemRoots, err := os.ReadFile(filepath.Join(p.cfg.StateDir, "root-cert.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemRoots)
	conn, err := grpc.NewClient(p.XDSAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: roots, ServerName: controlplane.DefaultServingName, MinVersion: tls.VersionTLS13,
	})))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(func() {
		cancel()
		if err := conn.Close(); err != nil {
			p.t.Error(err)
		}
	})
	if node != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token(node), "clusterid", "Kubernetes")
	}
	return conn, ctx
}

// certify asks for a certificate as a node.
func (p *plane) certify(node, id string, tmpl *x509.CertificateRequest) (*capb.IstioCertificateResponse, error) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		p.t.Fatal(err)
	}
	conn, ctx := p.dial(node)
	return capb.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &capb.IstioCertificateRequest{
		Csr:      string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(id)}},
	})
}

// follower is a delta ADS client that keeps what it is told.
type follower struct {
	t      testing.TB
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

	mu   sync.Mutex
	have map[compile.Key]*anypb.Any          // guarded by mu
	hold bool                                // guarded by mu; answer nothing
	held []*discovery.DeltaDiscoveryResponse // guarded by mu
	wire sync.Mutex                          // one Send at a time
}

func (p *plane) follow(node string, types ...string) *follower {
	p.t.Helper()
	conn, ctx := p.dial(node)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	f := &follower{t: p.t, stream: stream, have: make(map[compile.Key]*anypb.Any)}
	for _, t := range types {
		f.send(&discovery.DeltaDiscoveryRequest{TypeUrl: t})
	}
	go f.run()
	return f
}

func (f *follower) send(req *discovery.DeltaDiscoveryRequest) {
	f.wire.Lock()
	defer f.wire.Unlock()
	// An error is the stream's, and Recv gives it.
	_ = f.stream.Send(req)
}

func (f *follower) run() {
	for {
		resp, err := f.stream.Recv()
		if err != nil {
			return
		}
		f.mu.Lock()
		for _, r := range resp.Resources {
			f.have[compile.Key{Type: resp.TypeUrl, Name: r.Name}] = r.Resource
		}
		for _, n := range resp.RemovedResources {
			delete(f.have, compile.Key{Type: resp.TypeUrl, Name: n})
		}
		hold := f.hold
		if hold {
			f.held = append(f.held, resp)
		}
		f.mu.Unlock()
		if !hold {
			f.ack(resp)
		}
	}
}

func (f *follower) ack(resp *discovery.DeltaDiscoveryResponse) {
	f.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.TypeUrl, ResponseNonce: resp.Nonce})
}

// holdAcks has what comes from now on go unanswered until release.
func (f *follower) holdAcks() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = true
}

func (f *follower) release() {
	f.mu.Lock()
	held := f.held
	f.hold, f.held = false, nil
	f.mu.Unlock()
	for _, resp := range held {
		f.ack(resp)
	}
}

func (f *follower) get(typeURL, name string) *anypb.Any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have[compile.Key{Type: typeURL, Name: name}]
}

// workload gives what the client knows of a pod of namespace shop, or nil.
func (f *follower) workload(name string) *workloadpb.Workload {
	body := f.get(compile.TypeAddress, "Kubernetes//Pod/shop/"+name)
	if body == nil {
		return nil
	}
	var a workloadpb.Address
	if err := body.UnmarshalTo(&a); err != nil {
		f.t.Error(err)
	}
	return a.GetWorkload()
}

// captured says whether the node agent is to capture the pod.
func (f *follower) captured(uid string) bool {
	body := f.get(compile.TypePod, uid)
	if body == nil {
		return false
	}
	var p nodepb.Pod
	if err := body.UnmarshalTo(&p); err != nil {
		f.t.Error(err)
	}
	return p.Captured
}

// agent opens a report stream that has sent its snapshot.
func (p *plane) agent(node string, held ...*nodepb.PodState) func(...*nodepb.PodState) {
	p.t.Helper()
	conn, ctx := p.dial(node)
	stream, err := nodepb.NewNodeServiceClient(conn).Report(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	sequence := uint64(0)
	report := func(snapshot bool, pods []*nodepb.PodState) {
		p.t.Helper()
		sequence++
		if err := stream.Send(&nodepb.ReportRequest{Sequence: sequence, Snapshot: snapshot, Pods: pods}); err != nil {
			p.t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || resp.Sequence != sequence {
			p.t.Fatalf("report %d: %v, %v", sequence, resp, err)
		}
	}
	report(true, held)
	return func(pods ...*nodepb.PodState) { p.t.Helper(); report(false, pods) }
}
