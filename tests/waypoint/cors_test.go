package waypoint_test

import "testing"

// Browsers are answered by the waypoint: which origins may call, and what they may
// send and read.
func TestCORS(t *testing.T) {
	m := use(t)
	m.apply(service("shared", "v1") + route("shared", "shared", `
  - filters:
    - type: CORS
      cors:
        allowOrigins: ["https://app.example", "https://*.example.org"]
        allowMethods: [GET, PUT]
        allowHeaders: [x-token]
        exposeHeaders: [x-version]
        allowCredentials: true
        maxAge: 600
    backendRefs: [{name: shared, port: 80}]
`))
	preflight := func(origin string) request {
		return request{URL: "http://shared/x?key=cors", Method: "OPTIONS", Header: map[string]string{
			"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "x-token",
		}}
	}
	m.until("the waypoint answers preflights", preflight("https://app.example"), func(r response) bool { return r.Header.Get("access-control-allow-origin") != "" })
	simple := func(origin string) request {
		return request{URL: "http://shared/", Header: map[string]string{"origin": origin}}
	}
	got := m.ask(preflight("https://app.example"), preflight("https://evil.example"), simple("https://a.example.org"), simple("https://evil.example"), request{URL: "http://shared/x?key=cors"})
	h := got[0].Header
	for name, want := range map[string]string{
		"access-control-allow-origin": "https://app.example", "access-control-allow-methods": "GET, PUT", "access-control-allow-headers": "x-token",
		"access-control-allow-credentials": "true", "access-control-max-age": "600",
	} {
		if h.Get(name) != want {
			t.Errorf("preflight: %s is %q, want %q", name, h.Get(name), want)
		}
	}
	if got[0].Status/100 != 2 || got[1].Status/100 != 2 || got[1].Header.Get("access-control-allow-origin") != "" {
		t.Errorf("preflights: %d; of another origin %d %v", got[0].Status, got[1].Status, got[1].Header)
	}
	if h := got[2].Header; h.Get("access-control-allow-origin") != "https://a.example.org" || h.Get("access-control-expose-headers") != "x-version" {
		t.Errorf("a request: %v", h)
	}
	if h := got[3].Header; got[3].Status != 200 || h.Get("access-control-allow-origin") != "" {
		t.Errorf("a request of another origin: %d %v", got[3].Status, h)
	}
	if got[4].Seen.Count != 1 {
		t.Errorf("preflights came to the backend: %d", got[4].Seen.Count)
	}
}
