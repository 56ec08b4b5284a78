package policy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/internal/authz"
)

var update = flag.Bool("update", false, "write what comes out as what is wanted")

// objects are the input of a case. It is a policy.Services.
type objects struct {
	policies []*v1alpha1.AuthorizationPolicy
	peers    []*v1alpha1.PeerAuthentication
	pods     []*corev1.Pod
	services map[string]*corev1.Service
}

func (o *objects) Service(namespace, name string) *corev1.Service {
	return o.services[namespace+"/"+name]
}

// Waypoint is what the Service's own label says.
func (o *objects) Waypoint(namespace, name string) (types.NamespacedName, bool) {
	s := o.Service(namespace, name)
	if s == nil || s.Labels["ambit-mesh.io/use-waypoint"] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: namespace, Name: s.Labels["ambit-mesh.io/use-waypoint"]}, true
}

// External finds none: the cases are about workloads.
func (o *objects) External(string, string) (types.NamespacedName, bool) {
	return types.NamespacedName{}, false
}

func read(t *testing.T, input []byte) *objects {
	t.Helper()
	out := &objects{services: map[string]*corev1.Service{}}
	for _, doc := range bytes.Split(input, []byte("\n---\n")) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(doc, &head); err != nil {
			t.Fatal(err)
		}
		var into any
		switch head.Kind {
		case v1alpha1.KindAuthorizationPolicy:
			p := &v1alpha1.AuthorizationPolicy{}
			out.policies, into = append(out.policies, p), p
		case v1alpha1.KindPeerAuthentication:
			p := &v1alpha1.PeerAuthentication{}
			out.peers, into = append(out.peers, p), p
		case "Pod":
			p := &corev1.Pod{}
			out.pods, into = append(out.pods, p), p
		case "Service":
			s := &corev1.Service{}
			if err := yaml.UnmarshalStrict(doc, s); err != nil {
				t.Fatal(err)
			}
			out.services[s.Namespace+"/"+s.Name] = s
			continue
		default:
			t.Fatalf("kind %q", head.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// view is what a case shows of the outcome.
type view struct {
	Policies       []policyView     `json:"policies,omitempty"`
	Workloads      []workloadView   `json:"workloads,omitempty"`
	Authorizations []map[string]any `json:"authorizations,omitempty"`
	Statuses       []statusView     `json:"statuses,omitempty"`
}

type policyView struct {
	Targets       string                `json:"targets"`
	AtWaypoint    bool                  `json:"atWaypoint,omitempty"`
	Authorization map[string]any        `json:"authorization"`
	Status        v1alpha1.PolicyStatus `json:"status"`
	Problems      []string              `json:"problems,omitempty"`
}

type workloadView struct {
	Pod       string                       `json:"pod"`
	Mode      v1alpha1.MTLSMode            `json:"mode"`
	Ports     map[uint16]v1alpha1.MTLSMode `json:"ports,omitempty"`
	Lists     string                       `json:"lists,omitempty"`
	DecidedBy string                       `json:"decidedBy,omitempty"`
}

type statusView struct {
	Policy   string                `json:"policy"`
	Status   v1alpha1.PolicyStatus `json:"status"`
	Problems []string              `json:"problems,omitempty"`
}

func outcome(t *testing.T, in *objects) []byte {
	t.Helper()
	var v view
	for _, p := range in.policies {
		tr := policy.Translate(p, in, policy.Options{})
		v.Policies = append(v.Policies, policyView{
			Targets: describe(tr.Targets), AtWaypoint: tr.AtWaypoint, Authorization: wire(t, tr.Authorization),
			Status: tr.Status, Problems: texts(tr.Problems),
		})
	}
	if len(in.peers) > 0 {
		peers := policy.NewPeers(in.peers, policy.Options{})
		for _, pod := range in.pods {
			e := peers.Effective(pod.Namespace, pod.Labels)
			v.Workloads = append(v.Workloads, workloadView{
				Pod: pod.Namespace + "/" + pod.Name, Mode: e.Mode, Ports: e.Ports, Lists: e.Policy, DecidedBy: e.DecidedBy,
			})
		}
		for _, a := range peers.Authorizations() {
			v.Authorizations = append(v.Authorizations, wire(t, a))
		}
		for _, s := range peers.Statuses() {
			v.Statuses = append(v.Statuses, statusView{Policy: s.Namespace + "/" + s.Name, Status: s.Status, Problems: texts(s.Problems)})
		}
	}
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	// The zero time stands for "whoever writes the status knows".
	return regexp.MustCompile(`lastTransitionTime: null\n\s*`).ReplaceAll(out, nil)
}

func texts(problems []policy.Problem) (out []string) {
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

func describe(t policy.Targets) string {
	switch t.Kind {
	case policy.TargetNone:
		return "none"
	case policy.TargetMesh:
		return "mesh"
	case policy.TargetNamespace:
		return "namespace " + t.Namespace
	case policy.TargetSelector:
		return fmt.Sprintf("pods of %s with %q", t.Namespace, t.Selector)
	default:
		return fmt.Sprintf("services of %s: %s", t.Namespace, strings.Join(t.Services, ", "))
	}
}

// wire also checks that a node proxy can read the policy.
func wire(t *testing.T, a *security.Authorization) map[string]any {
	t.Helper()
	if a == nil {
		return nil
	}
	if _, err := authz.Compile(a); err != nil {
		t.Errorf("node proxies refuse the resource: %v", err)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := yaml.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := outcome(t, read(t, archive.Files[0].Data))
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "want.yaml", Data: got})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 {
				t.Fatal("want input.yaml and want.yaml")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
