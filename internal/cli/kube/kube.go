// Package kube reaches a cluster with the user's kubeconfig: clients, ports of
// pods, objects of kinds that may not be installed. It leaves what they mean to
// internal/cli.
package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Flags say which cluster is meant.
type Flags struct {
	config *genericclioptions.ConfigFlags
	// System is the namespace of the mesh.
	System string
}

// Add adds the flags.
func (f *Flags) Add(flags *pflag.FlagSet) {
	f.config = genericclioptions.NewConfigFlags(true)
	flags.StringVar(f.config.KubeConfig, "kubeconfig", "", "file with the access to the cluster; as kubectl finds it by default")
	flags.StringVar(f.config.Context, "context", "", "context of the kubeconfig; the current one by default")
	flags.StringVar(&f.System, "system-namespace", "ambit-system", "namespace of the mesh")
}

// Cluster is a cluster that can be reached.
type Cluster struct {
	kubernetes.Interface
	Dynamic dynamic.Interface
	Config  *rest.Config
	// Getter is what the Helm library wants.
	Getter *genericclioptions.ConfigFlags
	// System is the namespace of the mesh, Namespace the one of the context.
	System, Namespace string
	// Version of Kubernetes, such as v1.36.1.
	Version string
}

// UnreachableError is a cluster that does not answer, or does not know us.
type UnreachableError struct{ err error }

// Error says what to do.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the cluster cannot be reached: %v: check kubectl config current-context, --kubeconfig and --context", e.err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.err }

// Connect finds the cluster and asks for its version.
func (f *Flags) Connect(context.Context) (*Cluster, error) {
	c := &Cluster{Getter: f.config, System: f.System}
	var err error
	// A loader keeps the namespace that it was made with: the context's is asked of
	// one of its own.
	own := genericclioptions.NewConfigFlags(false)
	own.KubeConfig, own.Context = f.config.KubeConfig, f.config.Context
	if c.Namespace, _, err = own.ToRawKubeConfigLoader().Namespace(); err != nil {
		return nil, &UnreachableError{err}
	}
	// Helm looks where the mesh is.
	f.config.Namespace = &f.System
	if c.Config, err = f.config.ToRESTConfig(); err != nil {
		return nil, &UnreachableError{err}
	}
	// Many small questions, asked once.
	c.Config.QPS, c.Config.Burst = 50, 100
	if c.Interface, err = kubernetes.NewForConfig(c.Config); err != nil {
		return nil, &UnreachableError{err}
	}
	if c.Dynamic, err = dynamic.NewForConfig(c.Config); err != nil {
		return nil, &UnreachableError{err}
	}
	v, err := serverVersion(c.Config, patience)
	if err != nil {
		return nil, &UnreachableError{err}
	}
	c.Version = v
	return c, nil
}

// patience bounds the first question, whose answer is short: what swallows packets
// is found out while somebody still looks.
const patience = 10 * time.Second

func serverVersion(cfg *rest.Config, timeout time.Duration) (string, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = timeout
	d, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return "", err
	}
	v, err := d.ServerVersion()
	if err != nil {
		return "", err
	}
	return v.GitVersion, nil
}

// Unreachable reports whether an error is about the way to the cluster.
func Unreachable(err error) bool {
	var u *UnreachableError
	var netErr net.Error
	var urlErr *url.Error
	return errors.As(err, &u) || errors.As(err, &urlErr) && errors.As(err, &netErr) || apierrors.IsUnauthorized(err)
}

// List gives all objects of a kind; none where the kind is not installed.
func (c *Cluster) List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]unstructured.Unstructured, error) {
	list, err := c.Dynamic.Resource(gvr).Namespace(namespace).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list %s: %w", gvr.GroupResource(), err)
	}
	return list.Items, nil
}

// Gateways of the Gateway API.
func Gateways() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
}

// GatewayClasses of the Gateway API.
func GatewayClasses() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"}
}

// CRDs are the definitions of kinds.
func CRDs() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}
