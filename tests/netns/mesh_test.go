package netns_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// roleEnv makes the test binary a probe: its arguments are the role.
const roleEnv = "AMBIT_TEST_PROBE"

// binEnv is a directory with programs of the mesh that are built already.
const binEnv = "AMBIT_TEST_BIN"

// binDir is where the programs of the mesh are.
var binDir string

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "ambit-waypoint":
		os.Exit(probe(append([]string{"waypoint"}, os.Args[1:]...)))
	case os.Getenv(insideEnv) != "":
		os.Exit(m.Run()) // in a pod of a mesh that is there already
	case os.Getenv(roleEnv) != "":
		os.Exit(probe(os.Args[1:]))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if binDir = os.Getenv(binEnv); binDir != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ambit-netns-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the mesh's programs, with the race detector if that is possible.
func build(dir string) error {
	for name, pkg := range map[string]string{"ambit": "ambit", "ambit-local-controlplane": "local-controlplane", "ambit-nodeagent": "nodeagent", "ambit-ztunnel": "ztunnel", "ambit-waypoint": "waypoint"} {
		args := []string{"build", "-o", filepath.Join(dir, name)}
		if _, err := exec.LookPath("gcc"); err == nil && os.Getenv("CGO_ENABLED") != "0" && name != "ambit" {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "../../cmd/"+pkg)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// mesh is a running local mesh.
type mesh struct {
	t    *testing.T
	name string
	dir  string // of the manifests
}

// status is the part of `ambit local status -o json` that tests look at.
type status struct {
	Pods []struct {
		Namespace string         `json:"namespace"`
		Name      string         `json:"name"`
		Node      string         `json:"node"`
		IPs       []string       `json:"ips"`
		Captured  string         `json:"captured"`
		Pids      map[string]int `json:"pids"`
		State     string         `json:"state"`
	} `json:"pods"`
	Components []statusComponent `json:"components"`
	Problems   []string          `json:"problems"`
}

type statusComponent struct {
	Name     string `json:"name"`
	Pid      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Ready    bool   `json:"ready"`
	Draining int    `json:"draining"`
}

// start brings up a mesh with the manifests, and takes it down with the test.
func start(t *testing.T, manifests map[string]string, args ...string) *mesh {
	t.Helper()
	m := &mesh{t: t, name: meshName(t.Name()), dir: t.TempDir()}
	for p := m.dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	for name, text := range manifests {
		m.write(name, text)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range []string{"controlplane", "n1/nodeagent", "n1/ztunnel", "n1/access", "n2/nodeagent", "n2/ztunnel", "n2/access"} {
				out, _ := m.command(context.Background(), "logs", c).CombinedOutput()
				t.Logf("--- %s\n%s%s", c, failures(out), tail(out, 6000))
			}
		}
		if out, err := m.command(context.Background(), "down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	args = append([]string{"up", "-f", m.dir, "--nodes", "2", "--detach", "--timeout", "3m", "--bin-dir", binDir}, args...)
	if out, err := m.command(t.Context(), args...).CombinedOutput(); err != nil {
		t.Fatalf("up: %v\n%s", err, tail(out, 4000))
	}
	return m
}

// meshName is short, and not that of another run of the same test.
func meshName(test string) string {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, binDir, os.Getpid(), test)
	return fmt.Sprintf("test-%08x", h.Sum32())
}

// failures gives the first lines of a log that have an error, as the tail of an access log
// is of connections that came long after what went wrong.
func failures(log []byte) []byte {
	var found []byte
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(`"error":`)) && len(found) < 8000 {
			found = append(found, line...)
		}
	}
	return found
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// write puts a manifest in place at once.
func (m *mesh) write(name, text string) {
	m.t.Helper()
	tmp := filepath.Join(m.dir, "."+name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(m.dir, name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(binDir, "ambit"), append([]string{"local", "--name", m.name}, args...)...)
}

// probe prepares a probe in a pod.
func (m *mesh) probe(ctx context.Context, namespace, pod string, role ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	args := append([]string{"exec", pod, "-n", namespace, "--", "/usr/bin/env", roleEnv + "=1", self}, role...)
	return m.command(ctx, args...)
}

// checks runs checks in a pod.
func (m *mesh) checks(namespace, pod string, list []check) []outcome {
	m.t.Helper()
	in, err := json.Marshal(list)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.probe(m.t.Context(), namespace, pod, "checks")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("checks in %s/%s: %v\n%s", namespace, pod, err, stderr.String())
	}
	var outcomes []outcome
	if err := json.Unmarshal(out, &outcomes); err != nil {
		m.t.Fatalf("checks in %s/%s: %v\n%s", namespace, pod, err, out)
	}
	return outcomes
}

// succeed runs checks and fails the test for each that does not go well.
func (m *mesh) succeed(namespace, pod string, list []check) []outcome {
	m.t.Helper()
	outcomes := m.checks(namespace, pod, list)
	for _, o := range outcomes {
		if o.Error != "" {
			m.t.Errorf("%s/%s → %s %s (%d bytes): %s", namespace, pod, o.Check.Kind, o.Check.Addr, o.Check.Size, o.Error)
		}
	}
	return outcomes
}

func (m *mesh) status() status {
	m.t.Helper()
	out, err := m.command(m.t.Context(), "status", "-o", "json").Output()
	if err != nil {
		m.t.Fatalf("status: %v", err)
	}
	var s status
	if err := json.Unmarshal(out, &s); err != nil {
		m.t.Fatalf("status: %v\n%s", err, out)
	}
	return s
}

// until polls until cond holds.
func (m *mesh) until(what string, cond func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			m.t.Fatalf("not within a minute: %s\n%+v", what, m.status())
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-m.t.Context().Done():
			m.t.FailNow()
		}
	}
}

