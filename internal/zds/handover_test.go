package zds_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// successor is a proxy that listens on one port of each pod, as a ztunnel does.
type successor struct {
	*proxy

	mu        sync.Mutex
	listeners map[string]*netns.Listener // guarded by mu
	last      zds.Handover               // without descriptors; guarded by mu
	given     int                        // listeners with the last addition; guarded by mu
	refusals  int                        // additions that are still refused; guarded by mu
	additions int                        // guarded by mu
}

func newSuccessor() *successor {
	return &successor{proxy: newProxy(), listeners: make(map[string]*netns.Listener)}
}

func (s *successor) TakeOver(_ context.Context, uid string, w zds.Workload, ns *netns.Namespace, h zds.Handover) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.given = zds.Handover{Served: h.Served}, len(h.Listeners)
	s.additions++
	rest := h.Listeners
	defer func() {
		for _, fd := range rest {
			unix.Close(fd)
		}
	}()
	if s.refusals > 0 {
		s.refusals--
		ns.Close()
		return nil, errors.New("no certificate")
	}
	if s.listeners[uid] == nil {
		var err error
		if len(rest) > 0 {
			s.listeners[uid], err = netns.Adopt(ns, rest[0], netns.ListenOptions{})
			rest = rest[1:]
		} else {
			s.listeners[uid], err = netns.Listen(ns, "tcp", netip.MustParseAddrPort("[::]:15001"), netns.ListenOptions{ReusePort: true})
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.Add(context.Background(), uid, w, ns); err != nil {
		return nil, err
	}
	fd, err := s.listeners[uid].Dup()
	return []int{fd}, err
}

func (s *successor) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.additions
}

func (s *successor) Serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.listeners) > 0
}

// close lets go of the listeners, as the end of a process does.
func (s *successor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, l := range s.listeners {
		l.Close()
		delete(s.listeners, uid)
	}
}

func (s *successor) was(given int, served bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given == given && s.last.Served == served
}

// Connections that were made while no ztunnel was there are the next one's.
func TestListenersOutliveTheirZtunnel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, _ := newServer(t, path)
	agent := start(t, server.Run)
	ns := netnstest.New(t)
	netnstest.Up(t, ns, "lo")
	before := openFDs(t)
	set(t, server, "a", ns)

	first := newSuccessor()
	one := start(t, newClient(t, path, first).Run)
	netnstest.Eventually(t, "the first one listens", func() bool { return first.has("a", ns) && first.was(0, false) })
	one.stop(t)
	first.close()
	netnstest.Eventually(t, "it has gone", func() bool { return server.Connections() == 0 })

	waiting, err := netns.Dial(t.Context(), ns, netns.DialOptions{}, netip.MustParseAddrPort("127.0.0.1:15001"))
	if err != nil {
		t.Fatalf("without a ztunnel: %v", err)
	}
	defer waiting.Close()
	second := newSuccessor()
	two := start(t, newClient(t, path, second).Run)
	netnstest.Eventually(t, "the second one has the listener of the first", func() bool { return second.has("a", ns) && second.was(1, false) })
	second.mu.Lock()
	l := second.listeners["a"]
	second.mu.Unlock()
	c, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	// Beside one that serves, the next is told so, and told when it does not any more.
	third := newSuccessor()
	third.refusals = 1 << 20
	three := start(t, newClient(t, path, third).Run)
	netnstest.Eventually(t, "the third one knows of the second", func() bool { return third.was(1, true) })
	two.stop(t)
	netnstest.Eventually(t, "the third one knows that it is alone", func() bool { return third.was(1, false) })
	three.stop(t)

	// One of another kind: the sockets are of no use to it, nobody would accept.
	other := newProxy()
	four := start(t, newClient(t, path, other).Run)
	netnstest.Eventually(t, "the other one has the pod", func() bool { return other.has("a", ns) })
	second.close()
	netnstest.Eventually(t, "nothing listens any more", func() bool {
		c, err := netns.Dial(t.Context(), ns, netns.DialOptions{}, netip.MustParseAddrPort("127.0.0.1:15001"))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, unix.ECONNREFUSED)
	})
	four.stop(t)
	server.Remove("a")
	agent.stop(t)
	waiting.Close()
	if now := openFDs(t); now > before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

