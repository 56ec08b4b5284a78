package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/anypb"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
)

const (
	stateWorkloads = 100_000
	stateAdmin     = "127.0.0.1:25100"
)

// stateMemory measures a ztunnel that is told of many workloads by a server that
// does only that.
func (b *bench) stateMemory(ctx context.Context) error {
	dir := filepath.Join(b.dir, "state")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := errors.Join(writeCerts(dir), os.WriteFile(filepath.Join(dir, "token"), []byte(benchToken), 0o600)); err != nil {
		return err
	}
	cfg, err := relayTLS(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", stateServers)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: cfg.Certificates, MinVersion: tls.VersionTLS13})))
	feed := &feeder{workloads: 10, more: make(chan int), acked: make(chan struct{}, 8)}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, feed)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	pid, stop, err := start(ctx, filepath.Join(dir, "log"), b.sibling("ambit-ztunnel"), "--node", "n1", "--xds-address", stateServers, "--xds-server-name", "relay",
		"--xds-root", filepath.Join(dir, "cert.pem"), "--token-file", filepath.Join(dir, "token"), "--zds-socket", filepath.Join(dir, "zds.sock"),
		"--admin-address", stateAdmin, "--metrics-address", "127.0.0.1:25120", "--ready-address", "127.0.0.1:25121", "--access-log", "off")
	if err != nil {
		return err
	}
	defer stop()
	await := func() error {
		select {
		case <-feed.acked:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			return fmt.Errorf("ztunnel did not acknowledge: %s", log)
		}
	}
	if err := await(); err != nil {
		return err
	}
	proc := fmt.Sprintf("/proc/%d", pid)
	before := residentKB(proc)
	began := time.Now()
	feed.more <- stateWorkloads
	if err := await(); err != nil {
		return err
	}
	took := time.Since(began)
	// What unmarshalling needed is given back after a collection; the runtime
	// collects at least every two minutes.
	select {
	case <-time.After(130 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	after := residentKB(proc)
	fmt.Printf("\nztunnel with %d known workloads: %.2f KB resident for each (to reach: ≤ 3 KB), %d MB in all, taken in within %s\n",
		stateWorkloads, float64(after-before)/stateWorkloads, after>>10, took.Round(time.Millisecond))
	return b.heap(ctx, "state", stateAdmin)
}

// feeder is a control plane that knows only how to send workloads.
type feeder struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	workloads int
	more      chan int
	acked     chan struct{}
}

// DeltaAggregatedResources answers each first request, and sends more when told to.
func (f *feeder) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	sent := 0
	for {
		var resp *discoveryv3.DeltaDiscoveryResponse
		select {
		case r, ok := <-requests:
			switch {
			case !ok:
				return nil
			case r.GetResponseNonce() == "" && r.GetTypeUrl() == typeAddress:
				resp = &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeAddress, Resources: addresses(0, f.workloads)}
			case r.GetResponseNonce() == "":
				resp = &discoveryv3.DeltaDiscoveryResponse{TypeUrl: r.GetTypeUrl()}
			case r.GetTypeUrl() == typeAddress:
				f.acked <- struct{}{}
				continue
			default:
				continue
			}
		case n := <-f.more:
			resp = &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeAddress, Resources: addresses(f.workloads, n)}
		}
		sent++
		resp.Nonce = fmt.Sprint(sent)
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// addresses makes the workloads from i to n, and a service for every ten.
func addresses(i, n int) []*discoveryv3.Resource {
	var out []*discoveryv3.Resource
	add := func(name string, a *workloadpb.Address) {
		body, err := anypb.New(a)
		if err != nil {
			panic(err) // a message that we have just made can be marshalled
		}
		out = append(out, &discoveryv3.Resource{Name: name, Version: "1", Resource: body})
	}
	for ; i < n; i++ {
		app := fmt.Sprintf("svc-%d", i/10)
		host := app + ".big.svc.cluster.local"
		ports := []*workloadpb.Port{{ServicePort: 80, TargetPort: 8080}}
		if i%10 == 0 {
			vip := netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})
			add("big/"+host, &workloadpb.Address{Type: &workloadpb.Address_Service{Service: &workloadpb.Service{
				Name: app, Namespace: "big", Hostname: host, Ports: ports, Canonical: true, Addresses: []*workloadpb.NetworkAddress{{Address: vip.AsSlice()}},
			}}})
		}
		name := fmt.Sprintf("%s-7c5ddbdf54-%05d", app, i)
		ip := netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)})
		add("Kubernetes//Pod/big/"+name, &workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: &workloadpb.Workload{
			Uid: "Kubernetes//Pod/big/" + name, Name: name, Namespace: "big", ServiceAccount: app, Addresses: [][]byte{ip.AsSlice()}, Node: fmt.Sprintf("n%d", i%500),
			TunnelProtocol: workloadpb.TunnelProtocol_HBONE, CanonicalName: app, CanonicalRevision: "v1", WorkloadName: app, ClusterId: "Kubernetes",
			Services: map[string]*workloadpb.PortList{"big/" + host: {Ports: ports}},
		}}})
	}
	return out
}
