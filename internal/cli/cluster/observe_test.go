package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/flow/report"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// proxy is the admin port of one that tells of flows, as ztunnels and waypoints
// serve it.
type proxy struct {
	*flow.Log
	address string
}

func newProxy(t *testing.T, node string) *proxy {
	t.Helper()
	p := &proxy{Log: flow.NewLog(64)}
	mux := admin.NewMux(zap.NewAtomicLevel())
	mux.Handle(flow.Path, flow.NewServer(p.Log, node, prometheus.NewRegistry()).Handler())
	srv, err := admin.Listen("127.0.0.1:0", true, mux)
	if err != nil {
		t.Fatal(err)
	}
	p.address = srv.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// leaves checks that nothing is left behind by what a test does. It is called first,
// so that it looks last.
func leaves(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func account(name string) flow.End {
	return flow.End{Identity: identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: name}}
}

// one is a connection that a ztunnel tells of alone; reason tells it from others.
func one(reason string) *flow.Record {
	return &flow.Record{Start: time.Now(), Reporter: flowpb.Reporter_REPORTER_SOURCE, Verdict: flowpb.Verdict_VERDICT_FAILED, Source: account("web"), Destination: account("cart"), Reason: reason}
}

// A request from n1 through a waypoint to n2 is one line with three hops, and one
// edge; a node that refuses is named and stops nobody; a Gateway of somebody else is
// let alone.
func TestObserveCluster(t *testing.T) {
	leaves(t)
	f := newFakeCluster(t)
	n1, n2, wp := newProxy(t, "n1"), newProxy(t, "n2"), newProxy(t, "n2")
	f.ztunnel("n1", n1.address)
	f.ztunnel("n2", n2.address)
	f.ztunnel("n3", nobody(t))
	f.waypoint("shop", "wp", "n2", wp.address)
	f.waypoint("shop", "other", "n2", nobody(t))
	f.gateways = []any{
		map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": map[string]any{"namespace": "shop", "name": "other"}, "spec": map[string]any{"gatewayClassName": "other"}},
		map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": map[string]any{"namespace": "shop", "name": "wp"}, "spec": map[string]any{"gatewayClassName": "ambit-waypoint"}},
	}
	f.run("ambit-system", "ambit-ztunnel-old", "n1", corev1.PodSucceeded, map[string]string{"app.kubernetes.io/name": "ambit-ztunnel"}, "")

	start := time.Now().Add(-time.Minute)
	in, out := trace.Context{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}, trace.Context{TraceID: trace.TraceID{2}, SpanID: trace.SpanID{2}}
	n1.Append(&flow.Record{Start: start, Duration: time.Second, Reporter: flowpb.Reporter_REPORTER_SOURCE, Verdict: flowpb.Verdict_VERDICT_FORWARDED, Encrypted: true, TunnelOut: in, Source: account("web"), Waypoint: "shop/wp"})
	wp.Append(&flow.Record{
		Start: start, Duration: time.Second, Reporter: flowpb.Reporter_REPORTER_WAYPOINT, Verdict: flowpb.Verdict_VERDICT_FORWARDED, Encrypted: true, TunnelIn: in, TunnelOut: out,
		Source: account("web"), Destination: account("cart"), Waypoint: "shop/wp", HTTP: flow.HTTP{Method: "GET", Path: "/items", Status: 200},
	})
	n2.Append(&flow.Record{Start: start, Duration: time.Second, Reporter: flowpb.Reporter_REPORTER_DESTINATION, Verdict: flowpb.Verdict_VERDICT_FORWARDED, Encrypted: true, TunnelIn: out, Source: account("web"), Destination: account("cart")})

	code, text, errs := invoke(t, "observe", "-o", "json", "--path", "/items", "--kubeconfig", f.kubeconfig)
	var l report.Line
	if err := json.Unmarshal([]byte(text), &l); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s%s", code, err, text, errs)
	}
	var way []string
	for _, h := range l.Hops {
		way = append(way, h.Node)
	}
	if got := strings.Join(way, " "); got != "n1 n2 n2" || l.HTTP == nil || l.HTTP.Status != 200 {
		t.Errorf("by way of %q:\n%s", got, text)
	}
	if !strings.Contains(errs, "ambit-system/ambit-ztunnel-n3 on n3 tells nothing: port 15000 of pod ambit-system/ambit-ztunnel-n3: connect: connection refused\n") || strings.Count(errs, "\n") != 1 {
		t.Errorf("errors %q", errs)
	}
	if got := f.asked(); got != "ambit-system/ambit-ztunnel-n1 ambit-system/ambit-ztunnel-n2 ambit-system/ambit-ztunnel-n3 shop/wp-1" {
		t.Errorf("asked %s", got)
	}
	code, text, errs = invoke(t, "edges", "-n", "shop", "--kubeconfig", f.kubeconfig)
	if code != 0 || strings.Count(text, "\n") != 2 || !strings.Contains(text, "spiffe://cluster.local/ns/shop/sa/cart") || !strings.Contains(text, "yes") {
		t.Errorf("exit code %d\n%s%s", code, text, errs)
	}
}

func TestObserveClusterExitCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(t *testing.T, f *fakeCluster)
		args string
		code int
		errs []string
	}{
		"nothing is there": {func(*testing.T, *fakeCluster) {}, "observe", cli.ExitFailed, []string{"no proxy runs in namespace ambit-system", "ambit check"}},
		"none can be reached": {
			func(t *testing.T, f *fakeCluster) { f.ztunnel("n1", nobody(t)); f.ztunnel("n2", nobody(t)) }, "edges", cli.ExitFailed,
			[]string{"ambit-ztunnel-n1 on n1 tells nothing", "ambit-ztunnel-n2 on n2 tells nothing", "none of the proxies can be reached (2 asked)"},
		},
		"none can be followed": {func(t *testing.T, f *fakeCluster) { f.ztunnel("n1", nobody(t)) }, "observe -f", cli.ExitFailed, []string{"none of the proxies can be reached (1 asked)"}},
		"ports may not be forwarded": {func(t *testing.T, f *fakeCluster) {
			f.ztunnel("n1", newProxy(t, "n1").address)
			f.forbidden["/api/v1/namespaces/ambit-system/pods/ambit-ztunnel-n1/portforward"] = true
		}, "observe", cli.ExitFailed, []string{"forbidden: /api/v1/namespaces/ambit-system/pods/ambit-ztunnel-n1/portforward", "pods/portforward"}},
		"only the own waypoint may be seen": {func(t *testing.T, f *fakeCluster) {
			f.ztunnel("n1", nobody(t))
			f.waypoint("shop", "wp", "n1", newProxy(t, "n1").address)
			f.waypoint("bank", "wp", "n1", nobody(t))
			f.forbidden["/api/v1/pods"], f.forbidden["/api/v1/namespaces/ambit-system/pods"], f.forbidden["/apis/gateway.networking.k8s.io/v1/gateways"] = true, true, true
		}, "observe", 0, []string{"waypoints outside of namespace shop are left out", "ztunnels are left out"}},
		"nothing may be seen": {func(_ *testing.T, f *fakeCluster) {
			f.forbidden["/api/v1/pods"], f.forbidden["/api/v1/namespaces/ambit-system/pods"], f.forbidden["/api/v1/namespaces/shop/pods"] = true, true, true
		}, "observe", cli.ExitFailed, []string{"find ztunnels: "}},
		"wrong usage": {func(*testing.T, *fakeCluster) {}, "observe --status abc", cli.ExitUsage, []string{"--status"}},
	} {
		t.Run(name, func(t *testing.T) {
			leaves(t)
			f := newFakeCluster(t)
			tc.make(t, f)
			code, out, errs := invoke(t, append(strings.Fields(tc.args), "--kubeconfig", f.kubeconfig)...)
			wants(t, code, out, errs, tc.code, tc.errs...)
			if strings.Contains(errs, "bank") {
				t.Errorf("errors %q", errs)
			}
		})
	}
}

// lines lets a test wait for what is written.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

// await waits until a text was written.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	for {
		l.mu.Lock()
		got, changed := l.text.String(), l.changed
		l.mu.Unlock()
		if strings.Contains(got, text) {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
		case <-time.After(time.Minute):
			t.Fatalf("no %q in:\n%s", text, got)
		}
	}
}

