package waypoint_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// utterance is what is said on a connection, byte for byte.
type utterance struct {
	Addr string
	Say  []byte
	// Slowly is a pause before each further piece of one byte; for what is said
	// at once it is 0.
	Slowly time.Duration
}

// retort is the answers that came: their statuses, and whether the connection was
// ended.
type retort struct {
	Statuses []int
	Closed   bool
	Took     time.Duration
	Error    string
}

// speak says all utterances at the same time.
func speak(in io.Reader, out io.Writer) error {
	var list []utterance
	if err := json.NewDecoder(in).Decode(&list); err != nil {
		return err
	}
	answers := make([]retort, len(list))
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { answers[i] = say(list[i]) })
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(answers)
}

func say(u utterance) (r retort) {
	begin := time.Now()
	defer func() { r.Took = time.Since(begin) }()
	c, err := net.DialTimeout("tcp", u.Addr, 10*time.Second)
	if err != nil {
		return retort{Error: err.Error()}
	}
	defer c.Close()
	go func() {
		for len(u.Say) > 0 {
			n := len(u.Say)
			if u.Slowly > 0 {
				n = 1
			}
			if _, err := c.Write(u.Say[:n]); err != nil {
				return
			}
			u.Say = u.Say[n:]
			<-time.After(u.Slowly)
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			r.Closed = !errors.Is(err, os.ErrDeadlineExceeded)
			return r
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		r.Statuses = append(r.Statuses, resp.StatusCode)
	}
}

// smuggling is a case of the corpus of internal/http1.
type smuggling struct {
	name     string
	say      []byte
	statuses []int
	requests int // that are let through
	rejected bool
}

func corpus(t *testing.T) (cases []*smuggling) {
	t.Helper()
	text, err := os.ReadFile("../../internal/http1/testdata/smuggling.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# "); ok {
			cases = append(cases, &smuggling{name: name})
			continue
		}
		if len(cases) == 0 {
			continue
		}
		c := cases[len(cases)-1]
		switch {
		case strings.HasPrefix(line, "> "):
			s, err := strconv.Unquote(line[2:])
			if err != nil {
				t.Fatal(err)
			}
			c.say = append(c.say, s...)
		case strings.HasPrefix(line, "= answer "):
			n, _ := strconv.Atoi(line[9:12])
			c.statuses = append(c.statuses, n)
		case strings.HasPrefix(line, "= rejected"):
			c.rejected = true
		case strings.HasPrefix(line, "= GET"), strings.HasPrefix(line, "= POST"):
			c.requests++
		}
	}
	return cases
}

// What could be read in two ways is refused, as the codec's own corpus says, and
// nothing of it comes to the backend, whichever way it is sent.
func TestSmuggling(t *testing.T) {
	m := use(t)
	m.apply(pods("hostile"))
	m.until("the service answers", request{URL: "http://hostile/"}, status(200))
	cases := slices.DeleteFunc(corpus(t), func(c *smuggling) bool { return !c.rejected })
	var list []utterance
	let := 0
	for _, c := range cases {
		list = append(list, utterance{Addr: "hostile:80", Say: c.say})
		let += c.requests
	}
	before := m.total("hostile")
	var answers []retort
	m.run("client", list, &answers, "speak")
	for i, c := range cases {
		if got := answers[i]; !slices.Equal(got.Statuses, c.statuses) || !got.Closed {
			t.Errorf("%s: %+v, want %v and the end\n%q", c.name, got, c.statuses, c.say)
		}
	}
	if got := m.total("hostile") - before; got != let {
		t.Errorf("of %d cases %d requests came to the backend, want %d", len(cases), got, let)
	}
	m.counted("ambit_requests_rejected_total", `limit="malformed"`, `status="400"`)
	m.logged("request rejected", `"dst.service":"app/hostile.app.svc.cluster.local"`, "Content-Length")
}

// total is how many requests came to a pod of its own.
func (m *mesh) total(name string) int {
	m.t.Helper()
	return m.get("http://" + name + "/total").Seen.Count
}

// A body that turns out to be malformed is its client's failure: it is answered as such,
// and no endpoint is thought the worse of, however often.
func TestMalformedBodies(t *testing.T) {
	m := use(t)
	m.apply(pods("patient") + `---
apiVersion: ambit-mesh.io/v1alpha1
kind: OutlierDetectionPolicy
metadata: {name: patient, namespace: app}
spec:
  targetRefs: [{kind: Service, name: patient}]
  consecutiveFailures: 2
  maxEjectedPercent: 100
`)
	m.until("the service answers", request{URL: "http://patient/"}, status(200))
	list := make([]utterance, 10)
	for i := range list {
		list[i] = utterance{Addr: "patient:80", Say: []byte("POST / HTTP/1.1\r\nHost: patient\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nmore\r\n")}
	}
	var answers []retort
	m.run("client", list, &answers, "speak")
	for _, got := range answers {
		if !slices.Equal(got.Statuses, []int{400}) || !got.Closed {
			t.Errorf("%+v, want 400 and the end", got)
		}
	}
	m.counted("ambit_requests_rejected_total", `limit="malformed"`, `status="400"`)
	m.logged("request rejected", `"dst.service":"app/patient.app.svc.cluster.local"`, "chunk")
	if r := m.get("http://patient/"); r.Status != 200 {
		t.Errorf("afterwards: %d %s", r.Status, r.Error)
	}
}

