package controlplane

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/controlplane/internal/admission"
	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/capture"
	"github.com/ambit-mesh/ambit/controlplane/internal/cluster"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/controlplane/internal/source/kube"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// What on Kubernetes belongs to the control plane, in its root namespace.
const (
	serviceName      = "ambit-controlplane"
	accountZtunnel   = "ambit-ztunnel"
	accountNodeAgent = "ambit-nodeagent"
)

// onKubernetes is what a control plane has that follows the Kubernetes API.
type onKubernetes struct {
	rest     *rest.Config
	client   kubernetes.Interface
	captures *capture.Writer
	leader   *cluster.Leader
	bundle   *cluster.Bundle
	// webhook and asked are nil without a webhook.
	webhook *cluster.Webhook
	asked   *admission.Server
	leads   *leads
}

// connect prepares clients of the API server, and asks it nothing.
func (c *ControlPlane) connect() (err error) {
	k := &onKubernetes{}
	if k.rest, err = restConfig(c.cfg.Kubeconfig); err != nil {
		return err
	}
	if k.client, err = kubernetes.NewForConfig(k.rest); err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("kubernetes: name of this replica: %w", err)
	}
	// A restarted container is another contender.
	k.leader = cluster.NewLeader(k.client.CoordinationV1(), c.cfg.RootNamespace, name+"_"+rand.Text()[:8], c.leaderGroup, c.cfg.Log.Named("leader"))
	c.kube = k
	return nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if kubeconfig == "" {
		if cfg, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("kubernetes: %w; outside of a cluster give --kubeconfig", err)
		}
	} else if cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return nil, fmt.Errorf("kubernetes: --kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = "ambit-controlplane"
	cfg.QPS, cfg.Burst = 100, 200
	return cfg, nil
}

// prover gives what proves callers by their ServiceAccount tokens.
func (c *ControlPlane) prover() (nodes.Prover, error) {
	r, err := nodes.NewReviewer(nodes.ReviewerConfig{
		Reviews: c.kube.client.AuthenticationV1().TokenReviews(), Pods: c.compiler, RootNamespace: c.cfg.RootNamespace,
		NodeAccounts: []string{accountZtunnel, accountNodeAgent}, Log: c.cfg.Log.Named("nodes"), Metrics: c.cfg.Registry,
	})
	if err != nil {
		return nil, fmt.Errorf("nodes: metrics: %w", err)
	}
	return r, nil
}

// store gives where replicas share the authority.
func (c *ControlPlane) store() ca.Store {
	return cluster.NewSecret(c.kube.client.CoreV1(), c.cfg.RootNamespace)
}

// makeKubernetes wires the source, the capture state and what leaders do.
func (c *ControlPlane) makeKubernetes() (err error) {
	cfg, k := &c.cfg, c.kube
	if k.captures, err = capture.New(k.client.CoreV1(), c.compiler, c.engine, cfg.Log.Named("capture"), cfg.Registry); err != nil {
		return err
	}
	c.engine.shared, c.engine.company = k.captures, c.company
	if k.bundle, err = cluster.NewBundle(k.client, c.ca.Bundle, c.compiler.Namespaces, cfg.Log.Named("roots"), cfg.Registry); err != nil {
		return fmt.Errorf("root bundle: metrics: %w", err)
	}
	if err := c.makeWebhook(); err != nil {
		return err
	}
	if err := c.makeLeads(); err != nil {
		return err
	}
	c.source, err = kube.New(kube.Config{REST: k.rest, Sink: c.engine, Ready: &c.ready, Touched: c.touched, Log: cfg.Log.Named("kubernetes"), Metrics: cfg.Registry})
	return err
}

// makeWebhook has API servers ask the compiler, if that is wanted.
func (c *ControlPlane) makeWebhook() (err error) {
	cfg, k := &c.cfg, c.kube
	if cfg.WebhookAddress == "" {
		return nil
	}
	log := cfg.Log.Named("admission")
	if k.webhook, err = cluster.NewWebhook(k.client, c.ca.Bundle, log, cfg.Registry); err != nil {
		return fmt.Errorf("webhook: metrics: %w", err)
	}
	h, err := admission.NewHandler(c.compiler, c.engine.Await, log, cfg.Registry)
	if err != nil {
		return err
	}
	k.asked, err = admission.Listen(cfg.WebhookAddress, c.ca.ServerTLS(), h, c.engine.synced, log)
	return err
}

// leaderGroup gives what only the leader does. It is started anew with each term,
// after the first complete state.
func (c *ControlPlane) leaderGroup() *lifecycle.Group {
	var g lifecycle.Group
	g.Add("root bundle", c.kube.bundle)
	if c.kube.webhook != nil {
		g.Add("webhook roots", c.kube.webhook)
	}
	c.lead(&g)
	return &g
}

// contend runs the leader's part once there is something to lead.
func (c *ControlPlane) contend(ctx context.Context) error {
	select {
	case <-c.engine.synced:
		return c.kube.leader.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

// company says whether other replicas serve clients. What is not known counts as
// that they do.
func (c *ControlPlane) company() bool {
	n, known := c.compiler.Serving(types.NamespacedName{Namespace: c.cfg.RootNamespace, Name: serviceName})
	return !known || n > 1
}
