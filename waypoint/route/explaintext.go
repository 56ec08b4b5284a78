package route

import (
	"fmt"
	"strings"
)

// shownOthers is how many of the matches that were not chosen are written out.
const shownOthers = 10

// String renders the explanation for people: the answer first, then what it came
// from, then what nearly was.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s port %d\n", x.Subject, x.Frontend, x.Port)
	row := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-11s %s\n", title, text)
		}
	}
	rows := func(title string, list []string) {
		for _, text := range list {
			row(title, text)
			title = ""
		}
	}
	row("result", x.result())
	row("reason", x.Reason)
	row("routes", x.Table+": "+x.Because)
	if x.Rule != nil {
		row("rule", x.Rule.String())
		row("matched by", strings.Join(x.Rule.Conditions, ", "))
	}
	for i, f := range x.Filters {
		rows([]string{"filters", ""}[min(i, 1)], []string{fmt.Sprintf("%d. %s", i+1, f)})
	}
	rows("backends", x.shares())
	row("", x.NoBackend)
	row("session", x.Session)
	rows("faults", x.Faults)
	rows("rate limits", x.RateLimits)
	rows("not chosen", x.others())
	return b.String()
}

func (x *Explanation) result() string {
	switch {
	case x.Answered:
		return "answered by the waypoint"
	case x.Outcome == Matched.String():
		return "routed"
	case x.Status == 0:
		return "refused, the connection is closed"
	}
	return fmt.Sprintf("refused with %d (gRPC: %s)", x.Status, x.Code)
}

// String names rule and match.
func (r *ExplainedRule) String() string {
	if r.Match < 0 {
		return r.Label
	}
	return fmt.Sprintf("%s match %d", r.Label, r.Match)
}

func (x *Explanation) shares() []string {
	var out []string
	for _, s := range x.Backends {
		name := "(none)"
		if s.Service != "" {
			name = fmt.Sprintf("%s:%d", s.Service, s.Port)
		}
		text := fmt.Sprintf("%6.2f%%  %s  weight %d", s.Percent, name, s.Weight)
		if s.Pinned {
			text += "  (the client's session is here)"
		}
		switch {
		case s.Invalid != "" && s.Weight == 0:
			text += "  not used: " + s.Invalid
		case s.Invalid != "" && x.Opaque:
			text += "  refused: " + s.Invalid
		case s.Invalid != "":
			text += "  answered with 500: " + s.Invalid
		}
		out = append(out, text)
		for _, f := range s.Filters {
			out = append(out, "         "+f)
		}
	}
	return out
}

// others gives those first that were nearest: that match, then those for the
// path.
func (x *Explanation) others() []string {
	var lists [3][]string
	for i := range x.Others {
		c := &x.Others[i]
		near := 1
		switch c.Differs {
		case "":
			near = 0
		case "path", "grpc", "server name":
			near = 2
		}
		lists[near] = append(lists[near], c.ExplainedRule.String()+": "+c.Why)
	}
	var out []string
	for _, list := range lists {
		out = append(out, list...)
	}
	if more := len(out) - shownOthers; more > 0 {
		out = append(out[:shownOthers], fmt.Sprintf("and %d more", more))
	}
	return out
}
