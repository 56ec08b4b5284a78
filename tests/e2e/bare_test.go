package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

const secret = "the-card-is-4111-1111"

// Without a mesh, pods reach each other across nodes by service name in every protocol, what they say can be read on the
// nodes' link, and an outside client reaches them too. Otherwise nothing that the other tests show would mean anything.
func TestBareCluster(t *testing.T) {
	c := clustertest.Open(t)
	before := map[string]clustertest.State{}
	for _, n := range c.Nodes {
		before[n] = c.State(n)
	}
	ns := c.Namespace("bare")
	c.Apply(ns, echoApp("near", c.Nodes[0])+echoApp("far", c.Nodes[1]))
	c.Ready(ns, "deploy/near", "deploy/far")
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	for _, url := range []string{"http://far/x?say=" + secret, "http://far." + ns + ".svc.cluster.local", "grpc://far:7070", "tcp://far:9090"} {
		c.Until("near reaches "+url, time.Minute, func() error {
			out, err := c.Exec(ns, "deploy/near", "client", url)
			if err == nil && !strings.Contains(out, "Hostname=far-") {
				t.Fatalf("somebody else has answered:\n%s", out)
			}
			return err
		})
	}
	c.Until("the link shows what was said", time.Minute, func() error {
		if r := wire.Report(); r.Found[secret] == 0 || r.MeshBytes != 0 {
			return fmt.Errorf("found %v, mesh bytes %d", r.Found, r.MeshBytes)
		}
		return nil
	})
	outside(t, c, ns)
	for n, s := range before {
		if d := s.Diff(c.State(n)); len(d) > 0 {
			t.Errorf("%s is not as it was:\n%s", n, strings.Join(d, "\n"))
		}
	}
}

// outside calls a pod and a service from outside of the cluster.
func outside(t *testing.T, c *clustertest.Cluster, ns string) {
	t.Helper()
	for _, host := range []string{
		c.Must("-n", ns, "get", "pod", "-l", "app=far", "-o", "jsonpath={.items[0].status.podIP}") + ":8080",
		c.Must("-n", ns, "get", "service", "far", "-o", "jsonpath={.spec.clusterIP}"),
	} {
		c.Until("an outside client reaches "+host, time.Minute, func() error { return get(t.Context(), "http://"+host+"/") })
	}
}

func get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "Hostname=far-")) {
		return fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return err
}

// The load that other tests keep up across nodes has no failed request by itself, and reports those that fail.
func TestLoadCountsFailures(t *testing.T) {
	c := clustertest.Open(t)
	ns := c.Namespace("load")
	c.Apply(ns, echoApp("a", c.Nodes[0])+echoApp("b", c.Nodes[1]))
	c.Ready(ns, "deploy/a", "deploy/b")
	c.Until("a reaches b", time.Minute, func() error {
		_, err := c.Exec(ns, "deploy/a", "client", "http://b/")
		return err
	})
	if out, err := c.Exec(ns, "deploy/a", "client", "http://b/", "--duration=3s"); err != nil || !strings.Contains(out, "Failed=0") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := c.Exec(ns, "deploy/a", "client", "http://b/?status=500", "--duration=1s"); err == nil {
		t.Errorf("failures go unnoticed:\n%s", out)
	}
}
