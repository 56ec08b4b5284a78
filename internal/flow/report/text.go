package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Format is a way to print lines.
type Format string

// Formats.
const (
	Compact Format = "compact"
	Table   Format = "table"
	Wide    Format = "wide"
	JSON    Format = "json"
)

// Formats lists all.
func Formats() []Format { return []Format{Compact, Table, Wide, JSON} }

// Printer prints lines, one by one as they come.
type Printer struct {
	w      io.Writer
	format Format
	zone   *time.Location
	began  bool
}

// NewPrinter gives a printer that shows times in a time zone.
func NewPrinter(w io.Writer, f Format, zone *time.Location) *Printer {
	return &Printer{w: w, format: f, zone: zone}
}

// Print prints a line.
func (p *Printer) Print(l *Line) error {
	if p.format == JSON {
		raw, err := json.Marshal(l)
		if err != nil {
			return err
		}
		_, err = p.w.Write(append(raw, '\n'))
		return err
	}
	text := l.compact(p.zone)
	if p.format != Compact {
		text = pad(l.cells(p.format, p.zone), p.format)
		if !p.began {
			text = pad(headings(p.format), p.format) + "\n" + text
		}
		p.began = true
	}
	_, err := fmt.Fprintln(p.w, text)
	return err
}

const clock = "15:04:05.000"

// when is the time at which the call was over, by which lines are in order.
func (l *Line) when(zone *time.Location) string {
	return l.Time.Add(time.Duration(l.Duration * float64(time.Second))).In(zone).Format(clock)
}

// compact is one line of text.
func (l *Line) compact(zone *time.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s -> %s", l.when(zone), l.Source.name(), l.target())
	if l.Service != nil && l.Destination.Workload != "" {
		fmt.Fprintf(&b, " (%s)", l.Destination.Workload)
	}
	b.WriteString(" " + l.Protocol)
	if r := l.request(); r != "" {
		b.WriteString(" " + r + " " + l.status())
	}
	b.WriteString(" " + strings.ToUpper(l.Verdict))
	if why := l.why(); why != "" {
		b.WriteString(" " + why)
	}
	details := []string{l.duration(), Bytes(l.Sent) + "/" + Bytes(l.Received), l.Security, l.way()}
	if h := l.HTTP; h != nil {
		details = append(details, h.details()...)
	}
	fmt.Fprintf(&b, " [%s]", strings.Join(details, ", "))
	for _, a := range l.Audits {
		b.WriteString(" audit: " + a.String())
	}
	return b.String()
}

// details are what is worth a word where it is out of the ordinary.
func (h *HTTP) details() (all []string) {
	if h.Route != "" {
		text := h.Route
		if h.Rule != "" {
			text += " rule " + h.Rule
		}
		all = append(all, text)
	}
	if h.Attempts > 1 {
		all = append(all, fmt.Sprintf("%d attempts", h.Attempts))
	}
	if len(h.Mirrors) > 0 {
		all = append(all, "mirrored to "+strings.Join(named(h.Mirrors), " "))
	}
	if h.Fault != nil {
		all = append(all, "fault of "+h.Fault.String())
	}
	return all
}

// named gives services, each <namespace>/<hostname>, as people call them.
func named(services []string) []string {
	out := make([]string, len(services))
	for i, s := range services {
		out[i] = s
		namespace, host, _ := strings.Cut(s, "/")
		if name, _, ok := strings.Cut(host, "."+namespace+".svc."); ok {
			out[i] = namespace + "/" + name
		}
	}
	return out
}

// name is how an end is called: the workload, or who it proved to be, or where it
// is.
func (e *Endpoint) name() string {
	switch {
	case e.Workload != "":
		return e.Namespace + "/" + e.Workload
	case e.Identity != "":
		return e.Identity
	case e.Address != "":
		return e.Address
	}
	return "?"
}

// target is what was addressed.
func (l *Line) target() string {
	if s := l.Service; s != nil {
		return fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, s.Port)
	}
	if i := strings.LastIndexByte(l.Destination.Address, ':'); l.Destination.Workload != "" && i >= 0 {
		return l.Destination.name() + l.Destination.Address[i:]
	}
	return l.Destination.name()
}

