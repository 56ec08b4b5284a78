package kubernetes

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/internal/admission"
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

// platform is what a control plane has that follows the Kubernetes API.
type platform struct {
	cfg    controlplane.Config
	parts  controlplane.Parts // set by Follow
	rest   *rest.Config
	client clientset.Interface

	captures *capture.Writer
	leader   *cluster.Leader
	bundle   *cluster.Bundle
	// webhook and asked are nil without a webhook.
	webhook *cluster.Webhook
	asked   *admission.Server
	leads   *leads
}

// New prepares clients of the API server, and asks it nothing. It is for
// controlplane.Config.Kubernetes.
func New(cfg controlplane.Config) (controlplane.Platform, error) {
	p := &platform{cfg: cfg}
	var err error
	if p.rest, err = restConfig(cfg.Kubeconfig); err != nil {
		return nil, err
	}
	if p.client, err = clientset.NewForConfig(p.rest); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: name of this replica: %w", err)
	}
	// A restarted container is another contender.
	p.leader = cluster.NewLeader(p.client.CoordinationV1(), cfg.RootNamespace, name+"_"+rand.Text()[:8], p.leaderGroup, cfg.Log.Named("leader"))
	return p, nil
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

// Trust has callers proved by their ServiceAccount tokens, and the authority in a
// Secret.
func (p *platform) Trust(pods nodes.Pods) (controlplane.Trust, error) {
	r, err := nodes.NewReviewer(nodes.ReviewerConfig{
		Reviews: p.client.AuthenticationV1().TokenReviews(), Pods: pods, RootNamespace: p.cfg.RootNamespace,
		NodeAccounts: []string{accountZtunnel, accountNodeAgent}, Log: p.cfg.Log.Named("nodes"), Metrics: p.cfg.Registry,
	})
	if err != nil {
		return controlplane.Trust{}, fmt.Errorf("nodes: metrics: %w", err)
	}
	return controlplane.Trust{Prover: r, Store: cluster.NewSecret(p.client.CoreV1(), p.cfg.RootNamespace), Leads: p.leader.Leads}, nil
}

// Follow wires the source, the capture state and what leaders do.
func (p *platform) Follow(parts controlplane.Parts) (controlplane.Follows, error) {
	p.parts = parts
	for _, step := range []func() error{p.makeCaptures, p.makeBundle, p.makeWebhook, p.makeLeads} {
		if err := step(); err != nil {
			return controlplane.Follows{}, err
		}
	}
	source, err := kube.New(kube.Config{
		REST: p.rest, Sink: parts.Engine, Ready: parts.Ready, Touched: p.touched, Log: p.cfg.Log.Named("kubernetes"), Metrics: p.cfg.Registry,
	})
	if err != nil {
		return controlplane.Follows{}, err
	}
	f := controlplane.Follows{
		Source: source, Reports: reports{p.captures, p.leads.taints}, Releases: p.captures, Company: p.company,
		Touched: p.leads.changed, Add: p.add,
	}
	if p.asked != nil {
		f.Webhook = p.asked.Addr()
	}
	return f, nil
}

func (p *platform) makeCaptures() (err error) {
	p.captures, err = capture.New(p.client.CoreV1(), p.parts.Compiler, p.parts.Engine, p.cfg.Log.Named("capture"), p.cfg.Registry)
	return err
}

func (p *platform) makeBundle() (err error) {
	if p.bundle, err = cluster.NewBundle(p.client, p.parts.Authority.Bundle, p.parts.Compiler.Namespaces, p.cfg.Log.Named("roots"), p.cfg.Registry); err != nil {
		return fmt.Errorf("root bundle: metrics: %w", err)
	}
	return nil
}

// makeWebhook has API servers ask the compiler, if that is wanted.
func (p *platform) makeWebhook() (err error) {
	cfg, parts := &p.cfg, &p.parts
	if cfg.WebhookAddress == "" {
		return nil
	}
	log := cfg.Log.Named("admission")
	if p.webhook, err = cluster.NewWebhook(p.client, parts.Authority.Bundle, log, cfg.Registry); err != nil {
		return fmt.Errorf("webhook: metrics: %w", err)
	}
	h, err := admission.NewHandler(parts.Compiler, parts.Engine.Await, log, cfg.Registry)
	if err != nil {
		return err
	}
	p.asked, err = admission.Listen(cfg.WebhookAddress, parts.Authority.ServerTLS(), h, parts.Synced, log)
	return err
}

// add adds what runs beside the source.
func (p *platform) add(g *lifecycle.Group) {
	g.Add("capture state", p.captures)
	g.Add("node taints", p.leads.taints)
	if p.asked != nil {
		g.Add("admission", p.asked)
	}
	g.Add("leader", lifecycle.RunnerFunc(p.contend))
}

// leaderGroup gives what only the leader does. It is started anew with each term,
// after the first complete state.
func (p *platform) leaderGroup() *lifecycle.Group {
	var g lifecycle.Group
	g.Add("root bundle", p.bundle)
	if p.webhook != nil {
		g.Add("webhook roots", p.webhook)
	}
	p.lead(&g)
	return &g
}

// contend runs the leader's part once there is something to lead.
func (p *platform) contend(ctx context.Context) error {
	select {
	case <-p.parts.Synced:
		return p.leader.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

// company says whether other replicas serve clients. What is not known counts as
// that they do.
func (p *platform) company() bool {
	n, known := p.parts.Compiler.Serving(types.NamespacedName{Namespace: p.cfg.RootNamespace, Name: serviceName})
	return !known || n > 1
}
