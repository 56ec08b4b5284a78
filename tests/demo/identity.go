package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// nodes are those of the demo.
var nodes = [...]string{"n1", "n2"}

// ends gives both ends of connections that crossed from one node to the other.
func (d *demo) ends(ctx context.Context, want func(source, destination access) bool) (source, destination access, err error) {
	var logs [len(nodes)][]access
	for i, n := range nodes {
		if logs[i], err = d.accessLog(ctx, n); err != nil {
			return source, destination, err
		}
	}
	for i := range nodes {
		inbound := make(map[string]access)
		for _, a := range logs[1-i] {
			if a.Direction == "inbound" && a.id() != "" {
				inbound[a.id()] = a
			}
		}
		for _, s := range logs[i] {
			if t, ok := inbound[s.id()]; ok && s.Direction == "outbound" && want(s, t) {
				return s, t, nil
			}
		}
	}
	return source, destination, errNoSuchConnection
}

var errNoSuchConnection = errors.New("no such connection is in the access logs of both nodes")

// awaitEnds repeats ends: a connection is logged when it has ended.
func (d *demo) awaitEnds(ctx context.Context, want func(source, destination access) bool) (source, destination access, err error) {
	return d.askForEnds(ctx, func() error { return nil }, want)
}

// askForEnds is awaitEnds, and asks for one more connection each time.
func (d *demo) askForEnds(ctx context.Context, ask func() error, want func(source, destination access) bool) (source, destination access, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		if err := ask(); err != nil {
			return source, destination, err
		}
		source, destination, err = d.ends(ctx, want)
		if !errors.Is(err, errNoSuchConnection) || pass(ctx, 300*time.Millisecond) != nil {
			return source, destination, err
		}
	}
}

func (d *demo) identities(ctx context.Context) error {
	for _, pair := range [][2]string{{"web", "cart"}, {"cart", "catalog"}, {"cart", "stock"}} {
		s, err := d.agree(ctx, pair[0], pair[1])
		if err != nil {
			return err
		}
		if pair[0] == "web" {
			d.prove("both ends know each other's identity", "%s and %s", s.SrcIdentity, s.DstIdentity)
		}
	}
	return nil
}

// datagrams comes some steps later: a session over UDP is logged when nothing was
// said for ten seconds.
func (d *demo) datagrams(ctx context.Context) error {
	s, err := d.agree(ctx, "web", "rates")
	if err != nil {
		return err
	}
	d.prove("they do over UDP, too", "%s and %s", s.SrcIdentity, s.DstIdentity)
	return nil
}

// agree checks that both ends of a connection, or session, tell the same.
func (d *demo) agree(ctx context.Context, client, server string) (access, error) {
	s, t, err := d.awaitEnds(ctx, func(s, t access) bool {
		return s.Error == "" && strings.HasSuffix(s.SrcIdentity, "/sa/"+client) && strings.HasSuffix(s.DstIdentity, "/sa/"+server)
	})
	if err != nil {
		return s, fmt.Errorf("%s to %s: %w", client, server, err)
	}
	if s.SrcIdentity != t.SrcIdentity || s.DstIdentity != t.DstIdentity || s.Security != "mutual_tls" || t.Security != "mutual_tls" {
		return s, fmt.Errorf("the two ends do not agree: %s and %s", s, t)
	}
	d.say("%s: %s", s.Node, s)
	d.say("%s: %s", t.Node, t)
	return s, nil
}

// String gives what matters here.
func (a access) String() string {
	text := fmt.Sprintf("%s %s -> %s %s", a.Direction, a.SrcIdentity, a.DstIdentity, a.Security)
	if a.Policy != "" {
		text += fmt.Sprintf(" policy=%s rule=%s", a.Policy, a.Rule)
	}
	if a.Error != "" {
		text += " error=" + a.Error
	}
	return text
}

func (d *demo) policy(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(d.example, "policies", policyFile))
	if err != nil {
		return err
	}
	if _, err := d.exec(ctx, "visitor", "shop", "get", "http://cart:8080/healthz"); err != nil {
		return fmt.Errorf("without a policy the visitor should reach the cart: %w", err)
	}
	if err := replaceFile(filepath.Join(d.files, policyFile), raw); err != nil {
		return err
	}
	var refusal error
	err = d.await(ctx, "the policy keeps the visitor out of the cart", func(control.Status) (bool, error) {
		_, refusal = d.exec(ctx, "visitor", "shop", "get", "http://cart:8080/healthz")
		return refusal != nil, nil
	})
	if err != nil {
		return err
	}
	d.say("visitor: %v", refusal)
	// As often as it takes to come to the cart on the other node.
	ask := func() error {
		if out, err := d.exec(ctx, "visitor", "shop", "get", "http://cart:8080/healthz"); err == nil {
			return fmt.Errorf("the visitor reached the cart again: %s", out)
		}
		return nil
	}
	s, t, err := d.askForEnds(ctx, ask, func(s, t access) bool {
		return strings.HasSuffix(s.SrcIdentity, "/sa/visitor") && strings.Contains(s.Error+s.Policy, policyName) && strings.Contains(t.Error+t.Policy, policyName)
	})
	if err != nil {
		return fmt.Errorf("the refusal does not name the policy at both ends: %w", err)
	}
	d.say("%s: %s", s.Node, s)
	d.say("%s: %s", t.Node, t)
	if err := d.unharmed(ctx); err != nil {
		return fmt.Errorf("the policy should leave web alone: %w", err)
	}
	d.prove("a policy lets web in and visitor not", "web goes on without a failure, visitor is refused by %s", policyName)
	d.prove("both ends name the policy", "%s on %s, %s on %s", s.Direction, s.Node, t.Direction, t.Node)
	return nil
}
