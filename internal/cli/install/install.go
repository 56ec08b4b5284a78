// Package install brings the chart into a cluster, up to date, and out again.
//
//	Checks ──▶ Findings          can it be installed, and if not, what to do
//	Apply ───▶ release ── Wait ──▶ progress, object by object
//	Remove ──▶ labels off, release gone, nodes as they were
//
// Every step may be repeated.
package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"helm.sh/helm/v4/pkg/action"
	helmkube "helm.sh/helm/v4/pkg/kube"
	ri "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/cli/chart"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// Installer works on one cluster.
type Installer struct {
	Cluster *kube.Cluster
	// Say tells what is going on.
	Say func(format string, args ...any)
}

// Request is what is to be there.
type Request struct {
	Values  map[string]any
	Version string
	// Reset drops the values of the release before.
	Reset bool
	// DryRun changes nothing; objects are checked against the kinds of the server.
	DryRun bool
	// TakeOwnership adopts objects that another tool made.
	TakeOwnership bool
}

// ErrNotInstalled is a cluster without the release.
var ErrNotInstalled = errors.New("ambit is not installed: use ambit install")

func (i *Installer) configuration() (*action.Configuration, error) {
	cfg := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	if err := cfg.Init(i.Cluster.Getter, i.Cluster.System, "secret"); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Current gives the newest release; ErrNotInstalled if there is none.
func (i *Installer) Current() (*releasev1.Release, error) {
	rel, err := i.last()
	if err == nil && (rel == nil || rel.Info.Status == common.StatusUninstalled) {
		err = ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	return rel, nil
}

// last gives the newest record of a release; nil if there is none. It may be one
// that is uninstalled, whose nodes are not clean yet.
func (i *Installer) last() (*releasev1.Release, error) {
	cfg, err := i.configuration()
	if err != nil {
		return nil, err
	}
	r, err := cfg.Releases.Last(chart.Release)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	return release(r, err)
}

func release(r ri.Releaser, err error) (*releasev1.Release, error) {
	if err != nil {
		return nil, chart.Explain(err)
	}
	rel, ok := r.(*releasev1.Release)
	if !ok {
		return nil, fmt.Errorf("unexpected release %T", r)
	}
	return rel, nil
}

// Apply installs, or upgrades what is there, and gives the release.
func (i *Installer) Apply(ctx context.Context, r Request) (*releasev1.Release, error) {
	cfg, err := i.configuration()
	if err != nil {
		return nil, err
	}
	c, err := chart.Load(r.Version)
	if err != nil {
		return nil, err
	}
	dry := action.DryRunNone
	if r.DryRun {
		dry = action.DryRunServer
	}
	if _, err := i.Current(); errors.Is(err, ErrNotInstalled) {
		if !r.DryRun {
			if err := i.namespace(ctx); err != nil {
				return nil, err
			}
		}
		in := action.NewInstall(cfg)
		in.ReleaseName, in.Namespace, in.WaitStrategy = chart.Release, i.Cluster.System, helmkube.HookOnlyStrategy
		in.DryRunStrategy, in.TakeOwnership = dry, r.TakeOwnership
		in.Replace = true // an uninstalled release whose nodes were not cleaned
		return release(in.RunWithContext(ctx, c, values(r.Values)))
	} else if err != nil {
		return nil, err
	}
	up := action.NewUpgrade(cfg)
	up.Namespace, up.WaitStrategy, up.MaxHistory = i.Cluster.System, helmkube.HookOnlyStrategy, 10
	up.DryRunStrategy, up.TakeOwnership = dry, r.TakeOwnership
	up.ResetValues, up.ResetThenReuseValues = r.Reset, !r.Reset
	return release(up.RunWithContext(ctx, chart.Release, c, values(r.Values)))
}

func values(v map[string]any) map[string]any {
	if v == nil {
		return map[string]any{}
	}
	return v
}

// Rollback brings a revision back; 0 is the one before.
func (i *Installer) Rollback(revision int) error {
	cfg, err := i.configuration()
	if err != nil {
		return err
	}
	back := action.NewRollback(cfg)
	back.Version, back.WaitStrategy, back.MaxHistory = revision, helmkube.HookOnlyStrategy, 10
	return back.Run(chart.Release)
}

// managedBy marks a namespace that this program made.
const managedBy = "app.kubernetes.io/managed-by"

// namespace makes the namespace of the mesh, in which pods may do what those of a
// node must.
func (i *Installer) namespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: i.Cluster.System, Labels: map[string]string{
		managedBy: "ambit", "ambit-mesh.io/dataplane-mode": "none", "pod-security.kubernetes.io/enforce": "privileged",
	}}}
	for waited := false; ; waited = true {
		_, err := i.Cluster.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		if err == nil {
			i.Say("namespace %s: made", i.Cluster.System)
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("namespace %s: %w", i.Cluster.System, err)
		}
		have, err := i.Cluster.CoreV1().Namespaces().Get(ctx, i.Cluster.System, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("namespace %s: %w", i.Cluster.System, err)
		case have.DeletionTimestamp == nil:
			return nil
		}
		// Uninstalled a moment ago: nothing can be made in it until it is gone.
		if !waited {
			i.Say("namespace %s: is still being deleted", i.Cluster.System)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is still being deleted: see its status.conditions: %w", i.Cluster.System, context.Cause(ctx))
		}
	}
}
