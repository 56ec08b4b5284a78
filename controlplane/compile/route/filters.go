package route

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

// httpFilters translates the filters of a rule. One that cannot be carried out
// makes the rule answer with an error: no filter is skipped (GEP-1364).
func (w *worker) httpFilters(field string, filters []gatewayv1.HTTPRouteFilter) []*waypoint.Filter {
	w.compatible(field, filters)
	var out []*waypoint.Filter
	for i := range filters {
		if f := w.filter(fmt.Sprintf("%s[%d]", field, i), &filters[i]); f != nil {
			out = append(out, f)
		}
	}
	return out
}

// backendFilters translates the filters of one backend.
func (w *worker) backendFilters(field string, filters []gatewayv1.HTTPRouteFilter) []*waypoint.Filter {
	for i := range filters {
		switch f := &filters[i]; f.Type {
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier,
			gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterRequestMirror:
		default:
			w.unsupported(fmt.Sprintf("%s[%d].type", field, i), "%s is not possible for one backend; write it into the filters of the rule", f.Type)
			return nil
		}
	}
	return w.httpFilters(field, filters)
}

// compatible refuses filters that may not be repeated or exclude each other.
func (w *worker) compatible(field string, filters []gatewayv1.HTTPRouteFilter) {
	count := make(map[gatewayv1.HTTPRouteFilterType]int)
	for i := range filters {
		count[filters[i].Type]++
	}
	once := []gatewayv1.HTTPRouteFilterType{
		gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier,
		gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterCORS,
	}
	for _, kind := range once {
		if count[kind] > 1 {
			w.invalid(field, false, gatewayv1.RouteReasonIncompatibleFilters, string(kind)+" may be there only once; write one filter that does all of it")
		}
	}
	if count[gatewayv1.HTTPRouteFilterRequestRedirect] > 0 && count[gatewayv1.HTTPRouteFilterURLRewrite] > 0 {
		w.invalid(field, false, gatewayv1.RouteReasonIncompatibleFilters, "a request is either redirected or rewritten; remove RequestRedirect or URLRewrite")
	}
}

// filter translates one filter; nil for one that has no effect.
func (w *worker) filter(field string, f *gatewayv1.HTTPRouteFilter) *waypoint.Filter {
	switch {
	case f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
		return &waypoint.Filter{Type: &waypoint.Filter_RequestHeaders{RequestHeaders: w.headers(field+".requestHeaderModifier", f.RequestHeaderModifier)}}
	case f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
		return &waypoint.Filter{Type: &waypoint.Filter_ResponseHeaders{ResponseHeaders: w.headers(field+".responseHeaderModifier", f.ResponseHeaderModifier)}}
	case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
		return &waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: w.redirect(field+".requestRedirect", f.RequestRedirect)}}
	case f.Type == gatewayv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
		rewrite := &waypoint.Rewrite{Path: w.pathModifier(field+".urlRewrite.path", f.URLRewrite.Path)}
		if f.URLRewrite.Hostname != nil {
			rewrite.Hostname = w.hostname(field+".urlRewrite.hostname", *f.URLRewrite.Hostname)
		}
		return &waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: rewrite}}
	case f.Type == gatewayv1.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
		if m := w.mirror(field+".requestMirror", f.RequestMirror); m != nil {
			return &waypoint.Filter{Type: &waypoint.Filter_Mirror{Mirror: m}}
		}
		return nil
	case f.Type == gatewayv1.HTTPRouteFilterCORS && f.CORS != nil:
		return &waypoint.Filter{Type: &waypoint.Filter_Cors{Cors: w.cors(field+".cors", f.CORS)}}
	case f.Type == gatewayv1.HTTPRouteFilterExternalAuth && f.ExternalAuth != nil:
		return w.externalAuth(field+".externalAuth", f.ExternalAuth)
	case f.Type == gatewayv1.HTTPRouteFilterExtensionRef && f.ExtensionRef != nil:
		return w.extension(field+".extensionRef", f.ExtensionRef)
	}
	w.unsupported(field+".type", "%q is not a filter that a waypoint has, or its settings are missing", f.Type)
	return nil
}

func (w *worker) headers(field string, m *gatewayv1.HTTPHeaderFilter) *waypoint.HeaderModifier {
	out := &waypoint.HeaderModifier{}
	list := func(name string, in []gatewayv1.HTTPHeader) []*waypoint.Header {
		var list []*waypoint.Header
		for i, h := range in {
			at := fmt.Sprintf("%s.%s[%d]", field, name, i)
			w.headerName(at+".name", string(h.Name))
			if strings.ContainsAny(h.Value, "\r\n\x00") {
				w.unsupported(at+".value", "a value of a header has one line")
			}
			list = append(list, &waypoint.Header{Name: string(h.Name), Value: h.Value})
		}
		return list
	}
	out.Set, out.Add = list("set", m.Set), list("add", m.Add)
	for i, name := range m.Remove {
		w.headerName(fmt.Sprintf("%s.remove[%d]", field, i), name)
		out.Remove = append(out.Remove, name)
	}
	return out
}

