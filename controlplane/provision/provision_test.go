package provision_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/provision"
)

var update = flag.Bool("update", false, "write what comes out as what is wanted")

// TestGolden runs the cases of testdata: a Gateway, what has become of its
// objects, and what is made of it.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var gw gatewayv1.Gateway
			var facts provision.Facts
			var params map[string]string
			cluster := false
			for i := range archive.Files {
				f := &archive.Files[i]
				switch f.Name {
				case "gateway.yaml":
					err = yaml.UnmarshalStrict(f.Data, &gw)
				case "facts.yaml":
					err = yaml.UnmarshalStrict(f.Data, &facts)
				case "params.yaml":
					cluster = true
					err = yaml.UnmarshalStrict(f.Data, &params)
				case "want":
					got := render(t, &gw, facts, cluster, params)
					if *update {
						f.Data = []byte(got)
					} else if d := cmp.Diff(string(f.Data), got); d != "" {
						t.Errorf("(-want +got; go test -update accepts it):\n%s", d)
					}
				default:
					t.Fatalf("unknown part %q", f.Name)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func render(t *testing.T, gw *gatewayv1.Gateway, f provision.Facts, cluster bool, params map[string]string) string {
	t.Helper()
	v := provision.Check(gw)
	out := struct {
		Problems []provision.Problem
		For      string
		Status   gatewayv1.GatewayStatus
		Objects  *provision.Objects `json:",omitempty"`
	}{Problems: v.Problems, Status: provision.Status(gw, v, f)}
	if v.Services {
		out.For += "services "
	}
	if v.Workloads {
		out.For += "workloads"
	}
	if len(v.Problems) == 0 {
		options := provision.Options{
			XDSAddress: "192.0.2.1:15012", XDSServerName: "ambit-controlplane.ambit-system.svc", ClusterID: "Kubernetes",
			TrustDomain: "cluster.local", LogLevel: "info", Image: "ambit/waypoint:1", Args: []string{"--extra=1"},
		}
		if cluster {
			options.Cluster = &provision.Cluster{TokenAudience: "ambit-mesh.io", RootConfigMap: "ambit-root-cert", PriorityClass: "system-cluster-critical"}
		}
		made := provision.Make(gw, options)
		out.Objects = &made
		if out.Problems = provision.Overlay(&made, params); len(out.Problems) > 0 {
			out.Objects = nil
			f.Refused = out.Problems
			out.Status = provision.Status(gw, v, f)
		}
	}
	text, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Who is admitted by a listener, and that nobody is where it cannot be read.
func TestAdmits(t *testing.T) {
	for name, tc := range map[string]struct {
		allowed string
		want    string // namespaces that are admitted
	}{
		"default":           {"", "infra"},
		"same":              {"{namespaces: {from: Same}}", "infra"},
		"all":               {"{namespaces: {from: All}}", "infra shop"},
		"none":              {"{namespaces: {from: None}}", ""},
		"selector":          {"{namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}", "shop"},
		"selector missing":  {"{namespaces: {from: Selector}}", ""},
		"selector is wrong": {"{namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: Never}]}}}", ""},
		"unknown":           {"{namespaces: {from: Some}}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := "metadata: {name: wp, namespace: infra}\nspec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}"
			if tc.allowed != "" {
				text = strings.Replace(text, "HBONE}", "HBONE, allowedRoutes: "+tc.allowed+"}", 1)
			}
			var gw gatewayv1.Gateway
			if err := yaml.UnmarshalStrict([]byte(text), &gw); err != nil {
				t.Fatal(err)
			}
			v := provision.Check(&gw)
			var got []string
			for _, ns := range []string{"infra", "shop"} {
				if provision.Admits(&gw, v, ns, map[string]string{"team": map[string]string{"shop": "a"}[ns]}) {
					got = append(got, ns)
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("admits %v, want %q", got, tc.want)
			}
			if readable := tc.want != "" || name == "none"; readable != (len(v.Problems) == 0) {
				t.Errorf("problems %v", v.Problems)
			}
		})
	}
}
