package pod

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/local/probe"
	"github.com/ambit-mesh/ambit/internal/local/wire"
)

// probe starts the container's probes. They end with ctx.
func (c *container) probe(ctx context.Context, unhealthy chan<- string) *sync.WaitGroup {
	var wg sync.WaitGroup
	t := &probe.Target{
		NodeNet: c.pod.host.Node.Namespaces.Net, Source4: wire.Prober4, Source6: wire.Prober6,
		PodIP: c.pod.addrs()[0], Ports: c.spec.Ports, Exec: c.execProbe,
	}
	giveUp := func(which string, cause error) {
		select {
		case unhealthy <- fmt.Sprintf("%s failed: %v", which, cause):
		default: // one reason is enough
		}
	}
	rest := func() {
		if p := c.spec.ReadinessProbe; p != nil {
			wg.Go(func() {
				t.Loop(ctx, p, func(healthy bool, _ error) bool {
					c.pod.set(func() { c.healthy = healthy })
					return true
				})
			})
		}
		if p := c.spec.LivenessProbe; p != nil {
			wg.Go(func() {
				t.Loop(ctx, p, func(healthy bool, cause error) bool {
					if !healthy {
						giveUp("livenessProbe", cause)
					}
					return healthy
				})
			})
		}
	}
	startup := c.spec.StartupProbe
	if startup == nil {
		rest()
		return &wg
	}
	wg.Go(func() {
		t.Loop(ctx, startup, func(healthy bool, cause error) bool {
			if !healthy {
				giveUp("startupProbe", cause)
				return false
			}
			c.pod.set(func() {
				c.started = true
				c.noteStarted()
			})
			rest()
			return false
		})
	})
	return &wg
}

func (c *container) execProbe(ctx context.Context, argv []string) (int, error) {
	proc, err := c.pod.host.Reaper.Start(c.expanded(argv))
	if err != nil {
		return 0, err
	}
	select {
	case <-proc.Done():
		return proc.ExitCode(), nil
	case <-ctx.Done():
		proc.SignalGroup(syscall.SIGKILL)
		<-proc.Done()
		return 0, fmt.Errorf("exec probe: %w", ctx.Err())
	}
}
