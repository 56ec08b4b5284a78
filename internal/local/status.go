package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/system"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// status describes the whole mesh.
func (s *supervisor) status(ctx context.Context) control.Status {
	s.mu.Lock()
	v := s.view
	s.mu.Unlock()
	st := control.Status{
		Name: s.options.Name, Manifests: s.options.Manifests, State: s.files.state, Started: s.began,
		Mesh: s.options.Mesh, Rootless: s.options.Rootless, Ready: v.ready,
		Problems: lines(v.problems), Notes: lines(v.notes),
	}
	for _, c := range s.components {
		st.Components = append(st.Components, c.Status())
	}
	told, known := s.askControlPlane(ctx)
	captured := told.captured()
	st.Routes = told.refusedRoutes()
	// The control plane reads the same manifests: what both find counts once.
	for _, p := range told.complaints() {
		if !slices.Contains(st.Problems, p) {
			st.Problems = append(st.Problems, p)
		}
	}
	perNode := make(map[string]int)
	for _, m := range s.sweep() {
		p := podStatus(m)
		if known {
			p.Captured = map[bool]string{true: "yes", false: "no"}[captured[p.UID]]
		}
		st.Pods = append(st.Pods, p)
		perNode[m.node]++
	}
	st.Waypoints = waypointStatuses(v.objects)
	for _, n := range s.nodes {
		cn := control.Node{Name: n.wire.Name, Addresses: []string{n.wire.Addr4.String()}, PodBlocks: n.plain.Spec.PodCIDRs, Pods: perNode[n.wire.Name]}
		if n.wire.Addr6.IsValid() {
			cn.Addresses = append(cn.Addresses, n.wire.Addr6.String())
		}
		if s.options.Mesh {
			if dump, err := dumpProxy(ctx, system.Client(n.wire.Namespaces.Net)); err == nil {
				cn.Certificates = dump.certificates()
			}
		}
		st.Nodes = append(st.Nodes, cn)
	}
	return st
}

// waypointStatuses reads the waypoints among generated objects.
func waypointStatuses(objects []manifest.Resource) []control.Waypoint {
	var out []control.Waypoint
	for _, r := range objects {
		gw, ok := r.(*gatewayv1.Gateway)
		if !ok {
			continue
		}
		w := control.Waypoint{Namespace: gw.Namespace, Name: gw.Name}
		for _, a := range gw.Status.Addresses {
			w.Addresses = append(w.Addresses, a.Value)
		}
		if c := meta.FindStatusCondition(gw.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)); c != nil {
			w.Programmed, w.Message = c.Status == metav1.ConditionTrue, c.Message
		}
		out = append(out, w)
	}
	return out
}

func lines(problems []manifest.Problem) []string {
	all := make([]string, len(problems))
	for i, p := range problems {
		all[i] = p.Error()
	}
	return all
}

func podStatus(m *member) control.Pod {
	o := m.pod.Object()
	p := control.Pod{
		Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), Node: o.Spec.NodeName, Netns: m.pod.Netns(),
		Pids: m.pod.Pids(), Created: m.created,
	}
	p.State, p.Message = stateOf(o)
	for _, ip := range o.Status.PodIPs {
		p.IPs = append(p.IPs, ip.IP)
	}
	ready := 0
	for _, c := range o.Status.ContainerStatuses {
		p.Restarts += int(c.RestartCount)
		if c.Ready {
			ready++
		}
	}
	p.Ready = fmt.Sprintf("%d/%d", ready, len(o.Status.ContainerStatuses))
	return p
}

// stateOf is the one word that says most about a pod, and what there is to add.
func stateOf(o *corev1.Pod) (state, message string) {
	switch {
	case o.DeletionTimestamp != nil:
		return "Terminating", ""
	case o.Status.Message != "":
		return "Waiting", o.Status.Message
	}
	for _, c := range append(slices.Clone(o.Status.InitContainerStatuses), o.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Message != "" {
			return w.Reason, "container " + c.Name + ": " + w.Message
		}
	}
	return string(o.Status.Phase), ""
}

// controlPlaneStatus is the part of the control plane's /debug/status that is
// shown here.
type controlPlaneStatus struct {
	Captured []struct {
		UID string `json:"uid"`
	} `json:"captured"`
	Problems []complaint `json:"problems"`
	Findings []complaint `json:"findings"`
	outcomes
}

// complaint is a manifest's problem, or an object's.
type complaint struct {
	At      string          `json:"at"`
	Origin  string          `json:"origin"`
	Object  json.RawMessage `json:"object"`
	Field   string          `json:"field"`
	Message string          `json:"message"`
}

func (c complaint) String() string {
	var parts []string
	for _, s := range []string{c.At, c.Origin, c.object(), c.Field, c.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// object gives the name of the object, which is a text or a key.
func (c complaint) object() string {
	var text string
	if json.Unmarshal(c.Object, &text) == nil {
		return text
	}
	var key manifest.Key
	if json.Unmarshal(c.Object, &key) == nil && key.Kind != "" {
		return key.String()
	}
	return ""
}

// askAdmin reads JSON from the control plane's admin port.
func (s *supervisor) askAdmin(ctx context.Context, path string, into any) error {
	if !s.options.Mesh {
		return errors.New("this local mesh runs without the mesh's processes (--mesh=false)")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", portAdmin, path), nil)
	if err != nil {
		return err
	}
	resp, err := system.Client(nil).Do(req)
	if err != nil {
		return fmt.Errorf("ask the control plane: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the control plane for %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// askControlPlane asks for the control plane's status; ok is false where it does
// not answer.
func (s *supervisor) askControlPlane(ctx context.Context) (st controlPlaneStatus, ok bool) {
	err := s.askAdmin(ctx, "/debug/status", &st)
	return st, err == nil
}

// captured gives the uids of captured pods.
func (st *controlPlaneStatus) captured() map[string]bool {
	all := make(map[string]bool)
	for _, p := range st.Captured {
		all[p.UID] = true
	}
	return all
}

// complaints gives the manifests' problems as the control plane sees them.
func (st *controlPlaneStatus) complaints() []string {
	var all []string
	for _, c := range slices.Concat(st.Problems, st.Findings) {
		all = append(all, c.String())
	}
	return all
}
