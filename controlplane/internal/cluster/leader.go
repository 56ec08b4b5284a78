package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// LeaseName is the Lease of the leader, in the root namespace.
const LeaseName = "ambit-controlplane"

// Leader runs what only one replica may, on the one that leads.
type Leader struct {
	lock    *resourcelock.LeaseLock
	log     *zap.Logger
	runners func() *lifecycle.Group
	leads   atomic.Bool

	// Durations of the lease, its renewal and retries.
	lease, renew, retry time.Duration
}

// NewLeader gives a contender of a name. The group that runners gives is started
// each time that this replica begins to lead, and stopped before another does.
func NewLeader(client coordinationclient.LeasesGetter, namespace, name string, runners func() *lifecycle.Group, log *zap.Logger) *Leader {
	return &Leader{
		lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: LeaseName}, Client: client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		},
		log: log, runners: runners, lease: 15 * time.Second, renew: 10 * time.Second, retry: 2 * time.Second,
	}
}

// Leads says whether this replica leads.
func (l *Leader) Leads() bool { return l.leads.Load() }

// Run contends for the lease until ctx ends, and gives it back then.
func (l *Leader) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := l.term(ctx); err != nil {
			return err
		}
	}
	return nil
}

// term is one time of leading.
func (l *Leader) term(ctx context.Context) error {
	ended := make(chan error, 1)
	began := false
	// The lease is given back only after what ran under it has ended.
	election, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	led := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l.lock, LeaseDuration: l.lease, RenewDeadline: l.renew, RetryPeriod: l.retry, ReleaseOnCancel: true, Name: LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(led) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(election)
	}()
	select {
	case <-ctx.Done():
	case <-over:
	case <-led:
		began = true
	}
	if !began {
		giveUp()
		<-over
		return nil
	}
	l.log.Info("this replica leads", zap.String("name", l.lock.Identity()))
	l.leads.Store(true)
	leading, stop := context.WithCancel(ctx)
	go func() { ended <- l.runners().Run(leading) }()
	select {
	case err = <-ended:
		ended <- nil
	case <-over: // the lease is lost
	case <-ctx.Done():
	}
	l.leads.Store(false)
	stop()
	<-ended //nolint:errcheck // known already, or of no more interest
	giveUp()
	<-over
	l.log.Info("this replica leads no more", zap.String("name", l.lock.Identity()), zap.Error(err))
	return nil
}
