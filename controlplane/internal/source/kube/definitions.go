package kube

import (
	"slices"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
)

var definitionKind = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")

// definitions are the versions of the kinds that are installed.
type definitions struct {
	changed func()

	mu     sync.Mutex
	served map[string]definition // guarded by mu; by the definition's name
}

type definition struct {
	kind     schema.GroupKind
	versions []string
}

// trimDefinition drops schemas, which are most of it.
func trimDefinition(v any) (any, error) {
	crd, ok := v.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return v, nil
	}
	crd.ManagedFields, crd.Annotations, crd.Labels = nil, nil, nil
	versions := make([]apiextensionsv1.CustomResourceDefinitionVersion, len(crd.Spec.Versions))
	for i, have := range crd.Spec.Versions {
		versions[i].Name, versions[i].Served = have.Name, have.Served
	}
	crd.Spec.Versions, crd.Spec.Conversion = versions, nil
	return crd, nil
}

func (d *definitions) handler() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    d.set,
		UpdateFunc: func(_, now any) { d.set(now) },
		DeleteFunc: func(v any) {
			if last, ok := v.(toolscache.DeletedFinalStateUnknown); ok {
				v = last.Obj
			}
			if crd, ok := v.(*apiextensionsv1.CustomResourceDefinition); ok {
				d.put(crd.Name, definition{})
			}
		},
	}
}

func (d *definitions) set(v any) {
	crd, ok := v.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	def := definition{kind: schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}}
	established := slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
	if crd.DeletionTimestamp == nil && established {
		for _, v := range crd.Spec.Versions {
			if v.Served {
				def.versions = append(def.versions, v.Name)
			}
		}
	}
	d.put(crd.Name, def)
}

func (d *definitions) put(name string, def definition) {
	d.mu.Lock()
	if len(def.versions) == 0 {
		delete(d.served, name)
	} else {
		d.served[name] = def
	}
	d.mu.Unlock()
	d.changed()
}

// version gives the version in which a kind is to be read, "" if it is not
// installed in one that is known.
func (d *definitions) version(k kind) string {
	if !k.defined {
		return k.versions[0]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, want := range k.versions {
		for _, def := range d.served {
			if def.kind == k.GroupKind && slices.Contains(def.versions, want) {
				return want
			}
		}
	}
	return ""
}
