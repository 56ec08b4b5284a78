package explain

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/waypoint/route"
)

// String renders the report for people: the answer, then the way hop by hop.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Subject)
	row := func(title, text string) { fmt.Fprintf(&b, "  %-11s %s\n", title, text) }
	row("result", r.result())
	b.WriteString("\n")
	row("client", r.Client.String())
	if w := r.Waypoint; w == nil && r.Because != "" {
		row("waypoint", "none: "+r.Because)
	} else if w != nil {
		row("waypoint", w.String())
		row("", r.Because)
		if w.Routes != nil && r.Client != (Client{}) {
			row("policy", w.Policy.at("the waypoint"))
		}
		for _, note := range w.Notes {
			row("", note)
		}
		b.WriteString(rows(w.Routes))
	}
	for _, x := range r.Backends {
		b.WriteString("\n")
		what := "requests"
		if r.Datagrams {
			what = "sessions"
		}
		row("backend", fmt.Sprintf("%s:%d, %.4g%% of the %s", x.Service, x.Port, x.Percent, what))
		if x.Refusal != "" {
			row("", x.Refusal)
		}
		if x.TLS != "" {
			row("", x.TLS)
		}
		for _, e := range x.Endpoints {
			row("", e.String())
		}
	}
	return b.String()
}

func (r *Report) result() string {
	switch r.Outcome {
	case Refused:
		if w := r.Waypoint; w != nil && w.Routes != nil && w.Routes.Status != 0 && (w.Policy == nil || w.Policy.Allowed) {
			return fmt.Sprintf("refused with %d (gRPC: %s): %s", w.Routes.Status, w.Routes.Code, r.Reason)
		}
		return "refused: " + r.Reason
	case Depends:
		return "depends on where it goes; some is refused: " + r.Reason
	case Answered:
		return "answered by the waypoint"
	}
	if r.Client == (Client{}) {
		return "forwarded, as far as can be said without knowing who calls"
	}
	return "forwarded"
}

// String says who it is and whether its traffic is taken.
func (c Client) String() string {
	switch {
	case c.Workload == "" && c.Identity == "":
		return "not said (--from), so that policies are not asked and no consumer routes apply"
	case c.Captured == nil:
		return c.Identity
	case !*c.Captured:
		return fmt.Sprintf("%s on %s, not captured: it connects in plaintext and has no identity", c.Workload, c.Node)
	}
	return fmt.Sprintf("%s on %s, captured, %s", c.Workload, c.Node, c.Identity)
}

// String says which waypoint it is and how it is.
func (w Waypoint) String() string {
	if w.Refusal != "" {
		return w.Name + ", not available: " + w.Refusal
	}
	return fmt.Sprintf("%s, %d ready, %s", w.Name, w.Ready, w.Identity)
}

// at says what policies decide at a place.
func (v *Verdict) at(place string) string {
	switch {
	case v == nil:
		return place + " has no policy about requests"
	case !v.Allowed:
		return "denied at " + place + ": " + v.Reason
	case v.Policy == "":
		return "allowed at " + place + ": no policy restricts it"
	}
	return "allowed at " + place + " by AuthorizationPolicy " + v.Policy + " rule " + v.Rule
}

// String says where it is and whether it is let in.
func (e Endpoint) String() string {
	at := fmt.Sprintf("%s at %s", e.Workload, e.Address)
	if e.Node != "" {
		at += " on " + e.Node
	}
	how := "in plaintext"
	if e.TLS {
		how = "over TLS"
	}
	switch {
	case e.Outside:
		return e.Address + ", outside of the mesh: reached " + how
	case !e.Captured:
		return at + ", not captured: reached " + how + ", no policy"
	case e.Refusal != "":
		return at + ", " + e.Identity + ": not reached: " + e.Refusal
	case e.Policy == nil:
		return at + ", " + e.Identity
	}
	return at + ", " + e.Identity + ": " + e.Policy.at("its node")
}

// rows gives what the waypoint's routes make of it, without what is said above.
func rows(x *route.Explanation) string {
	if x == nil {
		return ""
	}
	_, text, _ := strings.Cut(x.String(), "\n")
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "  result ") && !strings.HasPrefix(line, "  reason ") {
			out.WriteString(line)
		}
	}
	return out.String()
}
