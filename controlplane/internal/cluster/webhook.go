package cluster

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionapply "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
)

// WebhookName is the ValidatingWebhookConfiguration of the mesh, and its one webhook.
const WebhookName = "findings.ambit-mesh.io"

// Webhook keeps the roots by which API servers trust the mesh's webhook.
type Webhook struct {
	client   kubernetes.Interface
	roots    func() string
	log      *zap.Logger
	failures prometheus.Counter
}

// NewWebhook gives what keeps them; roots gives them as PEM.
func NewWebhook(client kubernetes.Interface, roots func() string, log *zap.Logger, reg prometheus.Registerer) (*Webhook, error) {
	w := &Webhook{
		client: client, roots: roots, log: log,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_controlplane_webhook_roots_failures_total", Help: "Failed attempts to write the roots into the webhook's configuration, each of which is repeated.",
		}),
	}
	return w, reg.Register(w.failures)
}

// Run writes them when they change, and now and then whatever others did, until ctx ends.
func (w *Webhook) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var written string
	var again time.Time
	for {
		if roots := w.roots(); roots != written || time.Now().After(again) {
			if again = time.Now().Add(anewEvery); w.write(ctx, roots) {
				written = roots
			} else if ctx.Err() == nil {
				written, again = roots, time.Now().Add(failedAfter)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Webhook) write(ctx context.Context, roots string) bool {
	_, err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Apply(ctx,
		admissionapply.ValidatingWebhookConfiguration(WebhookName).WithWebhooks(admissionapply.ValidatingWebhook().WithName(WebhookName).
			WithClientConfig(admissionapply.WebhookClientConfig().WithCABundle([]byte(roots)...))),
		metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err == nil || ctx.Err() != nil {
		return err == nil
	}
	w.failures.Inc()
	w.log.Warn("roots not written: API servers cannot ask, and nobody is warned", zap.String("validatingWebhookConfiguration", WebhookName),
		zap.Duration("retryIn", failedAfter), zap.Error(err))
	return false
}
