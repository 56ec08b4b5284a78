package xds_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/apimachinery/pkg/types"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	securitypb "github.com/ambit-mesh/ambit/apis/security"
	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// harness is a server on an in-memory connection.
type harness struct {
	*xds.Server
	t    testing.TB
	conn *grpc.ClientConn
}

func serve(t testing.TB, cfg xds.Config) *harness {
	t.Helper()
	s, err := xds.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &harness{Server: s, t: t, conn: listen(t, s, 1<<20)}
}

// listen serves s as main does but for TLS and tokens: the node is taken from a
// header.
func listen(t testing.TB, s *xds.Server, buffer int) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(buffer)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(32<<20), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		md, _ := metadata.FromIncomingContext(ss.Context())
		if n := md.Get("node"); len(n) == 1 {
			return h(srv, &nodeStream{ss, nodes.NewContext(ss.Context(), callerOf(n[0]))})
		}
		return h(srv, ss)
	}))
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	conn, err := grpc.NewClient("passthrough:mem", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		<-done
	})
	return conn
}

// callerOf reads a node, or "node namespace pod gateway".
func callerOf(text string) nodes.Caller {
	f := strings.Fields(text)
	c := nodes.Caller{Node: f[0]}
	if len(f) == 4 {
		c.Workload = &nodes.Workload{Namespace: f[1], Pod: f[2], UID: f[2], ServiceAccount: f[3], Gateway: f[3]}
	}
	return c
}

type nodeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *nodeStream) Context() context.Context { return s.ctx }

func (h *harness) apply(d compile.Delta) uint64 {
	h.t.Helper()
	v, err := h.Apply(d)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *harness) update(rs ...*compile.Resource) uint64 {
	h.t.Helper()
	return h.apply(compile.Delta{Updated: rs})
}

func (h *harness) remove(typeURL string, names ...string) uint64 {
	h.t.Helper()
	var d compile.Delta
	for _, n := range names {
		d.Removed = append(d.Removed, compile.Key{Type: typeURL, Name: n})
	}
	return h.apply(d)
}

// peer is a delta ADS client of a node.
type peer struct {
	t      testing.TB
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan *discovery.DeltaDiscoveryResponse
	ended  chan error
	cancel context.CancelFunc
}

func (h *harness) connect(node string) *peer {
	h.t.Helper()
	p := h.dial(node)
	go p.receive()
	return p
}

// dial gives a peer that does not read.
func (h *harness) dial(node string) *peer {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h.t.Cleanup(cancel)
	if node != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "node", node)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(h.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	return &peer{t: h.t, stream: stream, got: make(chan *discovery.DeltaDiscoveryResponse, 1024), ended: make(chan error, 1), cancel: cancel}
}

func (p *peer) receive() {
	for {
		resp, err := p.stream.Recv()
		if err != nil {
			p.ended <- err
			return
		}
		p.got <- resp
	}
}

func (p *peer) send(req *discovery.DeltaDiscoveryRequest) {
	p.t.Helper()
	if err := p.stream.Send(req); err != nil {
		p.t.Fatal(err)
	}
}

// next waits for a response and acknowledges it.
func (p *peer) next() *discovery.DeltaDiscoveryResponse {
	p.t.Helper()
	resp := p.unanswered()
	p.ack(resp)
	return resp
}

func (p *peer) unanswered() *discovery.DeltaDiscoveryResponse {
	p.t.Helper()
	select {
	case resp := <-p.got:
		return resp
	case err := <-p.ended:
		p.t.Fatalf("stream ended: %v", err)
	case <-time.After(patience):
		p.t.Fatal("no response")
	}
	return nil
}

func (p *peer) ack(resp *discovery.DeltaDiscoveryResponse) {
	p.t.Helper()
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.TypeUrl, ResponseNonce: resp.Nonce})
}

func (p *peer) nack(resp *discovery.DeltaDiscoveryResponse, detail string) {
	p.t.Helper()
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.TypeUrl, ResponseNonce: resp.Nonce, ErrorDetail: &rpcstatus.Status{Code: 3, Message: detail}})
}

// end waits for the server to end the stream.
func (p *peer) end() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		p.t.Fatal("stream goes on")
	}
	return nil
}

// quiet proves that nothing is on its way: a request of a type that does not
// exist is answered first.
func (p *peer) quiet(probe string) {
	p.t.Helper()
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/probe." + probe})
	if resp := p.next(); resp.TypeUrl != "type.googleapis.com/probe."+probe {
		p.t.Fatalf("unexpected response: %s", show(resp))
	}
}

func wildcard(typeURL string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL}
}

func onDemand(typeURL string, names ...string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: append([]string{"*"}, names...), ResourceNamesUnsubscribe: []string{"*"}}
}

// show gives a response in one line: names in order, then removed ones.
func show(resp *discovery.DeltaDiscoveryResponse) string {
	var names []string
	for _, r := range resp.Resources {
		names = append(names, r.Name)
	}
	return fmt.Sprintf("+%v -%v", names, resp.RemovedResources)
}

func (p *peer) expect(want string) *discovery.DeltaDiscoveryResponse {
	p.t.Helper()
	resp := p.next()
	if got := show(resp); got != want {
		p.t.Fatalf("got %s, want %s", got, want)
	}
	return resp
}

func address(name, version, ip string, related ...string) *compile.Resource {
	r := &compile.Resource{Key: compile.Key{Type: compile.TypeAddress, Name: name}, Version: version}
	if ip != "" {
		r.Aliases = []string{"/" + ip}
	}
	r.Related = func() (keys []compile.Key) {
		for _, n := range related {
			keys = append(keys, compile.Key{Type: compile.TypeAddress, Name: n})
		}
		return keys
	}
	return r
}

// pod is a workload on a node that serves services.
func pod(name, version, ip, node string, services ...string) *compile.Resource {
	r := address(name, version, ip)
	w := &workloadpb.Workload{Uid: name, Name: version, Node: node, Services: map[string]*workloadpb.PortList{}}
	for _, s := range services {
		w.Services[s] = &workloadpb.PortList{}
	}
	r.Body = &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}
	return r
}

func service(name, version, ip string, workloads ...string) *compile.Resource {
	r := address(name, version, ip, workloads...)
	r.Body = &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{Name: version, Hostname: name}}}
	return r
}

func policy(name, version string) *compile.Resource {
	return &compile.Resource{Key: compile.Key{Type: compile.TypeAuthorization, Name: name}, Version: version, Body: &securitypb.Authorization{Name: name}}
}

func frontend(name, version, namespace, gateway string) *compile.Resource {
	return &compile.Resource{
		Key: compile.Key{Type: compile.TypeFrontend, Name: name}, Version: version,
		Waypoint: types.NamespacedName{Namespace: namespace, Name: gateway}, Body: &waypointpb.Frontend{Name: name, Hostname: version},
	}
}

func backend(name, version string) *compile.Resource {
	return &compile.Resource{Key: compile.Key{Type: compile.TypeBackend, Name: name}, Version: version, Body: &waypointpb.Backend{Name: name, Hostname: version}}
}

func capture(uid, version, on string) *compile.Resource {
	return &compile.Resource{Key: compile.Key{Type: compile.TypePod, Name: uid}, Version: version, Node: on, Body: &nodepb.Pod{Uid: uid}}
}

// opaque is a resource of a size.
func opaque(name, version string, size int) *compile.Resource {
	r := address(name, version, "")
	r.Body = wrapperspb.Bytes(make([]byte, size))
	return r
}

func nodeID(id string) *core.Node { return &core.Node{Id: id} }
