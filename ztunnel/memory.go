package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/snapshot"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// patience is how long the control plane has to answer before a ztunnel begins with
// what its node knew before.
const patience = 3 * time.Second

// memory is what is known of the mesh, how old that is, and the snapshot on disk.
type memory struct {
	log    *zap.Logger
	xds    *xdsclient.Client
	keeper *snapshot.Keeper // nil for none
	known  chan struct{}    // closed when pods can be served

	mu      sync.Mutex
	from    time.Time // of the snapshot that was restored; zero for none. Guarded by mu
	refusal string    // of the snapshot; guarded by mu
	synced  bool      // the control plane has said everything once; guarded by mu
}

// subscribed are the resource types in the order in which they are put in place: what
// protects a workload comes before it.
var subscribed = [...]string{wds.TypeAuthorization, wds.TypeAddress}

func newMemory(cfg Config, r prometheus.Registerer) (*memory, error) {
	m := &memory{log: cfg.Log, known: make(chan struct{})}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_state_age_seconds",
		Help: "For how long the control plane has not been heard, so that workloads and policies may be out of date; 0 while it is connected.",
	}, func() float64 { return m.age(time.Now()).Seconds() }))
	if cfg.SnapshotFile == "" {
		return m, nil
	}
	var err error
	m.keeper, err = snapshot.New(snapshot.Config{
		Path: cfg.SnapshotFile, Cluster: cfg.Cluster, TrustDomain: cfg.TrustDomain, Node: cfg.Node, MaxAge: cfg.SnapshotMaxAge,
		Heard: m.heard, Log: cfg.Log, Registerer: r,
	})
	if err != nil {
		return nil, fmt.Errorf("ztunnel: %w", err)
	}
	return m, nil
}

// keep has the snapshot follow what the subscriptions bring.
func (m *memory) keep(subs []xdsclient.Subscription) []xdsclient.Subscription {
	if m.keeper == nil {
		return subs
	}
	out := make([]xdsclient.Subscription, len(subs))
	for i, s := range subs {
		handle := s.Handle
		s.Handle = func(u xdsclient.Update) error {
			err := handle(u)
			var partly *xdsclient.Rejected
			if err == nil || errors.As(err, &partly) {
				m.keeper.Record(s.TypeURL, u.Resources, u.Removed)
			}
			return err
		}
		out[i] = s
	}
	return out
}

// heard is when the control plane's word was last known to be all there is.
func (m *memory) heard() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.synced {
		return time.Time{}
	}
	if connected, since, _ := m.xds.Status(); !connected {
		return since
	}
	return time.Now()
}

// age is for how long the control plane has not been heard; 0 as well before it is
// known whether it will be.
func (m *memory) age(now time.Time) time.Duration {
	last := m.heard()
	if last.IsZero() {
		m.mu.Lock()
		last = m.from
		m.mu.Unlock()
	}
	if last.IsZero() {
		return 0
	}
	return max(0, now.Sub(last))
}

// restore puts the snapshot in place, if there is a good one. It is served from when
// the control plane does not answer; when it does, it says only what differs.
func (m *memory) restore(ready *lifecycle.Readiness) {
	if m.keeper == nil {
		return
	}
	ready.Note(m.note)
	h, all, err := m.keeper.Load(time.Now())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Error("beginning without a snapshot", zap.Error(err))
			m.mu.Lock()
			m.refusal = err.Error()
			m.mu.Unlock()
		}
		return
	}
	byType := make(map[string][]*discoveryv3.Resource)
	for _, r := range all {
		byType[r.GetResource().GetTypeUrl()] = append(byType[r.GetResource().GetTypeUrl()], r)
	}
	for _, url := range subscribed {
		if err := m.xds.Restore(url, byType[url]); err != nil {
			// Its handlers refuse parts, never the whole.
			m.log.Error("snapshot", zap.String("type", url), zap.Error(err))
		}
	}
	m.mu.Lock()
	m.from = h.Heard
	m.mu.Unlock()
	m.log.Info("state of the snapshot is in place", zap.Time("heard", h.Heard), zap.Int("resources", len(all)))
}

// note is shown beside readiness while the state may be out of date.
func (m *memory) note() string {
	age := m.age(time.Now()).Round(time.Second)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.synced && age > 0:
		return fmt.Sprintf("the control plane has not been heard for %s", age)
	case m.synced:
		return ""
	case !m.from.IsZero():
		return fmt.Sprintf("serving from the snapshot of %s: the control plane has not been heard for %s", m.from.UTC().Format(time.RFC3339), age)
	}
	return m.refusal
}

// Run says when pods can be served, and keeps the snapshot until stop or ctx ends.
func (m *memory) Run(stop, ctx context.Context) error {
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	var wg sync.WaitGroup
	wg.Go(func() { m.await(until) })
	if m.keeper != nil {
		wg.Go(func() { _ = m.keeper.Run(until) })
	}
	wg.Wait()
	<-ctx.Done()
	return nil
}

// await waits for the control plane to say everything. With a snapshot pods are
// served before, if that takes long.
func (m *memory) await(ctx context.Context) {
	var late <-chan time.Time
	m.mu.Lock()
	if !m.from.IsZero() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	m.mu.Unlock()
	served := false
	for _, url := range subscribed {
	waiting:
		for {
			select {
			case <-m.xds.Synced(url):
				break waiting
			case <-late:
				m.log.Warn("the control plane does not answer: " + m.note())
				close(m.known)
				late, served = nil, true
			case <-ctx.Done():
				return
			}
		}
	}
	m.mu.Lock()
	m.synced = true
	m.mu.Unlock()
	if !served {
		close(m.known)
	}
	if m.keeper != nil {
		m.keeper.Changed()
	}
}

// stateDump is what a dump says about it.
type stateDump struct {
	AgeSeconds float64    `json:"ageSeconds"`
	Snapshot   *time.Time `json:"snapshot,omitempty"`
	Refused    string     `json:"snapshotRefused,omitempty"`
	Note       string     `json:"note,omitempty"`
}

func (m *memory) dump() stateDump {
	d := stateDump{AgeSeconds: m.age(time.Now()).Seconds(), Note: m.note()}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.from.IsZero() {
		d.Snapshot = new(m.from)
	}
	d.Refused = m.refusal
	return d
}