// captured waits until exactly the pods of these namespaces are captured.
func (m *mesh) captured(namespaces ...string) {
	m.t.Helper()
	m.until(fmt.Sprintf("pods of %v are captured", namespaces), func() bool {
		for _, p := range m.status().Pods {
			want := false
			for _, ns := range namespaces {
				want = want || p.Namespace == ns
			}
			if (p.Captured == "yes") != want {
				return false
			}
		}
		return true
	})
}

// accessLog gives the access log lines of both ztunnels that match.
func (m *mesh) accessLog(match func(map[string]any) bool) []map[string]any {
	m.t.Helper()
	var found []map[string]any
	for _, node := range []string{"n1", "n2"} {
		out, err := m.command(m.t.Context(), "logs", node+"/access").Output()
		if err != nil {
			m.t.Fatalf("logs of %s: %v", node, err)
		}
		for line := range bytes.Lines(out) {
			var l map[string]any
			if json.Unmarshal(line, &l) == nil && l["logger"] == "access" && match(l) {
				found = append(found, l)
			}
		}
	}
	return found
}

// ends are the addresses of a connection in the error of its client.
var ends = regexp.MustCompile(`(\S+:\d+)->\S+:\d+`)

// linesOf gives what the ztunnels at both ends logged of the connections that a
// client's failures name.
func (m *mesh) linesOf(failures string) string {
	m.t.Helper()
	of := make(map[any]bool) // source addresses, and trace IDs
	for _, found := range ends.FindAllStringSubmatch(failures, -1) {
		of[found[1]] = true
	}
	trace := func(l map[string]any) string {
		text, _ := l["traceparent"].(string)
		_, text, _ = strings.Cut(text, "-")
		id, _, _ := strings.Cut(text, "-")
		return id
	}
	for _, l := range m.accessLog(func(l map[string]any) bool { return of[l["src.addr"]] }) {
		if id := trace(l); id != "" {
			of[id] = true
		}
	}
	var all strings.Builder
	for _, l := range m.accessLog(func(l map[string]any) bool { return of[l["src.addr"]] || of[trace(l)] }) {
		line, _ := json.Marshal(l)
		fmt.Fprintf(&all, "%s\n", line)
	}
	return all.String()
}

// atLeast is how many connections a steady load must have made to prove anything,
// also on a machine that is busy with other things.
const atLeast = 10

// steady is a client that opens connection after connection.
type steady struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bytes.Buffer
	m   *mesh
}

func (m *mesh) steady(namespace, pod, addr string) *steady {
	m.t.Helper()
	s := &steady{cmd: m.probe(m.t.Context(), namespace, pod, "steady", addr), out: new(bytes.Buffer), m: m}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	s.in, s.cmd.Stdout, s.cmd.Stderr = in, s.out, s.out
	if err := s.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// end stops the client and gives how many connections worked, and the failures.
func (s *steady) end() (ok int, failures string) {
	s.m.t.Helper()
	_ = s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		s.m.t.Fatalf("steady client: %v\n%s", err, s.out)
	}
	lines := strings.Split(strings.TrimSpace(s.out.String()), "\n")
	var n int
	last := lines[len(lines)-1]
	if _, err := fmt.Sscan(last, &ok, &n); err != nil {
		s.m.t.Fatalf("steady client: %q", s.out)
	}
	if n > 0 {
		failures = last
	}
	return ok, failures
}

// held is a client that keeps one connection.
type held struct {
	m     *mesh
	in    io.Writer
	close func() error
	out   *bufio.Reader
}

// end closes the connection.
func (h *held) end() {
	h.m.t.Helper()
	if err := h.close(); err != nil {
		h.m.t.Error(err)
	}
}

func (m *mesh) hold(namespace, pod, addr string) *held {
	m.t.Helper()
	return m.holdOver("tcp", namespace, pod, addr)
}

// holdOver is hold over a network, "tcp" or "udp"; of UDP no datagram may be lost.
func (m *mesh) holdOver(network, namespace, pod, addr string) *held {
	m.t.Helper()
	cmd := m.probe(m.t.Context(), namespace, pod, "hold", network, addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	h := &held{m: m, in: in, close: in.Close, out: bufio.NewReader(out)}
	if line := h.read(); line != "ok" {
		m.t.Fatalf("held connection to %s: %q", addr, line)
	}
	return h
}

func (h *held) read() string {
	line, err := h.out.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// try sends a byte and gives what came of it, ok if it came back.
func (h *held) try() string {
	if _, err := h.in.Write([]byte("x")); err != nil {
		return err.Error()
	}
	return h.read()
}

// beat fails the test if the connection does not work any more.
func (h *held) beat() {
	h.m.t.Helper()
	if line := h.try(); line != "ok" {
		h.m.t.Errorf("held connection: %s", line)
	}
}
