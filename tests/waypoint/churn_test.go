package waypoint_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// churnEnv has routes changed 1,000 times within a minute, and not 200 times.
const churnEnv = "AMBIT_TEST_CHURN"

// stated is a state of the routes: when an answer that it gave was asked for, or
// when the waypoint is known to have acknowledged it.
type stated struct {
	At    time.Time
	State int
}

// acknowledged follows, from within the control plane's namespace, which states the
// waypoint has acknowledged, until the last.
func acknowledged(in io.Reader, out io.Writer) error {
	var last int
	if err := json.NewDecoder(in).Decode(&last); err != nil {
		return err
	}
	var list []stated
	t := transport(false)
	deadline := time.Now().Add(3 * time.Minute)
	// What is compiled is handed out before the next is compiled: when that is seen,
	// the version that is handed out has the one before in it.
	for before := -1; before < last; {
		if time.Now().After(deadline) {
			return fmt.Errorf("state %d does not come: %v", last, list)
		}
		<-time.After(5 * time.Millisecond)
		state, err := compiled(t)
		if err != nil {
			return err
		}
		if state == before {
			continue
		}
		if before >= 0 {
			if err := awaitAck(t, deadline); err != nil {
				return fmt.Errorf("state %d: %w", before, err)
			}
			list = append(list, stated{time.Now(), before})
		}
		before = state
	}
	return json.NewEncoder(out).Encode(list)
}

// awaitAck waits until the waypoint has acknowledged what is handed out now.
func awaitAck(t http.RoundTripper, deadline time.Time) error {
	var status struct{ Version uint64 }
	if err := admin(t, "/debug/status", &status); err != nil {
		return err
	}
	for {
		acked, err := ackedBy(t)
		if err != nil || acked >= status.Version {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("version %d is not acknowledged, but %d", status.Version, acked)
		}
		<-time.After(2 * time.Millisecond)
	}
}

const (
	adminOf  = "http://127.0.0.1:15000"
	churnKey = "app/churn.app.svc.cluster.local"
)

var statePattern = regexp.MustCompile(`"x-state","value":"(\d+)"`)

// admin reads what the control plane says of itself.
func admin(t http.RoundTripper, path string, v any) error {
	req, err := http.NewRequest(http.MethodGet, adminOf+path, http.NoBody)
	if err != nil {
		return err
	}
	r, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(v)
}

// compiled gives the state that the control plane has made last.
func compiled(t http.RoundTripper) (state int, err error) {
	var dump map[string][]struct {
		Name string
		Body json.RawMessage
	}
	if err := admin(t, "/config_dump", &dump); err != nil {
		return 0, err
	}
	for typ, list := range dump {
		for _, r := range list {
			if !strings.HasSuffix(typ, "Frontend") || r.Name != churnKey {
				continue
			}
			body := strings.Join(strings.Fields(string(r.Body)), "")
			found := statePattern.FindStringSubmatch(body)
			if found == nil {
				return 0, fmt.Errorf("no state in %s", body)
			}
			return strconv.Atoi(found[1])
		}
	}
	return 0, fmt.Errorf("the control plane does not tell of %s", churnKey)
}

// ackedBy gives what the waypoint has acknowledged.
func ackedBy(t http.RoundTripper) (acked uint64, err error) {
	var clients []struct {
		Waypoint string
		Types    []struct {
			Type  string
			Acked uint64
		}
	}
	if err := admin(t, "/debug/clients", &clients); err != nil {
		return 0, err
	}
	for _, c := range clients {
		for _, typ := range c.Types {
			if c.Waypoint == "app/wp" && strings.HasSuffix(typ.Type, "Frontend") {
				return typ.Acked, nil
			}
		}
	}
	return 0, fmt.Errorf("the waypoint is not among %+v", clients)
}

// Routes change under load, and no request fails or is answered by a state that was
// no longer in force when it was sent: the waypoint had acknowledged a later one.
func TestRoutesChangeUnderLoad(t *testing.T) {
	m := use(t)
	changes := 200
	if os.Getenv(churnEnv) != "" {
		changes = 1000
	}
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
	var acks []stated
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		m.run("wire", changes, &acks, "acknowledged")
	}()
	end := m.load("http://churn/", 4)
	const pace = time.Minute / 1000
	begin := time.Now()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 1; n <= changes; n++ {
		<-tick.C
		m.apply(state(n))
	}
	took := time.Since(begin)
	<-acked
	t.Logf("%d changes in %s, of which %d were seen to be acknowledged", changes, took.Round(time.Millisecond), len(acks))
	if len(acks) < 5 {
		t.Errorf("%d states only were seen to be acknowledged", len(acks))
	}
	m.until("the last state is in force", request{URL: "http://churn/"}, func(r response) bool { return r.Header.Get("x-state") == fmt.Sprint(changes) })
	for _, got := range end() {
		if len(got.Failures) > 0 || got.Requests == 0 || got.Versions["v1"] == 0 || got.Versions["v2"] == 0 {
			t.Errorf("%d requests by version %v: %v", got.Requests, got.Versions, got.Failures)
		}
		stale := 0
		for _, s := range got.Stamps {
			i := sort.Search(len(acks), func(i int) bool { return acks[i].At.After(s.At) }) // the first that was not known yet
			if i > 0 && s.State < acks[i-1].State {
				if stale++; stale < 4 {
					t.Errorf("state %d answered a request that was sent %s after %d was acknowledged", s.State, s.At.Sub(acks[i-1].At), acks[i-1].State)
				}
			}
		}
		t.Logf("%d requests, %d stale answers", got.Requests, stale)
	}
}