// A listener of another namespace is not taken for the pod's.
func TestListenersOfOtherNamespacesAreRefused(t *testing.T) {
	ns, foreign := netnstest.New(t), netnstest.New(t)
	l, err := netns.Listen(foreign, "tcp", netip.MustParseAddrPort("[::]:15001"), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := l.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := netns.Adopt(ns, fd, netns.ListenOptions{}); !errors.Is(err, netns.ErrNotListener) {
		t.Errorf("got %v", err)
	}
	if _, at, err := netns.ListenerAddr(foreign, fd); err != nil || at.Port() != 15001 {
		t.Errorf("got %v, %v", at, err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if _, _, err := netns.ListenerAddr(ns, null); !errors.Is(err, netns.ErrNotListener) {
		t.Errorf("no socket: %v", err)
	}
}

// An agent that has started anew takes the sockets of the ztunnel that serves a pod before it hands the pod to the next
// one, whichever of the two connects first.
func TestTheOneThatServesComesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	ns := netnstest.New(t)
	netnstest.Up(t, ns, "lo")
	before, _ := newServer(t, path)
	agent := start(t, before.Run)
	set(t, before, "a", ns)
	old := newSuccessor()
	one := start(t, newClient(t, path, old).Run)
	netnstest.Eventually(t, "the old one listens", func() bool { return old.has("a", ns) })
	one.stop(t)
	agent.stop(t)

	after, _ := newServerAfter(t, path, time.Hour)
	agent = start(t, after.Run)
	defer agent.stop(t)
	set(t, after, "a", ns)
	next := newSuccessor()
	two := start(t, newClient(t, path, next).Run)
	netnstest.Eventually(t, "the next one is connected", func() bool { return after.Connections() == 1 })
	one = start(t, newClient(t, path, old).Run)
	netnstest.Eventually(t, "the next one has the listener of the old one", func() bool { return next.has("a", ns) && next.was(1, true) })
	one.stop(t)
	two.stop(t)
	old.close()
	next.close()
}

// Where two ztunnels have opened sockets of their own for a pod, those of the one that ends are not held any longer: the
// kernel would give them connections that nobody accepts.
func TestNobodyIsLeftWithSocketsThatNobodyAcceptsFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	ns := netnstest.New(t)
	netnstest.Up(t, ns, "lo")
	before, _ := newServer(t, path)
	agent := start(t, before.Run)
	set(t, before, "a", ns)
	old := newSuccessor()
	one := start(t, newClient(t, path, old).Run)
	netnstest.Eventually(t, "the old one listens", func() bool { return old.has("a", ns) })
	one.stop(t)
	agent.stop(t)

	after, _ := newServer(t, path)
	agent = start(t, after.Run)
	defer agent.stop(t)
	set(t, after, "a", ns)
	next := newSuccessor()
	two := start(t, newClient(t, path, next).Run)
	netnstest.Eventually(t, "the next one listens beside", func() bool { return next.has("a", ns) && next.was(0, false) })
	one = start(t, newClient(t, path, old).Run)
	netnstest.Eventually(t, "the old one was told", func() bool { return old.was(1, true) })
	one.stop(t)
	old.close()
	netnstest.Eventually(t, "the next one was asked for its sockets", func() bool { return after.Connections() == 1 && next.asked() >= 2 })

	next.mu.Lock()
	l := next.listeners["a"]
	next.mu.Unlock()
	for range 32 {
		c, err := netns.Dial(t.Context(), ns, netns.DialOptions{}, netip.MustParseAddrPort("127.0.0.1:15001"))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got, err := l.AcceptConn()
		if err != nil {
			t.Fatalf("a connection has gone to a socket that nobody accepts from: %v", err)
		}
		got.Close()
		c.Close()
	}
	two.stop(t)
	next.close()
}
