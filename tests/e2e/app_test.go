package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// enrolled is a namespace of the mesh with applications.
type enrolled struct {
	*clustertest.Cluster
	t  *testing.T
	ns string
}

// enrol makes a namespace that is in the mesh from the beginning, with an application of tests/e2e/echo on a node for each
// of apps, "name@node", and waits until they are captured. Labels are further ones of the namespace.
func enrol(t *testing.T, c *clustertest.Cluster, prefix string, apps []string, labels ...string) enrolled {
	t.Helper()
	e := enrolled{c, t, c.Namespace(prefix, append(labels, "ambit-mesh.io/dataplane-mode=ambient")...)}
	var all strings.Builder
	var deployments []string
	for _, a := range apps {
		name, node, _ := strings.Cut(a, "@")
		all.WriteString(echoApp(name, node))
		deployments = append(deployments, "deploy/"+name)
	}
	c.Apply(e.ns, all.String())
	c.Ready(e.ns, deployments...)
	e.captured("--all")
	return e
}

// captured waits until pods are.
func (e enrolled) captured(which ...string) {
	e.t.Helper()
	e.Must(append([]string{"-n", e.ns, "wait", "pod", "--for=condition=ambit-mesh.io/Captured", "--timeout=60s"}, which...)...)
}

// call has a client in a Deployment's pod make a request.
func (e enrolled) call(from, url string, args ...string) (string, error) {
	return e.Exec(e.ns, "deploy/"+from, append([]string{"client", url}, args...)...)
}

// eventually waits until a request is answered, and the answer has what is wanted.
func (e enrolled) eventually(from, url, want string, args ...string) {
	e.t.Helper()
	e.Until(fmt.Sprintf("%s calls %s and gets %q", from, url, want), 3*time.Minute, func() error {
		out, err := e.call(from, url, args...)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("the answer has no %q:\n%s", want, out)
		}
		return err
	})
}

// refused waits until a request fails.
func (e enrolled) refused(from, url string, args ...string) {
	e.t.Helper()
	e.Until(from+" does not reach "+url, 90*time.Second, func() error {
		if out, err := e.call(from, url, append(args, "--timeout=2s")...); err == nil {
			return fmt.Errorf("it does:\n%s", out)
		}
		return nil
	})
}

// waypoint makes one for all Services of the namespace.
func (e enrolled) waypoint(t *testing.T) {
	t.Helper()
	ambit(t, e.Cluster, "waypoint", "apply", "-n", e.ns)
	e.Condition(e.ns, "gateway/waypoint", "Programmed")
	e.Must("label", "namespace", e.ns, "ambit-mesh.io/use-waypoint=waypoint")
}

// seen is how many requests of the same key the server that has answered had got.
func seen(answer string) int {
	m := regexp.MustCompile(`Seen=(\d+)`).FindStringSubmatch(answer)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}

// sealed fails the test if something of what was said could be read on a link, or nothing went through the mesh.
func sealed(t *testing.T, wire *clustertest.Capture) {
	t.Helper()
	r := wire.Report()
	if r.Found[secret] != 0 || r.MeshBytes == 0 || r.TLS.Foreign != 0 || r.QUIC.Foreign != 0 {
		t.Errorf("on the link: found %v, %d mesh bytes, not TLS %d, not QUIC %d; %v", r.Found, r.MeshBytes, r.TLS.Foreign, r.QUIC.Foreign, r.Excerpts)
	}
	if r.Dropped > 0 {
		t.Logf("the capture missed %d frames", r.Dropped)
	}
}
