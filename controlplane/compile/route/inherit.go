package route

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func (t *translation) findSections() {}

func (t *translation) section(p *corev1.ServicePort) string {
	if t.sections[p.Name] {
		return p.Name
	}
	return ""
}

func (t *translation) inherit(*waypoint.Rule, *graph.Key, string, string, bool) {}

func (t *translation) providers() {}
