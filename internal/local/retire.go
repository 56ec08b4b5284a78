package local

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/system"
)

const (
	// settle is how long a retired pod still runs once no proxy sends it anything
	// new: those connections reach it that were being set up then.
	settle = 300 * time.Millisecond
	// heardAtMost bounds how long a retired pod runs on because a proxy has not heard
	// of its end, such as one that is cut off from the control plane.
	heardAtMost = 10 * time.Second
)

// release ends the programs of pods that get no more traffic since this
// reconciliation: at once, or in a mesh when its proxies have heard of that.
func (s *supervisor) release(members []*member) {
	var retired []*member
	for _, m := range members {
		if m.retired && !m.released {
			m.released = true
			retired = append(retired, m)
		}
	}
	switch {
	case len(retired) == 0:
	case s.options.Mesh:
		s.pods.Go(func() { s.endOnceHeard(retired) })
	default:
		for _, m := range retired {
			m.cancel()
		}
	}
}

// endOnceHeard ends the programs of retired pods, of each when no proxy sends it
// new connections any more.
func (s *supervisor) endOnceHeard(retired []*member) {
	deadline := time.Now().Add(heardAtMost)
	tick := time.NewTicker(knownRetry)
	defer tick.Stop()
	for {
		retired = slices.DeleteFunc(retired, func(m *member) bool {
			select {
			case <-m.gone:
				return true
			default:
				return false
			}
		})
		if len(retired) == 0 {
			return
		}
		sender := senders(s.ask())
		retired = slices.DeleteFunc(retired, func(m *member) bool {
			who := sender(m.pod.Object())
			if who != "" && time.Now().Before(deadline) {
				return false
			}
			if who != "" {
				s.journal.warn("pod %s/%s is ended although %s: connections to it may fail", m.owner.Namespace, m.name, who)
			}
			time.AfterFunc(settle, m.cancel)
			return true
		})
		<-tick.C
	}
}

// answer is what a proxy said that it knows.
type answer struct {
	name string
	dump *proxyDump
	err  error
}

// ask asks all proxies that run.
func (s *supervisor) ask() []answer {
	tellers := slices.Collect(maps.Values(s.tellers(nil)))
	all := make([]answer, len(tellers))
	var wg sync.WaitGroup
	for i, t := range tellers {
		wg.Go(func() {
			dump, err := t.dump()
			all[i] = answer{t.name, dump, err}
		})
	}
	wg.Wait()
	return all
}

// senders gives a function that says of a pod which proxy may still send new
// connections there; "" for none.
func senders(all []answer) func(*corev1.Pod) string {
	by := make(map[string]string)
	silent := ""
	for _, t := range all {
		if t.err != nil {
			silent = fmt.Sprintf("%s does not tell whether it has heard of that: %v", t.name, t.err)
			continue
		}
		for key := range t.dump.uses() {
			by[key] = t.name + " has not heard of that"
		}
	}
	return func(p *corev1.Pod) string {
		for _, ip := range p.Status.PodIPs {
			if who := by[knownKey(p.Namespace, p.Name, ip.IP)]; who != "" {
				return who
			}
		}
		return silent
	}
}

func (t teller) dump() (*proxyDump, error) {
	ns, err := os.Open(t.netns())
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	return dumpProxy(context.Background(), system.Client(ns))
}

// uses gives the pods to which a proxy sends new connections.
func (d *proxyDump) uses() map[string]bool {
	keys := d.healthy()
	for _, c := range d.Clusters {
		for _, e := range c.Endpoints {
			if at, err := netip.ParseAddrPort(e.Address); err == nil {
				keys[e.Workload+" at "+at.Addr().String()] = true
			}
		}
	}
	return keys
}
