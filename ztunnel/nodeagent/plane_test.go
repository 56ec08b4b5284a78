package nodeagent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
)

// fakePlane is a control plane of the two services that a node agent uses. It can
// go away and come back.
type fakePlane struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	nodepb.UnimplementedNodeServiceServer

	mu        sync.Mutex
	resources map[string]map[string]*discoveryv3.Resource // by type and name
	version   int
	streams   map[chan *discoveryv3.DeltaDiscoveryResponse]struct{}
	states    map[string]*nodepb.PodState // what was reported, and how often snapshots came
	snapshots int
	nacks     []string
	listener  *bufconn.Listener // nil while away
	server    *grpc.Server
}

func newPlane(t *testing.T) *fakePlane {
	p := &fakePlane{
		resources: map[string]map[string]*discoveryv3.Resource{typePod: {}, typeNamespace: {}},
		streams:   map[chan *discoveryv3.DeltaDiscoveryResponse]struct{}{}, states: map[string]*nodepb.PodState{},
	}
	t.Cleanup(p.leave)
	return p
}

// arrive starts serving.
func (p *fakePlane) arrive() {
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(srv, p)
	nodepb.RegisterNodeServiceServer(srv, p)
	p.mu.Lock()
	p.listener, p.server = l, srv
	p.mu.Unlock()
	go func() { _ = srv.Serve(l) }()
}

// leave ends every stream and refuses new ones.
func (p *fakePlane) leave() {
	p.mu.Lock()
	srv := p.server
	p.listener, p.server = nil, nil
	p.mu.Unlock()
	if srv != nil {
		srv.Stop()
	}
}

// dial gives a connection to the plane, wherever it is at the time.
func (p *fakePlane) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, MaxDelay: 20 * time.Millisecond}}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			p.mu.Lock()
			l := p.listener
			p.mu.Unlock()
			if l == nil {
				return nil, errors.New("the control plane is away")
			}
			return l.DialContext(ctx)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *fakePlane) put(t *testing.T, url, name string, m proto.Message) {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	r := &discoveryv3.Resource{Name: name, Version: strconv.Itoa(p.version), Resource: body}
	p.resources[url][name] = r
	p.pushLocked(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: r.Version, Resources: []*discoveryv3.Resource{r}})
}

func (p *fakePlane) remove(url, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	delete(p.resources[url], name)
	p.pushLocked(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: strconv.Itoa(p.version), RemovedResources: []string{name}})
}

func (p *fakePlane) pushLocked(r *discoveryv3.DeltaDiscoveryResponse) {
	for c := range p.streams {
		c <- r
	}
}

func (p *fakePlane) namespace(t *testing.T, name string, enrolled bool) {
	t.Helper()
	p.put(t, typeNamespace, name, &nodepb.Namespace{Name: name, Enrolled: enrolled})
}

func (p *fakePlane) pod(t *testing.T, uid string, captured bool) {
	t.Helper()
	p.put(t, typePod, uid, &nodepb.Pod{Uid: uid, Name: "app-" + uid, Namespace: "shop", ServiceAccount: "app", Captured: captured})
}

// podAt is pod with an address.
func (p *fakePlane) podAt(t *testing.T, uid string, addr netip.Addr, captured bool) {
	t.Helper()
	p.put(t, typePod, uid, &nodepb.Pod{
		Uid: uid, Name: "app-" + uid, Namespace: "shop", ServiceAccount: "app", Captured: captured, Addresses: [][]byte{addr.AsSlice()},
	})
}

// reported gives the last reported state of a pod.
func (p *fakePlane) reported(uid string) (nodepb.PodState_State, string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.states[uid]
	return s.GetState(), s.GetMessage(), ok
}

func (p *fakePlane) is(uid string, want nodepb.PodState_State) bool {
	got, _, ok := p.reported(uid)
	return ok && got == want
}

// DeltaAggregatedResources implements the discovery service.
func (p *fakePlane) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	out := make(chan *discoveryv3.DeltaDiscoveryResponse, 1024)
	defer func() {
		p.mu.Lock()
		delete(p.streams, out)
		p.mu.Unlock()
	}()
	in := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(in)
		for {
			req, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case in <- req:
			case <-s.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case req, ok := <-in:
			if !ok {
				return nil
			}
			p.subscribe(req, out)
		case resp := <-out:
			if err := s.Send(resp); err != nil {
				return err
			}
		}
	}
}

// subscribe answers a first request with all that the client does not hold.
func (p *fakePlane) subscribe(req *discoveryv3.DeltaDiscoveryRequest, out chan *discoveryv3.DeltaDiscoveryResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.GetResponseNonce() != "" {
		if d := req.GetErrorDetail(); d != nil {
			p.nacks = append(p.nacks, d.GetMessage())
		}
		return
	}
	p.streams[out] = struct{}{}
	p.version++
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: req.GetTypeUrl(), Nonce: strconv.Itoa(p.version)}
	held := req.GetInitialResourceVersions()
	for name, r := range p.resources[req.GetTypeUrl()] {
		if held[name] != r.GetVersion() {
			resp.Resources = append(resp.Resources, r)
		}
	}
	for name := range held {
		if p.resources[req.GetTypeUrl()][name] == nil {
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	out <- resp
}

// Report implements the node service.
func (p *fakePlane) Report(s nodepb.NodeService_ReportServer) error {
	for {
		req, err := s.Recv()
		if err != nil {
			return err
		}
		p.mu.Lock()
		if req.GetSnapshot() {
			p.snapshots++
			clear(p.states)
		}
		for _, st := range req.GetPods() {
			p.states[st.GetUid()] = st
		}
		p.mu.Unlock()
		if err := s.Send(&nodepb.ReportResponse{Sequence: req.GetSequence()}); err != nil {
			return err
		}
	}
}
