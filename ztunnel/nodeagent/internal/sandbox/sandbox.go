// Package sandbox finds the network namespaces of pods that run already: those
// that started before the node had the CNI plugin, or while the agent was away.
//
// A process belongs to the pod that its cgroup names. Where no process is found,
// because this process does not see those of the node, the namespaces that the
// runtime keeps under /var/run/netns are asked for the pod's address. Either way a
// namespace counts only if it is not the node's own and holds an address of the
// pod's; two that do are none.
package sandbox

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// Finder looks at the node.
type Finder struct {
	// Proc is the node's /proc, Dir the runtime's namespaces.
	Proc, Dir string
}

// Find gives the namespaces of those pods that it finds, by uid. They are the
// caller's to close. A pod without addresses is not found: nothing would prove
// that the namespace is its own. not are namespaces that are no pod's.
func (f *Finder) Find(pods map[string][]netip.Addr, not func(netns.ID) bool) map[string]*netns.Namespace {
	kept := f.Kept(not)
	defer func() {
		for _, ns := range kept {
			_ = ns.Close()
		}
	}()
	found := make(map[string]*netns.Namespace)
	byPod := f.processes(pods, not)
	for uid, addrs := range pods {
		candidates := byPod[uid]
		if len(candidates) == 0 {
			candidates = kept
		}
		ns := only(candidates, addrs)
		if ns == nil {
			continue
		}
		if stable, err := netns.Open(lasting(ns, kept)); err == nil {
			if stable.ID() == ns.ID() {
				found[uid] = stable
			} else {
				_ = stable.Close()
			}
		}
	}
	for _, list := range byPod {
		for _, ns := range list {
			_ = ns.Close()
		}
	}
	return found
}

// lasting gives a path that leads to ns for as long as the pod lives, if there is
// one: a process may end before its pod does.
func lasting(ns *netns.Namespace, kept []*netns.Namespace) string {
	for _, k := range kept {
		if k.ID() == ns.ID() {
			return k.Path()
		}
	}
	return ns.Path()
}

// only gives the one namespace that holds an address; nil if none or several do.
func only(candidates []*netns.Namespace, addrs []netip.Addr) *netns.Namespace {
	var one *netns.Namespace
	for _, ns := range candidates {
		if !holds(ns, addrs) {
			continue
		}
		if one != nil {
			return nil
		}
		one = ns
	}
	return one
}

// holds tells whether an address is one of the namespace's.
func holds(ns *netns.Namespace, addrs []netip.Addr) bool {
	var have []net.Addr
	err := ns.Do(func() (err error) {
		have, err = net.InterfaceAddrs()
		return err
	})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(have, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && !p.Addr().IsLoopback() && slices.Contains(addrs, p.Addr().Unmap())
	})
}

// processes gives the namespaces of processes of the pods, each once, those of the
// oldest processes first.
func (f *Finder) processes(pods map[string][]netip.Addr, not func(netns.ID) bool) map[string][]*netns.Namespace {
	out := make(map[string][]*netns.Namespace)
	for _, pid := range f.pids() {
		dir := filepath.Join(f.Proc, strconv.Itoa(pid))
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue // it has ended
		}
		uid := podOf(string(cgroup))
		if _, wanted := pods[uid]; !wanted {
			continue
		}
		if ns := open(filepath.Join(dir, "ns", "net"), out[uid], not); ns != nil {
			out[uid] = append(out[uid], ns)
		}
	}
	return out
}

func (f *Finder) pids() []int {
	entries, err := os.ReadDir(f.Proc)
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// Kept gives the namespaces that the runtime keeps, each once. They are the
// caller's to close.
func (f *Finder) Kept(not func(netns.ID) bool) []*netns.Namespace {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return nil
	}
	var out []*netns.Namespace
	for _, e := range entries {
		if ns := open(filepath.Join(f.Dir, e.Name()), out, not); ns != nil {
			out = append(out, ns)
		}
	}
	return out
}

// open gives a namespace that is not among those at hand; nil if there is none.
func open(path string, have []*netns.Namespace, not func(netns.ID) bool) *netns.Namespace {
	ns, err := netns.Open(path)
	if err != nil {
		return nil // gone, or no namespace
	}
	if not(ns.ID()) || slices.ContainsFunc(have, func(h *netns.Namespace) bool { return h.ID() == ns.ID() }) {
		_ = ns.Close()
		return nil
	}
	return ns
}
