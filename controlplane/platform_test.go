package controlplane_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// fakePlatform is a platform with an empty mesh, which knows nobody. It is also all of
// what it gives.
type fakePlatform struct {
	refuse error // of Follow
	parts  controlplane.Parts

	mu     sync.Mutex
	record []byte   // guarded by mu; the authority
	did    []string // guarded by mu
}

func (f *fakePlatform) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, what)
}

func (f *fakePlatform) noted(what ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Equal(f.did, what)
}

func (f *fakePlatform) Trust(nodes.Pods) (controlplane.Trust, error) {
	return controlplane.Trust{Prover: f, Store: f, Leads: func() bool { return true }}, nil
}

func (f *fakePlatform) Follow(p controlplane.Parts) (controlplane.Follows, error) {
	f.parts = p
	return controlplane.Follows{
		Source: lifecycle.RunnerFunc(f.source), Reports: f, Webhook: &net.TCPAddr{Port: 7},
		Add: func(g *lifecycle.Group) { g.Add("beside", lifecycle.RunnerFunc(f.beside)) },
	}, f.refuse
}

func (f *fakePlatform) source(ctx context.Context) error {
	f.parts.Engine.Objects(compile.Input{})
	<-ctx.Done()
	f.note("source stopped")
	return nil
}

// beside runs after the source and is therefore stopped before it.
func (f *fakePlatform) beside(ctx context.Context) error {
	<-f.parts.Synced
	f.note("synced")
	<-ctx.Done()
	f.note("beside stopped")
	return nil
}

func (f *fakePlatform) Report(context.Context, compile.CaptureReport) error { return nil }

func (f *fakePlatform) Prove(context.Context, string) (nodes.Caller, error) {
	return nodes.Caller{}, status.Error(codes.Unauthenticated, "nobody is known")
}

func (f *fakePlatform) Live(nodes.Caller) bool { return false }

func (f *fakePlatform) Load(context.Context) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.record == nil {
		return nil, fs.ErrNotExist
	}
	return f.record, nil
}

func (f *fakePlatform) Save(_ context.Context, record []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = record
	return nil
}

func (f *fakePlatform) Name() string   { return "fake" }
func (f *fakePlatform) Remedy() string { return "" }

func onPlatform(f *fakePlatform, given *controlplane.Config) controlplane.Config {
	return controlplane.Config{
		Source: controlplane.SourceKubernetes, XDSAddress: "127.0.0.1:0", AdminAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", ReadyAddress: "127.0.0.1:0",
		Kubernetes: func(c controlplane.Config) (controlplane.Platform, error) {
			*given = c
			return f, nil
		},
	}
}

// A platform is given what is complete, keeps the authority, and what it adds runs
// between the source and what nodes are served by.
func TestPlatform(t *testing.T) {
	f, given := &fakePlatform{}, controlplane.Config{}
	c, err := controlplane.New(onPlatform(f, &given))
	if err != nil {
		t.Fatal(err)
	}
	if given.RootNamespace != "ambit-system" || given.Registry == nil || given.Log == nil {
		t.Errorf("the platform was given %+v", given)
	}
	if f.record == nil {
		t.Error("the platform was not given the authority")
	}
	if got := c.WebhookAddr(); got == nil || got.String() != ":7" {
		t.Errorf("webhook at %v", got)
	}
	p := &plane{t: t, ControlPlane: c}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	testkit.Until(t, "ready", func() bool {
		code, _ := p.get("http://" + c.ReadyAddr().String() + "/healthz/ready")
		return code == http.StatusOK && f.noted("synced")
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !f.noted("synced", "beside stopped", "source stopped") {
		t.Errorf("in this order: %q", f.did)
	}
}

func TestPlatformRefuses(t *testing.T) {
	given := controlplane.Config{}
	refusal := errors.New("no room")
	if _, err := controlplane.New(onPlatform(&fakePlatform{refuse: refusal}, &given)); !errors.Is(err, refusal) {
		t.Errorf("Follow: %v, want %v", err, refusal)
	}
	cfg := onPlatform(nil, &given)
	cfg.Kubernetes = func(controlplane.Config) (controlplane.Platform, error) { return nil, refusal }
	if _, err := controlplane.New(cfg); !errors.Is(err, refusal) {
		t.Errorf("connecting: %v, want %v", err, refusal)
	}
	cfg.StateDir = t.TempDir()
	if _, err := controlplane.New(cfg); err == nil || !strings.Contains(err.Error(), "leave them out") {
		t.Errorf("a directory for files: %v", err)
	}
}
