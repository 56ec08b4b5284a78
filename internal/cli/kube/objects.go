package kube

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// page is how many objects are asked for at a time.
const page = 500

// Mesh reads all objects of the kinds of a scheme that the cluster serves. What is
// served in an older version only is read as the scheme's: the fields are the same.
func (c *Cluster) Mesh(ctx context.Context, scheme *runtime.Scheme) ([]runtime.Object, error) {
	lists, err := c.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask what the cluster serves: %w", err)
	}
	known := make(map[schema.GroupKind]schema.GroupVersionKind)
	for gvk := range scheme.AllKnownTypes() {
		known[gvk.GroupKind()] = gvk
	}
	var out []runtime.Object
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range l.APIResources {
			gvk, ok := known[schema.GroupKind{Group: gv.Group, Kind: r.Kind}]
			if !ok || strings.Contains(r.Name, "/") {
				continue
			}
			got, err := c.read(ctx, gv.WithResource(r.Name), gvk, scheme)
			if err != nil {
				return nil, err
			}
			out = append(out, got...)
		}
	}
	return out, nil
}

func (c *Cluster) read(ctx context.Context, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind, scheme *runtime.Scheme) ([]runtime.Object, error) {
	var out []runtime.Object
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.Dynamic.Resource(gvr).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", gvr.GroupResource(), err)
		}
		for i := range list.Items {
			o, err := typed(&list.Items[i], gvk, scheme)
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}

func typed(u *unstructured.Unstructured, gvk schema.GroupVersionKind, scheme *runtime.Scheme) (runtime.Object, error) {
	o, err := scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o); err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", gvk.Kind, u.GetNamespace(), u.GetName(), err)
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	return o, nil
}

// Args gives the flags that the first container of a Deployment of the mesh runs
// with; none where there is no such Deployment.
func (c *Cluster) Args(ctx context.Context, deployment string) (map[string]string, error) {
	d, err := c.AppsV1().Deployments(c.System).Get(ctx, deployment, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, a := range d.Spec.Template.Spec.Containers[0].Args {
		if name, value, ok := strings.Cut(strings.TrimPrefix(a, "--"), "="); ok {
			out[name] = value
		}
	}
	return out, nil
}