// Heads have limits, each with a status and a counter.
func TestLimitsOfHeads(t *testing.T) {
	m := use(t)
	m.apply(pods("strained"))
	m.until("the service answers", request{URL: "http://strained/"}, status(200))
	before := m.total("strained")
	head := func(first, fields string) []byte {
		return []byte(first + " HTTP/1.1\r\nHost: strained\r\n" + fields + "\r\n")
	}
	var many bytes.Buffer
	for i := range 200 {
		fmt.Fprintf(&many, "X-%d: y\r\n", i)
	}
	var answers []retort
	m.run("client", []utterance{
		{Addr: "strained:80", Say: head("GET /", "X-Long: "+strings.Repeat("a", 70<<10)+"\r\n")},
		{Addr: "strained:80", Say: head("GET /", many.String())},
		{Addr: "strained:80", Say: head("GET /"+strings.Repeat("a", 20<<10), "")},
		{Addr: "strained:80", Say: head("GET /", strings.Repeat("X-Slow: y\r\n", 100)), Slowly: 50 * time.Millisecond},
		{Addr: "strained:80", Say: []byte("NONSENSE\r\n\r\n")},
	}, &answers, "speak")
	for i, want := range []int{431, 431, 414, 408, 400} {
		if got := answers[i]; !slices.Equal(got.Statuses, []int{want}) || !got.Closed {
			t.Errorf("utterance %d: %+v, want %d and the end", i, got, want)
		}
	}
	if got := m.total("strained") - before; got != 0 {
		t.Errorf("%d requests came to the backend", got)
	}
	for limit, status := range map[string]string{"header_bytes": "431", "fields": "431", "target_bytes": "414", "header_timeout": "408"} {
		m.counted("ambit_requests_rejected_total", `limit="`+limit+`"`, `status="`+status+`"`)
	}
	over := map[string]string{"x-long": strings.Repeat("a", 70<<10)}
	// A client of HTTP/2 that has heard of the limit keeps to it.
	if r := m.ask(request{URL: "http://strained/", HTTP2: true, Header: over})[0]; r.Status != 431 && !strings.Contains(r.Error, "peer's advertised limit") {
		t.Errorf("too large a head by HTTP/2: %d %s", r.Status, r.Error)
	}
}

// What cannot be carried out is never silent: requests get the status that the
// specification gives, and the object says why.
func TestWhatCannotBeCarriedOut(t *testing.T) {
	m := use(t)
	m.apply(service("wrong", "v1") + route("wrong-filter", "wrong", `
  - matches: [{path: {value: /filter}}]
    filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Magic, name: wand}}]
    backendRefs: [{name: wrong, port: 80}]
`) + route("wrong-kind", "wrong", `
  - matches: [{path: {value: /kind}}]
    backendRefs: [{group: example.com, kind: Bucket, name: b, port: 80}]
`) + route("wrong-backend", "wrong", `
  - matches: [{path: {value: /backend}}]
    backendRefs: [{name: nobody, port: 80}]
`) + route("wrong-port", "wrong", `
  - matches: [{path: {value: /port}}]
    backendRefs: [{name: wrong, port: 81}]
`) + route("wrong-mirror", "wrong", `
  - matches: [{path: {value: /mirror}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}}}]
    backendRefs: [{name: wrong, port: 80}]
`) + policy("RetryPolicy", "wrong", `
targetRefs: [{kind: Service, name: nobody}]
attempts: 1
`) + policy("RateLimitPolicy", "wrong", `
targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: wrong-backend, sectionName: none}]
rules: [{requests: 1}]
`))
	for path, want := range map[string]int{"/filter": 500, "/kind": 500, "/backend": 500, "/port": 500} {
		m.until("the answer to "+path, request{URL: "http://wrong" + path}, status(want))
	}
	for name, words := range map[string][]string{
		"wrong-filter": {`"False"`, "Magic"}, "wrong-kind": {"ResolvedRefs", "InvalidKind", "Bucket"}, "wrong-backend": {"ResolvedRefs", "BackendNotFound", "nobody"},
		"wrong-port": {"ResolvedRefs", "81"}, "wrong-mirror": {"ResolvedRefs", "nobody"},
	} {
		m.condition("HTTPRoute", name, words...)
	}
	m.condition("RetryPolicy", "wrong", "TargetNotFound", "nobody")
	m.condition("RateLimitPolicy", "wrong", "TargetNotFound", "none")
	out, _ := m.command(t.Context(), "status").CombinedOutput()
	for _, name := range []string{"wrong-filter", "wrong-kind", "wrong-backend", "wrong-port", "wrong-mirror", "RetryPolicy app/wrong"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("the status does not speak of %s:\n%s", name, out)
		}
	}
}
