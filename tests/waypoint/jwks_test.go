package waypoint_test

import (
	"fmt"
	"strings"
	"testing"
)

// keysAt is a Service whose tokens are verified by keys that are fetched.
func keysAt(name, uri, more string) string {
	return service(name, "v1") + policy("JWTAuthentication", name, fmt.Sprintf(`
targetRefs: [{kind: Service, name: %s}]
required: true
providers:
- name: id
  issuer: https://id.example
  audiences: [signed]
  jwks: {uri: "%s"%s}
`, name, uri, more))
}

// Keys are fetched from a service of the mesh, through a tunnel and not in the
// clear, kept, fetched again when a token has a key that is not among them, and kept
// while nobody can be asked.
func TestKeysByURI(t *testing.T) {
	m := use(t)
	keys := func(app string) string {
		return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: keys, namespace: app}
spec:
  selector: {app: %s}
  ports: [{name: http, port: 9002}]
---
apiVersion: ambit-mesh.io/v1alpha1
kind: PeerAuthentication
metadata: {name: keys, namespace: app}
spec:
  targetRefs: [{kind: Pod, selector: {matchLabels: {app: helper}}}]
  mtls: {mode: STRICT}
`, app)
	}
	services := keysAt("fetched", "http://keys.app.svc.cluster.local:9002/keys", "") + keysAt("fetched-short", "http://keys:9002/keys", ", cacheDuration: 2s") +
		keysAt("fetched-never", "http://keys:9002/nothing", "")
	m.apply(keys("helper"))
	one, two := issuerOf(t, "one"), issuerOf(t, "two")
	m.until("the keys are there", request{URL: "http://keys:9002" + setKeys(one.jwks())}, status(200))
	m.apply(keys("helper") + services)
	use := func(name string, by *issuer) request {
		return request{URL: "http://" + name + "/", Header: bearer(by.token(nil))}
	}
	for _, name := range []string{"fetched", "fetched-short"} {
		m.until(name+": a good token is enough", use(name, one), status(200))
		if got := m.ask(use(name, two), request{URL: "http://" + name + "/"}); got[0].Status != 401 || got[1].Status != 401 {
			t.Errorf("%s: a token of a key that nobody has: %d; none: %d", name, got[0].Status, got[1].Status)
		}
	}
	m.counted("ambit_jwks_fetches_total", "http://keys:9002/keys", `outcome="ok"`)
	m.accessLog(`"direction":"inbound"`, `sa/wp"`, `:9002"`)
	// Many tokens, each of which has to be verified, are no reason to fetch.
	before := m.get("http://keys:9002/count").Seen.Count
	var asks []request
	for range 40 {
		asks = append(asks, use("fetched", one))
	}
	for _, r := range m.ask(asks...) {
		if r.Status != 200 {
			t.Errorf("a good token: %d %s", r.Status, r.Header.Get("www-authenticate"))
		}
	}
	// Those of fetched-short go on.
	if n := m.get("http://keys:9002/count").Seen.Count - before; n > 30 {
		t.Errorf("40 tokens had the keys fetched %d times", n)
	}

	m.until("the keys are others", request{URL: "http://keys:9002" + setKeys(two.jwks())}, status(200))
	for _, name := range []string{"fetched", "fetched-short"} {
		m.until(name+": a token of the new key is enough", use(name, two), status(200))
		m.until(name+": one of the old is not", use(name, one), status(401))
	}

	m.apply(keys("nobody") + services)
	m.until("nobody has the keys", request{URL: "http://keys:9002/count", Fresh: true}, func(r response) bool { return r.Status != 200 })
	m.counted("ambit_jwks_fetches_total", "http://keys:9002/keys", `outcome="error"`)
	for _, name := range []string{"fetched", "fetched-short"} {
		if r := m.ask(use(name, two))[0]; r.Status != 200 {
			t.Errorf("%s, with the last good keys: %d %v", name, r.Status, r.Header)
		}
	}
	// A provider whose keys have never come lets nobody in, and says whose fault it is.
	r := m.ask(use("fetched-never", two))[0]
	if r.Status != 503 || !strings.Contains(r.Header.Get("proxy-status"), "/nothing") {
		t.Errorf("keys that have never come: %d %v", r.Status, r.Header)
	}
	if r := m.get("http://fetched-never/"); r.Status != 401 {
		t.Errorf("without a token: %d", r.Status)
	}

	m.apply(keys("helper") + services)
	m.until("somebody has the keys again", request{URL: "http://keys:9002" + setKeys(one.jwks())}, status(200))
	m.until("and they are fetched", use("fetched-short", one), status(200))
}
