package waypoint_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hold is connections that are held open while the waypoint is looked at.
type hold struct {
	Addr    string
	Conns   int
	Say     []byte // on each
	Zeros   int64  // behind it
	Settled time.Duration
	Metrics string // of the waypoint
}

// held is what the waypoint looked like.
type held struct {
	Resident, Goroutines float64
	Written              int64 // by all
	Failed               int
}

// holdConns opens connections, says what is to be said, reads nothing, and looks
// at the waypoint when nothing has moved for a while.
func holdConns(in io.Reader, out io.Writer) error {
	var h hold
	if err := json.NewDecoder(in).Decode(&h); err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var got held
	moved := make(chan struct{}, 1)
	open := make(chan struct{}, 64)
	for range h.Conns {
		open <- struct{}{}
		c, err := net.DialTimeout("tcp", h.Addr, 10*time.Second)
		<-open
		if err != nil {
			got.Failed++
			continue
		}
		wg.Go(func() {
			defer c.Close()
			piece := make([]byte, 32<<10)
			_ = c.SetWriteDeadline(time.Now().Add(60 * time.Second))
			n, err := c.Write(h.Say)
			for left := h.Zeros; err == nil && left > 0; left -= int64(n) {
				n, err = c.Write(piece[:min(left, int64(len(piece)))])
				mu.Lock()
				got.Written += int64(n)
				mu.Unlock()
				select {
				case moved <- struct{}{}:
				default:
				}
			}
			if err == nil {
				<-time.After(30 * time.Second)
			}
		})
	}
	for quiet := false; !quiet; {
		select {
		case <-moved:
		case <-time.After(h.Settled):
			quiet = true
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var err error
	if got.Resident, got.Goroutines, err = lookAt(h.Metrics); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(got) // the end of the process ends the rest
}

// lookAt reads the resident memory of a waypoint, and its goroutines.
func lookAt(url string) (resident, goroutines float64, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		switch name {
		case "process_resident_memory_bytes":
			resident, err = strconv.ParseFloat(value, 64)
		case "go_goroutines":
			goroutines, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if resident == 0 {
		return 0, 0, fmt.Errorf("%s does not say how much memory is in use", url)
	}
	return resident, goroutines, nil
}

// Clients that do not read, backends that do not read, and connections on which
// nothing happens cost a bounded amount of the waypoint's memory each.
func TestMemoryIsBounded(t *testing.T) {
	m := use(t)
	m.apply(service("held", "v1"))
	m.until("the service answers", request{URL: "http://held/"}, status(200))
	var metrics string
	for _, a := range m.addresses("app", m.waypointPod()) {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() {
			metrics = "http://" + a + ":15020/metrics"
		}
	}
	look := func(h hold) held {
		t.Helper()
		h.Addr, h.Metrics, h.Settled = "held:80", metrics, 500*time.Millisecond
		var got held
		m.run("client", h, &got, "hold")
		t.Logf("%d connections: %+v", h.Conns, got)
		return got
	}
	const get, post = "GET /%s HTTP/1.1\r\nHost: held\r\n\r\n", "POST /%s HTTP/1.1\r\nHost: held\r\nContent-Length: %d\r\n\r\n"
	before := look(hold{Conns: 1, Say: fmt.Appendf(nil, get, "")})
	for _, tc := range []struct {
		name string
		hold
		each float64 // bytes
	}{
		{"clients that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, get, "?size=100000000")}, 1 << 20},
		{"backends that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, post, "?stall=20000", 100_000_000), Zeros: 100_000_000}, 1 << 20},
		{"idle connections", hold{Conns: 1000, Say: fmt.Appendf(nil, get, "")}, 100 << 10},
	} {
		got := look(tc.hold)
		if grown := got.Resident - before.Resident; got.Failed > 0 || grown > tc.each*float64(tc.Conns) {
			t.Errorf("%s: %d of %d failed; %.0f KiB each, want at most %.0f", tc.name, got.Failed, tc.Conns, grown/float64(tc.Conns)/1024, tc.each/1024)
		}
		if got.Written >= int64(tc.Conns)*100_000_000 {
			t.Errorf("%s: everything was taken", tc.name)
		}
	}
	// Nothing of it stays.
	m.until("all is released", request{URL: metrics, Lines: "go_goroutines "}, func(r response) bool {
		n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimPrefix(lastLine(r.Body), "go_goroutines")), 64)
		return err == nil && n < before.Goroutines+100
	})
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// gigabyteEnv has bodies of 1 GB sent also where the programs are built with the
// race detector, which takes minutes.
const gigabyteEnv = "AMBIT_TEST_GIGABYTE"

// Large bodies arrive as they were sent, both ways.
func TestGigabyte(t *testing.T) {
	m := use(t)
	size := int64(1 << 30)
	if m.race && os.Getenv(gigabyteEnv) == "" {
		size = 1 << 26
	}
	m.apply(service("giga", "v1"))
	m.until("the service answers", request{URL: "http://giga/"}, status(200))
	got := m.ask(
		request{URL: "http://giga/", Method: "POST", Body: size, Sum: true},
		request{URL: fmt.Sprintf("http://giga/?random=%d", size), Sum: true},
	)
	if r := got[0]; r.Status != 200 || r.Seen.Size != size || r.Seen.Sum != r.Sum {
		t.Errorf("upload: %d, %d bytes, %s instead of %s; %s", r.Status, r.Seen.Size, r.Seen.Sum, r.Sum, r.Error)
	}
	if r := got[1]; r.Status != 200 || r.Size != size || r.Sum != r.Trailer.Get("x-sum") {
		t.Errorf("download: %d, %d bytes, %s instead of %s; %s", r.Status, r.Size, r.Sum, r.Trailer.Get("x-sum"), r.Error)
	}
}
