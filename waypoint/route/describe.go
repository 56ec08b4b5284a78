package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// conditions describes a match.
func (m *match) conditions() []string {
	out := append([]string{m.path.String()}, m.grpc.conditions()...)
	if m.method != "" {
		out = append(out, "method "+m.method)
	}
	for i := range m.headers {
		out = append(out, "header "+m.headers[i].name+m.headers[i].text.String())
	}
	for i := range m.params {
		out = append(out, "query parameter "+m.params[i].name+m.params[i].text.String())
	}
	return out
}

func (g *grpcCondition) conditions() []string {
	var out []string
	if g.service != nil {
		out = append(out, "gRPC service"+g.service.String())
	}
	if g.method != nil {
		out = append(out, "gRPC method"+g.method.String())
	}
	return out
}

// String describes the condition.
func (p *pathCondition) String() string {
	switch p.class {
	case classExact:
		return "path = " + p.written
	case classRegex:
		return "path ~ " + p.written
	case classPrefix:
		if p.value == "" {
			return "any path"
		}
		return "path below " + p.written
	}
	return "path (unreadable)"
}

// String describes the condition behind the name of what it is about.
func (t *text) String() string {
	switch {
	case t.any:
		return " (unreadable)"
	case t.expression:
		return " ~ " + t.written
	}
	return " = " + t.written
}

// differs gives the first condition that does not hold, in the order of holds,
// by its sort and in words; "" when all do.
func (m *match) differs(v *view) (sort, why string) {
	if !m.path.holds(v.path) {
		return "path", "it asks for " + m.path.String()
	}
	if !m.grpc.holds(v.path) {
		return "grpc", "it asks for " + strings.Join(m.grpc.conditions(), ", ")
	}
	if m.method != "" && m.method != v.req.Method {
		return "method", "it asks for method " + m.method
	}
	for i := range m.headers {
		value, has := v.header(m.headers[i].name)
		if why := m.headers[i].differs("header", value, has); why != "" {
			return "header", why
		}
	}
	for i := range m.params {
		value, has := v.param(m.params[i].name)
		if why := m.params[i].differs("query parameter", value, has); why != "" {
			return "query", why
		}
	}
	return "", ""
}

func (n *named) differs(what, value string, has bool) string {
	switch {
	case n.text.any || has && n.text.holds(value):
		return ""
	case !has:
		return fmt.Sprintf("there is no %s %s", what, n.name)
	}
	return fmt.Sprintf("%s %s is %q, and it asks for%s", what, n.name, value, n.text.String())
}

func describeFilters(list []Filter) []string {
	var out []string
	for i := range list {
		out = append(out, list[i].String())
	}
	return out
}

// String describes the filter.
func (f *Filter) String() string {
	switch {
	case f.RequestHeaders != nil:
		return "request headers: " + f.RequestHeaders.String()
	case f.ResponseHeaders != nil:
		return "response headers: " + f.ResponseHeaders.String()
	case f.Redirect != nil:
		return f.Redirect.String()
	case f.Rewrite != nil:
		return f.Rewrite.String()
	case f.Mirror != nil:
		return f.Mirror.String()
	case f.CORS != nil:
		return "CORS: preflight requests are answered here, responses are marked"
	case f.ExternalAuthorization != nil:
		return f.ExternalAuthorization.String()
	}
	return "unknown"
}

// String describes the changes.
func (m *HeaderModifier) String() string {
	var parts []string
	line := func(verb string, h message.Field) { parts = append(parts, verb+" "+h.Name+": "+h.Value) }
	for _, h := range m.Set {
		line("set", h)
	}
	for _, h := range m.Add {
		line("add", h)
	}
	for _, name := range m.Remove {
		parts = append(parts, "remove "+name)
	}
	return strings.Join(parts, ", ")
}

// String describes the redirect.
func (r *Redirect) String() string {
	parts := []string{fmt.Sprintf("redirect with %d", r.Status)}
	if r.Scheme != "" {
		parts = append(parts, "scheme "+r.Scheme)
	}
	if r.Hostname != "" {
		parts = append(parts, "hostname "+r.Hostname)
	}
	if r.Port != 0 {
		parts = append(parts, fmt.Sprintf("port %d", r.Port))
	}
	return strings.Join(append(parts, r.Path.parts()...), ", ")
}

// String describes the rewrite.
func (r *Rewrite) String() string {
	parts := r.Path.parts()
	if r.Hostname != "" {
		parts = append([]string{"hostname " + r.Hostname}, parts...)
	}
	return "rewrite: " + strings.Join(parts, ", ")
}

func (m PathModifier) parts() []string {
	switch m.Kind {
	case ReplaceFullPath:
		return []string{"path " + m.Value}
	case ReplacePrefix:
		return []string{"prefix replaced by " + m.Value}
	}
	return nil
}

// String describes the mirror.
func (m *Mirror) String() string {
	if m.Backend.Invalid != "" {
		return "mirror: none, " + m.Backend.Invalid
	}
	return fmt.Sprintf("mirror %d/%d to %s:%d", m.Numerator, m.Denominator, m.Backend.Service, m.Backend.Port)
}

// String describes who is asked.
func (a *ExternalAuthorization) String() string {
	text := fmt.Sprintf("external authorization by %s:%d", a.Backend.Service, a.Backend.Port)
	if a.FailOpen {
		text += ", let through while it does not answer"
	}
	return text
}

// String describes the fault.
func (f *Fault) String() string {
	parts := []string{f.name()}
	if f.delayShare > 0 {
		parts = append(parts, fmt.Sprintf("delay %g%% by %v", percent(f.delayShare), f.delay))
	}
	if f.abortShare > 0 {
		parts = append(parts, fmt.Sprintf("abort %g%% with %d, gRPC %s", percent(f.abortShare), f.status, f.code))
	}
	return strings.Join(append(parts, f.scope.where()...), ", ")
}

// String describes the limit.
func (l *RateLimit) String() string {
	text := fmt.Sprintf("%s: %d requests in %v", policyName(l.Policy, l.Rule), l.Requests, l.Unit)
	for i, k := range l.keys {
		text += []string{" for each ", " and "}[min(i, 1)] + k.label()
	}
	if l.Global != nil {
		text += fmt.Sprintf(", counted by %s:%d", l.Global.Backend.Service, l.Global.Backend.Port)
	}
	return strings.Join(append([]string{text}, l.scope.where()...), ", ")
}

func (s *scope) where() []string {
	if len(s.services) == 0 {
		return nil
	}
	return []string{"to " + strings.Join(s.services, " and ")}
}

func percent(millionths uint32) float64 { return float64(millionths) / (million / 100) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
