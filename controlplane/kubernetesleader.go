package controlplane

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
func (c *ControlPlane) makeLeads() error {
	cfg, k := &c.cfg, c.kube
	direct, err := client.New(k.rest, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	l := &leads{events: &recorder{sink: k.client.EventsV1()}, taints: taint.New(direct, cfg.RootNamespace, cfg.Log.Named("taints"))}
	l.provisioner = provisioner.New(provisioner.Config{
		Client: direct, Source: c.compiler, Options: c.waypointOptions(), Events: l.events, Log: cfg.Log.Named("provision"),
		Cache: func() (cache.Cache, error) {
			return cache.New(k.rest, cache.Options{Scheme: scheme.Scheme, DefaultLabelSelector: labels.SelectorFromSet(labels.Set(provisioner.Owned()))})
		},
		Refusals: func(n types.NamespacedName) {
			l.writer.Changed(graph.Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: n.Namespace, Name: n.Name})
		},
	})
	if l.writer, err = status.New(status.Config{
		Client: direct, Source: status.FromCompiler(c.compiler, l.provisioner), Kinds: status.Kinds(), Events: l.events,
		Log: cfg.Log.Named("status"), Metrics: cfg.Registry,
	}); err != nil {
		return err
	}
	c.engine.touched = l.changed
	k.leads = l
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
func (c *ControlPlane) touched(k graph.Key, resourceVersion string) {
	if c.kube.leads == nil {
		return
	}
	switch {
	case k.Group == "" && k.Kind == "Node":
		if !c.cfg.NoTaints && c.kube.leader.Leads() {
			c.kube.leads.taints.Seen(k.Name)
		}
	case k.Kind == "Pod" || k.Kind == "EndpointSlice" || k.Kind == graph.KindConfigMap:
	default:
		c.kube.leads.writer.Touched(k, resourceVersion)
	}
}

// waypointOptions gives what the waypoints of this mesh have in common.
func (c *ControlPlane) waypointOptions() provision.Options {
	port := "15012"
	if _, p, err := net.SplitHostPort(c.cfg.XDSAddress); err == nil && p != "0" {
		port = p
	}
	host := c.cfg.ServingNames[0]
	return provision.Options{
		XDSAddress: net.JoinHostPort(host, port), XDSServerName: host, ClusterID: c.cfg.ClusterID, TrustDomain: c.cfg.TrustDomain,
		LogLevel: c.cfg.WaypointLogLevel, Image: c.cfg.WaypointImage,
		Cluster: &provision.Cluster{
			TokenAudience: tokenAudience, RootConfigMap: cluster.BundleName, PriorityClass: c.cfg.WaypointPriorityClass,
			PullPolicy: corev1.PullPolicy(c.cfg.WaypointPullPolicy),
		},
	}
}

// lead adds what the leader runs.
func (c *ControlPlane) lead(g *lifecycle.Group) {
	l := c.kube.leads
	g.Add("events", l.events)
	g.Add("status", l.writer)
	g.Add("waypoints", l.provisioner)
	if !c.cfg.NoTaints {
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
