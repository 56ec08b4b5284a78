package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// Levels of a finding.
const (
	OK      = "ok"
	Warning = "warning"
	Failure = "failure"
)

// Finding is the outcome of one check.
type Finding struct {
	Check   string `json:"check"`
	Level   string `json:"level"`
	Message string `json:"message"`
	// Hint says what to do.
	Hint string `json:"hint,omitempty"`
}

// Bounds of versions.
const (
	oldestKubernetes = "1.31.0"
	oldestKernel     = "5.4.0" // nftables in network namespaces as the node agent uses them
	gatewayCRDs      = "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.3/standard-install.yaml"
)

// Before checks whether the mesh can be installed.
func (i *Installer) Before(ctx context.Context) ([]Finding, error) {
	out := []Finding{i.checkVersion()}
	for _, check := range []func(context.Context) (Finding, error){i.checkRights, i.checkGatewayAPI, i.checkNodes, i.checkCNI} {
		f, err := check(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// After checks whether what is installed is well.
func (i *Installer) After(ctx context.Context) ([]Finding, error) {
	rel, err := i.Current()
	if errors.Is(err, ErrNotInstalled) {
		return []Finding{{"release", Failure, "ambit is not installed in namespace " + i.Cluster.System, "ambit install"}}, nil
	} else if err != nil {
		return nil, err
	}
	out := []Finding{{"release", OK, fmt.Sprintf("revision %d, version %s, %s", rel.Version, rel.Chart.Metadata.AppVersion, rel.Info.Status), ""}}
	if rel.Info.Status.String() != "deployed" {
		out[0].Level, out[0].Hint = Failure, "ambit upgrade repeats it, ambit upgrade --rollback goes back"
	}
	list, err := i.Components(ctx)
	if err != nil {
		return nil, err
	}
	for n := range list {
		f := Finding{strings.ToLower(list[n].Kind) + " " + list[n].Name, OK, fmt.Sprintf("%d of %d ready", list[n].Ready, list[n].Desired), ""}
		if !list[n].Done() {
			f.Level, f.Message, f.Hint = Failure, f.Message+": "+list[n].Message, fmt.Sprintf("kubectl -n %s describe %s", i.Cluster.System, f.Check)
		}
		out = append(out, f)
	}
	if _, err := i.Cluster.CoreV1().ConfigMaps(i.Cluster.System).Get(ctx, RootConfigMap, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		out = append(out, Finding{"roots", Failure, "the control plane has not published its roots: ConfigMap " + RootConfigMap + " is missing, so that no pod of the mesh starts", fmt.Sprintf("kubectl -n %s logs deploy/ambit-controlplane", i.Cluster.System)})
	} else if err != nil {
		return nil, err
	}
	captured, err := i.checkCaptured(ctx)
	return append(out, captured...), err
}

// RootConfigMap has the roots in each namespace.
const RootConfigMap = "ambit-root-cert"

// ConditionCaptured says on a pod that it is captured.
const ConditionCaptured corev1.PodConditionType = "ambit-mesh.io/Captured"

// checkCaptured names enrolled pods that are not captured.
func (i *Installer) checkCaptured(ctx context.Context) ([]Finding, error) {
	members, err := i.Members(ctx)
	if err != nil {
		return nil, err
	}
	f := Finding{Check: "enrolled pods", Level: OK}
	captured, waiting := 0, []string(nil)
	for _, m := range members {
		switch {
		case m.Captured:
			captured++
		case m.Enrolled:
			waiting = append(waiting, m.Namespace+"/"+m.Name+": "+m.Message)
		}
	}
	f.Message = fmt.Sprintf("%d captured", captured)
	if len(waiting) > 0 {
		f.Level, f.Hint = Failure, "see the node agent's log on the pod's node"
		f.Message += fmt.Sprintf(", %d not: %s", len(waiting), strings.Join(waiting[:min(5, len(waiting))], "; "))
	}
	return []Finding{f}, nil
}

func (i *Installer) checkVersion() Finding {
	f := Finding{"Kubernetes version", OK, i.Cluster.Version, ""}
	v, err := version.ParseGeneric(i.Cluster.Version)
	if err != nil || v.LessThan(version.MustParseGeneric(oldestKubernetes)) {
		f.Level, f.Message, f.Hint = Failure, f.Message+" is older than "+oldestKubernetes, "upgrade the cluster"
	}
	return f
}

// checkRights asks for what only somebody with much power may do.
func (i *Installer) checkRights(ctx context.Context) (Finding, error) {
	f := Finding{"permissions", OK, "you may install", ""}
	var missing []string
	for _, r := range []authv1.ResourceAttributes{
		{Verb: "create", Resource: "namespaces"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
		{Verb: "create", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "create", Group: "apps", Resource: "daemonsets", Namespace: i.Cluster.System},
		{Verb: "create", Resource: "secrets", Namespace: i.Cluster.System},
	} {
		got, err := i.Cluster.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authv1.SelfSubjectAccessReview{Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &r}}, metav1.CreateOptions{})
		if err != nil {
			return f, fmt.Errorf("ask for permissions: %w", err)
		}
		if !got.Status.Allowed {
			missing = append(missing, r.Verb+" "+strings.Trim(r.Resource+"."+r.Group, "."))
		}
	}
	if len(missing) > 0 {
		f = Finding{f.Check, Failure, "you may not " + strings.Join(missing, ", "), "use an account with the role cluster-admin"}
	}
	return f, nil
}

func (i *Installer) checkGatewayAPI(ctx context.Context) (Finding, error) {
	f := Finding{"Gateway API", OK, "", ""}
	crd, err := i.Cluster.Dynamic.Resource(kube.CRDs()).Get(ctx, "gateways.gateway.networking.k8s.io", metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Finding{f.Check, Warning, "not installed: there can be no waypoints and no routes, everything else works", gatewayCRDs + "; then ambit upgrade"}, nil
	case apierrors.IsForbidden(err):
		return Finding{f.Check, Warning, "you may not see CustomResourceDefinitions", ""}, nil
	case err != nil:
		return f, err
	}
	a := crd.GetAnnotations()
	f.Message = strings.TrimSpace(a["gateway.networking.k8s.io/bundle-version"] + " " + a["gateway.networking.k8s.io/channel"])
	return f, nil
}

// checkNodes looks at what nodes tell of themselves.
func (i *Installer) checkNodes(ctx context.Context) (Finding, error) {
	f := Finding{"nodes", OK, "", ""}
	nodes, err := i.Cluster.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return f, err
	}
	var old, other []string
	for _, n := range nodes.Items {
		info := n.Status.NodeInfo
		if info.OperatingSystem != "" && info.OperatingSystem != "linux" {
			other = append(other, n.Name)
			continue
		}
		text, _, _ := strings.Cut(info.KernelVersion, "-")
		if v, err := version.ParseGeneric(text); err == nil && v.LessThan(version.MustParseGeneric(oldestKernel)) {
			old = append(old, n.Name+" ("+info.KernelVersion+")")
		}
	}
	f.Message = fmt.Sprintf("%d", len(nodes.Items))
	switch {
	case len(nodes.Items) == 0:
		f.Level, f.Message = Warning, "there are none yet"
	case len(old) > 0:
		f = Finding{f.Check, Warning, "not tried: the kernel is older than " + oldestKernel + " on " + strings.Join(old, ", "), "upgrade them, or leave them out with nodeagent.nodeSelector and ztunnel.nodeSelector"}
	case len(other) > 0:
		f = Finding{f.Check, Warning, "only Linux nodes take part; others are " + strings.Join(other, ", "), ""}
	}
	return f, nil
}

// checkCNI names the CNI plugin as far as the pods of kube-system tell, and says
// what it needs.
func (i *Installer) checkCNI(ctx context.Context) (Finding, error) {
	f := Finding{"CNI", OK, "nothing known that would be in the way", ""}
	sets, err := i.Cluster.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return f, err
	}
	var found []string
	for _, d := range sets.Items {
		for _, name := range []string{"cilium", "calico-node", "aws-node", "kube-flannel", "kindnet", "weave-net", "antrea-agent", "istio-cni-node"} {
			if strings.HasPrefix(d.Name, name) {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	if len(found) > 0 {
		f.Message = strings.Join(slices.Compact(found), ", ")
	}
	switch {
	case slices.Contains(found, "istio-cni-node"):
		f.Level, f.Hint = Failure, "another ambient mesh captures pods already: a pod must not be in both; remove it, or enrol other namespaces only"
	case slices.Contains(found, "cilium"):
		f.Level, f.Hint = Warning, "Cilium needs cni.exclusive=false, or it takes the node agent's plugin out"
	}
	return f, nil
}
