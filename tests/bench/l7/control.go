package l7

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
)

// control tells a waypoint about the services of the benchmark, once.
type control struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	resources map[string][]*discoveryv3.Resource // by type
}

// serveControl serves xDS and the authority until stop is called.
func serveControl(a *authority, rules int) (stop func(), err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.certify(key.Public(), nil, serverName)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(waypointHost, strconv.Itoa(controlPort)))
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(cfg)))
	capb.RegisterIstioCertificateServiceServer(s, a)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, newControl(rules))
	go func() { _ = s.Serve(l) }()
	return s.Stop, nil
}

// DeltaAggregatedResources answers the first request of each type with all there
// is, and otherwise listens.
func (c *control) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for n := 1; ; n++ {
		req, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the waypoint has left
		}
		if e := req.GetErrorDetail(); e != nil {
			return fmt.Errorf("waypoint refused %s: %s", req.GetTypeUrl(), e.GetMessage())
		}
		if req.GetResponseNonce() != "" {
			continue
		}
		resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: req.GetTypeUrl(), Nonce: strconv.Itoa(n), Resources: c.resources[req.GetTypeUrl()]}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func newControl(rules int) *control {
	c := &control{resources: make(map[string][]*discoveryv3.Resource)}
	c.add("app/"+hostname("web"), serviceOf("web", serviceVIP))
	c.add("app/"+hostname("web"), frontend(rules))
	for i, name := range backendNames {
		c.add("app/"+hostname(name), serviceOf(name, netip.Addr{}))
		c.add("Kubernetes//Pod/app/"+name, workloadOf(name, backendHosts[i], name))
	}
	c.add("Kubernetes//Pod/app/client", workloadOf("client", clientHost, ""))
	c.add("Kubernetes//Pod/app/waypoint", workloadOf("waypoint", netip.MustParseAddr(waypointHost), ""))
	return c
}

var backendNames = [2]string{"web-v1", "web-v2"}

func hostname(service string) string { return service + ".app.svc.cluster.local" }

func (c *control) add(name string, m proto.Message) {
	body, err := anypb.New(m)
	if err != nil {
		panic(err) // a message that we have just made can be marshalled
	}
	c.resources[body.GetTypeUrl()] = append(c.resources[body.GetTypeUrl()], &discoveryv3.Resource{Name: name, Version: "1", Resource: body})
}

// ports of all services: 80 speaks HTTP/1.1, 81 HTTP/2.
func ports() []*workloadpb.Port {
	return []*workloadpb.Port{{ServicePort: 80, TargetPort: plainHTTP1}, {ServicePort: 81, TargetPort: plainHTTP2}}
}

func serviceOf(name string, vip netip.Addr) *workloadpb.Address {
	s := &workloadpb.Service{Name: name, Namespace: "app", Hostname: hostname(name), Canonical: true, Ports: ports()}
	if vip.IsValid() {
		s.Addresses = []*workloadpb.NetworkAddress{{Address: vip.AsSlice()}}
	}
	return &workloadpb.Address{Type: &workloadpb.Address_Service{Service: s}}
}

func workloadOf(name string, addr netip.Addr, service string) *workloadpb.Address {
	w := &workloadpb.Workload{
		Uid: "Kubernetes//Pod/app/" + name, Name: name, Namespace: "app", ServiceAccount: name, TrustDomain: trustDomain, Addresses: [][]byte{addr.AsSlice()},
		TunnelProtocol: workloadpb.TunnelProtocol_HBONE, CanonicalName: name, CanonicalRevision: "v1", WorkloadName: name, ClusterId: "Kubernetes", Node: "n1",
	}
	if service != "" {
		w.Services = map[string]*workloadpb.PortList{"app/" + hostname(service): {Ports: ports()}}
	}
	return &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}}
}

func frontend(rules int) *waypoint.Frontend {
	f := &waypoint.Frontend{Namespace: "app", Name: "web", Hostname: hostname("web"), Addresses: [][]byte{serviceVIP.AsSlice()}}
	for _, p := range []struct {
		number uint32
		name   string
		proto  waypoint.Protocol
	}{{80, "http", waypoint.Protocol_PROTOCOL_HTTP1}, {81, "h2c", waypoint.Protocol_PROTOCOL_HTTP2}} {
		route := &waypoint.Route{Kind: "HTTPRoute", Namespace: "app", Name: "web"}
		for i := range rules {
			route.Rules = append(route.Rules, rule(i, p.number))
		}
		f.Ports = append(f.Ports, &waypoint.Port{
			Number: p.number, Name: p.name, Protocol: p.proto, Kind: waypoint.RouteKind_ROUTE_KIND_HTTP,
			Producer: &waypoint.RouteTable{Routes: []*waypoint.Route{route}},
		})
	}
	return f
}

func rule(i int, port uint32) *waypoint.Rule {
	backend := func(name string, weight uint32) *waypoint.WeightedBackend {
		return &waypoint.WeightedBackend{Weight: weight, Backend: &waypoint.BackendRef{Service: "app/" + hostname(name), Port: port}}
	}
	return &waypoint.Rule{
		Index: uint32(i),
		Matches: []*waypoint.Match{{
			Path:    &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: prefix(i)}},
			Headers: []*waypoint.ValueMatch{{Name: matchHeader, Type: &waypoint.ValueMatch_Exact{Exact: matchValue}}},
		}},
		Backends: []*waypoint.WeightedBackend{backend(backendNames[0], weightFirst), backend(backendNames[1], weightRest)},
		Retry: &waypoint.Retry{
			On:    []waypoint.Retry_On{waypoint.Retry_ON_CONNECT_FAILURE, waypoint.Retry_ON_REFUSED_STREAM, waypoint.Retry_ON_RESET},
			Codes: []uint32{503}, Attempts: retries,
		},
	}
}
