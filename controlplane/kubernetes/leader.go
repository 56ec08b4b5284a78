package kubernetes

import (
	"context"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/internal/cluster"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/controlplane/internal/provisioner"
	"github.com/ambit-mesh/ambit/controlplane/internal/status"
	"github.com/ambit-mesh/ambit/controlplane/internal/taint"
	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// tokenAudience is for whom the tokens of the mesh's pods are made.
const tokenAudience = "ambit-mesh.io" //nolint:gosec // a name, and no token

// leads is what the leader writes to Kubernetes, beside the root bundle.
type leads struct {
	writer      *status.Writer
	provisioner *provisioner.Provisioner
	taints      *taint.Keeper
	events      *recorder
}

// makeLeads wires what the leader writes.
func (p *platform) makeLeads() error {
	cfg := &p.cfg
	direct, err := client.New(p.rest, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	l := &leads{events: &recorder{sink: p.client.EventsV1()}, taints: taint.New(direct, cfg.RootNamespace, cfg.Log.Named("taints"))}
	l.provisioner = provisioner.New(provisioner.Config{
		Client: direct, Source: p.parts.Compiler, Options: p.waypointOptions(), Events: l.events, Log: cfg.Log.Named("provision"),
		Cache: func() (cache.Cache, error) {
			return cache.New(p.rest, cache.Options{Scheme: scheme.Scheme, DefaultLabelSelector: labels.SelectorFromSet(labels.Set(provisioner.Owned()))})
		},
		Refusals: func(n types.NamespacedName) {
			l.writer.Changed(graph.Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: n.Namespace, Name: n.Name})
		},
	})
	if l.writer, err = status.New(status.Config{
		Client: direct, Source: status.FromCompiler(p.parts.Compiler, l.provisioner), Kinds: status.Kinds(), Events: l.events,
		Log: cfg.Log.Named("status"), Metrics: cfg.Registry,
	}); err != nil {
		return err
	}
	p.leads = l
	return nil
}

// changed takes what the compiler has touched.
func (l *leads) changed(keys []graph.Key) {
	l.writer.Changed(keys...)
	for _, k := range keys {
		if k.Group == gatewayv1.GroupName && k.Kind == "Gateway" {
			l.provisioner.Changed(k.NamespacedName())
		}
	}
}

// touched takes what anybody has written.
func (p *platform) touched(k graph.Key, resourceVersion string) {
	if p.leads == nil {
		return
	}
	switch {
	case k.Group == "" && k.Kind == "Node":
		if !p.cfg.NoTaints && p.leader.Leads() {
			p.leads.taints.Seen(k.Name)
		}
	case k.Kind == "Pod" || k.Kind == "EndpointSlice" || k.Kind == graph.KindConfigMap:
	default:
		p.leads.writer.Touched(k, resourceVersion)
	}
}

// waypointOptions gives what the waypoints of this mesh have in common.
func (p *platform) waypointOptions() provision.Options {
	port := "15012"
	if _, own, err := net.SplitHostPort(p.cfg.XDSAddress); err == nil && own != "0" {
		port = own
	}
	host := p.cfg.ServingNames[0]
	return provision.Options{
		XDSAddress: net.JoinHostPort(host, port), XDSServerName: host, ClusterID: p.cfg.ClusterID, TrustDomain: p.cfg.TrustDomain,
		LogLevel: p.cfg.WaypointLogLevel, Image: p.cfg.WaypointImage,
		Cluster: &provision.Cluster{
			TokenAudience: tokenAudience, RootConfigMap: cluster.BundleName, PriorityClass: p.cfg.WaypointPriorityClass,
			PullPolicy: corev1.PullPolicy(p.cfg.WaypointPullPolicy),
		},
	}
}

// lead adds what the leader runs.
func (p *platform) lead(g *lifecycle.Group) {
	l := p.leads
	g.Add("events", l.events)
	g.Add("status", l.writer)
	g.Add("waypoints", l.provisioner)
	if !p.cfg.NoTaints {
		g.Add("fresh nodes", l.taints.Watcher())
	}
}

// reports hands on reports, and notes that an agent is there.
type reports struct {
	nodes.Sink
	taints *taint.Keeper
}

func (r reports) Report(ctx context.Context, report compile.CaptureReport) error {
	err := r.Sink.Report(ctx, report)
	if err == nil && report.Snapshot {
		r.taints.Reported(report.Node)
	}
	return err
}
