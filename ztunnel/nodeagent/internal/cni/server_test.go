package cni

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// decider is a Handler of functions.
type decider struct {
	add func(context.Context, *Add) error
	del func(string) error
}

func (d decider) Add(ctx context.Context, a *Add) error { return d.add(ctx, a) }
func (d decider) Del(_ context.Context, del *Del) error { return d.del(del.PodUID) }
func (d decider) Check(uid string) error                { return d.del(uid) }
func (d decider) Uninstall(context.Context) error       { return d.del("stuck") }

// serve gives a function that posts to a running server.
func serve(t *testing.T, h Handler, timeout time.Duration) (post func(path, body string) (int, string), stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cni.sock")
	s, err := New(Config{Path: path, Handler: h, Timeout: timeout, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		if _, err := os.Stat(path); err == nil || time.Now().After(deadline) {
			break
		}
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	return func(path, body string) (int, string) {
		t.Helper()
		resp, err := client.Post("http://agent"+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Error string }
		_ = json.Unmarshal(b, &answer)
		return resp.StatusCode, answer.Error
	}, stop
}

const good = `{"netns":"/run/netns/a","podName":"app-0","podNamespace":"shop","podUID":"u-1","ips":["10.0.0.1","fd00::1"],"future":1}`

func TestAnswers(t *testing.T) {
	var got *Add
	post, _ := serve(t, decider{
		add: func(_ context.Context, a *Add) error {
			got = a
			switch a.PodName {
			case "late":
				return errors.New("no ztunnel is connected")
			case "host":
				return Refuse(errors.New("netns is the node's own"))
			}
			return nil
		},
		del: func(uid string) error {
			if uid == "stuck" {
				return errors.New("disk full")
			}
			return nil
		},
	}, time.Minute)
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tc := range []struct {
		name, path, body string
		status           int
		errPart          string
	}{
		{"add", "/cmdadd", good, 200, ""},
		{"del", "/cmddel", `{"podUID":"u-1"}`, 200, ""},
		{"failed add", "/cmdadd", with("app-0", "late"), 503, "no ztunnel"},
		{"refused add", "/cmdadd", with("app-0", "host"), 400, "node's own"},
		{"failed del", "/cmddel", `{"podUID":"stuck"}`, 503, "disk full"},
		{"no body", "/cmdadd", "", 400, "empty body"},
		{"no JSON", "/cmdadd", "netns=/x", 400, "JSON"},
		{"an array", "/cmdadd", "[]", 400, "JSON"},
		{"more than an object", "/cmdadd", good + good, 400, "goes on"},
		{"too large", "/cmdadd", with("app-0", strings.Repeat("a", maxBody)), 400, "too large"},
		{"no uid", "/cmdadd", with("u-1", ""), 400, "podUID"},
		{"uid with a path", "/cmdadd", with("u-1", "../../etc"), 400, "podUID"},
		{"long uid", "/cmddel", `{"podUID":"` + strings.Repeat("a", 200) + `"}`, 400, "podUID"},
		{"no name", "/cmdadd", with("app-0", ""), 400, "podName"},
		{"name with a newline", "/cmdadd", with("app-0", `a\nb`), 400, "podName"},
		{"namespace in capitals", "/cmdadd", with("shop", "SHOP"), 400, "podNamespace"},
		{"relative netns", "/cmdadd", with("/run/netns/a", "run/netns/a"), 400, "netns"},
		{"netns that climbs", "/cmdadd", with("/run/netns/a", "/run/netns/../../proc/1/ns/net"), 400, "netns"},
		{"no netns", "/cmdadd", with("/run/netns/a", ""), 400, "netns"},
		{"no address", "/cmdadd", with("10.0.0.1", "10.0.0"), 400, "ips"},
		{"check", "/cmdcheck", `{"podUID":"u-1"}`, 200, ""},
		{"failed check", "/cmdcheck", `{"podUID":"stuck"}`, 503, "disk full"},
		{"check without a pod", "/cmdcheck", "{}", 400, "podUID"},
		{"status", "/status", "{}", 200, ""},
		{"failed uninstall", "/uninstall", "{}", 503, "disk full"},
		{"another path", "/cmdgone", "{}", 404, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, text := post(tc.path, tc.body)
			if status != tc.status || !strings.Contains(text, tc.errPart) || tc.status == 200 && text != "" {
				t.Errorf("%d %q, want %d %q", status, text, tc.status, tc.errPart)
			}
		})
	}
	post("/cmdadd", good)
	if got.Netns != "/run/netns/a" || got.PodName != "app-0" || got.PodNamespace != "shop" || got.PodUID != "u-1" || len(got.Addrs) != 2 {
		t.Errorf("handler got %+v", got)
	}
}

func TestAdditionEndsAtTheDeadline(t *testing.T) {
	post, _ := serve(t, decider{add: func(ctx context.Context, _ *Add) error {
		<-ctx.Done()
		return errors.New("still waiting for the control plane")
	}}, 20*time.Millisecond)
	if status, text := post("/cmdadd", good); status != 503 || !strings.Contains(text, "control plane") {
		t.Errorf("%d %q", status, text)
	}
}

func TestShutdownEndsWaitingAdditions(t *testing.T) {
	waiting := make(chan struct{})
	post, stop := serve(t, decider{add: func(ctx context.Context, _ *Add) error {
		close(waiting)
		<-ctx.Done()
		return errors.New("the node agent is stopping")
	}}, time.Minute)
	answered := make(chan int, 1)
	go func() { status, _ := post("/cmdadd", good); answered <- status }()
	<-waiting
	stop()
	if status := <-answered; status != 503 {
		t.Errorf("status %d", status)
	}
}
