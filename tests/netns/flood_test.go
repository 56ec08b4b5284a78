package netns_test

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// What a flood may take of a ztunnel: at most, with all the sessions that a pod may
// have, and when it is over. The race detector needs several times as much.
const peakFlooded, leftFlooded = 512 << 20, 24 << 20

// raced says whether the ztunnels are built with the race detector.
func raced(t *testing.T) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(filepath.Join(binDir, "ambit-ztunnel"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// raceCost is how many times the memory a program may take at its peak that is built with
// the race detector (https://go.dev/doc/articles/race_detector says five to ten).
const raceCost = 8

// pooledGoroutines are those of the connections that the tunnels of so many sessions
// needed: at most 16 between two pods, kept for the sessions that may follow.
const pooledGoroutines = 16 * 12

// A pod that floods another with datagrams, in few sessions and in as many as it
// gets, takes nothing of what others have through the same two ztunnels.
func TestDatagramFlood(t *testing.T) {
	if in := insideOf(t); in != nil {
		t.Run("flood", func(t *testing.T) { floodDatagrams(t, net.JoinHostPort(in.Victim, fmt.Sprint(datagramPort))) })
		return
	}
	files := world()
	files["tenant.yaml"] = namespace("tenant", true) + "---\n" + pod("tenant", "neighbour", "n2") + "---\n" + services("tenant", "neighbour")
	m := start(t, files)
	m.captured("in", "tenant")
	in := &inside{Victim: m.ip("in", "server-n2")}
	asked := []check{
		{Kind: "udp", Addr: fmt.Sprintf("neighbour.tenant.svc.cluster.local:%d", datagramPort), Network: "udp4", Size: 1000},
		{Kind: "echo", Addr: "neighbour.tenant.svc.cluster.local:8080", Network: "tcp4", Size: 100_000},
	}
	m.succeed("in", "server-n1", asked)
	peak, left := peakFlooded, leftFlooded
	if raced(t) {
		peak, left = raceCost*peak, 2*left
	}
	before := map[string]expense{"n1/ztunnel": m.expense("n1/ztunnel"), "n2/ztunnel": m.expense("n2/ztunnel")}
	over := make(chan struct{})
	go func() {
		defer close(over)
		m.runInside("in", "client", "flood", in)
	}()
	rounds := 0
	for flooding := true; flooding; rounds++ {
		select {
		case <-over:
			flooding = false
		default:
		}
		m.succeed("in", "server-n1", asked)
	}
	t.Logf("%d rounds during the flood", rounds)
	// The victim's other clients, too.
	m.succeed("in", "server-n1", []check{{Kind: "udp", Addr: fmt.Sprintf("server-n2.in.svc.cluster.local:%d", datagramPort), Network: "udp4", Size: 1000}})
	for component, b := range before {
		var after expense
		m.until("what the flood took of "+component+" is given back", func() bool {
			after = m.expense(component)
			// The sessions of those who asked meanwhile, and the four that flooded, live on
			// for their two minutes.
			return after.goroutines <= b.goroutines+leftGoroutines+pooledGoroutines+4*(rounds+4) && after.heap <= b.heap+left
		})
		if after.peak > b.resident+peak {
			t.Errorf("%s had %d MB at its peak, %d MB before", component, after.peak>>20, b.resident>>20)
		}
		t.Logf("%s: goroutines %d → %d, heap %d → %d KB, resident %d MB, at most %d MB", component, b.goroutines, after.goroutines, b.heap>>10, after.heap>>10, b.resident>>20, after.peak>>20)
	}
}

// floodDatagrams sends as fast as it can.
func floodDatagrams(t *testing.T, target string) {
	for range 4 {
		c, err := net.Dial("udp", target)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		pc := ipv4.NewPacketConn(c.(*net.UDPConn))
		msgs := make([]ipv4.Message, 32)
		for i := range msgs {
			msgs[i].Buffers = [][]byte{make([]byte, 1000)}
		}
		go func() {
			for {
				if _, err := pc.WriteBatch(msgs, 0); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}()
	}
	// Meanwhile sessions, more than a pod has.
	end := time.Now().Add(3 * time.Second)
	for i := 0; i < 6000 || time.Now().Before(end); i++ {
		c, err := net.Dial("udp", target)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		c.Close()
	}
}
