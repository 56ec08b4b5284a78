package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow/report"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

func TestObserveIsCalledWrongly(t *testing.T) {
	runtimeDir := "--runtime-dir=" + t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"observe"}, 1, "is not running"},
		{[]string{"edges"}, 1, "is not running"},
		{[]string{"observe", "x"}, 2, "usage: ambit local observe"},
		{[]string{"observe", "-o", "yaml"}, 2, "want compact, table, wide or json"},
		{[]string{"observe", "--verdict", "maybe"}, 2, `--verdict "maybe": want one of denied, failed, forwarded, limited`},
		{[]string{"observe", "--encrypted", "--unencrypted"}, 2, "--encrypted and unencrypted: nothing is both"},
		{[]string{"observe", "--since", "yesterday"}, 2, `--since "yesterday": want a duration such as 5m`},
		{[]string{"observe", "--since", "-5m"}, 2, `--since "-5m": want a duration`},
		{[]string{"observe", "--not", "colour=red"}, 2, `--not: colour "red": want one of`},
		{[]string{"observe", "--not", ""}, 2, "--not: says nothing"},
		{[]string{"observe", "--last", "-1"}, 2, "invalid argument"},
		{[]string{"edges", "--status", "abc"}, 2, `--status "abc": want for example 404`},
	} {
		code, out, errOut := call(t, append([]string{"local", runtimeDir}, tc.args...)...)
		if code != tc.code || out != "" || !strings.Contains(errOut, tc.err) {
			t.Errorf("%v: exit code %d, output %q, errors %q; want %d, %q", tc.args, code, out, errOut, tc.code, tc.err)
		}
	}
}

// parsed gives what flags ask for.
func parsed(t *testing.T, joined bool, args ...string) (*flowpb.ObserveRequest, int) {
	t.Helper()
	var filter filterFlags
	var when span
	cmd := &cobra.Command{Use: "x"}
	filter.add(cmd)
	cmd.Flags().StringVar(&when.since, "since", "", "")
	cmd.Flags().Uint32Var(&when.last, "last", 0, "")
	cmd.Flags().BoolVarP(&when.follow, "follow", "f", false, "")
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	req, limit, err := request(&filter, &when, joined)
	if err != nil {
		t.Fatal(err)
	}
	return req, limit
}

func TestWhatFlagsAskFor(t *testing.T) {
	all := &flowpb.ObserveRequest{
		Include: []*flowpb.Filter{{
			Namespaces: []string{"shop"}, From: []string{"shop/web", "visitor"}, Statuses: []*flowpb.StatusRange{{From: 500, To: 599}, {From: 404, To: 404}},
			Verdicts: []flowpb.Verdict{flowpb.Verdict_VERDICT_DENIED}, Encrypted: flowpb.Filter_ENCRYPTED_YES,
		}},
		Exclude: []*flowpb.Filter{{Methods: []string{"GET"}, PathPrefixes: []string{"/healthz"}}, {Ports: []uint32{9000}}},
		Follow:  true, Opened: true,
	}
	req, _ := parsed(t, true, "-n", "shop", "--from", "shop/web,visitor", "--status", "5xx", "--status", "404", "--verdict", "denied", "--encrypted",
		"--not", "method=get path=/healthz", "--not", "port=9000", "-f")
	if !proto.Equal(req, all) {
		t.Errorf("got  %v\nwant %v", req, all)
	}
	if req, limit := parsed(t, true); limit != defaultLast || req.GetLast() != 0 || req.GetOpened() || len(req.GetInclude()) > 0 {
		t.Errorf("%v, limit %d", req, limit)
	}
	if req, limit := parsed(t, false, "--last", "7"); limit != 7 || req.GetLast() != 7 {
		t.Errorf("%v, limit %d", req, limit)
	}
	if req, limit := parsed(t, false, "--since", "1h", "-f"); limit != 0 || time.Since(req.GetSince().AsTime()).Round(time.Minute) != time.Hour || req.GetOpened() {
		t.Errorf("%v, limit %d", req, limit)
	}
	if req, _ := parsed(t, false, "--since", "2026-01-02T03:04:05Z"); req.GetSince().AsTime().Unix() != 1767323045 {
		t.Error(req)
	}
}

// supervisor tells of given flows, and then waits when it is asked to follow.
type supervisor struct {
	control.Backend
	flows []control.Flow
	asked chan *flowpb.ObserveRequest
}

