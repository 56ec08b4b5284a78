package netns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// flowLine is the part of a line of `ambit local observe -o json` that tests look
// at.
type flowLine struct {
	Verdict, Security, Reason string
	Source, Destination       struct{ Namespace, Workload, Identity string }
	Service                   *struct{ Name string }
	Policy                    *struct{ Namespace, Name, Rule string }
	Hops                      []struct {
		Reporter, Node string
		Told           bool
	}
	BytesSent, BytesReceived uint64
}

// observe gives the calls that flags choose.
func (m *mesh) observe(flags ...string) []flowLine {
	m.t.Helper()
	cmd := m.command(m.t.Context(), append([]string{"observe", "-o", "json", "--since", "1h"}, flags...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		m.t.Fatalf("observe: %v\n%s", err, stderr.String())
	}
	var lines []flowLine
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var l flowLine
		if err := dec.Decode(&l); err != nil {
			m.t.Fatalf("observe: %v\n%s", err, out)
		}
		lines = append(lines, l)
	}
	return lines
}

// whole waits until flags choose a call that both ends, or as many as named, tell
// of, and gives it.
func (m *mesh) whole(hops string, flags ...string) (found flowLine) {
	m.t.Helper()
	m.until(fmt.Sprintf("%s tell of %v", hops, flags), func() bool {
		for _, l := range m.observe(flags...) {
			var have []string
			for _, h := range l.Hops {
				if h.Told {
					have = append(have, h.Reporter+"@"+h.Node)
				}
			}
			if found = l; strings.Join(have, " ") == hops {
				return true
			}
		}
		return false
	})
	return found
}

// What became of connections is told by both ends as one, with who decided.
func TestFlowsAreObserved(t *testing.T) {
	files := world()
	files["policy.yaml"] = allowFrom("in", "only-n1", "server-n2", "server-n1")
	m := start(t, files)
	m.captured("in")
	target := "server-n2.in.svc.cluster.local:8080"
	m.until("the policy is enforced", func() bool {
		return m.checks("in", "client", []check{{Kind: "refused", Addr: target}})[0].Error == ""
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	following := m.command(ctx, "observe", "-f", "-o", "json", "--from", "in/server-n1")
	stdout, err := following.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := following.Start(); err != nil {
		t.Fatal(err)
	}
	followed := make(chan flowLine, 1)
	go func() {
		var l flowLine
		if json.NewDecoder(stdout).Decode(&l) == nil {
			followed <- l
		}
		close(followed)
	}()
	// It may not follow yet.
	m.until("it is told while it happens", func() bool {
		m.succeed("in", "server-n1", []check{{Kind: "echo", Addr: target, Size: 1000}})
		return len(followed) > 0
	})
	if l := <-followed; l.Destination.Workload != "server-n2" || l.Verdict != "forwarded" {
		t.Errorf("followed %+v", l)
	}
	cancel()
	_ = following.Wait() // it was killed

	ok := m.whole("source@n1 destination@n2", "--from", "in/server-n1", "--to", "in/server-n2", "--verdict", "forwarded", "--encrypted")
	if ok.Security != "mtls" || ok.BytesSent < 1000 || ok.BytesReceived < 1000 || ok.Service == nil || ok.Service.Name != "server-n2" ||
		ok.Source.Identity != "spiffe://cluster.local/ns/in/sa/server-n1" || ok.Destination.Identity != "spiffe://cluster.local/ns/in/sa/server-n2" {
		t.Errorf("%+v", ok)
	}

	denied := m.whole("source@n1 destination@n2", "--from", "in/client", "--verdict", "denied")
	if denied.Policy == nil || !strings.Contains(denied.Reason, "in/only-n1") {
		t.Errorf("the policy is not named: %+v", denied)
	}

	// From outside of the mesh only the destination's node knows, and it was plaintext.
	m.succeed("out", "client", []check{{Kind: "echo", Addr: "server-n1.in.svc.cluster.local:8080", Size: 1000}})
	plain := m.whole("destination@n1", "--unencrypted", "--to", "in/server-n1")
	if plain.Security != "plaintext" || plain.Source.Workload != "client" || plain.Source.Identity != "" {
		t.Errorf("%+v", plain)
	}

	out, err := m.command(t.Context(), "edges", "-o", "json", "--to", "in/server-n2").Output()
	var edges []struct {
		Source              struct{ Namespace, Name string }
		Denied, Connections int
		Plaintext           int
	}
	if err != nil || json.Unmarshal(out, &edges) != nil || len(edges) != 2 {
		t.Fatalf("edges: %v\n%s", err, out)
	}
	for _, e := range edges {
		if e.Source.Name == "client" && e.Denied == 0 || e.Source.Name == "server-n1" && e.Denied > 0 || e.Plaintext > 0 {
			t.Errorf("%+v", e)
		}
	}
}

// A connection through a waypoint is one call with three hops, told while it is
// followed. The waypoint's pod came before anybody asked.
func TestFlowsThroughAWaypoint(t *testing.T) {
	m := start(t, map[string]string{
		"ns.yaml":   boundNamespace,
		"pods.yaml": pod("in", "client", "n1") + "---\n" + pod("in", "server", "n2"), "svc.yaml": serviceWith(""),
		"gw.yaml": "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: in}\n" +
			"spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n",
	})
	target := "server.in.svc.cluster.local:8080"
	m.until("the waypoint carries connections", func() bool {
		return m.checks("in", "client", []check{{Kind: "echo", Addr: target, Size: 1000}})[0].Error == ""
	})
	node := ""
	for _, p := range m.status().Pods {
		if strings.HasPrefix(p.Name, "wp-") {
			node = p.Node
		}
	}
	l := m.whole("source@n1 waypoint@"+node+" destination@n2", "--from", "in/client", "--to", "in/server", "--verdict", "forwarded")
	if l.Security != "mtls" || l.Service == nil || l.Service.Name != "server" || l.Destination.Workload != "server" || l.Source.Identity != "spiffe://cluster.local/ns/in/sa/client" {
		t.Errorf("%+v", l)
	}
	for _, half := range m.observe("--last", "1000", "--verdict", "forwarded") {
		if strings.HasPrefix(half.Destination.Workload, "wp-") || strings.HasPrefix(half.Source.Workload, "wp-") {
			t.Errorf("a hop is told as a call of its own: %+v", half)
		}
	}
}
