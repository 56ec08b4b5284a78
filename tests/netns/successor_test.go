package netns_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
)

// A ztunnel is replaced again and again, at either end, by the command and by a plain
// SIGTERM: neither a download, nor an idle connection, nor one of many new connections
// notices. It ends when its last connection has.
func TestZtunnelIsReplaced(t *testing.T) {
	const far, near = "server-n2.in.svc.cluster.local", "server-n1.in.svc.cluster.local"
	m := start(t, world())
	m.captured("in")
	loads := []*steady{m.steady("in", "client", far+":8080"), m.steady("in", "client", near+":8080"), m.steady("out", "client", far+":8080")}
	idle := m.hold("in", "client", far+":8085")
	download := m.download("in", "client", far+":8080", 1<<30)

	for _, c := range []string{"n1/ztunnel", "n2/ztunnel", "n1/ztunnel"} {
		m.replace(c, func() {
			if out, err := m.command(t.Context(), "restart", c).CombinedOutput(); err != nil {
				t.Fatalf("restart %s: %v\n%s", c, err, out)
			}
		})
		idle.beat()
	}
	m.replace("n2/ztunnel", func() { m.signal("n2/ztunnel", "TERM") })
	idle.beat()
	for _, c := range []string{"n1/ztunnel", "n2/ztunnel"} {
		if m.component(c).draining == 0 {
			t.Errorf("no %s is left to carry the old connections: they proved nothing", c)
		}
	}
	download()
	idle.beat()
	idle.end()
	for _, l := range loads {
		if ok, failures := l.end(); failures != "" || ok < 100 {
			t.Errorf("%d connections worked, failures: %s", ok, failures)
		}
	}
	m.until("those that were replaced have ended with their last connections", func() bool {
		return m.component("n1/ztunnel").draining+m.component("n2/ztunnel").draining == 0
	})
	m.encryptedBetween(far + ":8080")
}

// replace waits until a component that is told to stop has a successor that is ready.
func (m *mesh) replace(component string, stop func()) {
	m.t.Helper()
	before := m.component(component)
	stop()
	m.until(component+" has a successor", func() bool {
		now := m.component(component)
		return now.pid != 0 && now.pid != before.pid && now.ready
	})
}

// download echoes so many bytes; the function that it gives waits for the end.
func (m *mesh) download(namespace, pod, addr string, size int64) (wait func()) {
	m.t.Helper()
	in, err := json.Marshal([]check{{Kind: "echo", Addr: addr, Size: size}})
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.probe(m.t.Context(), namespace, pod, "checks")
	out := new(bytes.Buffer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		m.t.Helper()
		err := cmd.Wait()
		var outcomes []outcome
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &outcomes)
		}
		switch {
		case err != nil:
			m.t.Errorf("download: %v\n%s", err, out)
		case outcomes[0].Error != "":
			m.t.Errorf("download of %s bytes: %s", strconv.FormatInt(size, 10), outcomes[0].Error)
		}
	}
}

// Without any ztunnel new connections wait for the next one: the node agent holds the
// sockets that it listens on.
func TestConnectionsWaitForAZtunnel(t *testing.T) {
	const far = "server-n2.in.svc.cluster.local:8080"
	m := start(t, world())
	m.captured("in")
	m.succeed("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}})
	for _, c := range []string{"n1/ztunnel", "n2/ztunnel"} {
		before := m.component(c).pid
		m.signal(c, "KILL")
		// Each of these begins while nobody accepts, or just after.
		for range 20 {
			o := m.checks("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}})[0]
			if o.Error != "" && c == "n1/ztunnel" {
				t.Errorf("after the end of %s: %s", c, o.Error)
			}
			if now := m.component(c); now.pid != 0 && now.pid != before {
				break
			}
		}
		m.until(c+" is back", func() bool { now := m.component(c); return now.pid != 0 && now.pid != before && now.ready })
	}
}
