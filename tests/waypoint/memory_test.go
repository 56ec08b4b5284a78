package waypoint_test

import (
	"cmp"
	"encoding/json"
	"errors"
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
}

// held is what became of them.
type held struct {
	Written int64 // by all, of zeros
	Failed  int
	Error   string // the first
}

// holdOpen is what holdConns prints once all connections are open.
const holdOpen = "open"

// holdConns opens connections, says what is to be said, prints holdOpen, and reads
// nothing until its input ends.
func holdConns(in io.Reader, out io.Writer) error {
	var h hold
	from := json.NewDecoder(in)
	if err := from.Decode(&h); err != nil {
		return err
	}
	var got held
	var conns []net.Conn
	for range h.Conns {
		c, err := net.DialTimeout("tcp", h.Addr, time.Minute)
		if err == nil {
			conns = append(conns, c)
			_, err = c.Write(h.Say)
		}
		if err != nil {
			got.Failed++
			got.Error = cmp.Or(got.Error, err.Error())
		}
	}
	if _, err := fmt.Fprintln(out, holdOpen); err != nil {
		return err
	}
	var written atomic.Int64
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			piece := make([]byte, 32<<10)
			for left := h.Zeros; left > 0; {
				n, err := c.Write(piece[:min(left, int64(len(piece)))])
				written.Add(int64(n))
				if err != nil {
					return
				}
				left -= int64(n)
			}
		})
	}
	_, err := io.Copy(io.Discard, in)
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	wg.Wait()
	got.Written = written.Load()
	return errors.Join(err, json.NewEncoder(out).Encode(got))
}

// kept gives the bytes that the waypoint keeps after a collection. It is what Go has
// handed out and not what is resident: the race detector's books are not in it, nor
// what an earlier case had and the kernel was not given back yet.
func (m *mesh) kept() (sum float64) {
	m.t.Helper()
	r := m.askFrom("wp", request{URL: "http://127.0.0.1:15000/debug/pprof/heap?gc=1&debug=1", Lines: "# "})[0]
	found := 0
	for line := range strings.Lines(r.Body) {
		for _, name := range []string{"# HeapInuse = ", "# Stack = "} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				if err != nil {
					m.t.Fatal(err)
				}
				sum += n
				found++
			}
		}
	}
	if found != 2 {
		m.t.Fatalf("the waypoint does not say what it keeps: %d %s\n%s", r.Status, r.Error, r.Body)
	}
	return sum
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
	stalled := fmt.Sprint("held-", time.Now().UnixNano()) // not that of an earlier run
	// How many looks in a row find nothing more before nothing more is expected.
	const quiet = 5
	goroutines := m.look("go_goroutines")
	for _, tc := range []struct {
		name string
		hold
		each float64 // bytes
	}{
		{"idle connections", hold{Conns: 1000, Say: fmt.Appendf(nil, get, "")}, 100 << 10},
		{"clients that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, get, "?size=100000000")}, 1 << 20},
		{"backends that do not read", hold{Conns: 100, Say: fmt.Appendf(nil, post, "?stall="+stalled, 100_000_000), Zeros: 100_000_000}, 1 << 20},
	} {
		tc.Addr = "held:80"
		before := m.kept()
		most := before
		each := func() float64 { return (most - before) / float64(tc.Conns) }
		var got held
		end := m.converse("client", tc.hold, holdOpen, &got, "hold")
		for still := 0; still < quiet && each() <= tc.each; still++ {
			if now := m.kept(); now > most {
				most, still = now, 0
			}
		}
		end()
		t.Logf("%s: %.0f KiB each, %d MB taken", tc.name, each()/1024, got.Written/1e6)
		if got.Failed > 0 || each() > tc.each {
			t.Errorf("%s: %d of %d failed: %s; %.0f KiB each, want at most %.0f", tc.name, got.Failed, tc.Conns, got.Error, each()/1024, tc.each/1024)
		}
		if tc.Zeros > 0 && got.Written >= int64(tc.Conns)*tc.Zeros {
			t.Errorf("%s: everything was taken", tc.name)
		}
	}
	if r := m.get("http://held/go?key=" + stalled); r.Status != 200 {
		t.Errorf("backends cannot be told to read on: %d %s", r.Status, r.Error)
	}
	// Nothing of it stays. An upload whose client ends in the middle is noticed only
	// behind what was sent before, when the backend reads on: how long that takes all
	// of them is the machine's affair, and that ever fewer are left is the waypoint's.
	most := goroutines + 100
	least, since := m.look("go_goroutines"), time.Now()
	for now := least; now > most; now = m.look("go_goroutines") {
		switch {
		case now < least:
			least, since = now, time.Now()
		case time.Since(since) > time.Minute:
			r := m.askFrom("wp", request{URL: "http://127.0.0.1:15000/debug/pprof/goroutine?debug=1", Lines: "\n"})[0]
			t.Fatalf("there were %.0f goroutines and are\n%s", goroutines, r.Body)
		}
		pause(t)
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
