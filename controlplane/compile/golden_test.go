package compile_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

var update = flag.Bool("update", false, "write what the compiler gives into the golden files")

// TestGolden runs the cases of testdata. A case is a txtar archive whose files
// are steps, done in order:
//
//	options         compile.Options as YAML; first if there
//	*.yaml          manifests to apply
//	delete          lines of: Kind namespace/name
//	report NODE     lines of: uid captured|released [message]; "snapshot" as first line makes it one
//	confirm         confirms all releases
//	delta           expected change of the step before
//	want            expected output as a whole, with findings and statuses
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { runCase(t, path, renderAll) })
	}
}

func runCase(t *testing.T, path string, render func(*compile.Compiler) string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var opts compile.Options
	var c *compile.Compiler
	var last compile.Result
	for i := range archive.Files {
		f := &archive.Files[i]
		if f.Name == "options" {
			if err := yaml.UnmarshalStrict(f.Data, &opts); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if c == nil {
			if c, err = compile.New(opts); err != nil {
				t.Fatal(err)
			}
		}
		verb, arg, _ := strings.Cut(f.Name, " ")
		switch {
		case strings.HasSuffix(f.Name, ".yaml"):
			last = c.Apply(compile.Input{Upserts: objects(t, f.Name, f.Data)})
		case verb == "delete":
			last = c.Apply(compile.Input{Deletes: keys(f.Data)})
		case verb == "report":
			last = c.Apply(compile.Input{Reports: []compile.CaptureReport{report(arg, f.Data)}})
		case verb == "confirm":
			last = c.Apply(compile.Input{Released: c.Releasing()})
		case verb == "delta":
			compare(t, f, renderDelta(last))
		case verb == "want":
			compare(t, f, render(c))
		default:
			t.Fatalf("unknown step %q", f.Name)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func compare(t *testing.T, f *txtar.File, got string) {
	t.Helper()
	if *update {
		f.Data = []byte(got)
		return
	}
	if d := cmp.Diff(string(f.Data), got); d != "" {
		t.Errorf("%s (-want +got; go test -update accepts it):\n%s", f.Name, d)
	}
}

func objects(t testing.TB, name string, data []byte) []graph.Entry {
	t.Helper()
	objs, problems := manifest.Parse(manifest.NewScheme(), name, data)
	for _, p := range problems {
		t.Fatal(p)
	}
	var out []graph.Entry
	for _, o := range objs {
		out = append(out, graph.Entry{Object: o.Resource, Origin: o.Where})
	}
	return out
}

func keys(data []byte) []graph.Key {
	var out []graph.Key
	for line := range strings.Lines(string(data)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		ns, name, ok := strings.Cut(rest, "/")
		if !ok {
			ns, name = "", rest
		}
		k := graph.Key{Kind: kind, Namespace: ns, Name: name}
		switch kind {
		case "EndpointSlice":
			k.Group = "discovery.k8s.io"
		case "Gateway":
			k.Group = "gateway.networking.k8s.io"
		case "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "BackendTLSPolicy":
			k.Group = "gateway.networking.k8s.io"
		case "AuthorizationPolicy", "PeerAuthentication":
			k.Group = "ambit-mesh.io"
		default:
			if strings.HasSuffix(kind, "Policy") {
				k.Group = "ambit-mesh.io"
			}
		}
		out = append(out, k)
	}
	return out
}

func report(node string, data []byte) compile.CaptureReport {
	r := compile.CaptureReport{Node: node}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if fields[0] == "snapshot" {
			r.Snapshot = true
			continue
		}
		p := compile.PodCapture{UID: types.UID(fields[0]), Captured: fields[1] == "captured"}
		if len(fields) > 2 {
			p.Message = fields[2]
		}
		r.Pods = append(r.Pods, p)
	}
	return r
}

func renderDelta(r compile.Result) string {
	var b strings.Builder
	for _, res := range r.Updated {
		b.WriteString(renderResource(res))
	}
	for _, k := range r.Removed {
		fmt.Fprintf(&b, "removed %s %s\n", short(k.Type), k.Name)
	}
	for _, rel := range r.Releasing {
		fmt.Fprintf(&b, "releasing %s\n", rel.UID)
	}
	if r.CapturedChanged {
		b.WriteString("captured changed\n")
	}
	for _, f := range r.NewFindings {
		fmt.Fprintf(&b, "new finding %s\n", f)
	}
	return b.String()
}

func renderAll(c *compile.Compiler) string {
	var b strings.Builder
	for _, typeURL := range []string{compile.TypeAddress, compile.TypeAuthorization, compile.TypePod, compile.TypeNamespace} {
		for _, r := range c.Resources(typeURL) {
			b.WriteString(renderResource(r))
		}
	}
	for _, f := range c.Findings() {
		fmt.Fprintf(&b, "finding %s\n", f)
	}
	for _, s := range c.Statuses() {
		for _, cond := range s.Status.Conditions {
			fmt.Fprintf(&b, "status %s: %s=%s %s: %s\n", s.Object, cond.Type, cond.Status, cond.Reason, cond.Message)
		}
	}
	return b.String()
}

func short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

// renderResource gives a header line and the body as indented YAML, addresses as
// text.
func renderResource(r *compile.Resource) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", short(r.Type), r.Name)
	if r.Node != "" {
		fmt.Fprintf(&b, " node=%s", r.Node)
	}
	if r.Waypoint.Name != "" {
		fmt.Fprintf(&b, " waypoint=%s", r.Waypoint)
	}
	if len(r.Aliases) > 0 {
		fmt.Fprintf(&b, " aliases=%s", strings.Join(r.Aliases, ","))
	}
	for _, k := range r.Related() {
		fmt.Fprintf(&b, " related=%s", k.Name)
	}
	b.WriteByte('\n')
	text, err := protojson.Marshal(r.Body)
	if err != nil {
		return err.Error()
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return err.Error()
	}
	text, err = yaml.Marshal(readable(tree))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// readable turns base64 of 4 or 16 bytes in address fields into addresses.
func readable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = readable(x)
			if s, ok := x.(string); ok && k == "address" {
				v[k] = address(s)
			}
			if list, ok := x.([]any); ok && k == "addresses" {
				for i := range list {
					if s, ok := list[i].(string); ok {
						list[i] = address(s)
					}
				}
			}
		}
	case []any:
		for i := range v {
			v[i] = readable(v[i])
		}
	}
	return v
}

func address(s string) string {
	raw, err := base64.StdEncoding.DecodeString(s)
	if a, ok := netip.AddrFromSlice(raw); ok && err == nil {
		return a.String()
	}
	return s
}
