package netns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	securitypb "github.com/ambit-mesh/ambit/apis/security"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// standIn is a waypoint that looks into nothing: it takes tunnels, finds the
// endpoint as a ztunnel would, and says there for whom it comes.
type standIn struct {
	flags  map[string]string
	store  *wds.Store
	source *certs.Source
	pool   *hbone.Pool[standInKey]
}

type standInKey struct {
	addr netip.AddrPort
	peer identity.ID
}

func probeWaypoint(args []string) error {
	w := &standIn{flags: make(map[string]string), store: wds.New()}
	for _, a := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		w.flags[name] = value
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cc, err := xdsclient.Connect(xdsclient.Target{
		Address: w.flags["xds-address"], ServerName: w.flags["xds-server-name"], RootFile: w.flags["xds-root"], TokenFile: w.flags["token-file"], ClusterID: w.flags["cluster-id"],
	})
	if err != nil {
		return err
	}
	log := zap.Must(zap.NewProduction())
	manager := certs.NewManager(certs.NewClient(cc, time.Hour), log, nil)
	namespace, _, _ := strings.Cut(w.flags["gateway"], "/")
	source, release := manager.Use(identity.ID{TrustDomain: w.flags["trust-domain"], Namespace: namespace, ServiceAccount: w.flags["service-account"]})
	defer release()
	w.source = source
	w.pool = hbone.NewPool(w.dial, log)
	var subscriptions []xdsclient.Subscription
	for typeURL, handle := range map[string]func(xdsclient.Update) error{
		"istio.workload.Address": w.addresses, "istio.security.Authorization": ignore[*securitypb.Authorization],
		"ambit.waypoint.v1.Frontend": ignore[proto.Message], "ambit.waypoint.v1.Backend": ignore[proto.Message],
	} {
		subscriptions = append(subscriptions, xdsclient.Subscription{TypeURL: "type.googleapis.com/" + typeURL, Handle: handle})
	}
	client, err := xdsclient.New(cc, xdsclient.Config{Node: &corev3.Node{Id: "waypoint~" + w.flags["pod"]}, Logger: log}, subscriptions...)
	if err != nil {
		return err
	}
	go func() { _ = manager.Run(ctx) }()
	go func() { _ = client.Run(ctx) }()
	for _, s := range subscriptions {
		<-client.Synced(s.TypeURL)
	}
	if _, err := source.Get(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	return w.serve(ctx, client)
}

func ignore[T any](xdsclient.Update) error { return nil }

func (w *standIn) addresses(u xdsclient.Update) (err error) {
	w.store.Update(func(c wds.Change) {
		for _, name := range u.Removed {
			c.Remove(name)
		}
		for _, r := range u.Resources {
			a := new(workloadpb.Address)
			err = errors.Join(err, r.GetResource().UnmarshalTo(a), c.Put(r.GetName(), a))
		}
	})
	return err
}

func (w *standIn) serve(ctx context.Context, _ *xdsclient.Client) error {
	ready, err := net.Listen("tcp", ":15021")
	if err != nil {
		return err
	}
	go answerReady(ready)
	l, err := net.Listen("tcp", ":15008")
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		os.Exit(0)
	}()
	tlsConfig := identity.ServerConfig(func() (*identity.Certificate, error) { return w.source.Get(ctx) })
	for {
		sock, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer sock.Close()
			sc, err := hbone.NewServerConn(ctx, sock, tlsConfig, hbone.Config{}, w.stream)
			if err == nil {
				err = sc.Run(ctx)
			}
			fmt.Println("tunnel from", sock.RemoteAddr(), "ended:", err)
		}()
	}
}

func answerReady(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
		c.Close()
	}
}

// stream serves one CONNECT.
func (w *standIn) stream(ctx context.Context, in *hbone.Incoming) {
	if err := w.forward(ctx, in); err != nil {
		fmt.Println("refused:", err)
		var refused *hbone.RefusedError
		status := 503
		if errors.As(err, &refused) {
			status = refused.Status
		}
		in.Refuse(status, hbone.ProxyStatus("http_request_denied", err.Error()))
	}
}

func (w *standIn) forward(ctx context.Context, in *hbone.Incoming) error {
	client, err := identity.FromState(in.Peer)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(in.Authority)
	if err != nil {
		return err
	}
	namespace, _, _ := strings.Cut(w.flags["gateway"], "/")
	self := w.store.WorkloadByName(namespace, w.flags["pod"])
	if self == nil {
		return errors.New("not known yet")
	}
	route, err := w.store.Route(self, dst)
	if err != nil {
		return err
	}
	out, _, _, err := w.pool.Open(ctx, standInKey{route.Connect, route.Peers[0]}, hbone.Request{Authority: route.Authority, Fields: []hbone.Field{
		{Name: "ambit-source", Value: client.String()}, {Name: "forwarded", Value: `for="` + in.RemoteAddr.String() + `"`},
	}})
	if err != nil {
		return err
	}
	s, err := in.Accept()
	if err != nil {
		return err
	}
	a, b, err := pair()
	if err != nil {
		return err
	}
	defer a.Close()
	defer b.Close()
	ended := make(chan error, 1)
	go func() { ended <- out.Splice(b) }()
	_ = s.Splice(a)
	<-ended
	return nil
}

func (w *standIn) dial(ctx context.Context, k standInKey) (*hbone.ClientConn, error) {
	cert, err := w.source.Get(ctx)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cert.ClientConfig(k.peer)
	if err != nil {
		return nil, err
	}
	sock, err := net.Dial("tcp", k.addr.String())
	if err != nil {
		return nil, err
	}
	return hbone.NewClientConn(ctx, sock, tlsConfig, hbone.Config{})
}

// pair gives two ends of a connection that can be half-closed.
func pair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}
