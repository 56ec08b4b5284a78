package xds

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

// maxTypes bounds the types that a client can make up.
const maxTypes = 16

// client is one stream. Its fields belong to the goroutine of run, but for
// report and wake.
type client struct {
	server *Server
	caller nodes.Caller
	// name is how logs and limits know the caller, viewer what it may see.
	name, viewer string

	log    *zap.Logger
	wake   chan struct{} // capacity 1
	report *report

	// subs in the order of pushing: what is referred to goes first.
	subs  []*subscription
	push  *push // the one that is under way, or nil
	nonce uint64
}

// find gives the subscription to a type, or nil.
func (c *client) find(typeURL string) *subscription {
	for _, sub := range c.subs {
		if sub.typeURL == typeURL {
			return sub
		}
	}
	return nil
}

// subscribe makes a subscription. Authorization precedes everything, so that
// policies are known before the workloads that name them.
func (c *client) subscribe(typeURL string) (*subscription, error) {
	if len(c.subs) >= maxTypes {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d resource types on one stream", maxTypes)
	}
	sub := newSubscription(typeURL)
	if typeURL == compile.TypeAuthorization {
		c.subs = append([]*subscription{sub}, c.subs...)
	} else {
		c.subs = append(c.subs, sub)
	}
	return sub, nil
}

// handle takes one request in: an answer to a response, a change of the
// subscription, or both. It reports whether it answered what was waited for.
func (c *client) handle(req *discovery.DeltaDiscoveryRequest) (answered bool, err error) {
	c.report.identify(req.GetNode().GetId())
	sub := c.find(req.GetTypeUrl())
	first := sub == nil
	if first {
		if !serves(c.caller, req.GetTypeUrl()) {
			return false, c.forbidden(req.GetTypeUrl())
		}
		if sub, err = c.subscribe(req.GetTypeUrl()); err != nil {
			return false, err
		}
	} else if nonce := req.GetResponseNonce(); nonce != "" {
		answered = c.answered(sub, nonce, req)
	}
	if first || len(req.GetResourceNamesSubscribe()) > 0 || len(req.GetResourceNamesUnsubscribe()) > 0 {
		sub.change(first, req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe(), req.GetInitialResourceVersions(), c.server.store)
	}
	if limit := c.server.cfg.MaxNames; len(sub.names) > limit || len(sub.asked) > limit {
		return false, status.Errorf(codes.ResourceExhausted, "more than %d names of %s; subscribe to %q", limit, sub.typeURL, wildcard)
	}
	c.noteForeign(sub, req.GetResourceNamesSubscribe())
	c.report.subscribed(sub)
	return answered, nil
}

// forbidden ends a client that asks for a type which is not for it.
func (c *client) forbidden(typeURL string) error {
	c.server.disconnected("forbidden")
	c.log.Warn("subscription refused: the type is not for this caller", zap.String("type", clip(typeURL)))
	return status.Errorf(codes.PermissionDenied, "%s is not served to %s", clip(typeURL), c.name)
}

// noteForeign logs that a client asks by name for what is another's. It is told
// the same as if there were no such thing.
func (c *client) noteForeign(sub *subscription, names []string) {
	for _, n := range names {
		for _, st := range c.server.store.lookup(sub.typeURL, n) {
			if !st.liveFor(c.viewer) {
				c.log.Warn("resource refused: it is another's", zap.String("type", sub.typeURL), zap.String("name", clip(n)))
				return
			}
		}
	}
}

// answered takes an ACK or a NACK. One of a response that is not waited for is
// stale and says nothing.
func (c *client) answered(sub *subscription, nonce string, req *discovery.DeltaDiscoveryRequest) bool {
	p := c.push
	if p == nil || p.sub != sub {
		return false
	}
	names, ok := p.waiting[nonce]
	if !ok {
		return false
	}
	delete(p.waiting, nonce)
	if detail := req.GetErrorDetail(); detail != nil {
		p.refused = true
		c.server.metrics.nacks.WithLabelValues(typeLabel(sub.typeURL)).Inc()
		c.report.nack(sub.typeURL, detail.GetMessage())
		c.log.Warn("client refused a push; it keeps what it had, and is told again when something changes",
			zap.String("type", sub.typeURL), zap.String("nonce", nonce), zap.Strings("names", names), zap.Int32("code", detail.GetCode()), zap.String("detail", clip(detail.GetMessage())))
	}
	if !p.finished() {
		return true
	}
	c.push = nil
	sub.refused = p.refused
	if !p.refused {
		sub.advance(p.upTo)
		c.server.moved(c, sub)
		c.server.metrics.ackSeconds.WithLabelValues(typeLabel(sub.typeURL)).Observe(time.Since(p.started).Seconds())
	}
	return true
}

// pump begins the next push if none is under way.
func (c *client) pump(ctx context.Context) error {
	if c.push != nil {
		return nil
	}
	for _, sub := range c.subs {
		if err := c.collect(ctx, sub); err != nil || c.push != nil {
			return err
		}
	}
	// What the first pass brought up to date may have let a withdrawal go.
	for _, sub := range c.subs {
		if len(sub.withdrawn) > 0 {
			if err := c.collect(ctx, sub); err != nil || c.push != nil {
				return err
			}
		}
	}
	return nil
}

func (c *client) collect(ctx context.Context, sub *subscription) error {
	if sub.fresh {
		// A first answer costs as much as the mesh is large.
		select {
		case c.server.building <- struct{}{}:
			defer func() { <-c.server.building }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var after *subscription
	if t := withdrawAfter(sub.typeURL); t != "" {
		after = c.find(t)
	}
	p, ok := collect(c.server.store, c.viewer, sub, after, c.server.cfg.ChunkBytes)
	if !ok {
		c.server.disconnected("behind")
		return status.Errorf(codes.Aborted, "too far behind in %s: removals have been forgotten; connect again with initial_resource_versions", sub.typeURL)
	}
	c.push = p
	if p != nil {
		p.started = time.Now()
	} else if !sub.refused {
		sub.advance(sub.position)
	}
	c.server.moved(c, sub)
	return nil
}

// chunk gives the next response of the push under way, nil if there is none.
func (c *client) chunk() *discovery.DeltaDiscoveryResponse {
	if c.push == nil || c.push.done {
		return nil
	}
	p := c.push
	resp, names := p.next()
	c.nonce++
	resp.Nonce = strconv.FormatUint(c.nonce, 16)
	resp.SystemVersionInfo = strconv.FormatUint(p.upTo, 10)
	p.waiting[resp.Nonce] = someNames(resp)
	label := typeLabel(p.sub.typeURL)
	c.server.metrics.pushes.WithLabelValues(label).Inc()
	c.server.metrics.pushed.WithLabelValues(label).Add(float64(names))
	c.report.pushed(p.sub, names)
	if ce := c.log.Check(zap.DebugLevel, "push"); ce != nil {
		ce.Write(zap.String("type", p.sub.typeURL), zap.String("nonce", resp.Nonce), zap.Int("resources", len(resp.Resources)), zap.Int("removed", len(resp.RemovedResources)))
	}
	return resp
}

// stalled is the error that ends a client which makes no progress.
func (c *client) stalled() error {
	c.server.disconnected("stalled")
	what := "the responses sent"
	if c.push != nil {
		what = fmt.Sprintf("%s, %d responses unanswered", c.push.sub.typeURL, len(c.push.waiting))
	}
	return status.Errorf(codes.DeadlineExceeded, "no progress for %s with %s", c.server.cfg.StallTimeout, what)
}

// clip bounds what a client can make us log.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 1024 {
		return s[:1024] + "..."
	}
	return s
}
