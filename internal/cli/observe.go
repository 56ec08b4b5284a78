package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/flow/report"
)

// flowFormat is the value of observe's -o.
type flowFormat report.Format

func (f *flowFormat) String() string { return string(*f) }

// Set takes one of the known formats.
func (f *flowFormat) Set(s string) error {
	if !slices.Contains(report.Formats(), report.Format(s)) {
		return fmt.Errorf("want compact, table, wide or json")
	}
	*f = flowFormat(s)
	return nil
}

// Type is shown in the help.
func (f *flowFormat) Type() string { return "compact|table|wide|json" }

// filterFlags are the conditions that records are chosen by.
type filterFlags struct {
	values map[string]*[]string
	yes    map[string]*bool
	not    []string
}

// help of the conditions, in the order in which they are shown.
var conditions = []struct{ word, short, help string }{
	{"namespace", "n", "namespace of either end"},
	{"workload", "", "[namespace/]name of either end: a pod, what it was made by, its service account or address; name* for a beginning"},
	{"from", "", "where it comes from, like --workload"},
	{"to", "", "where it goes, like --workload, or a service"},
	{"service", "", "[namespace/]name or host name of the service that was addressed"},
	{"identity", "", "SPIFFE ID of either end, or the beginning of one with * at its end"},
	{"verdict", "", "forwarded, denied, failed or limited"},
	{"protocol", "", "tcp, udp, http, http1, http2, grpc or websocket"},
	{"status", "", "HTTP status: 404, 5xx, 500-503 or 400+"},
	{"method", "", "HTTP method"},
	{"path", "", "beginning of the HTTP path"},
	{"port", "", "port of the service or of the destination"},
	{"policy", "", "[namespace/]name of the policy that decided or matched"},
	{"node", "", "node of a proxy that saw it"},
	{"reporter", "", "who tells of it: source, destination or waypoint"},
	{"trace", "", "id of the trace, in hexadecimal digits"},
}

func (f *filterFlags) add(cmd *cobra.Command) {
	f.values, f.yes = make(map[string]*[]string), make(map[string]*bool)
	for _, c := range conditions {
		f.values[c.word] = cmd.Flags().StringSliceP(c.word, c.short, nil, c.help)
	}
	f.yes["encrypted"] = cmd.Flags().Bool("encrypted", false, "only what was encrypted on every hop")
	f.yes["unencrypted"] = cmd.Flags().Bool("unencrypted", false, "only what was not")
	cmd.Flags().StringArrayVar(&f.not, "not", nil, "leave out what matches: one or more WORD=VALUE with the words above, such as --not 'from=shop/web status=2xx'")
}

// filters gives what is wanted and what is not.
func (f *filterFlags) filters() (include, exclude []*flowpb.Filter, err error) {
	wanted, some := &flowpb.Filter{}, false
	for _, c := range conditions {
		if list := *f.values[c.word]; len(list) > 0 {
			some = true
			if err := flow.Add(wanted, c.word, strings.Join(list, ",")); err != nil {
				return nil, nil, Usage(fmt.Errorf("--%w", err))
			}
		}
	}
	for word, on := range f.yes {
		if *on {
			some = true
			if err := flow.Add(wanted, word, ""); err != nil {
				return nil, nil, Usage(fmt.Errorf("--%w", err))
			}
		}
	}
	if some {
		include = []*flowpb.Filter{wanted}
	}
	for _, line := range f.not {
		x, err := flow.Parse(line)
		if err != nil {
			return nil, nil, Usage(fmt.Errorf("--not: %w", err))
		}
		if strings.TrimSpace(line) == "" {
			return nil, nil, Usage(fmt.Errorf("--not: says nothing: want WORD=VALUE"))
		}
		exclude = append(exclude, x)
	}
	return include, exclude, nil
}

// span is the part of time that is asked for.
type span struct {
	since  string
	last   uint32
	follow bool
}

