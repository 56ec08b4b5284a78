package workload

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// supportedFields are what env[].valueFrom.fieldRef.fieldPath may say.
var supportedFields = [...]string{
	"metadata.name", "metadata.namespace", "metadata.uid", "status.podIP", "status.podIPs", "status.hostIP",
	"spec.nodeName", "spec.serviceAccountName",
}

// Check finds what keeps a pod spec from running as processes (fatal), and what
// will be different from a cluster (notes).
func Check(o manifest.Object, spec *corev1.PodSpec, path string, rootless bool) (fatal, notes []manifest.Problem) {
	c := checker{object: o, rootless: rootless}
	for i := range spec.InitContainers {
		c.container(&spec.InitContainers[i], fmt.Sprintf("%s.initContainers[%d]", path, i))
	}
	for i := range spec.Containers {
		c.container(&spec.Containers[i], fmt.Sprintf("%s.containers[%d]", path, i))
	}
	if len(spec.Volumes) > 0 {
		c.note(path+".volumes", "volumes are not mounted by ambit local: programs see this machine's files")
	}
	if s := spec.SecurityContext; s != nil {
		c.user(s.RunAsUser, s.RunAsGroup, path+".securityContext")
	}
	return c.fatal, c.notes
}

type checker struct {
	object       manifest.Object
	rootless     bool
	fatal, notes []manifest.Problem
}

func (c *checker) fail(field, message string) {
	c.fatal = append(c.fatal, c.object.Problem(field, message))
}

func (c *checker) note(field, message string) {
	c.notes = append(c.notes, c.object.Problem(field, message))
}

func (c *checker) container(k *corev1.Container, path string) {
	if len(k.Command) == 0 {
		c.fail(path+".command", "required by ambit local, which runs programs of this machine and no images: name the program to run")
	}
	for i, e := range k.Env {
		if e.ValueFrom != nil {
			c.source(e.ValueFrom, fmt.Sprintf("%s.env[%d].valueFrom", path, i))
		}
	}
	if len(k.EnvFrom) > 0 {
		c.fail(path+".envFrom", "ambit local has no ConfigMaps and Secrets: write the values into env")
	}
	if k.Lifecycle != nil && (k.Lifecycle.PostStart != nil || k.Lifecycle.PreStop != nil) {
		c.note(path+".lifecycle", "hooks are not run by ambit local")
	}
	if s := k.SecurityContext; s != nil {
		c.user(s.RunAsUser, s.RunAsGroup, path+".securityContext")
	}
	for name, p := range map[string]*corev1.Probe{"livenessProbe": k.LivenessProbe, "readinessProbe": k.ReadinessProbe, "startupProbe": k.StartupProbe} {
		if p != nil && p.HTTPGet == nil && p.TCPSocket == nil && p.Exec == nil && p.GRPC == nil {
			c.fail(path+"."+name, "needs one of httpGet, tcpSocket, exec and grpc")
		}
	}
}

func (c *checker) source(s *corev1.EnvVarSource, path string) {
	if s.FieldRef == nil {
		c.fail(path, "only fieldRef is known to ambit local: write the value into env")
		return
	}
	for _, known := range supportedFields {
		if s.FieldRef.FieldPath == known {
			return
		}
	}
	c.fail(path+".fieldRef.fieldPath", fmt.Sprintf("%q: want one of %v", s.FieldRef.FieldPath, supportedFields))
}

func (c *checker) user(user, group *int64, path string) {
	if c.rootless && (user != nil || group != nil) {
		c.note(path, "without root programs run as you: runAsUser and runAsGroup have no effect")
	}
}
