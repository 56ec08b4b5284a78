package waypoint_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// conversation is what is said on a connection, and for how long it goes on.
type conversation struct {
	Addr  string
	Say   string
	Beat  string        // is said again and again
	Every time.Duration // that often
	Beats int
	Leave bool // and then nothing more, which the other end is told
}

// recall is what was heard until the other end had enough.
type recall struct {
	Heard string
	Took  time.Duration // until the end
	Ended bool          // by the other end
	Error string
}

func converseAll(in io.Reader, out io.Writer) error {
	var list []conversation
	if err := json.NewDecoder(in).Decode(&list); err != nil {
		return err
	}
	got := make([]recall, len(list))
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { got[i] = converseWith(list[i]) })
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(got)
}

func converseWith(v conversation) (r recall) {
	begin := time.Now()
	defer func() { r.Took = time.Since(begin) }()
	c, err := net.DialTimeout("tcp", v.Addr, 10*time.Second)
	if err != nil {
		return recall{Error: err.Error()}
	}
	defer c.Close()
	go func() {
		_, err := io.WriteString(c, v.Say)
		for n := 0; n < v.Beats && err == nil; n++ {
			<-time.After(v.Every)
			_, err = io.WriteString(c, v.Beat)
		}
		if v.Leave && err == nil {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	all, err := io.ReadAll(c)
	r.Heard, r.Ended = string(all), !errors.Is(err, os.ErrDeadlineExceeded)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// Each timeout has a status, a flag and a counter of its own, and those that say
// nothing about a request leave it alone.
func TestEachTimeout(t *testing.T) {
	m := use(t)
	timeout := func(name, spec string) string {
		return service(name, "v1") + policy("TimeoutPolicy", name, "targetRefs: [{kind: Service, name: "+name+"}]\n"+spec)
	}
	m.apply(helpers + timeout("late-request", "request: 2s") + timeout("late-backend", "backendRequest: 2s") + timeout("late-idle", "idle: 2s") +
		service("late-try", "v1") + policy("RetryPolicy", "late-try", `
targetRefs: [{kind: Service, name: late-try}]
attempts: 1
perTryTimeout: 2s
retryOn: [Timeout]
`) + strings.ReplaceAll(strings.ReplaceAll(timeout("late-connect", "connect: 1s"), "app: echo, version: v1", "app: helper"), "targetPort: 8080", "targetPort: 9393"))
	for name, want := range map[string]struct {
		status int
		kind   string
		name   string
		flag   string
	}{
		"late-request": {504, "http_response_timeout", "request", "UT"}, "late-backend": {504, "http_response_timeout", "backend_request", "UT"},
		"late-try": {504, "http_response_timeout", "try", "UT"}, "late-idle": {504, "http_response_timeout", "idle", "UT"},
		"late-connect": {503, "connection_timeout", "connect", "UF"},
	} {
		r := m.until(name+" has its status", request{URL: "http://" + name + "/?delay=60000"}, status(want.status))
		if !strings.Contains(r.Header.Get("proxy-status"), "error="+want.kind) || r.Took >= time.Minute {
			t.Errorf("%s: %q after %s", name, r.Header.Get("proxy-status"), r.Took)
		}
		m.counted("ambit_timeouts_total", "app/"+name+".", `timeout="`+want.name+`"`)
		m.logged(`"dst.service":"`+name+`.app.svc.cluster.local"`, `"response_flags":"`+want.flag+`"`)
		if name != "late-connect" {
			if r := m.get("http://" + name + "/?delay=20"); r.Status != 200 {
				t.Errorf("%s, in time: %d", name, r.Status)
			}
		}
	}
}

// What nobody says anything on ends; what one side goes on with does not, whichever
// that is.
func TestIdleTimeout(t *testing.T) {
	m := use(t)
	m.apply(service("silent", "v1") + policy("TimeoutPolicy", "silent", `
targetRefs: [{kind: Service, name: silent}]
idle: 4s
`))
	m.until("the policy is in force", request{URL: "http://silent/?delay=60000"}, status(504))
	const upgrade = "GET /upgrade HTTP/1.1\r\nHost: silent\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"
	const post = "POST / HTTP/1.1\r\nHost: silent\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	var got []recall
	m.run("client", []conversation{
		{Addr: "silent:9090"}, // its server speaks first
		{Addr: "silent:9090", Beat: "x\n", Every: 600 * time.Millisecond, Beats: 8},
		{Addr: "silent:80", Say: upgrade},
		{Addr: "silent:80", Say: upgrade, Beat: "x\n", Every: 600 * time.Millisecond, Beats: 8},
		{Addr: "silent:80", Say: post + "1\r\nx\r\n"},
		{Addr: "silent:80", Say: post, Beat: "1\r\nx\r\n", Every: 600 * time.Millisecond, Beats: 8},
	}, &got, "converse")
	for i, want := range []string{"hello from v1\n", "hello from v1\n" + strings.Repeat("x\n", 8), "HTTP/1.1 101", "x\nx\nx\nx\nx\nx\nx\nx\n", "HTTP/1.1 504", "HTTP/1.1 504"} {
		least := 4 * time.Second
		if i%2 == 1 {
			least += 8 * 600 * time.Millisecond
		}
		if r := got[i]; !r.Ended || !strings.Contains(r.Heard, want) || r.Took < least-100*time.Millisecond {
			t.Errorf("conversation %d: ended %v after %s (%s), want %q after %s: %q", i, r.Ended, r.Took, r.Error, want, least, r.Heard)
		}
	}
	if r := m.get("http://silent/?size=300000&pause=300"); r.Error != "" || r.Size != 300000 {
		t.Errorf("an answer that goes on: %d bytes, %s", r.Size, r.Error)
	}
	m.counted("ambit_timeouts_total", "app/silent.", `timeout="idle"`)
	m.counted("ambit_waypoint_connections_total", "app/silent.", `response_flags="UT"`)
}
