package route_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

var update = flag.Bool("update", false, "write testdata anew")

// Explanations read as they are kept in testdata.
func TestExplain(t *testing.T) {
	broken := everything()
	broken.Ports[0].Producer.Routes[0].Rules[0].Backends[1].Backend.Invalid = "Service shop/v2 does not exist; create it, or remove it from backendRefs"
	broken.Ports[0].Producer.Routes = append(broken.Ports[0].Producer.Routes, httpRoute("strict",
		&waypoint.Rule{Matches: []*waypoint.Match{{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: "/odd/("}}}}}))
	many := frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("many"))
	for i := range 14 {
		r := filtered()
		r.Matches = []*waypoint.Match{layouts[0].match(i)}
		if i == 13 {
			r.Matches = []*waypoint.Match{layouts[3].match(i)}
		}
		r.Index = uint32(i)
		many.Ports[0].Producer.Routes[0].Rules = append(many.Ports[0].Producer.Routes[0].Rules, r)
	}
	pinned := func(f *route.Frontend) *message.Request {
		r := f.Match(client("b"), 80, get("/a")).Rule
		token := route.Token{Backend: r.Backends[0].ID, Endpoint: route.HashEndpoint("pod-1"), Created: noon, Used: noon}
		return get("/a/b?p=1", fields("x", "x", "y", "b", "cookie", "session="+token.String())...)
	}
	for _, c := range []struct {
		name      string
		pb        *waypoint.Frontend
		namespace string
		port      uint16
		req       func(*route.Frontend) *message.Request
	}{
		{"matched", everything(), "b", 80, pinned},
		{"consumer", everything(), "a", 80, func(*route.Frontend) *message.Request { return get("/a") }},
		{"no-route", everything(), "b", 80, func(*route.Frontend) *message.Request { return get("/other") }},
		{"no-port", everything(), "b", 8080, func(*route.Frontend) *message.Request { return get("/") }},
		{"fallback", everything(), "", 9090, func(*route.Frontend) *message.Request { return get("/") }},
		{"redirect", everything(), "", 80, func(*route.Frontend) *message.Request { return get("/old") }},
		{"invalid-backend", broken, "b", 80, func(*route.Frontend) *message.Request { return get("/old") }},
		{"many", many, "b", 80, func(*route.Frontend) *message.Request { return layouts[0].request(3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := route.Compile(c.pb)
			compare(t, c.name+".txt", f.Explain(client(c.namespace), c.port, c.req(f)).String())
		})
	}
	t.Run("json", func(t *testing.T) {
		f, _ := route.Compile(everything())
		b, err := json.MarshalIndent(f.Explain(client("b"), 80, pinned(f)), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		compare(t, "matched.json", string(b)+"\n")
	})
	t.Run("tls", func(t *testing.T) {
		f, _ := route.Compile(everything())
		compare(t, "tls.txt", f.ExplainConnection(client("b"), 443, "b.other").String()+f.ExplainConnection(client("b"), 443, "b.example").String())
	})
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "explain", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}
