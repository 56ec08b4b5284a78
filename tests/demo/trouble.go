package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func (d *demo) retry(ctx context.Context) error {
	const deal = "http://web:8080/deal?id="
	id := newID()
	a, err := d.ask(ctx, "visitor", deal+id)
	if err != nil {
		return err
	}
	if a.with(503) != 1 {
		return fmt.Errorf("the deal of the day should fail at first: %v", a.Statuses)
	}
	n, err := d.seen(ctx, "web", id)
	if err != nil {
		return err
	}
	d.say("before: web was asked %d x, the visitor got 503: %s", n, lastLine(a.Body))
	if err := d.add(retryFile); err != nil {
		return err
	}
	err = d.until(ctx, "the deal of the day is asked for again", func() (bool, error) {
		id = newID()
		if a, err = d.ask(ctx, "visitor", deal+id); err != nil || a.ok() == 0 {
			return false, err
		}
		n, err = d.seen(ctx, "web", id)
		return true, err
	})
	if err != nil {
		return err
	}
	d.say("after:  web was asked %d x, the visitor got 200: %s", n, lastLine(a.Body))
	if n < 2 {
		return fmt.Errorf("web was asked %d times: not again", n)
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("a flaky call is asked again", "%d calls at web, one answer at the visitor: 200", n)
	return nil
}

// onlyVisitor puts a file in place that changes what the visitor gets, and nobody
// else, and takes it away again.
func (d *demo) onlyVisitor(ctx context.Context, file, what string, times int, changed func(*answers) bool) (visitor, load *answers, err error) {
	if err := d.add(file); err != nil {
		return nil, nil, err
	}
	err = d.until(ctx, what, func() (bool, error) {
		visitor, err = d.sample(ctx, "visitor", times)
		return err == nil && changed(visitor), err
	})
	if err != nil {
		return nil, nil, err
	}
	if load, err = d.sample(ctx, "deploy/load", times); err != nil {
		return nil, nil, err
	}
	d.say("%-10s %s", "visitor", visitor)
	d.say("%-10s %s", "load", load)
	if load.failed() > 0 {
		return nil, nil, fmt.Errorf("it should concern the visitor alone, and load got %v: %s", load.Statuses, load.Body)
	}
	if err := d.showLast(ctx, "visitor"); err != nil {
		return nil, nil, err
	}
	return visitor, load, errors.Join(d.take(file), d.unharmed(ctx))
}

// showLast prints the newest call of a pod as observe has it.
func (d *demo) showLast(ctx context.Context, pod string) error {
	out, err := d.output(ctx, "observe", "--from", "shop/"+pod, "--since", "5s", "--last", "1", "--status", "400+")
	if err == nil {
		d.say("%s", strings.TrimSpace(out))
	}
	return err
}

// String tells the statuses.
func (a *answers) String() string {
	text := fmt.Sprintf("%d x 200", a.ok())
	for _, code := range []int{429, 503} {
		if n := a.with(code); n > 0 {
			text += fmt.Sprintf(", %d x %d", n, code)
		}
	}
	if a.RetryAfter != "" {
		text += ", Retry-After: " + a.RetryAfter + " s"
	}
	return text
}

func (d *demo) fault(ctx context.Context) error {
	const times = 10
	visitor, load, err := d.onlyVisitor(ctx, faultFile, "the visitor gets errors", times, func(a *answers) bool { return a.with(503) == times })
	if err != nil {
		return err
	}
	d.prove("a fault is injected for one client", "%d of %d for visitor are 503, %d of %d for load are 200", visitor.with(503), times, load.ok(), times)
	return nil
}

func (d *demo) limit(ctx context.Context) error {
	const times = 10
	visitor, load, err := d.onlyVisitor(ctx, limitFile, "the visitor is limited", times, func(a *answers) bool {
		return a.with(429) > 0 && a.ok()+a.with(429) == times
	})
	if err != nil {
		return err
	}
	if visitor.RetryAfter == "" {
		return fmt.Errorf("who is limited should be told when to come back")
	}
	d.prove("a rate limit holds for one client", "visitor: %s; load: %d x 200", visitor, load.ok())
	return d.until(ctx, "the visitor is not limited any more", func() (bool, error) {
		a, err := d.sample(ctx, "visitor", 1)
		return err == nil && a.failed() == 0, err
	})
}

func (d *demo) trace(ctx context.Context) error {
	d.say("$ ambit-local exec visitor -- shop get -trace '%s'", purchase(""))
	a, err := d.ask(ctx, "visitor", "-trace", purchase(""))
	if err != nil {
		return err
	}
	if a.failed() > 0 {
		return fmt.Errorf("the purchase failed: %v: %s", a.Statuses, a.Body)
	}
	asked := [...]string{"GET /buy", "POST /order", "POST /shop.Catalog/Describe"}
	var tree string
	err = d.until(ctx, "the collector has the whole trace", func() (bool, error) {
		page, err := d.ask(ctx, "deploy/collector", "http://127.0.0.1:8080/trace/"+a.Trace)
		if err != nil {
			return false, err
		}
		tree = page.Body
		return page.ok() == 1 && below(tree, asked[:]), nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, tree)
	}
	lines := strings.Split(strings.TrimSpace(tree), "\n")
	for _, line := range lines {
		d.say("%s", line)
	}
	d.prove("one trace shows a purchase across services", "%d spans, web over cart over catalog, the shop passes headers on", len(lines)-1)
	return nil
}

// below reports whether a tree has each of the texts further in than the one
// before.
func below(tree string, texts []string) bool {
	deep := -1
	for line := range strings.Lines(tree) {
		if len(texts) == 0 {
			return true
		}
		if at := strings.Index(line, texts[0]); at > deep {
			deep, texts = at, texts[1:]
		}
	}
	return len(texts) == 0
}

// goAround unbinds the namespace, and takes away all that needs a waypoint.
func (d *demo) goAround(ctx context.Context) error {
	before, err := d.stats(ctx)
	if err != nil {
		return err
	}
	if err := d.label(true); err != nil {
		return err
	}
	d.say("ambit-mesh.io/use-waypoint is gone from namespace shop")
	newest, err := d.awaitCalls(ctx, "all calls go without a waypoint", func(c *call) bool { return !c.byWaypoint() && c.Security == "mtls" })
	if err != nil {
		return err
	}
	if err := d.take(waypointFile, canaryFile, retryFile); err != nil {
		return err
	}
	err = d.await(ctx, "the waypoint is gone", func(st control.Status) (bool, error) {
		return len(st.Waypoints) == 0 && len(podsOf(st, "waypoint")) == 0, nil
	})
	if err != nil {
		return err
	}
	for i := range newest {
		d.say("%s", &newest[i])
	}
	a, err := d.sample(ctx, "visitor", sampleSize/2)
	if err != nil {
		return err
	}
	d.say("%-10s %s: by connection, no longer by weight", "visitor", split(a))
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	after, err := d.stats(ctx)
	if err != nil {
		return err
	}
	if a.failed() > 0 {
		return fmt.Errorf("of %d purchases %d failed: %v: %s", a.Requests, a.failed(), a.Statuses, a.Body)
	}
	d.prove("without the waypoint it goes on at layer 4", "%s, %d purchases meanwhile, 0 failed", newest[1].way(), after.Requests-before.Requests)
	return nil
}
