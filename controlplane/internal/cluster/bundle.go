package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certificatesapply "k8s.io/client-go/applyconfigurations/certificates/v1beta1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// BundleName is the ConfigMap, and the ClusterTrustBundle, of the roots.
	BundleName = "ambit-root-cert"
	// BundleKey is the key of the ConfigMap.
	BundleKey = "root-cert.pem"

	// lookEvery is how late a new namespace, or root, is noticed at most.
	lookEvery = time.Second
	// anewEvery is when all is written again, whatever others did to it.
	anewEvery = 10 * time.Minute
	// failedAfter is the pause after a namespace's ConfigMap could not be written.
	failedAfter = 10 * time.Second
)

// Bundle publishes the roots to all namespaces.
type Bundle struct {
	client     kubernetes.Interface
	roots      func() string
	namespaces func() []string
	log        *zap.Logger
	failures   prometheus.Counter
}

// NewBundle gives what publishes; roots gives them as PEM.
func NewBundle(client kubernetes.Interface, roots func() string, namespaces func() []string, log *zap.Logger, reg prometheus.Registerer) (*Bundle, error) {
	b := &Bundle{
		client: client, roots: roots, namespaces: namespaces, log: log,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_controlplane_root_bundle_failures_total", Help: "Failed attempts to write the root bundle, each of which is repeated.",
		}),
	}
	return b, reg.Register(b.failures)
}

// Run publishes until ctx ends.
func (b *Bundle) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	p := published{at: time.Now()}
	for {
		b.publish(ctx, &p, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// published is what has been written.
type published struct {
	roots   string
	at      time.Time
	cluster bool                 // the ClusterTrustBundle is written, or not served
	in      map[string]time.Time // namespace → not before that again
}

func (b *Bundle) publish(ctx context.Context, p *published, now time.Time) {
	if roots := b.roots(); p.in == nil || roots != p.roots || now.Sub(p.at) > anewEvery {
		*p = published{roots: roots, at: now, in: make(map[string]time.Time)}
	}
	if !p.cluster {
		p.cluster = true // with the next round, or a new root, again
		b.publishCluster(ctx, p.roots)
	}
	there := b.namespaces()
	for ns := range p.in {
		if !slices.Contains(there, ns) {
			delete(p.in, ns) // it may come back
		}
	}
	for _, ns := range there {
		if again, ok := p.in[ns]; ok && (again.IsZero() || now.Before(again)) || ctx.Err() != nil {
			continue
		}
		p.in[ns] = b.publishIn(ctx, ns, p.roots, now)
	}
}

// publishIn gives when to try again, zero for not.
func (b *Bundle) publishIn(ctx context.Context, ns, roots string, now time.Time) time.Time {
	_, err := b.client.CoreV1().ConfigMaps(ns).Apply(ctx,
		corev1apply.ConfigMap(BundleName, ns).WithData(map[string]string{BundleKey: roots}).WithLabels(map[string]string{"app.kubernetes.io/managed-by": "ambit-controlplane"}),
		metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	switch {
	case err == nil:
		return time.Time{}
	case apierrors.HasStatusCause(err, "NamespaceTerminating"), apierrors.IsNotFound(err), ctx.Err() != nil:
		return now.Add(failedAfter)
	}
	b.failures.Inc()
	b.log.Warn("root bundle not published", zap.String("configMap", ns+"/"+BundleName), zap.Duration("retryIn", failedAfter), zap.Error(err))
	return now.Add(failedAfter)
}

func (b *Bundle) publishCluster(ctx context.Context, roots string) {
	_, err := b.client.CertificatesV1beta1().ClusterTrustBundles().Apply(ctx,
		certificatesapply.ClusterTrustBundle(BundleName).WithSpec(certificatesapply.ClusterTrustBundleSpec().WithTrustBundle(roots)),
		metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil { // not served: ConfigMaps do
		return
	}
	b.failures.Inc()
	b.log.Warn("ClusterTrustBundle not published", zap.String("name", BundleName), zap.Error(err))
}
