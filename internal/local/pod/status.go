package pod

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object gives the pod with its status as an API server would show it.
func (p *Pod) Object() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.obj.DeepCopy()
	s := &o.Status
	*s = corev1.PodStatus{Phase: p.phase, StartTime: p.started, Message: p.waiting, HostIP: p.host.Node.Addr4.String()}
	s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	if p.host.Node.Addr6.IsValid() {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: p.host.Node.Addr6.String()})
	}
	if p.network {
		for _, a := range p.addrs() {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
		}
		s.PodIP = s.PodIPs[0].IP
	}
	for _, c := range p.initial {
		s.InitContainerStatuses = append(s.InitContainerStatuses, c.status())
	}
	for _, c := range p.main {
		s.ContainerStatuses = append(s.ContainerStatuses, c.status())
	}
	s.Conditions = p.conditions()
	return o
}

func (p *Pod) conditions() []corev1.PodCondition {
	condition := func(t corev1.PodConditionType, ok bool, reason string) corev1.PodCondition {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: p.readySince}
		if ok {
			c.Status, c.Reason = corev1.ConditionTrue, ""
		}
		return c
	}
	scheduled := condition(corev1.PodScheduled, true, "")
	scheduled.LastTransitionTime = p.obj.CreationTimestamp
	ready := condition(corev1.PodReady, p.ready, "ContainersNotReady")
	all := condition(corev1.ContainersReady, p.ready, "ContainersNotReady")
	if p.waiting != "" {
		ready.Reason, ready.Message = "Waiting", p.waiting
	}
	if p.phase == corev1.PodSucceeded {
		ready.Reason, all.Reason = "PodCompleted", "PodCompleted"
	}
	return []corev1.PodCondition{
		scheduled,
		condition(corev1.PodReadyToStartContainers, p.network && p.waiting == "", "Waiting"),
		condition(corev1.PodInitialized, p.inited, "ContainersNotInitialized"),
		all, ready,
	}
}

// refresh works out phase and readiness. mu is held.
func (p *Pod) refresh() {
	ready := p.inited
	for _, c := range append(append([]*container(nil), p.main...), p.sidecars...) {
		ready = ready && c.isReady()
		if p.phase == corev1.PodPending && p.inited && c.state.Waiting == nil {
			p.phase = corev1.PodRunning
		}
	}
	if ready != p.ready {
		p.ready, p.readySince = ready, metav1.Now()
	}
}

func (c *container) isReady() bool {
	return c.state.Running != nil && c.started && (c.spec.ReadinessProbe == nil || c.healthy)
}

func (c *container) status() corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(),
		RestartCount: c.restarts, Ready: c.isReady() || c.finishedInit(), Started: new(c.started),
	}
}

func (c *container) finishedInit() bool {
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// Pids gives the process ids of the pod's containers by name, inside the
// sandbox.
func (p *Pod) Pids() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	pids := make(map[string]int)
	for _, list := range [][]*container{p.sidecars, p.main} {
		for _, c := range list {
			if c.pid != 0 {
				pids[c.spec.Name] = c.pid
			}
		}
	}
	return pids
}
