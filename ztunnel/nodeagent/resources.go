package nodeagent

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/pods"
)

const (
	typePod       = "type.googleapis.com/ambit.node.v1.Pod"
	typeNamespace = "type.googleapis.com/ambit.node.v1.Namespace"
)

// resources turns the control plane's resources into words about pods.
type resources struct {
	set *pods.Set
	// complete says that the whole list of namespaces was seen once; from then
	// on there are differences only.
	complete atomic.Bool
}

func (r *resources) subscriptions() []xdsclient.Subscription {
	return []xdsclient.Subscription{
		// Namespaces first: they say which new pods must wait for their own word.
		{TypeURL: typeNamespace, Handle: r.namespaces},
		{TypeURL: typePod, Handle: r.pods},
	}
}

// unpack gives the resource's message, checked to be what its name says.
func unpack[M proto.Message](r *discoveryv3.Resource, into M, name func(M) string) error {
	if err := r.GetResource().UnmarshalTo(into); err != nil {
		return err
	}
	switch got := name(into); {
	case got == "":
		return errors.New("has no name of its own")
	case got != r.GetName():
		return fmt.Errorf("is about %q", got)
	}
	return nil
}

func (r *resources) pods(u xdsclient.Update) error {
	rejected := &xdsclient.Rejected{Errors: make(map[string]error)}
	for _, res := range u.Resources {
		p := &nodepb.Pod{}
		if err := unpack(res, p, (*nodepb.Pod).GetUid); err != nil {
			rejected.Errors[res.GetName()] = fmt.Errorf("pod resource: %w", err)
			continue
		}
		addrs, err := addresses(p.GetAddresses())
		if err != nil {
			rejected.Errors[res.GetName()] = fmt.Errorf("pod resource: %w", err)
			continue
		}
		r.set.Apply(pods.Word{
			Addrs: addrs,
			UID:   p.GetUid(), Name: p.GetName(), Namespace: p.GetNamespace(), ServiceAccount: p.GetServiceAccount(),
			Captured: p.GetCaptured(), Reason: p.GetReason(),
			DNSLeftAlone: p.GetDnsLeftAlone(),
		})
	}
	for _, uid := range u.Removed {
		r.set.Unname(uid)
	}
	return orNil(rejected)
}

func addresses(raw [][]byte) ([]netip.Addr, error) {
	var out []netip.Addr
	for i, b := range raw {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, fmt.Errorf("addresses[%d]: %d bytes are no IP address", i, len(b))
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

func (r *resources) namespaces(u xdsclient.Update) error {
	rejected := &xdsclient.Rejected{Errors: make(map[string]error)}
	names := make(map[string]bool, len(u.Resources)+len(u.Removed))
	for _, name := range u.Removed {
		names[name] = false
	}
	for _, res := range u.Resources {
		n := &nodepb.Namespace{}
		if err := unpack(res, n, (*nodepb.Namespace).GetName); err != nil {
			rejected.Errors[res.GetName()] = fmt.Errorf("namespace resource: %w", err)
			continue
		}
		names[n.GetName()] = n.GetEnrolled()
	}
	r.set.Enroll(names, !r.complete.Swap(true))
	return orNil(rejected)
}

func orNil(r *xdsclient.Rejected) error {
	if len(r.Errors) == 0 {
		return nil
	}
	return r
}

// plane tells how current the control plane's word is.
type plane struct {
	xds *xdsclient.Client // set before anything runs
}

var _ pods.ControlPlane = (*plane)(nil)

// Current implements pods.ControlPlane.
func (p *plane) Current() (bool, string) {
	connected, since, err := p.xds.Status()
	if !connected {
		switch {
		case err != nil:
			return false, fmt.Sprintf("no connection since %s: %v", since.UTC().Format("15:04:05 MST"), err)
		default:
			return false, "no connection yet"
		}
	}
	for _, url := range []string{typeNamespace, typePod} {
		select {
		case <-p.xds.Synced(url):
		default:
			return false, "its first answer is not complete"
		}
	}
	return true, ""
}
