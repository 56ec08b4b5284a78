package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Run lives the pod's life. When ctx ends its programs are ended, and Run
// returns when nothing of the pod is left.
func (p *Pod) Run(ctx context.Context) {
	defer p.dismantle()
	if !p.insist(ctx, "network", func(context.Context) error { return p.prepare() }) {
		return
	}
	if p.host.Capturer != nil && !p.obj.Spec.HostNetwork && !p.insist(ctx, "mesh", p.capture) {
		return
	}
	p.set(func() { p.waiting, p.started = "", new(metav1.Now()) })
	p.containers(ctx)
	<-ctx.Done()
}

// insist tries until it works or ctx ends, and keeps the status up to date.
func (p *Pod) insist(ctx context.Context, what string, try func(context.Context) error) bool {
	var b backoff
	b.next = 200 * time.Millisecond
	for {
		p.set(func() {
			if p.waiting == "" {
				p.waiting = what
			}
		})
		err := try(ctx)
		if err == nil {
			p.set(func() { p.waiting = "" })
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		p.log.Warn("pod waits", zap.String("for", what), zap.Error(err))
		p.set(func() { p.waiting = what + ": " + err.Error() })
		if !b.wait(ctx) {
			return false
		}
	}
}

// prepare makes the pod's namespaces and network.
func (p *Pod) prepare() error {
	if err := p.writeFiles(); err != nil {
		return err
	}
	ns, err := process.Unshare(p.unshareFlags(), p.enter)
	if err != nil {
		return err
	}
	if p.obj.Spec.HostNetwork {
		ns.Net = p.host.Node.Namespaces.Net
	} else {
		port, err := p.host.Node.Attach(p.obj.Namespace+"_"+p.obj.Name, ns)
		if err != nil {
			return errors.Join(err, ns.Close())
		}
		p.port = port
	}
	p.namespaces = *ns
	p.set(func() { p.network = true })
	return p.writeHosts()
}

func (p *Pod) capture(ctx context.Context) error {
	return p.host.Capturer.Add(ctx, Sandbox{
		Netns: p.port.NetnsPath, Name: p.obj.Name, Namespace: p.obj.Namespace, UID: p.obj.UID, IPs: p.port.Addrs,
	})
}

// containers runs all of them until ctx ends or they have finished for good.
func (p *Pod) containers(ctx context.Context) {
	// Sidecars outlive the containers that they serve.
	sidecarCtx, stopSidecars := context.WithCancel(context.WithoutCancel(ctx))
	var sidecars, mains sync.WaitGroup
	defer sidecars.Wait()
	defer stopSidecars()
	for _, c := range p.initial {
		if c.isSidecar() {
			sidecars.Go(func() { c.loop(sidecarCtx, corev1.RestartPolicyAlways) })
			if !c.awaitStarted(ctx) {
				return
			}
			continue
		}
		policy := p.obj.Spec.RestartPolicy
		if policy == corev1.RestartPolicyAlways {
			policy = corev1.RestartPolicyOnFailure
		}
		if c.loop(ctx, policy) != 0 {
			if ctx.Err() == nil {
				p.set(func() { p.phase = corev1.PodFailed })
			}
			return
		}
	}
	p.set(func() { p.inited = true })
	codes := make([]int, len(p.main))
	for i, c := range p.main {
		mains.Go(func() { codes[i] = c.loop(ctx, p.obj.Spec.RestartPolicy) })
	}
	mains.Wait()
	if ctx.Err() != nil {
		return
	}
	p.set(func() {
		p.phase = corev1.PodSucceeded
		for _, code := range codes {
			if code != 0 {
				p.phase = corev1.PodFailed
			}
		}
	})
}

// dismantle leaves nothing of the pod, whatever there was of it.
func (p *Pod) dismantle() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	var errs []error
	ns := p.namespaces
	if p.port != nil {
		if _, err := process.KillIn(ns.Net); err != nil {
			errs = append(errs, err)
		}
		if p.host.Capturer != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := p.host.Capturer.Del(ctx, p.obj.UID); err != nil {
				errs = append(errs, fmt.Errorf("release from the mesh: %w", err))
			}
			cancel()
		}
		errs = append(errs, p.port.Detach())
	} else {
		ns.Net = nil // the node's, if any
	}
	errs = append(errs, ns.Close(), os.RemoveAll(p.filesDir()))
	for _, list := range [][]*container{p.initial, p.main} {
		for _, c := range list {
			errs = append(errs, c.removeLog())
		}
	}
	if err := errors.Join(errs...); err != nil {
		p.log.Warn("pod was not dismantled cleanly", zap.Error(err))
	}
}