// piped gives a file that is written to to, and what ends that.
func piped(t *testing.T, to io.Writer) (file *os.File, end func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(to, r)
		done <- errors.Join(err, r.Close())
	}()
	return w, sync.OnceFunc(func() {
		if err := errors.Join(w.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
}

// Whoever follows is told of proxies that come and go, and of what they tell; a way
// that breaks is taken again, and nothing is told twice; at the end nothing is left.
func TestObserveClusterFollows(t *testing.T) {
	leaves(t)
	f := newFakeCluster(t)
	n1, n2, wp := newProxy(t, "n1"), newProxy(t, "n2"), newProxy(t, "n2")
	f.ztunnel("n1", n1.address)
	f.ztunnel("n3", nobody(t))
	out, errs := newLines(), newLines()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := new(cobra.Command)
	outFile, outEnd := piped(t, out)
	errsFile, errsEnd := piped(t, errs)
	cli.BuildObserve(cmd, cli.Streams{Out: outFile, Err: errsFile}, "observe", "", func(context.Context) (cli.Mesh, error) {
		return clusterMesh{f.connect(t), nil}, nil
	})
	cmd.SetArgs([]string{"-f", "--since", "1h", "-o", "json"})
	n1.Append(one("first"))
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	out.await(t, `"first"`)
	errs.await(t, "ambit-ztunnel-n3 on n3 tells nothing")

	n2.Append(one("before it was found"))
	f.ztunnel("n2", n2.address)
	errs.await(t, "ambit-system/ambit-ztunnel-n2 on n2 is new\n")
	out.await(t, `"before it was found"`)
	f.waypoint("shop", "wp", "n2", wp.address)
	errs.await(t, "shop/wp-1 on n2 is new\n")
	wp.Append(one("by the waypoint"))
	out.await(t, `"by the waypoint"`)

	f.cut("ambit-system/ambit-ztunnel-n1")
	n1.Append(one("while the way was broken"))
	out.await(t, `"while the way was broken"`)

	f.remove("ambit-system/ambit-ztunnel-n2")
	errs.await(t, "ambit-system/ambit-ztunnel-n2 on n2 is gone\n")
	f.cut("ambit-system/ambit-ztunnel-n2")
	n1.Append(one("last"))
	out.await(t, `"last"`)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	outEnd()
	errsEnd()
	for _, reason := range []string{"first", "before it was found", "by the waypoint", "while the way was broken", "last"} {
		if n := strings.Count(out.text.String(), `"`+reason+`"`); n != 1 {
			t.Errorf("%q was told %d times", reason, n)
		}
	}
	if strings.Contains(errs.text.String(), "ztunnel-n1") || strings.Contains(errs.text.String(), "ztunnel-n2 on n2 tells") {
		t.Errorf("errors %q", errs.text.String())
	}
}

func (f *fakeCluster) connect(t *testing.T) *kube.Cluster {
	t.Helper()
	var flags kube.Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Add(set)
	if err := set.Set("kubeconfig", f.kubeconfig); err != nil {
		t.Fatal(err)
	}
	c, err := flags.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What looks into one ztunnel goes the same way.
func TestZtunnelOfCluster(t *testing.T) {
	leaves(t)
	f := newFakeCluster(t)
	n1 := newProxy(t, "n1")
	n1.Append(one("over"))
	f.ztunnel("n1", n1.address)
	f.ztunnel("n2", nobody(t))
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"connections --node n1 --ended 5 -o json": {0, `"over"`},
		"connections --node n2 --ended 5":         {cli.ExitFailed, "connection refused"},
		"log --node n1":                           {0, "level: info"},
		"log --node n2":                           {cli.ExitFailed, "connection refused"},
		"workloads --node n1":                     {cli.ExitFailed, "404 Not Found"},
	} {
		code, out, errs := invoke(t, append(append([]string{"ztunnel"}, strings.Fields(line)...), "--kubeconfig", f.kubeconfig)...)
		wants(t, code, out, errs, want.code, want.text)
	}
}
