package waypoint_test

import (
	"fmt"
	"testing"
)

// Routes change under load, and no request fails or goes to where no state of the
// routes has sent it.
func TestRoutesChangeUnderLoad(t *testing.T) {
	m := use(t)
	svc := service("churn", "") + service("churn-v1", "v1") + service("churn-v2", "v2")
	state := func(i int) string {
		return svc + route("churn", "churn", fmt.Sprintf(`
  - matches: [{path: {value: /p%d}}]
    backendRefs: [{name: churn-v2, port: 80}]
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-state, value: "%d"}]}}]
    backendRefs: [{name: churn-v%d, port: 80}]
`, i, i, i%2+1))
	}
	m.apply(state(0))
	m.until("the route is in force", request{URL: "http://churn/"}, func(r response) bool { return r.Header.Get("x-state") == "0" })
	end := m.load("http://churn/", 8)
	const changes = 80
	for i := range changes {
		m.apply(state(i))
		pause(t)
	}
	m.until("the last state is in force", request{URL: "http://churn/"}, func(r response) bool { return r.Header.Get("x-state") == fmt.Sprint(changes-1) })
	for _, got := range end() {
		if len(got.Failures) > 0 || got.Requests == 0 || got.Versions["v1"] == 0 || got.Versions["v2"] == 0 {
			t.Errorf("%d changes, %d requests by version %v: %v", changes, got.Requests, got.Versions, got.Failures)
		}
	}
}
