package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
	"github.com/ambit-mesh/ambit/internal/flow/gather"
)

// Selectors of the proxies' pods: as the chart labels ztunnels, and as the control
// plane labels what it makes for a Gateway.
const (
	selectZtunnels  = "app.kubernetes.io/name=ambit-ztunnel"
	selectWaypoints = graph.LabelGatewayName + "," + graph.LabelDataplaneMode + "=" + graph.ModeNone
)

// clusterMesh is the mesh of a cluster.
type clusterMesh struct {
	*kube.Cluster
	say func(format string, args ...any)
}

func (m clusterMesh) Flows(ctx context.Context, req *flowpb.ObserveRequest, each func(gather.Told)) error {
	src := &clusterProxies{clusterMesh: m, dials: make(chan struct{}, maxDials), said: make(map[string]bool)}
	err := (&gather.Reader{Source: src, Request: req, Each: each, Need: true}).Run(ctx)
	var none *gather.NoneError
	switch {
	case errors.Is(err, gather.ErrNoProxy):
		return fmt.Errorf("%w in namespace %s, and no waypoint: see ambit check", err, m.System)
	case errors.As(err, &none):
		return fmt.Errorf("%w: see the reasons above: it takes the right to create pods/portforward where they run, and that they are well (ambit check)", err)
	case err == nil && !req.GetFollow() && ctx.Err() != nil:
		return context.Cause(ctx) // what was told is not all
	}
	return err
}

// clusterProxies finds the proxies' pods.
type clusterProxies struct {
	clusterMesh
	dials chan struct{}
	lists []podList
	said  map[string]bool
}

// maxDials is how many pods are connected to at a time.
const maxDials = 32

// podList is what a question for pods gave, so that it can be watched for changes.
type podList struct {
	namespace, selector, version string
	pods                         map[types.UID]string // and how they are
}

// how tells the changes of a pod that matter.
func how(p *corev1.Pod) string { return fmt.Sprint(p.Status.Phase) }

// Proxies implements gather.Source.
func (s *clusterProxies) Proxies(ctx context.Context) ([]gather.Proxy, error) {
	s.lists = nil
	ztunnels, zerr := s.list(ctx, s.System, selectZtunnels)
	waypoints, werr := s.list(ctx, metav1.NamespaceAll, selectWaypoints)
	if apierrors.IsForbidden(werr) {
		s.once(fmt.Sprintf("waypoints outside of namespace %s are left out: %v", s.Namespace, werr))
		waypoints, werr = s.list(ctx, s.Namespace, selectWaypoints)
	}
	// Who may look into a part of the mesh sees that part.
	switch {
	case zerr != nil && (werr != nil || !apierrors.IsForbidden(zerr)):
		return nil, fmt.Errorf("find ztunnels: %w", zerr)
	case werr != nil && !apierrors.IsForbidden(werr):
		return nil, fmt.Errorf("find waypoints: %w", werr)
	case zerr != nil:
		s.once(fmt.Sprintf("ztunnels are left out: %v", zerr))
	case werr != nil:
		s.once(fmt.Sprintf("waypoints are left out: %v", werr))
	}
	var all []gather.Proxy
	for i := range ztunnels {
		all = s.add(all, &ztunnels[i])
	}
	if len(waypoints) == 0 {
		return all, nil
	}
	foreign, err := s.foreign(ctx)
	if err != nil {
		return nil, err
	}
	for i := range waypoints {
		if p := &waypoints[i]; !foreign[types.NamespacedName{Namespace: p.Namespace, Name: p.Labels[graph.LabelGatewayName]}] {
			all = s.add(all, p)
		}
	}
	return all, nil
}

// once says something once.
func (s *clusterProxies) once(text string) {
	if !s.said[text] {
		s.said[text] = true
		s.say("%s", text)
	}
}

// list gives pods and keeps what is needed to watch for changes.
func (s *clusterProxies) list(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	l, err := s.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	known := podList{namespace: namespace, selector: selector, version: l.ResourceVersion, pods: make(map[types.UID]string)}
	for i := range l.Items {
		known.pods[l.Items[i].UID] = how(&l.Items[i])
	}
	s.lists = append(s.lists, known)
	return l.Items, nil
}

// foreign gives the Gateways that are known to be of another class. Who may not list
// Gateways has to do with the labels of the pods.
func (s *clusterProxies) foreign(ctx context.Context) (map[types.NamespacedName]bool, error) {
	items, err := s.List(ctx, kube.Gateways(), metav1.NamespaceAll)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	out := make(map[types.NamespacedName]bool)
	for i := range items {
		class, _, _ := unstructured.NestedString(items[i].Object, "spec", "gatewayClassName")
		if class != graph.WaypointClass && class != graph.IstioWaypointClass {
			out[types.NamespacedName{Namespace: items[i].GetNamespace(), Name: items[i].GetName()}] = true
		}
	}
	return out, nil
}

// add adds the proxy of a pod if it runs. One that ends goes on to tell of the
// connections that it still has.
func (s *clusterProxies) add(all []gather.Proxy, p *corev1.Pod) []gather.Proxy {
	if p.Status.Phase != corev1.PodRunning {
		return all
	}
	namespace, name := p.Namespace, p.Name
	return append(all, gather.Proxy{
		Name: fmt.Sprintf("%s/%s on %s", namespace, name, p.Spec.NodeName),
		Dial: func(ctx context.Context) (net.Conn, error) {
			select {
			case s.dials <- struct{}{}:
				defer func() { <-s.dials }()
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			return s.Dial(ctx, namespace, name, portAdmin)
		},
	})
}

const (
	// together is how long changes are gathered: a roll-out makes many.
	together = 500 * time.Millisecond
	// relist is how often is looked where pods cannot be watched.
	relist = 5 * time.Second
)

// Changed implements gather.Source.
func (s *clusterProxies) Changed(ctx context.Context) {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range s.lists {
		wg.Go(func() {
			defer cancel()
			if !s.watch(either, l) {
				wait(either, relist)
			}
		})
	}
	if len(s.lists) == 0 {
		wait(ctx, relist)
	}
	wg.Wait()
	wait(ctx, together)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watch returns when other pods run than those of a list, or when ctx or the watch
// ends; false if they cannot be watched.
func (s *clusterProxies) watch(ctx context.Context, l podList) bool {
	w, err := s.CoreV1().Pods(l.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: l.selector, ResourceVersion: l.version})
	if err != nil {
		return false
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case e, ok := <-w.ResultChan():
			if !ok {
				return true
			}
			p, isPod := e.Object.(*corev1.Pod)
			if !isPod || e.Type == watch.Deleted {
				return isPod // else the version is too old
			}
			if l.pods[p.UID] != how(p) && (how(p) == string(corev1.PodRunning) || l.pods[p.UID] == string(corev1.PodRunning)) {
				return true
			}
		}
	}
}
