package route_test

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace/attr"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func headerAttribute(name, header string) *waypoint.SpanAttribute {
	return &waypoint.SpanAttribute{Name: name, Source: &waypoint.SpanAttribute_Header{Header: header}}
}

// telemetry has all that there may be.
func telemetry() *waypoint.Telemetry {
	return &waypoint.Telemetry{
		Collector:   &waypoint.Collector{Service: "obs/otel.obs", Port: 4317, Headers: []*waypoint.Header{{Name: "X-Token", Value: " secret "}}},
		ServiceName: "web", SpanName: "visit", Parent: &waypoint.ParentSampling{Sampling: 500_000},
		Attributes: []*waypoint.SpanAttribute{
			headerAttribute("user", "X-User"),
			{Name: "team", Source: &waypoint.SpanAttribute_Literal{Literal: "shop"}},
			{Name: "code", Source: &waypoint.SpanAttribute_Attribute{Attribute: "http.response.status_code"}},
			headerAttribute("host", "Host"), headerAttribute("none", "x-none"),
		},
	}
}

func compiledWith(t *testing.T, tel *waypoint.Telemetry) (*route.Telemetry, []route.Problem) {
	t.Helper()
	f, problems := route.Compile(&waypoint.Frontend{Namespace: "shop", Name: "web", Telemetry: tel, Ports: []*waypoint.Port{{Number: 80, Fallback: &waypoint.Rule{}}}})
	if d := f.Match(route.Client{}, 80, get("/")); d.Outcome != route.Matched {
		t.Errorf("requests are refused for what is said of spans: %+v", d)
	}
	return f.Telemetry, problems
}

func TestTelemetry(t *testing.T) {
	got, problems := compiledWith(t, telemetry())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if c := got.Collector; c.Service != "obs/otel.obs" || c.Port != 4317 || !reflect.DeepEqual(c.Headers, message.Fields{{Name: "x-token", Value: "secret"}}) {
		t.Errorf("%+v", c)
	}
	if got.ServiceName != "web" || got.SpanName != "visit" || got.Invalid != "" || got.Parent != (route.ParentSampling{Limited: true, Sampling: 500_000}) {
		t.Errorf("%+v", got)
	}
	want := []route.SpanAttribute{{Name: "user", Header: "x-user"}, {Name: "team", Literal: "shop"}, {Name: "code", Key: "http.response.status_code"}, {Name: "host", Header: "host"}, {Name: "none", Header: "x-none"}}
	if !reflect.DeepEqual(got.Attributes, want) {
		t.Errorf("%+v", got.Attributes)
	}
	req := &message.Request{Authority: "shop.example", Fields: message.Fields{{Name: "x-user", Value: "ada"}, {Name: "x-user", Value: "bob"}}}
	if values := got.Headers(req); !reflect.DeepEqual(values, []string{"ada", "shop.example", ""}) {
		t.Errorf("%q", values)
	}
	if none, problems := compiledWith(t, nil); none != nil || len(problems) > 0 {
		t.Errorf("%+v %v", none, problems)
	}
	bare, problems := compiledWith(t, &waypoint.Telemetry{Parent: &waypoint.ParentSampling{Sampling: 1_000_000}})
	if bare == nil || len(problems) > 0 || bare.Collector != nil || bare.Parent.Limited || bare.Parent.Ignored {
		t.Errorf("%+v %v", bare, problems)
	}
	for _, tel := range []*route.Telemetry{nil, bare} {
		if n := testing.AllocsPerRun(10, func() { _ = tel.Headers(req) }); n != 0 {
			t.Errorf("%v allocations where no field is wanted", n)
		}
	}
}

// What cannot be carried out is named, and makes no spans rather than others.
func TestTelemetryProblems(t *testing.T) {
	for want, spoil := range map[string]func(*waypoint.Telemetry){
		"telemetry.collector.service: is missing":                         func(p *waypoint.Telemetry) { p.Collector.Service = "" },
		"telemetry.collector.port: 0 is not a port":                       func(p *waypoint.Telemetry) { p.Collector.Port = 0 },
		"telemetry.collector.port: 65536 is not a port":                   func(p *waypoint.Telemetry) { p.Collector.Port = 65536 },
		"telemetry.collector.headers[0].name: \"a b\" is not the name":    func(p *waypoint.Telemetry) { p.Collector.Headers[0].Name = "a b" },
		"telemetry.collector.headers[0].name: \"Content-Type\" is the":    func(p *waypoint.Telemetry) { p.Collector.Headers[0].Name = "Content-Type" },
		"telemetry.collector.headers[0].value: has a control character":   func(p *waypoint.Telemetry) { p.Collector.Headers[0].Value = "secret\x00" },
		"telemetry.attributes[1].name: is missing":                        func(p *waypoint.Telemetry) { p.Attributes[1].Name = "" },
		"telemetry.attributes[1]: has no source":                          func(p *waypoint.Telemetry) { p.Attributes[1].Source = nil },
		"telemetry.attributes[0].header: \"\" is not the name":            func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "") },
		"telemetry.attributes[0].header: \"x y\" is not the name":         func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "x y") },
		"telemetry.attributes[0].header: \"Authorization\" holds cred":    func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "Authorization") },
		"telemetry.attributes[0].header: \"proxy-authorization\" holds c": func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "proxy-authorization") },
		"telemetry.attributes[0].header: \"cookie\" holds credentials":    func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "cookie") },
		"telemetry.attributes[0].header: \"SET-COOKIE\" holds credential": func(p *waypoint.Telemetry) { p.Attributes[0] = headerAttribute("x", "SET-COOKIE") },
		"telemetry.attributes[2].attribute: \"http.nothing\" is not an": func(p *waypoint.Telemetry) {
			p.Attributes[2].Source = &waypoint.SpanAttribute_Attribute{Attribute: "http.nothing"}
		},
		"telemetry.parent.sampling: 1000001 millionths are more than all": func(p *waypoint.Telemetry) { p.Parent.Sampling = 1_000_001 },
	} {
		t.Run(want, func(t *testing.T) {
			tel := telemetry()
			spoil(tel)
			got, problems := compiledWith(t, tel)
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "service shop/web: "+want) {
				t.Fatalf("problems %v", problems)
			}
			if got.Invalid == "" || strings.Contains(got.Invalid, "secret") {
				t.Errorf("invalid: %q", got.Invalid)
			}
			if strings.Contains(want, "http.nothing") && !strings.HasSuffix(problems[0].Message, strings.Join(attr.Keys(), ", ")) {
				t.Errorf("what is known is not listed: %s", problems[0].Message)
			}
		})
	}
}

// Whatever is said of spans, it is compiled, and used, without a panic.
func FuzzTelemetry(f *testing.F) {
	b, err := proto.Marshal(telemetry())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "x-user", "ada")
	f.Fuzz(func(t *testing.T, b []byte, name, value string) {
		pb := new(waypoint.Telemetry)
		if proto.Unmarshal(b, pb) != nil {
			return
		}
		got, problems := compiledWith(t, pb)
		if (got.Invalid != "") != (len(problems) > 0) {
			t.Fatalf("%q, %v", got.Invalid, problems)
		}
		n := 0
		for _, a := range got.Attributes {
			if a.Header != "" {
				n++
			}
			if got.Invalid == "" && (a.Name == "" || a.Header == "cookie" || a.Header == "authorization") {
				t.Fatalf("%+v", a)
			}
		}
		if values := got.Headers(&message.Request{Fields: fields(name, value)}); len(values) != n {
			t.Fatalf("%d values of %d attributes", len(values), n)
		}
	})
}