func (w *worker) headerName(field, name string) {
	if !traffic.Token(name) {
		w.unsupported(field, "%q is not the name of a header", name)
	}
}

func (w *worker) hostname(field string, h gatewayv1.PreciseHostname) string {
	if h == "" || strings.ContainsAny(string(h), "*:/?#@ \r\n\t") {
		w.unsupported(field, "%q is not a host name", h)
	}
	return string(h)
}

func (w *worker) pathModifier(field string, m *gatewayv1.HTTPPathModifier) *waypoint.PathModifier {
	if m == nil {
		return nil
	}
	check := func(name, p string) {
		if strings.ContainsAny(p, "?# \r\n\t") {
			w.unsupported(field+"."+name, "%q is not a path", p)
		}
	}
	switch {
	case m.Type == gatewayv1.FullPathHTTPPathModifier && m.ReplaceFullPath != nil:
		check("replaceFullPath", *m.ReplaceFullPath)
		return &waypoint.PathModifier{Type: &waypoint.PathModifier_Full{Full: *m.ReplaceFullPath}}
	case m.Type == gatewayv1.PrefixMatchHTTPPathModifier && m.ReplacePrefixMatch != nil:
		check("replacePrefixMatch", *m.ReplacePrefixMatch)
		return &waypoint.PathModifier{Type: &waypoint.PathModifier_Prefix{Prefix: *m.ReplacePrefixMatch}}
	}
	w.unsupported(field+".type", "%q is not a type, or its value is missing; use ReplaceFullPath or ReplacePrefixMatch", m.Type)
	return nil
}

func (w *worker) redirect(field string, r *gatewayv1.HTTPRequestRedirectFilter) *waypoint.Redirect {
	out := &waypoint.Redirect{Status: 302, Path: w.pathModifier(field+".path", r.Path)}
	if r.Scheme != nil {
		out.Scheme = *r.Scheme
		if *r.Scheme != "http" && *r.Scheme != "https" {
			w.unsupported(field+".scheme", "%q is not possible; use http or https", *r.Scheme)
		}
	}
	if r.Hostname != nil {
		out.Hostname = w.hostname(field+".hostname", *r.Hostname)
	}
	if r.Port != nil {
		out.Port = uint32(max(*r.Port, 0)) // #nosec G115 -- not negative
		if *r.Port < 1 || *r.Port > 65535 {
			w.unsupported(field+".port", "%d is not a port; use 1 to 65535", *r.Port)
		}
	}
	if r.StatusCode != nil {
		out.Status = uint32(max(*r.StatusCode, 0)) // #nosec G115 -- not negative
		if !slices.Contains([]int{301, 302, 303, 307, 308}, *r.StatusCode) {
			w.unsupported(field+".statusCode", "%d does not redirect; use 301, 302, 303, 307 or 308", *r.StatusCode)
		}
	}
	return out
}

// mirror gives nil for a backend that cannot be used: the API has it dropped and
// told in the status, because a copy must never harm the original.
func (w *worker) mirror(field string, m *gatewayv1.HTTPRequestMirrorFilter) *waypoint.Mirror {
	use := traffic.UseHTTP
	if w.key.Kind == "GRPCRoute" {
		use = traffic.UseGRPC
	}
	b := w.resolve(field+".backendRef", &m.BackendRef, use)
	out := &waypoint.Mirror{Backend: b.Ref, Numerator: 1, Denominator: 1}
	switch {
	case m.Percent != nil && m.Fraction != nil:
		w.unsupported(field, "percent and fraction exclude each other; remove one")
	case m.Percent != nil:
		out.Numerator, out.Denominator = w.share(field+".percent", *m.Percent, 100)
	case m.Fraction != nil:
		denominator := int32(100)
		if m.Fraction.Denominator != nil {
			denominator = *m.Fraction.Denominator
		}
		out.Numerator, out.Denominator = w.share(field+".fraction", m.Fraction.Numerator, denominator)
	}
	if b.Reason != "" {
		return nil
	}
	return out
}

func (w *worker) share(field string, numerator, denominator int32) (n, d uint32) {
	if denominator < 1 || numerator < 0 || numerator > denominator {
		w.unsupported(field, "%d of %d is not a share", numerator, denominator)
		return 0, 1
	}
	return uint32(numerator), uint32(denominator) // #nosec G115 -- not negative
}
