package netns_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// carried gives how many bytes the open connections of a node's ztunnel have carried
// towards who opened them.
func (m *mesh) carried(node string) (sum int64) {
	m.t.Helper()
	var dump struct {
		Pods map[string]struct {
			Connections []struct {
				Bytes int64 `json:"bytesToSource"`
			} `json:"connections"`
		} `json:"workloadState"`
	}
	if err := json.Unmarshal([]byte(m.fetch(node, "http://127.0.0.1:15000/config_dump")), &dump); err != nil {
		m.t.Fatalf("config dump of %s: %v", node, err)
	}
	for _, p := range dump.Pods {
		for _, c := range p.Connections {
			sum += c.Bytes
		}
	}
	return sum
}

// Readers that do not read hold up who sends to them, through both ztunnels, which
// keep little of it; and what is read in the end is what was sent.
func TestSlowReadersBoundMemory(t *testing.T) {
	const readers = 60
	// What the windows let a ztunnel keep: three quarters of 96 MiB for each tunnel
	// connection, of which there is at most one a core.
	most := runtime.NumCPU() * 72 << 20
	m := start(t, world())
	m.captured("in")
	before := map[string]expense{"n1": m.expense("n1/ztunnel"), "n2": m.expense("n2/ztunnel")}
	cmd := m.probe(t.Context(), "in", "client", "slow", "server-n2.in.svc.cluster.local:8086", strconv.Itoa(readers))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	want := func(word string) {
		t.Helper()
		if line, err := out.ReadString('\n'); err != nil || strings.TrimSpace(line) != word {
			t.Fatalf("slow readers: %q, %v, want %s", line, err, word)
		}
	}
	want("open")
	for range 3 {
		m.heldUp(before, most)
		fmt.Fprintln(in, "read")
		want("read")
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	m.until("what the readers took of the ztunnels is given back", func() bool {
		return m.expense("n1/ztunnel").heap <= before["n1"].heap+leftHeap && m.expense("n2/ztunnel").heap <= before["n2"].heap+leftHeap
	})
}

// heldUp waits until nothing moves, and looks at what the ztunnels hold then.
func (m *mesh) heldUp(before map[string]expense, most int) {
	m.t.Helper()
	for _, node := range []string{"n1", "n2"} {
		last := int64(-1)
		m.until("senders are held up at "+node, func() bool {
			now := m.carried(node)
			still := now > 0 && now == last
			last = now
			return still
		})
		now := m.expense(node + "/ztunnel")
		if now.heap > before[node].heap+most {
			m.t.Errorf("%s: heap of %d KB for readers that do not read, %d KB before", node, now.heap>>10, before[node].heap>>10)
		}
		m.t.Logf("%s: %d bytes under way, heap %d → %d KB, resident %d → %d MB", node, last, before[node].heap>>10, now.heap>>10, before[node].resident>>20, now.resident>>20)
	}
}