// set puts the span into a request.
func (s *span) set(req *flowpb.ObserveRequest, now time.Time) error {
	req.Last, req.Follow = s.last, s.follow
	if s.since == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, s.since)
	if err != nil {
		d, derr := time.ParseDuration(s.since)
		if derr != nil || d < 0 {
			return Usage(fmt.Errorf("--since %q: want a duration such as 5m, or a time such as 2006-01-02T15:04:05Z", s.since))
		}
		at = now.Add(-d)
	}
	req.Since = timestamppb.New(at)
	return nil
}

// defaultLast is how many calls are shown when nothing is said.
const defaultLast = 20

// Connect gives the mesh that a command is about.
type Connect func(context.Context) (Mesh, error)

func (f *localFlags) mesh(context.Context) (Mesh, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	return localMesh{client}, nil
}

func newObserve(s Streams, f *localFlags) *cobra.Command {
	cmd := new(cobra.Command)
	BuildObserve(cmd, s, "ambit local observe", "", f.mesh)
	return cmd
}

// BuildObserve makes cmd what shows the calls of a mesh. It is called by the given
// name; about says more of what it needs.
func BuildObserve(cmd *cobra.Command, s Streams, name, about string, connect Connect) {
	var filter filterFlags
	var when span
	var apart bool
	out := flowFormat(report.Compact)
	cmd.Use = "observe"
	cmd.Short = "Show the connections and requests of the mesh"
	cmd.Long = "Shows what the ztunnels of all nodes and the waypoints tell of connections and requests. What several\n" +
		"proxies tell of one call is joined into one line, with the proxies that it went through. Denied ones\n" +
		"name the policy and its rule.\n\n" +
		"A call has to meet all conditions; of one that is given several values, one of them. Proxies keep their\n" +
		"newest 4096 records: older calls are gone. Without --since, --last and --follow the last 20 are shown." + about
	cmd.Example = strings.ReplaceAll("  NAME -f\n  NAME --verdict denied --since 5m\n"+
		"  NAME --from shop/web --to cart --status 5xx -o wide\n"+
		"  NAME -f --not 'protocol=tcp' --not 'status=2xx'\n  NAME --unencrypted --last 100 -o json", "NAME", name)
	cmd.Args = Exactly(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := &observer{errs: s.Err, joined: !apart, printer: report.NewPrinter(s.Out, report.Format(out), time.Local)}
		var err error
		if o.request, o.limit, err = request(&filter, &when, o.joined); err != nil {
			return err
		}
		if o.mesh, err = connect(cmd.Context()); err != nil {
			return err
		}
		return o.run(cmd.Context())
	}
	filter.add(cmd)
	cmd.Flags().StringVar(&when.since, "since", "", "only what ended since then: a duration such as 5m, or a time")
	cmd.Flags().Uint32Var(&when.last, "last", 0, "only the newest so many")
	cmd.Flags().BoolVarP(&when.follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().BoolVar(&apart, "no-join", false, "one line for each record of each proxy")
	cmd.Flags().VarP(&out, "output", "o", "how to print; json is one object a line")
}

// request gives what to ask proxies for, and how many calls to show at most; 0 is
// all.
func request(filter *filterFlags, when *span, joined bool) (*flowpb.ObserveRequest, int, error) {
	req := &flowpb.ObserveRequest{}
	var err error
	if req.Include, req.Exclude, err = filter.filters(); err != nil {
		return nil, 0, err
	}
	if when.since == "" && when.last == 0 && !when.follow {
		when.last = defaultLast
	}
	if err := when.set(req, time.Now()); err != nil {
		return nil, 0, err
	}
	// A proxy does not know which of its records belong to the calls that are
	// wanted, nor to the newest.
	if joined && !req.GetFollow() {
		req.Last = 0
	}
	req.Opened = joined && req.GetFollow()
	return req, int(when.last), nil
}
