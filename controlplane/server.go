package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

// stopTimeout bounds how long calls may go on after a stop.
const stopTimeout = 3 * time.Second

// maxRequest has room for the resource versions of 100,000 workloads.
const maxRequest = 32 << 20

// services are what nodes call.
type services struct {
	ads  discovery.AggregatedDiscoveryServiceServer
	ca   capb.IstioCertificateServiceServer
	node nodepb.NodeServiceServer
}

// server serves nodes over TLS.
type server struct {
	listener net.Listener
	tls      *tls.Config
	auth     *nodes.Authenticator
	services services
	// after is closed when there is something to serve.
	after <-chan struct{}
	// serving is called when that is so.
	serving func()
}

// Run serves until ctx ends.
func (s *server) Run(ctx context.Context) error {
	select {
	case <-s.after:
	case <-ctx.Done():
		return s.listener.Close()
	}
	s.serving()
	g := s.grpc()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.auth.Close()
		force := time.AfterFunc(stopTimeout, g.Stop)
		defer force.Stop()
		g.GracefulStop()
	})
	err := g.Serve(s.listener)
	if stop() {
		g.Stop()
	} else {
		<-stopped
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return nil
}

func (s *server) grpc() *grpc.Server {
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(s.tls)),
		grpc.UnaryInterceptor(s.auth.Unary),
		grpc.StreamInterceptor(s.auth.Stream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(256),
		grpc.ConnectionTimeout(10*time.Second),
		// A peer that is gone without a word is noticed within 40 s, one that
		// only holds a connection within 5 min.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 5 * time.Minute, Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s.services.ads)
	capb.RegisterIstioCertificateServiceServer(g, s.services.ca)
	nodepb.RegisterNodeServiceServer(g, s.services.node)
	return g
}
