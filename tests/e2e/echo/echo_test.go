package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// free is a port that was free a moment ago.
func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The client prints what the server saw, for each protocol, in the form that the conformance suite reads.
func TestEcho(t *testing.T) {
	plain, secure, rpc, raw, datagrams := free(t), free(t), free(t), free(t), free(t)
	ctx, stop := context.WithCancel(t.Context())
	started, ended := make(chan string, 16), make(chan error, 1)
	go func() {
		s := settings{http: []int{plain, secure}, tls: []int{secure}, grpc: []int{rpc}, tcp: []int{raw}, udp: []int{datagrams}, host: "pod-1", version: "v1", count: &counter{seen: map[string]int{}}}
		ended <- s.run(ctx, lines(started))
	}()
	for range 5 {
		<-started
	}
	for url, wants := range map[string][]string{
		fmt.Sprintf("http://127.0.0.1:%d/path?x=1", plain): {
			"StatusCode=200", "ResponseHeader=Content-Type:text/plain", "[1 body] Hostname=pod-1", "[1 body] URL=/path?x=1", "[1 body] Host=shop\n",
			"[1 body] RequestHeader=X-A:b", "[1 body] IP=127.0.0.1", "[1 body] ServiceVersion=v1", "[1 body] Method=GET", fmt.Sprintf("[1 body] ServicePort=%d", plain),
		},
		fmt.Sprintf("http://127.0.0.1:%d/?status=503", plain):               {"StatusCode=503"},
		fmt.Sprintf("http://127.0.0.1:%d/?key=k&first=1&status=503", plain): {"[0] StatusCode=503", "[0 body] Seen=1", "[1] StatusCode=200", "[1 body] Seen=2"},
		fmt.Sprintf("udp://127.0.0.1:%d?say=x", datagrams):                  {"StatusCode=200", "[1 body] Hostname=pod-1", "[1 body] IP=127.0.0.1"},
		"dns://127.0.0.1": {"[1 body] Address=127.0.0.1"},
		fmt.Sprintf("https://127.0.0.1:%d/", secure): {"StatusCode=200", "Hostname=pod-1"},
		fmt.Sprintf("grpc://127.0.0.1:%d", rpc):      {"StatusCode=200", "[1 body] Hostname=pod-1", "[1 body] RequestHeader=x-a:b"},
		fmt.Sprintf("tcp://127.0.0.1:%d", raw):       {"StatusCode=200", "[1 body] Hostname=pod-1", "[1 body] IP=127.0.0.1"},
	} {
		var out bytes.Buffer
		if err := call(t.Context(), []string{url, "-H", "X-A:b", "-H", "Host:shop", "--count=2"}, nil, &out); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if n := len(strings.Split(strings.TrimSpace(out.String()), "\n\n")); n != 2 {
			t.Errorf("%s: %d answers, want 2:\n%s", url, n, &out)
		}
		for _, w := range wants {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: no %q in\n%s", url, w, &out)
			}
		}
	}
	var out bytes.Buffer
	if err := call(t.Context(), []string{fmt.Sprintf("http://127.0.0.1:%d/?status=500", plain), "--duration=50ms", "--interval=5ms"}, nil, &out); err == nil {
		t.Errorf("requests that fail are not counted:\n%s", &out)
	}
	out.Reset()
	once := fmt.Sprintf("http://127.0.0.1:%d/?key=retried&first=1&status=503", plain)
	if err := call(t.Context(), []string{once, "--retry=1m"}, nil, &out); err != nil || !strings.Contains(out.String(), "Seen=2") {
		t.Errorf("what failed is not tried again: %v\n%s", err, &out)
	}
	if err := export(t.Context(), rpc); err != nil {
		t.Errorf("a span is not taken: %v", err)
	}
	out.Reset()
	if err := call(t.Context(), []string{fmt.Sprintf("http://127.0.0.1:%d/?key=proxy/a+request", plain)}, nil, &out); err != nil || !strings.Contains(out.String(), "Seen=2") {
		t.Errorf("a span is not counted: %v\n%s", err, &out)
	}
	held, release := io.Pipe()
	loaded := make(chan error, 1)
	go func() {
		loaded <- call(t.Context(), []string{fmt.Sprintf("tcp://127.0.0.1:%d", raw), "--until-eof", "--keep-alive", "--interval=1ms"}, held, &out)
	}()
	release.Write([]byte("x")) // it has begun
	release.Close()
	if err := <-loaded; err != nil {
		t.Errorf("one connection for all: %v\n%s", err, &out)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := call(t.Context(), []string{fmt.Sprintf("http://127.0.0.1:%d/", plain)}, nil, &out); err == nil {
		t.Error("a server that is gone has answered")
	}
}

// export sends a span.
func export(ctx context.Context, port int) error {
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = collectorpb.NewTraceServiceClient(conn).Export(ctx, &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			{Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "proxy"}}},
		}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "a request"}}}},
	}}})
	return err
}

// lines hands on what is written, one write at a time.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}
