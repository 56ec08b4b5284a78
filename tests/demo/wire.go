package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

// needles are what the shop says in each of its protocols.
var needles = [...]string{
	"card=4111-1111-1111-1111",           // HTTP, in the request
	"Thank you for shopping at",          // HTTP, in the answer
	"220 Welcome to the stock",           // raw TCP, said by the server first
	"Ambit mug, 9.90 EUR",                // gRPC
	"paid with card 4111-1111-1111-1111", // HTTP, behind the front
	"RATE one euro is",                   // UDP
}

// window is how long the wire is read for one report.
const window = time.Second

// collector is where waypoints send spans, once there are waypoints and it.
const collector = "collector.observability:4317"

// start brings the shop up and remembers how it is.
func (d *demo) start(ctx context.Context) error {
	out, err := d.output(ctx, "up", "-f", d.files, "--detach", "--timeout", "60s", "--component-arg", "waypoint=--otlp-endpoint="+collector)
	if err != nil {
		return err
	}
	d.up = true
	fmt.Fprint(d.out, out)
	var st control.Status
	err = d.await(ctx, "purchases succeed one after the other", func(now control.Status) (bool, error) {
		st = now
		s, err := d.stats(ctx)
		return s.Requests > 0, err
	})
	if err != nil {
		return err
	}
	for _, p := range st.Pods {
		if p.Captured == "yes" {
			return fmt.Errorf("pod %s is captured although nothing enrols it", p.Name)
		}
	}
	d.pids = processes(st)
	if d.netstate, err = d.netstates(ctx, st); err != nil {
		return err
	}
	d.sniffer, err = d.sniff(context.WithoutCancel(ctx), d.self, needles[:])
	return err
}

// processes names what must not be restarted.
func processes(st control.Status) map[string]string {
	all := make(map[string]string)
	for _, p := range st.Pods {
		all["pod "+p.Name] = fmt.Sprint(p.Pids, " restarts ", p.Restarts)
	}
	for _, c := range st.Components {
		all[c.Name] = fmt.Sprint(c.Pid)
	}
	return all
}

// netstates writes down the network namespaces of all pods.
func (d *demo) netstates(ctx context.Context, st control.Status) (map[string]string, error) {
	argv := []string{d.self, "netstate"}
	for _, p := range st.Pods {
		argv = append(argv, p.Netns)
	}
	out, err := d.exec(ctx, "wire", argv...)
	if err != nil {
		return nil, err
	}
	var by map[string]string
	if err := json.Unmarshal([]byte(out), &by); err != nil {
		return nil, fmt.Errorf("network namespaces: %w", err)
	}
	all := make(map[string]string)
	for _, p := range st.Pods {
		all[p.Name] = by[p.Netns]
	}
	return all, nil
}

// windows is how many captures are made until one shows what it has to.
const windows = 16

// capture reads the wire for a while. A capture that lost frames proves nothing, and is
// made again.
func (d *demo) capture(ctx context.Context) (r sniff.Report, err error) {
	for range windows {
		if _, err := d.sniffer.report(); err != nil {
			return r, err
		}
		if err := pass(ctx, window); err != nil {
			return r, err
		}
		if r, err = d.sniffer.report(); err != nil || r.Dropped == 0 {
			return r, err
		}
	}
	return r, fmt.Errorf("the capture lost %d frames: the machine is too busy to prove anything", r.Dropped)
}

func (d *demo) readPlaintext(ctx context.Context) error {
	var r sniff.Report
	for range windows { // few purchases on a busy machine may all have stayed on their nodes
		var err error
		if r, err = d.capture(ctx); err != nil {
			return err
		}
		if len(r.Found) == len(needles) {
			break
		}
	}
	if err := d.allFound(r); err != nil {
		return err
	}
	d.prove("before: everything is readable on the wire", "%d of %d known texts in %d bytes, none by tunnel", len(r.Found), len(needles), r.OpenBytes)
	return nil
}

// allFound checks that every known text crossed the wire in the open.
func (d *demo) allFound(r sniff.Report) error {
	for _, n := range needles {
		if r.Found[n] == 0 {
			return fmt.Errorf("the capture does not show %q: there were %d bytes in %d segments", n, r.Bytes, r.Segments)
		}
		d.say("%4d x  %s", r.Found[n], r.Excerpts[n])
	}
	if r.MeshBytes > 0 {
		return fmt.Errorf("%d bytes went by tunnel although nothing is enrolled", r.MeshBytes)
	}
	return nil
}

func (d *demo) readCiphertext(ctx context.Context) error {
	// Connections from before the label go on as they are until they end. The
	// shop renews its own every second.
	var r sniff.Report
	for range windows {
		var err error
		if r, err = d.capture(ctx); err != nil {
			return err
		}
		if r.OpenBytes == 0 {
			break
		}
		d.say("%d bytes of connections from before the label are still on their way: %v", r.OpenBytes, r.OpenFlows)
	}
	t, q := r.TLS, r.QUIC
	d.say("%d bytes to and from port 15008: %d TLS handshake records, %d application data records, %d others", r.MeshBytes, t.Handshake, t.ApplicationData, t.Other)
	d.say("and over UDP %d QUIC handshake datagrams and %d protected ones", q.Handshake, q.Protected)
	switch {
	case r.OpenBytes > 0:
		return fmt.Errorf("%d bytes do not go by tunnel: %v", r.OpenBytes, r.OpenFlows)
	case len(r.Found) > 0:
		return fmt.Errorf("known texts are readable on the wire: %v", slices.Sorted(maps.Keys(r.Found)))
	case r.MeshBytes == 0 || t.ApplicationData == 0:
		return fmt.Errorf("nothing goes by tunnel")
	case q.Protected == 0:
		return fmt.Errorf("no datagram goes by tunnel")
	case t.Foreign > 0 || q.Foreign > 0 || r.Unread > 0:
		return fmt.Errorf("of the bytes to port 15008 %d are no TLS, %d no QUIC and %d cannot be told", t.Foreign, q.Foreign, r.Unread)
	}
	d.prove("after: none of it is readable", "0 of %d known texts in %d bytes", len(needles), r.MeshBytes)
	d.prove("after: nothing but TLS records on tcp port 15008", "%d records, 0 bytes beside them", t.ApplicationData+t.Handshake+t.Other)
	d.prove("after: UDP goes by tunnel, nothing but QUIC on udp port 15008", "%d datagrams, 0 bytes beside them", q.Handshake+q.Protected)
	return nil
}

// handshakes checks those that the capture saw since enrolment began.
func (d *demo) handshakes(r sniff.Report) error {
	t := r.TLS
	if t.Hellos == 0 || t.Hellos13 != t.Hellos || t.Offers13 != t.Offers {
		return fmt.Errorf("of %d handshakes seen %d settled on TLS 1.3", t.Hellos, t.Hellos13)
	}
	d.prove("every tunnel settled on TLS 1.3", "%d of %d handshakes read off the wire", t.Hellos13, t.Hellos)
	return nil
}
