package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

const (
	namespaceFile = "namespace.yaml"
	policyFile    = "cart-policy.yaml"
	policyName    = "cart-from-web"
)

// label adds the label to the namespace's manifest, or takes it away.
func (d *demo) label(enrolled bool) error {
	raw, err := os.ReadFile(filepath.Join(d.example, "manifests", namespaceFile))
	if err != nil {
		return err
	}
	if enrolled {
		raw = append([]byte(strings.TrimRight(string(raw), "\n")), "\n  labels:\n    ambit-mesh.io/dataplane-mode: ambient\n"...)
	}
	return replaceFile(filepath.Join(d.files, namespaceFile), raw)
}

// replaceFile writes as an editor does: who watches sees the old or the new.
func replaceFile(path string, raw []byte) error {
	temp := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(temp, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func (d *demo) enrol(ctx context.Context) error {
	if _, err := d.sniffer.report(); err != nil {
		return err
	}
	if err := d.label(true); err != nil {
		return err
	}
	d.say("ambit-mesh.io/dataplane-mode: ambient on namespace shop")
	if err := d.await(ctx, "all pods are captured", captured("yes")); err != nil {
		return err
	}
	// The first tunnels are built by the next purchases.
	if err := pass(ctx, window); err != nil {
		return err
	}
	r, err := d.sniffer.report()
	if err != nil {
		return err
	}
	if err := d.handshakes(r); err != nil {
		return err
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("enrolling restarts nothing", "%d processes with the same pids", len(d.pids))
	return nil
}

func captured(want string) func(control.Status) (bool, error) {
	return func(st control.Status) (bool, error) {
		for _, p := range st.Pods {
			if p.Captured != want {
				return false, nil
			}
		}
		return len(st.Pods) > 0, nil
	}
}

// unharmed checks that no process was restarted and no purchase failed.
func (d *demo) unharmed(ctx context.Context) error {
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	now := processes(st)
	for _, name := range slices.Sorted(maps.Keys(d.pids)) {
		if now[name] != d.pids[name] {
			return fmt.Errorf("%s was restarted: it was %s and is %s", name, d.pids[name], now[name])
		}
	}
	s, err := d.stats(ctx)
	if err != nil {
		return err
	}
	d.say("purchases so far: %d, failed: %d", s.Requests, s.Failures)
	if s.Failures > 0 {
		return fmt.Errorf("%d of %d purchases failed:\n%s", s.Failures, s.Requests, strings.Join(s.Last, "\n"))
	}
	return nil
}

// stats is what the load tells of itself.
type stats struct {
	Requests int      `json:"requests"`
	Failures int      `json:"failures"`
	Last     []string `json:"lastFailures"`
}

func (d *demo) stats(ctx context.Context) (stats, error) {
	var s stats
	out, err := d.exec(ctx, "deploy/load", "shop", "get", "http://127.0.0.1:8080/stats")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

func (d *demo) release(ctx context.Context) error {
	if err := errors.Join(os.Remove(filepath.Join(d.files, policyFile)), d.label(false)); err != nil {
		return err
	}
	if err := d.await(ctx, "no pod is captured", captured("no")); err != nil {
		return err
	}
	// What marks the replies of connections that went by tunnel stays until the
	// last of them has ended.
	var changed string
	err := d.await(ctx, "the network namespaces are as before", func(st control.Status) (bool, error) {
		now, err := d.netstates(ctx, st)
		if err != nil {
			return false, err
		}
		changed = differences(d.netstate, now)
		return changed == "", nil
	})
	if err != nil {
		return fmt.Errorf("%w; they differ in:\n%s", err, changed)
	}
	d.prove("the label is gone: network namespaces as before", "links, addresses, routes, rules, nftables and sysctls of %d pods", len(d.netstate))
	return nil
}

// differences gives the lines that only one of two states has.
func differences(before, now map[string]string) string {
	var b strings.Builder
	for _, pod := range slices.Sorted(maps.Keys(before)) {
		old, fresh := strings.Split(before[pod], "\n"), strings.Split(now[pod], "\n")
		for _, line := range old {
			if !slices.Contains(fresh, line) {
				fmt.Fprintf(&b, "%s: - %s\n", pod, line)
			}
		}
		for _, line := range fresh {
			if !slices.Contains(old, line) {
				fmt.Fprintf(&b, "%s: + %s\n", pod, line)
			}
		}
	}
	return b.String()
}

func (d *demo) count(ctx context.Context) error {
	var r sniff.Report
	for range windows {
		var err error
		if r, err = d.capture(ctx); err != nil {
			return err
		}
		if r.Found[needles[0]] > 0 {
			break
		}
	}
	if r.Found[needles[0]] == 0 {
		return fmt.Errorf("traffic between the nodes is not as before the label: %v", r.OpenFlows)
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	s, err := d.stats(ctx)
	if err != nil {
		return err
	}
	d.prove("no purchase failed in all that time", "%d purchases over IPv4 and IPv6, 0 failed", s.Requests)
	d.prove("no process was restarted but for the ztunnels that were replaced", "%d processes", len(d.pids))
	return nil
}
