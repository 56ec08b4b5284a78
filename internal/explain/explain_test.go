package explain_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

var update = flag.Bool("update", false, "write what is explained into testdata")

// TestExplain runs the cases of testdata: manifests (mesh.yaml), of which all pods
// of node n1 with a uid are captured, queries (any other .yaml), and for each what
// a person reads.
func TestExplain(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		state := read(t, archive.Files[0].Data)
		for i := 1; i+1 < len(archive.Files); i += 2 {
			query, want := archive.Files[i], &archive.Files[i+1]
			t.Run(query.Name, func(t *testing.T) {
				var q explain.Query
				if err := yaml.UnmarshalStrict(query.Data, &q); err != nil {
					t.Fatal(err)
				}
				got := ""
				if report, err := state.Explain(q); err != nil {
					got = "error: " + err.Error() + "\n"
				} else {
					got = report.String()
					roundTrip(t, report)
				}
				if *update {
					want.Data = []byte(got)
				} else if d := cmp.Diff(string(want.Data), got); d != "" {
					t.Errorf("-want +got; go test -update accepts it:\n%s", d)
				}
			})
		}
		if *update {
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// roundTrip has a report read the same after it came over the control socket.
func roundTrip(t *testing.T, r explain.Report) {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back explain.Report
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.String(), back.String()); d != "" {
		t.Errorf("after the wire:\n%s", d)
	}
}

// read compiles manifests and gives what a control plane's /config_dump would.
func read(t *testing.T, manifests []byte) *explain.State {
	t.Helper()
	objects, problems := manifest.Parse(manifest.NewScheme(), "mesh.yaml", manifests)
	for _, p := range problems {
		t.Fatal(p)
	}
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	report := compile.CaptureReport{Node: "n1", Snapshot: true}
	in := compile.Input{}
	for _, o := range objects {
		in.Upserts = append(in.Upserts, graph.Entry{Object: o.Resource})
		if o.GetUID() != "" {
			report.Pods = append(report.Pods, compile.PodCapture{UID: o.GetUID(), Captured: true})
		}
	}
	c.Apply(in)
	c.Apply(compile.Input{Reports: []compile.CaptureReport{report}})
	type resource struct {
		Name string          `json:"name"`
		Body json.RawMessage `json:"body"`
	}
	dump := map[string][]resource{}
	for _, typ := range []string{compile.TypeAddress, compile.TypeAuthorization, compile.TypeFrontend, compile.TypeBackend} {
		for _, r := range c.Resources(typ) {
			body, err := protojson.Marshal(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			dump[typ] = append(dump[typ], resource{Name: r.Name, Body: body})
		}
	}
	raw, err := json.Marshal(dump)
	if err != nil {
		t.Fatal(err)
	}
	s, err := explain.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadRefusesWhatIsNoDump(t *testing.T) {
	for _, text := range []string{"", "[]", `{"type.googleapis.com/istio.workload.Address": [{"name": "x", "body": {"service": 1}}]}`} {
		if _, err := explain.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), "config dump") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
