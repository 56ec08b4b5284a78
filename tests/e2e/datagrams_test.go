package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

const open = "what-anybody-may-read"

// testDatagrams takes a service over UDP, names and the QUIC transport across nodes.
func testDatagrams(t *testing.T) {
	c := clustertest.Open(t)
	e := enrol(t, c, "datagrams", []string{"near@" + c.Nodes[0], "far@" + c.Nodes[1]})
	out := enrolled{c, t, c.Namespace("outside")}
	c.Apply(out.ns, echoApp("stranger", c.Nodes[0]))
	c.Ready(out.ns, "deploy/stranger")
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret, open)

	t.Log("UDP: the client's own address at the other end, and nothing to be read in between")
	address := c.Must("-n", e.ns, "get", "pod", "-l", "app=near", "-o", "jsonpath={.items[0].status.podIP}")
	c.Until("datagrams go through the mesh", time.Minute, func() error {
		answer, err := e.call("near", "udp://far:9091?say="+secret, "--timeout=2s")
		if err == nil && (!strings.Contains(answer, "Hostname=far-") || !strings.Contains(answer, "IP="+address)) {
			err = fmt.Errorf("not from far to %s:\n%s", address, answer)
		}
		return err
	})
	if r := wire.Report(); r.Found[secret] != 0 || r.QUIC.Protected == 0 || r.QUIC.Foreign != 0 {
		t.Errorf("on the link: found %v, QUIC %+v", r.Found, r.QUIC)
	}
	// What is not in the mesh is read, or the capture proves nothing.
	out.eventually("stranger", "udp://far."+e.ns+":9091?say="+open, "Hostname=far-", "--timeout=2s")
	if r := wire.Report(); r.Found[open] == 0 {
		t.Error("the capture does not see datagrams in the open")
	}

	t.Log("TCP over QUIC")
	c.Must("annotate", "namespace", e.ns, "ambit-mesh.io/transport=h3")
	c.Until("connections go by QUIC", time.Minute, func() error {
		wire.Report()
		if _, err := e.call("near", "http://far/?say="+secret); err != nil {
			return err
		}
		if r := wire.Report(); r.Found[secret] != 0 || r.QUIC.Protected == 0 || r.TLS.ApplicationData != 0 {
			return fmt.Errorf("found %v, QUIC %+v, TLS %+v", r.Found, r.QUIC, r.TLS)
		}
		return nil
	})
	testNames(t, c, e, out)
}

// testNames has services resolved while the cluster's DNS is away.
func testNames(t *testing.T, c *clustertest.Cluster, e, out enrolled) {
	t.Helper()
	service := c.Must("-n", e.ns, "get", "service", "far", "-o", "jsonpath={.spec.clusterIP}")
	far := "far." + e.ns + ".svc.cluster.local"
	out.eventually("stranger", "dns://"+far, service)
	c.Must("-n", "kube-system", "scale", "deploy/coredns", "--replicas=0")
	back := func() {
		c.Must("-n", "kube-system", "scale", "deploy/coredns", "--replicas=2")
		c.Ready("kube-system", "deploy/coredns")
	}
	defer back()
	out.refused("stranger", "dns://"+far)
	for _, name := range []string{far, "far", "far." + e.ns} {
		e.eventually("near", "dns://"+name, "Address="+service)
	}
	e.eventually("near", "http://far/", "Hostname=far-")
}

// testEgress opens and closes the world outside of the cluster.
func testEgress(t *testing.T) {
	c := clustertest.Open(t)
	e := enrol(t, c, "egress", []string{"near@" + c.Nodes[1], "far@" + c.Nodes[0]})
	ip := func(verb string) {
		if out, err := exec.Command("ip", "address", verb, worldIP+"/32", "dev", "br0").CombinedOutput(); err != nil { //nolint:noctx // short
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ip("replace")
	t.Cleanup(func() { ip("del") })
	partner, other := world(t), world(t)
	e.eventually("near", "http://"+partner, "StatusCode=200")
	e.eventually("near", "http://"+other, "StatusCode=200")

	c.Must("label", "namespace", e.ns, "ambit-mesh.io/outbound=registry-only")
	e.refused("near", "http://"+partner)
	e.refused("near", "http://"+other)
	e.eventually("near", "http://far/", "Hostname=far-")
	e.refused("near", "dns://api.partner.example")

	host, port, err := net.SplitHostPort(partner)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(e.ns, fmt.Sprintf(`
apiVersion: ambit-mesh.io/v1alpha1
kind: ExternalService
metadata: {name: partner}
spec:
  hosts: [api.partner.example]
  ports: [{name: http, port: 80, targetPort: %s, protocol: HTTP}]
  resolution: Static
  endpoints: [{address: %s}]
`, port, host))
	e.eventually("near", "dns://api.partner.example", "Address=240.240.")
	e.eventually("near", "http://api.partner.example/", "StatusCode=200")
	e.refused("near", "http://"+other)
	c.Until("the access log says why", time.Minute, func() error {
		log, err := c.Kubectl("-n", "ambit-system", "logs", "-l", "app.kubernetes.io/name=ambit-ztunnel", "--tail=-1")
		if err == nil && !strings.Contains(log, "REGISTRY_ONLY") {
			err = errors.New("no line has the flag REGISTRY_ONLY")
		}
		return err
	})
}

// worldIP is an address outside of the cluster (RFC 5737). That of the network's router belongs to the Service kubernetes.
const worldIP = "192.0.2.80"

// world is a server outside of the cluster: in the network of its control plane, where the test runs.
func world(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", worldIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "world") })}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return l.Addr().String()
}
