package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace/attr"
)

// Telemetry is where the spans of a frontend go, and what is in them (GEP-4768).
type Telemetry struct {
	// Collector takes the spans; nil is the waypoint's own.
	Collector *Collector
	// ServiceName is attribute service.name of the resource, and SpanName the name of
	// the spans of requests; "" leaves either as it is.
	ServiceName, SpanName string
	Attributes            []SpanAttribute
	Parent                ParentSampling
	// Invalid is why no spans are made; "" if that is not so. Requests are served all
	// the same.
	Invalid string
	// headers is how many of Attributes are fields of requests.
	headers int
}

// Collector is a service that takes spans by OTLP over gRPC.
type Collector struct {
	Service string // <namespace>/<hostname>
	Port    uint16
	// Headers are sent with each call. Their values are credentials.
	Headers message.Fields
}

// SpanAttribute is put into each span of a request. Exactly one of Header and Key is
// set, or none of them, and it is Literal.
type SpanAttribute struct {
	Name string
	// Header is the name of a field of the request, in lower case.
	Header  string
	Literal string
	// Key is that of another attribute of the span.
	Key string
}

// ParentSampling is what becomes of the decision that a request brings. The zero
// value lets it stand.
type ParentSampling struct {
	// Ignored: Tracing decides, whatever others have decided.
	Ignored bool
	// Limited: of traces that are sampled only Sampling, in millionths, are recorded.
	Limited  bool
	Sampling uint32
}

// Headers gives the values of the fields of a request that attributes want, in the
// order of these; a field that is not there has none. It is nil where no attribute
// wants one.
func (t *Telemetry) Headers(req *message.Request) []string {
	if t == nil || t.headers == 0 {
		return nil
	}
	out := make([]string, 0, t.headers)
	for i := range t.Attributes {
		switch name := t.Attributes[i].Header; name {
		case "":
		case "host":
			out = append(out, req.Authority)
		default:
			out = append(out, req.Fields.Get(name))
		}
	}
	return out
}

// telemetry reads what a frontend says of spans.
func (c *compiler) telemetry(at string, pb *waypoint.Telemetry) *Telemetry {
	if pb == nil {
		return nil
	}
	own := &compiler{where: c.where}
	t := &Telemetry{ServiceName: pb.GetServiceName(), SpanName: pb.GetSpanName(), Parent: own.parent(at+".parent", pb.GetParent())}
	if why := pb.GetCollector().GetInvalid(); why != "" {
		t.Invalid = "collector: " + why // which the control plane says of the policy, too
		return t
	}
	if pb.GetCollector() != nil {
		t.Collector = own.collector(at+".collector", pb.GetCollector())
	}
	for i, a := range pb.GetAttributes() {
		t.Attributes = append(t.Attributes, own.attribute(fmt.Sprintf("%s.attributes[%d]", at, i), a))
		if a.GetHeader() != "" {
			t.headers++
		}
	}
	t.Invalid = own.reason()
	c.problems = append(c.problems, own.problems...)
	return t
}

func (c *compiler) parent(at string, pb *waypoint.ParentSampling) ParentSampling {
	if pb == nil {
		return ParentSampling{}
	}
	share := c.share(at+".sampling", pb.GetSampling())
	return ParentSampling{Ignored: pb.GetIgnored(), Limited: !pb.GetIgnored() && share < million, Sampling: min(share, million)}
}

func (c *compiler) collector(at string, pb *waypoint.Collector) *Collector {
	out := &Collector{Service: pb.GetService(), Port: uint16(pb.GetPort())}
	if pb.GetService() == "" {
		c.problem(at+".service", "is missing; name the service that takes the spans")
	}
	if pb.GetPort() == 0 || pb.GetPort() > 65535 {
		c.problem(at+".port", fmt.Sprintf("%d is not a port; use 1 to 65535", pb.GetPort()))
	}
	for i, h := range pb.GetHeaders() {
		field := fmt.Sprintf("%s.headers[%d]", at, i)
		name := strings.ToLower(h.GetName())
		if attr.Framing(name) || slices.Contains(protected, name) {
			c.problem(field+".name", fmt.Sprintf("%q is the call's own; remove it", h.GetName()))
			continue
		}
		out.Headers = append(out.Headers, c.header(field, h))
	}
	return out
}

func (c *compiler) attribute(at string, pb *waypoint.SpanAttribute) SpanAttribute {
	a := SpanAttribute{Name: pb.GetName()}
	if a.Name == "" {
		c.problem(at+".name", "is missing; name the attribute as spans are to have it")
	}
	switch s := pb.GetSource().(type) {
	case *waypoint.SpanAttribute_Header:
		a.Header = strings.ToLower(s.Header)
		switch {
		case !token(s.Header):
			c.problem(at+".header", fmt.Sprintf("%q is not the name of a header; use letters, digits and hyphens", s.Header))
		case attr.Secret(a.Header):
			c.problem(at+".header", fmt.Sprintf("%q holds credentials, which do not belong into spans; use another header", s.Header))
		}
	case *waypoint.SpanAttribute_Literal:
		a.Literal = s.Literal
	case *waypoint.SpanAttribute_Attribute:
		if a.Key = s.Attribute; !attr.Known(a.Key) {
			c.problem(at+".attribute", fmt.Sprintf("%q is not an attribute of spans; use one of %s", a.Key, strings.Join(attr.Keys(), ", ")))
		}
	default:
		c.problem(at, "has no source that is known; set header, literal or attribute, or update the waypoint")
	}
	return a
}
