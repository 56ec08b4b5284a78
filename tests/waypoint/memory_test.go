package waypoint_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hold is connections that are held open while the waypoint is looked at.
type hold struct {
	Addr  string
	Conns int
	Say   []byte // on each
	Zeros int64  // behind it
	For   time.Duration
}

// held is what became of them.
type held struct {
	Written int64 // by all
	Failed  int
}

// holdConns opens connections, says what is to be said and reads nothing.
func holdConns(in io.Reader, out io.Writer) error {
	var h hold
	if err := json.NewDecoder(in).Decode(&h); err != nil {
		return err
	}
	var written, failed atomic.Int64
	var wg sync.WaitGroup
	until := time.Now().Add(h.For)
	for range h.Conns {
		c, err := net.DialTimeout("tcp", h.Addr, 10*time.Second)
		if err != nil {
			failed.Add(1)
			continue
		}
		wg.Go(func() {
			defer c.Close()
			piece := make([]byte, 32<<10)
			_ = c.SetWriteDeadline(until)
			_, err := c.Write(h.Say)
			n := 0
			if err != nil {
				failed.Add(1)
			}
			for left := h.Zeros; err == nil && left > 0; left -= int64(n) {
				n, err = c.Write(piece[:min(left, int64(len(piece)))])
				written.Add(int64(n))
			}
			<-time.After(time.Until(until))
		})
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(held{written.Load(), int(failed.Load())})
}

// look gives a metric of the waypoint that has no labels.
func (m *mesh) look(name string) float64 {
	m.t.Helper()
	r := m.askFrom("wp", request{URL: "http://127.0.0.1:15020/metrics", Lines: name + " "})[0]
	for line := range strings.Lines(r.Body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				m.t.Fatal(err)
			}
			return n
		}
	}
	m.t.Fatalf("the waypoint does not count %s: %d %s", name, r.Status, r.Error)
	return 0
}

// Clients that do not read, backends that do not read, and connections on which
// nothing happens cost a bounded amount of the waypoint's memory each.
func TestMemoryIsBounded(t *testing.T) {
	m := use(t)
	m.apply(service("held", "v1"))
	m.until("the service answers", request{URL: "http://held/"}, status(200))
	const get, post = "GET /%s HTTP/1.1\r\nHost: held\r\n\r\n", "POST /%s HTTP/1.1\r\nHost: held\r\nContent-Length: %d\r\n\r\n"
	// What Go has handed out, and not what is resident: the race detector's books are not
	// in it, nor what an earlier case had and the kernel was not given back yet.
	inUse := func() float64 {
		return m.look("go_memstats_heap_inuse_bytes") + m.look("go_memstats_stack_inuse_bytes")
	}
	goroutines := m.look("go_goroutines")
	for _, tc := range []struct {
		name string
		hold
		each float64 // bytes
	}{
		{"idle connections", hold{Conns: 1000, Say: fmt.Appendf(nil, get, "")}, 100 << 10},
		{"clients that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, get, "?size=100000000")}, 1 << 20},
		{"backends that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, post, "?stall=6000", 100_000_000), Zeros: 100_000_000}, 1 << 20},
	} {
		tc.Addr, tc.For = "held:80", 4*time.Second
		before := inUse()
		var got held
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.run("client", tc.hold, &got, "hold")
		}()
		most := before
		for over := false; !over; {
			most = max(most, inUse())
			select {
			case <-done:
				over = true
			default:
			}
		}
		each := (most - before) / float64(tc.Conns)
		t.Logf("%s: %.0f KiB each", tc.name, each/1024)
		if got.Failed > 0 || each > tc.each {
			t.Errorf("%s: %d of %d failed; %.0f KiB each, want at most %.0f", tc.name, got.Failed, tc.Conns, each/1024, tc.each/1024)
		}
		if tc.Zeros > 0 && got.Written >= int64(tc.Conns)*tc.Zeros {
			t.Errorf("%s: everything was taken", tc.name)
		}
	}
	// Nothing of it stays. An upload whose client ends in the middle is noticed only
	// behind what was sent before, when the backend reads on.
	for begin := time.Now(); m.look("go_goroutines") > goroutines+100; pause(t) {
		if time.Since(begin) > 20*time.Second {
			r := m.askFrom("wp", request{URL: "http://127.0.0.1:15000/debug/pprof/goroutine?debug=1", Lines: "\n"})[0]
			t.Fatalf("there were %.0f goroutines and are\n%s", goroutines, r.Body)
		}
	}
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
