package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// demo is one run.
type demo struct {
	mesh
	self     string
	example  string // directory of the example
	files    string // a copy of its manifests, which the demo edits
	keep     bool
	up       bool // the mesh is ours to take down
	out      io.Writer
	began    time.Time
	proved   []proof
	sniffer  *sniffer
	pids     map[string]string
	netstate map[string]string
}

// proof is a line of the table at the end.
type proof struct{ claim, evidence string }

// step is one part of the demo.
type step struct {
	title string
	run   func(*demo, context.Context) error
}

func steps() []step {
	return []step{
		{"Start two nodes and the shop, not enrolled", (*demo).start},
		{"Read the traffic between the nodes before enrolment", (*demo).readPlaintext},
		{"Enrol the namespace with a label", (*demo).enrol},
		{"Read the traffic between the nodes again", (*demo).readCiphertext},
		{"Ask both ends who they talked to", (*demo).identities},
		{"Replace both ztunnels in the middle of a download", (*demo).replace},
		{"Ask both ends about datagrams, too", (*demo).datagrams},
		{"Let one service account in and another not", (*demo).policy},
		{"Ask for a waypoint", (*demo).waypoint},
		{"Show a new cart to testers only", (*demo).testers},
		{"Send the new cart copies of orders", (*demo).mirror},
		{"Move everybody to the new cart", (*demo).canary},
		{"Ask again when an answer is an error", (*demo).retry},
		{"Break the shop for one of its clients", (*demo).fault},
		{"Limit one of its clients", (*demo).limit},
		{"Follow one purchase through the shop", (*demo).trace},
		{"Take the waypoint away", (*demo).goAround},
		{"Take the label away", (*demo).release},
		{"Count what failed and what was restarted", (*demo).count},
	}
}

func newDemo(bin, example string, keep bool, out io.Writer) (*demo, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ambit, err := filepath.Abs(filepath.Join(bin, "ambit-local"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(ambit); err != nil {
		return nil, fmt.Errorf("%w: build it first (make demo does), or set -bin-dir", err)
	}
	example, err = filepath.Abs(example)
	return &demo{
		mesh: mesh{ambit: ambit, name: "demo"}, self: self, example: example, keep: keep, out: out, began: time.Now(),
	}, err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "    "+format+"\n", args...) }

func (d *demo) prove(claim, format string, args ...any) {
	d.proved = append(d.proved, proof{claim, fmt.Sprintf(format, args...)})
	d.say("✓ %s", claim)
}

// run runs all steps.
func (d *demo) run(ctx context.Context) (err error) {
	if d.files, err = os.MkdirTemp("", "ambit-demo-"); err != nil {
		return err
	}
	if err = os.CopyFS(d.files, os.DirFS(filepath.Join(d.example, "manifests"))); err != nil {
		return errors.Join(err, os.RemoveAll(d.files))
	}
	failed := ""
	for i, s := range steps() {
		fmt.Fprintf(d.out, "\n[%d/%d] %s (%.1fs)\n", i+1, len(steps()), s.title, time.Since(d.began).Seconds())
		if err = s.run(d, ctx); err != nil {
			failed = s.title
			fmt.Fprintf(d.out, "    ✗ %v\n", err)
			if d.up {
				d.explain()
			}
			break
		}
	}
	d.table(failed)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		err = fmt.Errorf("step %q failed: %s", failed, line)
	}
	return errors.Join(err, d.finish())
}

// explain shows the state in which a step failed.
func (d *demo) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := d.output(ctx, "status"); err == nil {
		fmt.Fprintf(d.out, "\nThe mesh at that moment:\n%s", out)
	}
	for _, name := range []string{"controlplane", "n1/nodeagent", "n1/ztunnel", "deploy/waypoint"} {
		if out, err := d.output(ctx, "logs", name); err == nil {
			lines := strings.Split(strings.TrimSpace(out), "\n")
			fmt.Fprintf(d.out, "\nlast lines of %s:\n%s\n", name, strings.Join(lines[max(0, len(lines)-5):], "\n"))
		}
	}
}

func (d *demo) table(failed string) {
	fmt.Fprintf(d.out, "\nWhat was proved (%.1fs)\n", time.Since(d.began).Seconds())
	w := tabwriter.NewWriter(d.out, 0, 4, 3, ' ', 0)
	for _, p := range d.proved {
		fmt.Fprintf(w, "  ✓ %s\t%s\n", p.claim, p.evidence)
	}
	if failed != "" {
		fmt.Fprintf(w, "  ✗ %s\tfailed\n", failed)
	}
	// The table goes where the user looks; if that is gone there is nobody to tell.
	_ = w.Flush()
}

// finish takes everything down, or says how to look around.
func (d *demo) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if d.sniffer != nil {
		err = d.sniffer.close()
	}
	if !d.up {
		// It never came up, or another one of the name runs: not ours to touch.
		return errors.Join(err, os.RemoveAll(d.files))
	}
	if d.keep {
		fmt.Fprintf(d.out, "\nThe mesh is still running. Look around:\n")
		for _, c := range []string{
			"status", "get services", "observe -f", "edges", "exec deploy/load -- shop get http://127.0.0.1:8080/stats",
			"exec visitor -- shop get -n 20 'http://web:8080/buy?sku=mug&card=1'", "logs n1/access", "logs controlplane", "down",
		} {
			verb, rest, _ := strings.Cut(c, " ")
			fmt.Fprintln(d.out, strings.TrimRight(fmt.Sprintf("  %s %s --name %s %s", d.ambit, verb, d.name, rest), " "))
		}
		fmt.Fprintf(d.out, "It follows edits of the manifests in %s. Enrol it again, with a waypoint and a canary:\n", d.files)
		for _, f := range []string{waypointFile, namespaceFile, canaryFile} {
			fmt.Fprintf(d.out, "  cp %s %s\n", filepath.Join(d.example, trafficDir, f), d.files)
		}
		fmt.Fprintln(d.out, "Delete that directory when you are done.")
		return err
	}
	_, derr := d.output(ctx, "down", "--grace", "1s")
	return errors.Join(err, derr, os.RemoveAll(d.files))
}

// await repeats a look at the mesh until it is as wanted.
func (d *demo) await(ctx context.Context, what string, look func(control.Status) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("waited 30 s in vain until %s", what))
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := d.status(ctx)
		if err == nil {
			var ok bool
			if ok, err = look(st); ok {
				return nil
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// pass lets the shop go on for a while.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
