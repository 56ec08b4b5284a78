package nodes_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// credentials gives a file's contents for node=token pairs.
func credentials(pairs ...string) string {
	var b strings.Builder
	b.WriteString("nodes:\n")
	for _, p := range pairs {
		node, token, _ := strings.Cut(p, "=")
		fmt.Fprintf(&b, "- {node: %s, tokenSHA256: %s}\n", node, hash(token))
	}
	return b.String()
}

func workloadEntry(node, token, namespace, pod, gateway string) string {
	return fmt.Sprintf("- {node: %s, tokenSHA256: %s, workload: {namespace: %s, pod: %s, uid: u-%[4]s, serviceAccount: %s, gateway: %[5]s}}\n", node, hash(token), namespace, pod, gateway)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadCredentialFiles(t *testing.T) {
	for name, tc := range map[string]struct{ content, want string }{
		"empty":                         {"", "nodes: []"},
		"no YAML":                       {"{", "yaml"},
		"unknown field":                 {"nodes: []\nroles: []\n", "roles"},
		"token itself":                  {"nodes: [{node: n1, tokenSHA256: secret}]", "nodes[0].tokenSHA256"},
		"short hash":                    {"nodes: [{node: n1, tokenSHA256: abcd}]", "64 hexadecimal"},
		"no node":                       {"nodes: [{tokenSHA256: " + hash("x") + "}]", "nodes[0].node"},
		"bad node":                      {"nodes: [{node: 'N 1', tokenSHA256: " + hash("x") + "}]", "nodes[0].node"},
		"shared token":                  {credentials("n1=same", "n2=same"), "give each node and workload its own"},
		"a node's token for a workload": {credentials("n1=same") + workloadEntry("n1", "same", "shop", "wp-1", "wp"), "give each node and workload its own"},
		"two workloads' token":          {credentials("n1=one") + workloadEntry("n1", "w", "shop", "wp-1", "wp") + workloadEntry("n1", "w", "shop", "wp-2", "wp"), "the token of n1/shop/wp-2"},
		"no gateway":                    {credentials("n1=one") + workloadEntry("n1", "w", "shop", "wp-1", "''"), "nodes[1].workload.serviceAccount"},
		"unknown part of a workload":    {"nodes: [{node: n1, tokenSHA256: " + hash("x") + ", workload: {role: admin}}]", "role"},
		"workload without a uid":        {"nodes: [{node: n1, tokenSHA256: " + hash("x") + ", workload: {namespace: a, pod: b, serviceAccount: c, gateway: d}}]", "nodes[0].workload.uid"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nodes.yaml")
			write(t, path, tc.content)
			_, err := nodes.NewAuthenticator(nodes.Config{File: path})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v; want one that says %q and names the file", err, tc.want)
			}
		})
	}
	if _, err := nodes.NewAuthenticator(nodes.Config{File: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, credentials("n1=one", "n1=one-next", "n2=two")+workloadEntry("n1", "waypoint", "shop", "wp-1", "wp"))
	reg := prometheus.NewRegistry()
	a, err := nodes.NewAuthenticator(nodes.Config{File: path, ClusterID: "Kubernetes", Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		md   metadata.MD
		node string
	}{
		"token":             {metadata.Pairs("authorization", "Bearer one"), "n1"},
		"second token":      {metadata.Pairs("authorization", "Bearer one-next", "clusterid", "Kubernetes"), "n1"},
		"other node":        {metadata.Pairs("authorization", "Bearer two"), "n2"},
		"workload":          {metadata.Pairs("authorization", "Bearer waypoint"), "n1/shop/wp-1"},
		"nothing":           {nil, ""},
		"wrong token":       {metadata.Pairs("authorization", "Bearer three"), ""},
		"the hash":          {metadata.Pairs("authorization", "Bearer "+hash("one")), ""},
		"no scheme":         {metadata.Pairs("authorization", "one"), ""},
		"empty token":       {metadata.Pairs("authorization", "Bearer "), ""},
		"two tokens":        {metadata.Pairs("authorization", "Bearer one", "authorization", "Bearer two"), ""},
		"foreign cluster":   {metadata.Pairs("authorization", "Bearer one", "clusterid", "elsewhere"), ""},
		"two cluster names": {metadata.Pairs("authorization", "Bearer one", "clusterid", "Kubernetes", "clusterid", "x"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(t.Context(), tc.md)
			got, err := a.Unary(ctx, nil, nil, func(ctx context.Context, _ any) (any, error) {
				caller, _ := nodes.FromContext(ctx)
				return caller.Name(), nil
			})
			if tc.node == "" {
				if got != nil || status.Code(err) != codes.Unauthenticated {
					t.Fatalf("let in as %v, %v", got, err)
				}
			} else if got != tc.node || err != nil {
				t.Fatalf("%v, %v; want %s", got, err, tc.node)
			}
		})
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

// sink records reports, and can be made to hold or fail them.
type sink struct {
	got chan compile.CaptureReport
	err error
}

func (s *sink) Report(_ context.Context, r compile.CaptureReport) error {
	s.got <- r
	return s.err
}

func dial(t *testing.T, a *nodes.Authenticator, s *nodes.Service) nodepb.NodeServiceClient {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer(grpc.StreamInterceptor(a.Stream), grpc.UnaryInterceptor(a.Unary))
	nodepb.RegisterNodeServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:mem", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return nodepb.NewNodeServiceClient(conn)
}

func authenticator(t *testing.T, path string) *nodes.Authenticator {
	t.Helper()
	a, err := nodes.NewAuthenticator(nodes.Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// A waypoint's token proves no node: it reports nothing about pods.
func TestWorkloadMayNotReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, credentials("n1=one")+workloadEntry("n1", "waypoint", "shop", "wp-1", "wp"))
	s := &sink{got: make(chan compile.CaptureReport, 1)}
	core, logs := observer.New(zap.WarnLevel)
	stream, err := dial(t, authenticator(t, path), nodes.NewService(s, zap.New(core))).Report(as(t.Context(), "waypoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&nodepb.ReportRequest{Sequence: 1, Snapshot: true}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("%v", err)
	}
	if len(s.got) != 0 || logs.Len() != 1 || logs.All()[0].ContextMap()["caller"] != "n1/shop/wp-1" {
		t.Errorf("%d reports taken, log %+v", len(s.got), logs.All())
	}
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, credentials("n1=one"))
	s := &sink{got: make(chan compile.CaptureReport, 1)}
	client := dial(t, authenticator(t, path), nodes.NewService(s, zap.NewNop()))
	stream, err := client.Report(as(t.Context(), "one"))
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		req  *nodepb.ReportRequest
		want string
	}{
		{&nodepb.ReportRequest{Sequence: 1, Snapshot: true}, "{n1 true []}"},
		{&nodepb.ReportRequest{Sequence: 7, Pods: []*nodepb.PodState{{Uid: "a", State: nodepb.PodState_CAPTURED}, {Uid: "b"}}}, "{n1 false [{a true } {b false }]}"},
		{&nodepb.ReportRequest{Sequence: 8, Pods: []*nodepb.PodState{{Uid: "c", State: nodepb.PodState_FAILED, Message: "no netns"}}}, "{n1 false [{c false no netns}]}"},
	} {
		if err := stream.Send(tc.req); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(<-s.got); got != tc.want {
			t.Errorf("report %d: %s, want %s", i, got, tc.want)
		}
		resp, err := stream.Recv()
		if err != nil || resp.Sequence != tc.req.Sequence {
			t.Fatalf("ack %v, %v", resp, err)
		}
	}
}

func TestBadReports(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, credentials("n1=one"))
	many := make([]*nodepb.PodState, 10_001)
	for i := range many {
		many[i] = &nodepb.PodState{Uid: "u"}
	}
	for name, tc := range map[string]struct {
		token string
		req   *nodepb.ReportRequest
		sink  error
		want  codes.Code
	}{
		"no credential":     {"", &nodepb.ReportRequest{Snapshot: true}, nil, codes.Unauthenticated},
		"no snapshot first": {"one", &nodepb.ReportRequest{}, nil, codes.InvalidArgument},
		"no uid":            {"one", &nodepb.ReportRequest{Snapshot: true, Pods: []*nodepb.PodState{{}}}, nil, codes.InvalidArgument},
		"unknown state":     {"one", &nodepb.ReportRequest{Snapshot: true, Pods: []*nodepb.PodState{{Uid: "a", State: 9}}}, nil, codes.InvalidArgument},
		"too many pods":     {"one", &nodepb.ReportRequest{Snapshot: true, Pods: many}, nil, codes.InvalidArgument},
		"not taken in":      {"one", &nodepb.ReportRequest{Snapshot: true}, errors.New("stopping"), codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sink{got: make(chan compile.CaptureReport, 1), err: tc.sink}
			client := dial(t, authenticator(t, path), nodes.NewService(s, zap.NewNop()))
			ctx := t.Context()
			if tc.token != "" {
				ctx = as(ctx, tc.token)
			}
			stream, err := client.Report(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(tc.req); err != nil && !errors.Is(err, io.EOF) { // why it ended is for who receives
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != tc.want {
				t.Fatalf("%v, want %s", err, tc.want)
			}
		})
	}
}

// fakeStream is a server stream that only has a context.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s fakeStream) Context() context.Context { return s.ctx }

func TestWithdrawnCredentialEndsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nodes.yaml")
		write(t, path, credentials("n1=one", "n2=two"))
		core, logs := observer.New(zap.ErrorLevel)
		a, err := nodes.NewAuthenticator(nodes.Config{File: path, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()

		open := func(token string) chan error {
			done := make(chan error, 1)
			in := metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
			go func() {
				done <- a.Stream(nil, fakeStream{ctx: in}, nil, func(_ any, ss grpc.ServerStream) error {
					<-ss.Context().Done()
					return ss.Context().Err()
				})
			}()
			synctest.Wait()
			return done
		}
		one, two := open("one"), open("two")

		write(t, path, "nodes: [")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(one)+len(two) != 0 || logs.Len() != 1 {
			t.Fatalf("a malformed file ended streams, or was logged %d times", logs.Len())
		}
		write(t, path, credentials("n2=two", "n3=three"))
		time.Sleep(2 * time.Second)
		if err := <-one; status.Code(err) != codes.Unauthenticated {
			t.Fatalf("withdrawn: %v", err)
		}
		if err := <-open("one"); status.Code(err) != codes.Unauthenticated {
			t.Fatalf("let in again: %v", err)
		}
		three := open("three")
		if len(two)+len(three) != 0 {
			t.Fatal("streams of valid credentials ended")
		}
		a.Close()
		for _, done := range []chan error{two, three, open("three")} {
			if err := <-done; status.Code(err) != codes.Unavailable {
				t.Errorf("stopping: %v", err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
