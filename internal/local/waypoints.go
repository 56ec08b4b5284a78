package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/local/pod"
	"github.com/ambit-mesh/ambit/internal/local/service"
	"github.com/ambit-mesh/ambit/internal/local/wire"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// waypoint is a Gateway of class ambit-waypoint, or a namespace's label that
// stands for one.
type waypoint struct {
	gateway *gatewayv1.Gateway
	implied bool
	verdict provision.Verdict
}

// waypointsOf gives the waypoints that manifests ask for, sorted.
func waypointsOf(objects []manifest.Object) []waypoint {
	g := graph.New()
	var ch graph.Changes
	for _, o := range objects {
		switch o.Resource.(type) {
		case *corev1.Namespace, *gatewayv1.Gateway:
			ch.Upserts = append(ch.Upserts, graph.Entry{Object: o.Resource})
		}
	}
	g.Apply(ch)
	var out []waypoint
	for _, n := range g.Waypoints() {
		gw, _ := g.Waypoint(n)
		_, written := g.Gateway(n)
		out = append(out, waypoint{gateway: gw, implied: !written, verdict: provision.Check(gw)})
	}
	return out
}

// provision gives what waypoints are made of, beside the manifests. What is
// wrong with a Gateway itself is for the control plane to say.
func (s *supervisor) provision(objects []manifest.Object, waypoints []waypoint) (made []manifest.Object, problems []manifest.Problem) {
	if !s.options.Mesh {
		return nil, nil
	}
	have := make(map[manifest.Key]manifest.Object, len(objects))
	for _, o := range objects {
		have[o.Key()] = o
	}
	missing := s.missingProgram()
	for _, w := range waypoints {
		gw := w.gateway
		owner := have[manifest.Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: gw.Namespace, Name: gw.Name}]
		if w.implied {
			owner = have[manifest.Key{Kind: "Namespace", Name: gw.Namespace}]
		}
		switch {
		case len(w.verdict.Problems) > 0:
			continue
		case missing != "":
			problems = append(problems, owner.Problem("", missing))
			continue
		}
		all := provision.Make(gw, s.waypointOptions())
		for _, r := range []manifest.Resource{all.ServiceAccount, all.Service, all.Deployment} {
			o := manifest.Object{Resource: r, Source: owner.Source}
			if other, taken := have[o.Key()]; taken {
				problems = append(problems, other.Problem("metadata.name", "waypoint "+gw.Namespace+"/"+gw.Name+
					" needs this name for an object of its own, and this one is used in its place: rename one of them"))
				continue
			}
			r.SetUID(s.uidOf(o.Key()))
			made = append(made, o)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.provisioned = make(map[manifest.Key]manifest.Object, len(made))
	for _, o := range made {
		s.provisioned[o.Key()] = o
	}
	return made, problems
}

// uidOf gives a provisioned object the uid that it had before.
func (s *supervisor) uidOf(k manifest.Key) types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.provisioned[k]; ok {
		return o.GetUID()
	}
	return newUID()
}

func (s *supervisor) missingProgram() string {
	if _, err := os.Stat(filepath.Join(s.options.BinDir, provision.Program)); err != nil {
		return fmt.Sprintf("a waypoint needs a program: %v: build it (make build), or set --bin-dir to where it is", err)
	}
	return ""
}

func (s *supervisor) waypointOptions() provision.Options {
	return provision.Options{
		XDSAddress: fmt.Sprintf("%s:%d", wire.ControlPlane4, portXDS), XDSServerName: serverName, ClusterID: clusterID,
		TrustDomain: s.options.TrustDomain, LogLevel: s.options.LogLevel, Args: s.options.Args["waypoint"],
	}
}

// arm gives a pod of a waypoint what it proves itself with.
func (s *supervisor) arm(p *pod.Pod, o *corev1.Pod, owner manifest.Key) error {
	s.mu.Lock()
	_, ours := s.provisioned[owner]
	s.mu.Unlock()
	if !ours {
		return nil
	}
	token, err := s.credentials.issuePod(o)
	if err != nil {
		return err
	}
	p.Provide(pod.Secrets{Dir: provision.SecretsDir, Token: token, TokenFile: provision.TokenFile, Root: s.files.root(), RootFile: provision.RootFile})
	return nil
}

// rootsEvery is how often waypoints are handed the control plane's roots, which
// change when the authority is exchanged.
const rootsEvery = 2 * time.Second

// refreshRoots keeps the roots in the pods of waypoints up to date.
func (s *supervisor) refreshRoots(ctx context.Context) error {
	tick := time.NewTicker(rootsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, m := range s.sweep() {
			if err := m.pod.RefreshRoot(); err != nil {
				s.log.Warn("waypoint keeps former roots", zap.String("pod", m.name), zap.Error(err))
			}
		}
	}
}

// gatewaysWithStatus gives the waypoints with what has become of them.
func (s *supervisor) gatewaysWithStatus(waypoints []waypoint, backed []service.Backed) []*gatewayv1.Gateway {
	var out []*gatewayv1.Gateway
	for _, w := range waypoints {
		var f provision.Facts
		i := slices.IndexFunc(backed, func(b service.Backed) bool {
			return b.Service.Namespace == w.gateway.Namespace && b.Service.Name == w.gateway.Name
		})
		if i >= 0 {
			f.Hostname = w.gateway.Name + "." + w.gateway.Namespace + ".svc." + s.options.ClusterDomain
			f.Addresses = backed[i].Service.Spec.ClusterIPs
			for _, e := range backed[i].Endpoints {
				f.Pods++
				if e.Ready {
					f.Ready++
				}
			}
		}
		gw := w.gateway.DeepCopy()
		gw.Status = provision.Status(gw, w.verdict, f)
		out = append(out, gw)
	}
	return out
}
