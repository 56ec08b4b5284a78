package local

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/ambit-mesh/ambit/internal/local/pod"
	"github.com/ambit-mesh/ambit/internal/local/workload"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// member is a pod that exists.
type member struct {
	pod     *pod.Pod
	uid     types.UID
	name    string
	owner   manifest.Key
	hash    string
	node    string
	created time.Time
	cancel  context.CancelFunc
	gone    chan struct{} // closed when nothing of it is left

	// Owned by reconcile.
	retired  bool
	released bool
}

// lastSeen is what the journal has said of a pod.
type lastSeen struct {
	name     string
	ready    bool
	restarts int32
	waiting  string
}

func newUID() types.UID { return uuid.NewUUID() }

// suffix ends a generated name. Without vowels it spells nothing.
func suffix() string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	b := make([]byte, 5)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}

// sweep forgets members that are gone and gives the others, sorted by name.
func (s *supervisor) sweep() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []*member
	for uid, m := range s.members {
		select {
		case <-m.gone:
			if err := s.credentials.withdraw(uid); err != nil {
				s.log.Warn("the credential of a pod that is gone stays valid until it can be withdrawn", zap.String("pod", m.name), zap.Error(err))
				continue
			}
			delete(s.members, uid)
		default:
			live = append(live, m)
		}
	}
	slices.SortFunc(live, func(a, b *member) int {
		return cmp.Or(cmp.Compare(a.owner.Namespace, b.owner.Namespace), cmp.Compare(a.name, b.name))
	})
	return live
}

// act creates and retires pods.
func (s *supervisor) act(owners []*workload.Owner) []manifest.Problem {
	var existing []workload.Existing
	byUID := make(map[types.UID]*member)
	for _, m := range s.sweep() {
		byUID[m.uid] = m
		existing = append(existing, m.existing())
		if own := s.owners[m.owner]; own != nil {
			m.pod.Update(own.Relabel)
		}
	}
	var problems []manifest.Problem
	for _, a := range workload.Plan(owners, existing) {
		if a.Owner == nil {
			m := byUID[a.Delete]
			m.retired = true
			m.pod.Retire(metav1.Now())
			continue
		}
		m, err := s.create(a, existing)
		if err != nil {
			problems = append(problems, manifest.Problem{
				Position: s.objectAt(a.Owner.Key).Source, Object: a.Owner.Key.String(), Message: err.Error(),
			})
			continue
		}
		existing = append(existing, m.existing())
	}
	return problems
}

func (m *member) existing() workload.Existing {
	o := m.pod.Object()
	return workload.Existing{
		UID: m.uid, Name: m.name, Owner: m.owner, Hash: m.hash, Node: m.node, Ready: isReady(o), Terminating: m.retired,
		Finished: o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed, Created: m.created,
	}
}

func (s *supervisor) objectAt(k manifest.Key) manifest.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.provisioned[k]; ok {
		return o
	}
	return s.objects[k]
}

// create starts a pod.
func (s *supervisor) create(a workload.Action, existing []workload.Existing) (*member, error) {
	now := metav1.Now()
	o := a.Build(newUID(), suffix(), now)
	var nodes []*corev1.Node
	for _, n := range s.nodes {
		nodes = append(nodes, n.obj)
	}
	name, err := workload.Schedule(o, a.Owner.Key, nodes, existing)
	if err != nil {
		return nil, err
	}
	o.Spec.NodeName = name
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.wire.Name == name })
	dir := filepath.Dir(s.objectAt(a.Owner.Key).Source.File)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{
		pod: pod.New(s.nodes[i].host, o, dir, s.kick), uid: o.UID, name: o.Name, owner: a.Owner.Key, hash: a.Owner.Hash,
		node: name, created: now.Time, cancel: cancel, gone: make(chan struct{}),
	}
	if err := s.arm(m.pod, o, a.Owner.Key); err != nil {
		cancel()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		cancel()
		return nil, fmt.Errorf("the mesh is going down")
	}
	s.members[m.uid] = m
	s.pods.Go(func() {
		defer cancel()
		m.pod.Run(ctx)
		close(m.gone)
		s.kick()
	})
	return m, nil
}

// worthTelling is how long a pod may wait before the journal mentions it.
const worthTelling = 3 * time.Second

// report tells the journal what is new about pods.
func (s *supervisor) report(pods []*corev1.Pod) {
	current := make(map[types.UID]bool)
	for _, p := range pods {
		current[p.UID] = true
		name := p.Namespace + "/" + p.Name
		old := s.seen[p.UID]
		now := lastSeen{name: name, ready: isReady(p)}
		if time.Since(p.CreationTimestamp.Time) > worthTelling {
			now.waiting = p.Status.Message
		}
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			now.restarts += c.RestartCount
			if w := c.State.Waiting; w != nil && w.Message != "" {
				now.waiting = "container " + c.Name + " " + w.Message
			}
		}
		s.seen[p.UID] = now
		switch {
		case now.ready && !old.ready:
			s.journal.info("pod %s is ready on %s at %s", name, p.Spec.NodeName, p.Status.PodIP)
		case !now.ready && old.ready && p.DeletionTimestamp == nil:
			s.journal.warn("pod %s is not ready any more", name)
		}
		if now.waiting != old.waiting && now.waiting != "" {
			s.journal.warn("pod %s: %s", name, now.waiting)
		}
	}
	for uid, old := range s.seen {
		if !current[uid] {
			delete(s.seen, uid)
			s.journal.info("pod %s is gone", old.name)
		}
	}
}

// localAddrs gives the addresses of the node's pods.
func (n *node) localAddrs(pods []*corev1.Pod) []netip.Addr {
	var all []netip.Addr
	for _, p := range pods {
		if p.Spec.NodeName != n.wire.Name || p.Spec.HostNetwork {
			continue
		}
		for _, ip := range p.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}
