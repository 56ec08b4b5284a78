package controlplane_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

type adsClient = discovery.AggregatedDiscoveryServiceClient

// abuse is what a node's xDS client may do to the control plane, until ctx ends.
type abuse func(ctx context.Context, c adsClient)

// nack refuses everything that it is sent.
func nack(ctx context.Context, c adsClient) {
	s, err := c.DeltaAggregatedResources(ctx)
	if err == nil {
		err = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress})
	}
	for err == nil {
		var resp *discovery.DeltaDiscoveryResponse
		if resp, err = s.Recv(); err == nil {
			err = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.TypeUrl, ResponseNonce: resp.Nonce, ErrorDetail: &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: "no"}})
		}
	}
}

// stall asks for everything, and neither reads nor answers.
func stall(ctx context.Context, c adsClient) {
	if s, err := c.DeltaAggregatedResources(ctx); err == nil {
		for _, t := range []string{compile.TypeAuthorization, compile.TypeAddress} {
			_ = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: t})
		}
	}
	<-ctx.Done()
}

// flood asks without end for what there is and what there is not.
func flood(ctx context.Context, c adsClient) {
	for ctx.Err() == nil {
		s, err := c.DeltaAggregatedResources(ctx)
		for i := 0; err == nil; i++ {
			err = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResourceNamesSubscribe: []string{fmt.Sprintf("made-up-%d", i), "*"}, ResponseNonce: "x"})
		}
		if s != nil {
			_, _ = s.Recv() // why it ended
		}
	}
}

// reconnect begins stream after stream and asks for everything on each.
func reconnect(ctx context.Context, c adsClient) {
	for ctx.Err() == nil {
		one, cancel := context.WithCancel(ctx)
		if s, err := c.DeltaAggregatedResources(one); err == nil {
			_ = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress})
			_, _ = s.Recv()
		}
		cancel()
	}
}

// Whatever a node's client does, the clients of other nodes hear of each change at
// once, and certificates are issued.
func TestAbusiveClientsDisturbNobodyElse(t *testing.T) {
	for name, abuse := range map[string]abuse{"refuses": nack, "stalls": stall, "floods": flood, "reconnects": reconnect} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t, nil)
			p.manifest("ns.yaml", namespace("ambient"))
			for i := range 200 {
				p.manifest(fmt.Sprintf("pod-%d.yaml", i), podAt(fmt.Sprintf("pod-%d", i), "n1", "Running", fmt.Sprintf("10.0.2.%d", i)))
			}
			p.start()
			honest := p.follow("n2", compile.TypeAuthorization, compile.TypeAddress)
			conn, ctx := p.dial("n1")
			ctx, cancel := context.WithCancel(ctx)
			ended := make(chan struct{}, 4)
			for range cap(ended) {
				go func() {
					abuse(ctx, discovery.NewAggregatedDiscoveryServiceClient(conn))
					ended <- struct{}{}
				}()
			}
			for i := range 20 {
				name := fmt.Sprintf("new-%d", i)
				began := time.Now()
				p.manifest(name+".yaml", podAt(name, "n2", "Running", fmt.Sprintf("10.0.3.%d", i)))
				testkit.Until(t, name+" is known", func() bool { return honest.workload(name) != nil })
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("another node heard of a change after %s", took)
				}
			}
			if _, err := p.certify("n2", "spiffe://cluster.local/ns/shop/sa/new-0", &x509.CertificateRequest{}); err != nil {
				t.Errorf("another node's certificate: %v", err)
			}
			cancel()
			for range cap(ended) {
				<-ended
			}
		})
	}
}
