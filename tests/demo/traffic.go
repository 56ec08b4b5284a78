package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// Files of the example that the steps put beside the manifests.
const (
	collectorFile = "collector.yaml"
	waypointFile  = "waypoint.yaml"
	newCartFile   = "cart-v2.yaml"
	canaryFile    = "canary.yaml"
	mirrorFile    = "mirror.yaml"
	retryFile     = "retry.yaml"
	faultFile     = "fault.yaml"
	limitFile     = "ratelimit.yaml"
)

// waypoint starts one, and binds the namespace to it when it is ready.
func (d *demo) waypoint(ctx context.Context) error {
	d.say("%s/ is in %s, and DIR is what the mesh follows", trafficDir, d.example)
	if err := d.add(waypointFile, collectorFile); err != nil {
		return err
	}
	err := d.await(ctx, "the waypoint is ready", func(st control.Status) (bool, error) {
		return len(st.Waypoints) == 1 && st.Waypoints[0].Programmed && len(podsOf(st, "collector")) == 1, nil
	})
	if err != nil {
		return err
	}
	if err := d.add(namespaceFile); err != nil {
		return err
	}
	d.say("ambit-mesh.io/use-waypoint: waypoint on namespace shop")
	newest, err := d.awaitCalls(ctx, "all calls take the waypoint", (*call).byWaypoint)
	if err != nil {
		return err
	}
	for i := range newest {
		d.say("%s", &newest[i])
	}
	var at access
	// Connections are logged when they have ended: those to the stock do soon.
	err = d.until(ctx, "the stock's node logs a connection by the waypoint", func() (bool, error) {
		at, err = d.spokenFor(ctx, "cart", "stock")
		return at.Peer != "", err
	})
	if err != nil {
		return err
	}
	d.say("%s: inbound src.identity=%s peer.identity=%s", at.Node, at.SrcIdentity, at.Peer)
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("a label sends traffic through a waypoint", "all %d services, such as %s", len(newest), newest[1].way())
	d.prove("a destination still knows its client", "%s, by %s", at.SrcIdentity, at.Peer)
	return nil
}

// spokenFor finds a connection that the waypoint has opened for a client, in the
// logs of the destination's node. There may be none.
func (d *demo) spokenFor(ctx context.Context, client, server string) (access, error) {
	for _, n := range nodes {
		all, err := d.accessLog(ctx, n)
		if err != nil {
			return access{}, err
		}
		for _, a := range all {
			if a.Direction == "inbound" && a.Error == "" && strings.HasSuffix(a.Peer, "/sa/waypoint") &&
				strings.HasSuffix(a.SrcIdentity, "/sa/"+client) && strings.HasSuffix(a.DstIdentity, "/sa/"+server) {
				return a, nil
			}
		}
	}
	return access{}, nil
}

// sample has a pod buy several times.
func (d *demo) sample(ctx context.Context, pod string, times int, flags ...string) (*answers, error) {
	return d.ask(ctx, pod, append(append([]string{"-n", fmt.Sprint(times)}, flags...), purchase(""))...)
}

func (d *demo) testers(ctx context.Context) error {
	// In this order, so that nobody gets the new cart by accident.
	if err := d.add(newCartFile, canaryFile); err != nil {
		return err
	}
	d.say("cart-v2 beside cart; an HTTPRoute that sends X-Group: testers to it, and nobody else")
	const some, many = 20, 50
	group := []string{"-H", "X-Group: testers"}
	var testers, others *answers
	err := d.until(ctx, "testers get the new cart", func() (bool, error) {
		var err error
		testers, err = d.sample(ctx, "visitor", some, group...)
		// Until the new cart is ready it answers nobody.
		return err == nil && testers.Versions["v2"] == some, err
	})
	if err != nil {
		return err
	}
	if others, err = d.sample(ctx, "visitor", many); err != nil {
		return err
	}
	d.say("%-10s %s", "testers", split(testers))
	d.say("%-10s %s", "others", split(others))
	if others.ok() < many || others.Versions["v1"] < many {
		return fmt.Errorf("of %d others some were not answered by the old cart: %v %v", many, others.Versions, others.Statuses)
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("a header shows a new version to testers only", "%d of %d testers got v2, %d of %d others v1", testers.Versions["v2"], some, others.Versions["v1"], many)
	return nil
}

// split says which versions answered.
func split(a *answers) string {
	return fmt.Sprintf("cart v1 %4d   cart v2 %4d   failed %d", a.Versions["v1"], a.Versions["v2"], a.failed())
}

func newID() string { return strings.ToLower(rand.Text()[:8]) }

func (d *demo) mirror(ctx context.Context) error {
	if err := d.add(mirrorFile); err != nil {
		return err
	}
	var a *answers
	var old, fresh int
	var id string
	err := d.until(ctx, "an order arrives at both carts", func() (bool, error) {
		var err error
		id = newID()
		if a, err = d.ask(ctx, "visitor", purchase(id)); err != nil {
			return false, err
		}
		if old, err = d.seen(ctx, "cart", id); err == nil {
			fresh, err = d.seen(ctx, "cart-v2", id)
		}
		return fresh > 0, err
	})
	if err != nil {
		return err
	}
	d.say("order %s: seen %d x by cart v1 and %d x by cart v2; the one answer: %s", id, old, fresh, lastLine(a.Body))
	if old != 1 || fresh != 1 || a.ok() != 1 || a.Versions["v1"] != 1 {
		return fmt.Errorf("want one order at each cart and the answer of v1: %v %v", a.Statuses, a.Versions)
	}
	if err := errors.Join(d.take(mirrorFile), d.unharmed(ctx)); err != nil {
		return err
	}
	d.prove("a mirrored order arrives at both, one answers", "order %s: %d at v1, %d at v2, answered by v1", id, old, fresh)
	return nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// sampleSize is how many purchases tell a split.
const sampleSize = 100

func (d *demo) canary(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(d.example, trafficDir, canaryFile))
	if err != nil {
		return err
	}
	var observed []string
	total := 0
	for _, share := range []int{0, 10, 50, 100} {
		text := strings.NewReplacer("weight: 100", fmt.Sprintf("weight: %d", 100-share), "weight: 0", fmt.Sprintf("weight: %d", share)).Replace(string(raw))
		if err := replaceFile(filepath.Join(d.files, canaryFile), []byte(text)); err != nil {
			return err
		}
		var a *answers
		err := d.until(ctx, fmt.Sprintf("cart v2 gets %d %%", share), func() (bool, error) {
			var err error
			if a, err = d.sample(ctx, "visitor", sampleSize); err != nil {
				return false, err
			}
			total += a.Requests
			if a.failed() > 0 {
				return false, fmt.Errorf("%d of %d purchases failed: %v: %s", a.failed(), a.Requests, a.Statuses, a.Body)
			}
			return near(a.Versions["v2"], share), nil
		})
		if err != nil {
			return err
		}
		d.say("$ edit %s: weight %3d / %-3d  →  %s", canaryFile, 100-share, share, split(a))
		observed = append(observed, fmt.Sprintf("%g", float64(100*a.Versions["v2"])/sampleSize))
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("a canary moves by editing a file", "0, 10, 50, 100 %% wanted, %s %% observed, 0 of %d failed", strings.Join(observed, ", "), total)
	return nil
}

// near reports whether n of a sample is what a share makes probable: within three
// standard deviations, which of 10 % none at all is not. An unlucky sample is repeated.
func near(n, share int) bool {
	p := float64(share) / 100
	off := float64(n) - sampleSize*p
	return off*off <= 9*sampleSize*p*(1-p)
}