func (s *supervisor) Flows(ctx context.Context, args control.FlowsArgs, send func(control.Flow) error) error {
	req := new(flowpb.ObserveRequest)
	if err := proto.Unmarshal(args.Request, req); err != nil {
		return err
	}
	s.asked <- req
	for _, f := range s.flows {
		if err := send(f); err != nil {
			return err
		}
	}
	if req.GetFollow() {
		<-ctx.Done()
	}
	return nil
}

// told are two connections, one of which both ends tell of.
func told(t *testing.T) []control.Flow {
	t.Helper()
	flows := []control.Flow{{From: "n3/ztunnel", Problem: "it is not there"}, {From: "n1/ztunnel", Lost: 3}}
	for i, r := range []*flowpb.FlowRecord{
		{Reporter: flowpb.Reporter_REPORTER_SOURCE, TunnelOut: "a", Source: &flowpb.Endpoint{Namespace: "shop", Workload: "web"}, Verdict: flowpb.Verdict_VERDICT_DENIED},
		{Reporter: flowpb.Reporter_REPORTER_SOURCE, TunnelOut: "b", Source: &flowpb.Endpoint{Namespace: "shop", Workload: "load"}, Verdict: flowpb.Verdict_VERDICT_FORWARDED},
		{Reporter: flowpb.Reporter_REPORTER_DESTINATION, TunnelIn: "a", Verdict: flowpb.Verdict_VERDICT_DENIED, Policy: &flowpb.PolicyRef{Namespace: "shop", Name: "guard", Rule: "1"}},
	} {
		r.Start, r.Event = timestamppb.New(time.Unix(int64(i), 0)), flowpb.FlowRecord_EVENT_ENDED
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		flows = append(flows, control.Flow{From: "n1/ztunnel", Record: raw})
	}
	return flows
}

// observing gives an observer of a supervisor that tells.
func observing(t *testing.T, joined bool, args ...string) (*observer, *supervisor, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &supervisor{flows: told(t), asked: make(chan *flowpb.ObserveRequest, 1)}
	srv, err := control.Listen(dir, s, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	var out, errs bytes.Buffer
	o := &observer{mesh: localMesh{control.NewClient(dir)}, joined: joined, errs: &errs, printer: report.NewPrinter(&out, report.JSON, time.UTC)}
	o.request, o.limit = parsed(t, joined, args...)
	return o, s, &out, &errs
}

func TestObserve(t *testing.T) {
	for name, tc := range map[string]struct {
		joined bool
		args   []string
		want   string // workloads and policies of the lines
	}{
		"joined":                    {true, nil, "web:guard load:"},
		"apart":                     {false, nil, "web: load: :guard"},
		"the newest":                {true, []string{"--last", "1"}, "load:"},
		"by what one end knows":     {true, []string{"--policy", "guard"}, "web:guard"},
		"by what the other knows":   {true, []string{"--from", "web"}, "web:guard"},
		"what nobody wants":         {true, []string{"--not", "policy=shop/guard"}, "load:"},
		"nothing":                   {true, []string{"--from", "nobody"}, ""},
		"following, until told off": {true, []string{"-f"}, "web:guard load:"},
	} {
		t.Run(name, func(t *testing.T) {
			o, s, out, errs := observing(t, tc.joined, tc.args...)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if o.request.GetFollow() {
				// The call that is whole was told of last; the other one waits.
				o.printer = report.NewPrinter(&after{w: out, text: "guard", do: cancel}, report.JSON, time.UTC)
			}
			if err := o.run(ctx); err != nil {
				t.Fatal(err)
			}
			if req := <-s.asked; tc.joined && len(req.GetInclude())+len(req.GetExclude()) > 0 {
				t.Errorf("a proxy was asked to choose among halves of calls: %v", req)
			}
			var got []string
			for line := range strings.Lines(out.String()) {
				var l report.Line
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatal(err)
				}
				policy := ""
				if l.Policy != nil {
					policy = l.Policy.Name
				}
				got = append(got, l.Source.Workload+":"+policy)
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("%q, want %q", s, tc.want)
			}
			if want := "n3/ztunnel tells nothing: it is not there\nn1/ztunnel: 3 records are lost, because they were read too slowly\n"; errs.String() != want {
				t.Errorf("errors %q", errs)
			}
		})
	}
}

// after does something when a text is written.
type after struct {
	w    *bytes.Buffer
	text string
	do   func()
}

func (a *after) Write(p []byte) (int, error) {
	if strings.Contains(string(p), a.text) {
		a.do()
	}
	return a.w.Write(p)
}

func TestEdges(t *testing.T) {
	o, _, _, _ := observing(t, true)
	list, err := o.edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Source.Name != "load" || list[1].Denied != 1 {
		t.Errorf("%+v", list)
	}
}
