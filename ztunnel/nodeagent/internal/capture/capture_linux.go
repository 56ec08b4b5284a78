package capture

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// Capturer captures pods. It holds no state of theirs and is safe for concurrent
// use on different namespaces.
type Capturer struct {
	shapes map[target]*shape
}

// New makes a Capturer. It tries the rules in a namespace of its own first, and
// fails with the name of the kernel feature that is missing.
func New() (*Capturer, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("probe capture: %w", err)
	}
	defer ns.Close()
	c := &Capturer{shapes: make(map[target]*shape)}
	err = inside(ns, func(k *kernel) error {
		if err := k.loopbackUp(); err != nil {
			return err
		}
		for _, p := range targets() {
			if err := replaceTable(k.nft, p); err != nil {
				return errors.Join(missingFeatures(k.nft), err)
			}
			s, err := readTable(k.raw)
			if err != nil {
				return err
			}
			if s == nil {
				return fmt.Errorf("table inet %s is not there after it was added", tableName)
			}
			c.shapes[p] = s
		}
		if _, err := ensureRouting(k.route); err != nil {
			return fmt.Errorf("policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES): %w", err)
		}
		if _, err := k.connections(); err != nil {
			return fmt.Errorf("socket monitoring (CONFIG_INET_DIAG): %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("probe capture: %w", err)
	}
	return c, nil
}

// Capture brings the namespace to the captured state and names what it had to
// change for that, nothing if all was in place.
func (c *Capturer) Capture(ns *netns.Namespace, o Options) (changed []string, err error) {
	return c.apply(ns, target{phaseCaptured, o})
}

// StopNew leaves new connections alone from now on. Those that are captured go
// on. It is the first half of a release, and changes nothing in a namespace that
// is not captured.
func (c *Capturer) StopNew(ns *netns.Namespace) error {
	state, err := c.Inspect(ns)
	if err != nil || state == Absent {
		return err
	}
	_, err = c.apply(ns, target{phase: phaseDraining})
	return err
}

func (c *Capturer) apply(ns *netns.Namespace, p target) (changed []string, err error) {
	err = inside(ns, func(k *kernel) error {
		s, err := readTable(k.raw)
		if err != nil {
			return err
		}
		// Routes first: from the first redirected packet on, replies must find
		// their way.
		if changed, err = ensureRouting(k.route); err != nil {
			return err
		}
		diff := s.diff(c.shapes[p])
		if len(diff) == 0 {
			return nil
		}
		changed = append(diff, changed...)
		if err := replaceTable(k.nft, p); err != nil {
			return err
		}
		// Unlike a TCP connection, a UDP exchange has no end: those that the old rules
		// began would keep to them for as long as somebody sends.
		return k.forgetDNS()
	})
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", ns, err)
	}
	return changed, nil
}

// Connections counts the connections that Release would break.
func (c *Capturer) Connections(ns *netns.Namespace) (Connections, error) {
	var n Connections
	err := inside(ns, func(k *kernel) (err error) {
		n, err = k.connections()
		return err
	})
	if err != nil {
		return Connections{}, fmt.Errorf("connections of %s: %w", ns, err)
	}
	return n, nil
}

// Release removes everything that Capture added. A namespace that was never
// captured is left as it is.
func (c *Capturer) Release(ns *netns.Namespace) error {
	err := inside(ns, func(k *kernel) error {
		s, err := readTable(k.raw)
		if err != nil {
			return err
		}
		if s != nil {
			if err := deleteTable(k.nft); err != nil {
				return err
			}
			if err := k.forgetDNS(); err != nil {
				return err
			}
		}
		return removeRouting(k.route)
	})
	if err != nil {
		return fmt.Errorf("release %s: %w", ns, err)
	}
	return nil
}

// State is what Inspect finds.
type State string

// The states of a namespace.
const (
	Absent   State = "absent"   // nothing of ours
	Captured State = "captured" // all rules are in place
	Draining State = "draining" // redirects are gone, the rest is in place
	Damaged  State = "damaged"  // something is missing or changed
)

// Inspect tells in which state a namespace is, and changes nothing.
func (c *Capturer) Inspect(ns *netns.Namespace) (State, error) {
	state := Damaged
	err := inside(ns, func(k *kernel) error {
		s, err := readTable(k.raw)
		if err != nil {
			return err
		}
		ours, all, err := findRouting(k.route)
		if err != nil {
			return err
		}
		switch {
		case s == nil && !ours:
			state = Absent
		case !all:
		default:
			for t, shape := range c.shapes {
				if len(s.diff(shape)) > 0 {
					continue
				}
				if state = Captured; t.phase == phaseDraining {
					state = Draining
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("inspect %s: %w", ns, err)
	}
	return state, nil
}

// kernel is netlink inside one namespace.
type kernel struct {
	nft   *nftables.Conn
	raw   *nfnetlink.Conn
	route *netlink.Handle
}

// netlinkTimeout bounds each answer of the kernel.
const netlinkTimeout = 10 * time.Second

// inside runs f on a thread in ns, with netlink sockets opened there.
func inside(ns *netns.Namespace, f func(*kernel) error) error {
	return ns.Do(func() error {
		nft, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("nftables netlink (CONFIG_NF_TABLES): %w", err)
		}
		defer func() { _ = nft.CloseLasting() }()
		raw, err := nfnetlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return fmt.Errorf("nftables netlink (CONFIG_NF_TABLES): %w", err)
		}
		defer raw.Close()
		route, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_INET_DIAG, unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("route netlink: %w", err)
		}
		defer route.Close()
		if err := route.SetSocketTimeout(netlinkTimeout); err != nil {
			return fmt.Errorf("route netlink: %w", err)
		}
		return f(&kernel{nft: nft, raw: raw, route: route})
	})
}

func (k *kernel) loopbackUp() error {
	lo, err := k.route.LinkByName("lo")
	if err != nil {
		return err
	}
	return k.route.LinkSetUp(lo)
}