func (l *Line) request() string {
	if l.HTTP == nil {
		return ""
	}
	return l.HTTP.Method + " " + l.HTTP.Path
}

func (l *Line) status() string {
	switch h := l.HTTP; {
	case h == nil:
		return ""
	case h.GRPCStatus != nil && h.Status == 200:
		return fmt.Sprintf("grpc %d", *h.GRPCStatus)
	default:
		return fmt.Sprint(h.Status)
	}
}

// why says who decided, or what went wrong.
func (l *Line) why() string {
	switch {
	case l.Policy != nil && l.Policy.Name != "":
		return "by " + l.Policy.String()
	case l.HTTP != nil && l.HTTP.RateLimit != nil:
		return "by " + l.HTTP.RateLimit.String()
	case l.Verdict == "forwarded":
		return ""
	}
	return "(" + strings.TrimPrefix(l.Reason, "denied by policy: ") + ")"
}

// String names the policy and its rule.
func (p *Policy) String() string {
	text := p.Namespace + "/" + p.Name
	if p.Kind != "" {
		text = p.Kind + " " + text
	}
	if p.Rule != "" {
		text += " rule " + p.Rule
	}
	return text
}

// way gives the hops; in brackets those that told nothing themselves.
func (l *Line) way() string {
	var all []string
	for _, h := range l.Hops {
		text := h.Node
		if h.Proxy == "waypoint" {
			text = h.Name
		}
		if !h.Told {
			text = "(" + text + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, " > ")
}

func (l *Line) duration() string {
	d := time.Duration(l.Duration * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// Bytes gives a size in few digits.
func Bytes(n uint64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 4; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f%cB", v, "kMGTP"[i])
}

var columns = []struct {
	heading string
	width   int
	cell    func(*Line) string
	wide    bool
}{
	{"SOURCE", 26, func(l *Line) string { return l.Source.name() }, false},
	{"DESTINATION", 26, (*Line).target, false},
	{"WORKLOAD", 22, func(l *Line) string { return l.Destination.Workload }, true},
	{"PROTOCOL", 9, func(l *Line) string { return l.Protocol }, false},
	{"REQUEST", 30, (*Line).request, false},
	{"STATUS", 7, (*Line).status, false},
	{"VERDICT", 9, func(l *Line) string { return l.Verdict }, false},
	{"SECURITY", 9, func(l *Line) string { return l.Security }, false},
	{"DURATION", 10, (*Line).duration, false},
	{"SENT", 8, func(l *Line) string { return Bytes(l.Sent) }, true},
	{"RECEIVED", 8, func(l *Line) string { return Bytes(l.Received) }, true},
	{"HOPS", 22, (*Line).way, true},
	{"CLIENT-ID", 44, func(l *Line) string { return l.Source.Identity }, true},
	{"SERVER-ID", 44, func(l *Line) string { return l.Destination.Identity }, true},
	{"WHY", 0, (*Line).why, false},
	{"DETAILS", 0, func(l *Line) string {
		if l.HTTP == nil {
			return ""
		}
		return strings.Join(l.HTTP.details(), ", ")
	}, true},
}

func (l *Line) cells(f Format, zone *time.Location) []string {
	all := []string{l.when(zone)}
	for _, c := range columns {
		if !c.wide || f == Wide {
			all = append(all, c.cell(l))
		}
	}
	return all
}

func headings(f Format) []string {
	all := []string{"TIME"}
	for _, c := range columns {
		if !c.wide || f == Wide {
			all = append(all, c.heading)
		}
	}
	return all
}

// pad sets cells under each other. Columns have a fixed width, since later lines
// are not known when the first are printed.
func pad(cells []string, f Format) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s", cells[0])
	i := 1
	for _, c := range columns {
		if c.wide && f != Wide {
			continue
		}
		text := cells[i]
		i++
		if text == "" {
			text = "-"
		}
		fmt.Fprintf(&b, "  %-*s", c.width, text)
	}
	return strings.TrimRight(b.String(), " ")
}
