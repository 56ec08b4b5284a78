package waypoint_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// roleEnv makes the test binary a program of the mesh: its arguments are the role.
const roleEnv = "AMBIT_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		os.Exit(role(os.Args[1:]))
	}
	code := m.Run()
	if found := shared.races(); found != "" {
		fmt.Fprintln(os.Stderr, found)
		code = 1
	}
	shared.down()
	os.Exit(code)
}

// bed is the mesh that the tests of this package share. Each test has services of
// its own in front of the same pods.
type bed struct {
	once sync.Once
	err  error
	tmp  string
	dir  string // of the manifests
	bin  string
	name string
	race bool // the programs have the race detector
}

var shared bed

// mesh gives the mesh to one test.
type mesh struct {
	t *testing.T
	*bed
}

// use starts the mesh if need be.
func use(t *testing.T) *mesh {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole mesh")
	}
	shared.once.Do(func() { shared.err = shared.up() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return &mesh{t, &shared}
}

func (b *bed) up() error {
	var err error
	if b.tmp, err = os.MkdirTemp("", "ambit-waypoint-"); err != nil {
		return err
	}
	b.dir, b.bin, b.name = filepath.Join(b.tmp, "manifests"), filepath.Join(b.tmp, "bin"), "waypoint-"+filepath.Base(b.tmp)[len("ambit-waypoint-"):]
	for _, d := range []string{b.dir, b.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(b.tmp, 0o755); err != nil {
		return err
	}
	if err := b.build(); err != nil {
		return err
	}
	base, err := manifests()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "base.yaml"), []byte(base), 0o644); err != nil {
		return err
	}
	out, err := b.command(context.Background(), "up", "-f", b.dir, "--nodes", "2", "--detach", "--timeout", "3m", "--bin-dir", b.bin, "--component-arg", "waypoint=--drain-timeout="+drainTime.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("up: %w\n%s\n%s", err, tail(out, 4000), b.logs())
	}
	return nil
}

// binEnv is a directory with programs of the mesh that are built already.
const binEnv = "AMBIT_TEST_BIN"

// build makes the mesh's programs, with the race detector if that is possible.
func (b *bed) build() error {
	_, err := exec.LookPath("gcc")
	b.race = err == nil && os.Getenv("CGO_ENABLED") != "0"
	if dir := os.Getenv(binEnv); dir != "" {
		b.bin = dir
		return nil
	}
	for name, pkg := range map[string]string{"ambit": "ambit", "ambit-local-controlplane": "local-controlplane", "ambit-nodeagent": "nodeagent", "ambit-ztunnel": "ztunnel", "ambit-waypoint": "waypoint"} {
		args := []string{"build", "-o", filepath.Join(b.bin, name)}
		if b.race && name != "ambit" {
			args = append(args, "-race")
		}
		if text, err := exec.Command("go", append(args, "../../cmd/"+pkg)...).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, text)
		}
	}
	return nil
}

// races gives what the race detector has found in the programs of the mesh.
func (b *bed) races() string {
	if b.tmp == "" || !b.race {
		return ""
	}
	logs := [][]string{{"controlplane"}}
	for _, node := range []string{"n1", "n2"} {
		logs = append(logs, []string{node + "/ztunnel"}, []string{node + "/nodeagent"})
	}
	var st struct{ Pods []pod }
	if out, err := b.command(context.Background(), "status", "-o", "json").Output(); err == nil && json.Unmarshal(out, &st) == nil {
		for _, p := range st.Pods {
			if strings.HasPrefix(p.Name, "wp-") {
				logs = append(logs, []string{p.Name, "-n", p.Namespace})
			}
		}
	}
	var all strings.Builder
	for _, log := range logs {
		out, _ := b.command(context.Background(), append([]string{"logs"}, log...)...).Output()
		if i := bytes.Index(out, []byte("WARNING: DATA RACE")); i >= 0 {
			fmt.Fprintf(&all, "%s\n%s\n", log[0], out[i:min(len(out), i+6000)])
		}
	}
	return all.String()
}

func (b *bed) down() {
	if b.tmp == "" {
		return
	}
	if out, err := b.command(context.Background(), "down").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "down: %v\n%s", err, out)
	}
	_ = os.RemoveAll(b.tmp)
}

func (b *bed) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(b.bin, "ambit"), append([]string{"local", "--name", b.name}, args...)...)
}

func (b *bed) logs() string {
	var all strings.Builder
	for _, c := range []string{"controlplane", "n1/ztunnel", "n1/access", "n2/ztunnel", "n2/access"} {
		out, _ := b.command(context.Background(), "logs", c).CombinedOutput()
		fmt.Fprintf(&all, "--- %s\n%s\n", c, tail(out, 3000))
	}
	out, _ := b.command(context.Background(), "get", "pods").CombinedOutput()
	all.Write(out)
	return all.String()
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// apply puts manifests in place, and takes them away with the test.
func (m *mesh) apply(text string) {
	m.t.Helper()
	name := strings.ReplaceAll(strings.ToLower(m.t.Name()), "/", "-")
	file := filepath.Join(m.dir, name+".yaml")
	if _, err := os.Stat(file); err != nil {
		m.t.Cleanup(func() { _ = os.Remove(file) })
	}
	m.write(name, text)
}

// write puts manifests in place.
func (m *mesh) write(name, text string) {
	m.t.Helper()
	tmp := filepath.Join(m.tmp, name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(m.dir, name+".yaml")); err != nil {
		m.t.Fatal(err)
	}
}

// echoPods selects those of a version, or of both.
func echoPods(version string) string {
	if version == "" {
		return "app: echo"
	}
	return "app: echo, version: " + version
}

// service is a Service in front of the echo pods of a version, or of both.
func service(name, version string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: app}
spec:
  selector: {%s}
  ports:
  - {name: http, port: 80, targetPort: 8080, protocol: TCP}
  - {name: grpc, port: 7070, targetPort: 7070, protocol: TCP}
  - {name: auto, port: 9080, targetPort: 8080, protocol: TCP, appProtocol: example.com/unknown}
  - {name: first, port: 9090, targetPort: 9090, protocol: TCP, appProtocol: example.com/unknown}
  - {name: tls, port: 443, targetPort: 8443, protocol: TCP}
`, name, echoPods(version))
}

// run runs a role in a pod with in as its input, and reads its output.
func (m *mesh) run(pod string, in, out any, args ...string) {
	m.t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.program(pod, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("%s %v: %v\n%s", pod, args, err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		m.t.Fatalf("%s %v: %v\n%s", pod, args, err, stdout.String())
	}
}

// converse runs a role that goes on until its input ends, and returns when it says
// that it is where it should be. What it gives ends the input and reads the output.
func (m *mesh) converse(pod string, in any, ready string, out any, args ...string) (end func()) {
	m.t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.program(pod, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	said := bufio.NewReader(stdout)
	_, err = stdin.Write(text)
	if err == nil {
		var line string
		if line, err = said.ReadString('\n'); err == nil && strings.TrimSpace(line) != ready {
			err = fmt.Errorf("it says %q instead of %q", line, ready)
		}
	}
	if err != nil {
		_ = stdin.Close()
		m.t.Fatalf("%s %v: %v\n%s", pod, args, errors.Join(err, cmd.Wait()), stderr.String())
	}
	return func() {
		m.t.Helper()
		err := errors.Join(stdin.Close(), json.NewDecoder(said).Decode(out), cmd.Wait())
		if err != nil {
			m.t.Fatalf("%s %v: %v\n%s", pod, args, err, stderr.String())
		}
	}
}

// program is a role in a pod, not started yet.
func (m *mesh) program(pod string, args ...string) *exec.Cmd {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	namespace := "app"
	if ns, name, ok := strings.Cut(pod, "/"); ok {
		namespace, pod = ns, name
	}
	target := "deploy/" + pod
	switch pod {
	case "wp":
		target = m.waypointPod()
	case "n1", "n2", "wire":
		target, namespace = pod, ""
	}
	return m.command(m.t.Context(), append([]string{"exec", target, "-n", namespace, "--", "/usr/bin/env", roleEnv + "=1", self}, args...)...)
}

// ask sends requests from the client pod, one after the other.
func (m *mesh) ask(requests ...request) []response { return m.askFrom("client", requests...) }

func (m *mesh) askFrom(pod string, requests ...request) []response {
	m.t.Helper()
	var out []response
	m.run(pod, requests, &out, "client")
	return out
}

// get sends one GET.
func (m *mesh) get(url string) response { return m.ask(request{URL: url})[0] }

// until asks until the answer is as wanted: configuration takes a moment to reach
// the waypoint.
func (m *mesh) until(what string, r request, want func(response) bool) response {
	m.t.Helper()
	return m.untilFrom("client", what, r, want)
}

func (m *mesh) untilFrom(pod, what string, r request, want func(response) bool) response {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got := m.askFrom(pod, r)[0]
		if want(got) {
			return got
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("not within a minute: %s; last %+v\n%s", what, got, m.logs())
		}
		pause(m.t)
	}
}

// pause is between two looks.
func pause(t *testing.T) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-t.Context().Done():
	}
}

// pod is what the status says of one.
type pod struct {
	Namespace, Name, Ready string
	Captured               string
	IPs                    []string
	Pids                   map[string]int // in the sandbox, by container
}

// podsOf gives the pods of a namespace whose names begin so.
func (m *mesh) podsOf(namespace, prefix string) []pod {
	m.t.Helper()
	var st struct{ Pods []pod }
	out, err := m.command(m.t.Context(), "status", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil {
		m.t.Fatalf("status: %v in %s", err, out)
	}
	var found []pod
	for _, p := range st.Pods {
		if p.Namespace == namespace && strings.HasPrefix(p.Name, prefix) {
			found = append(found, p)
		}
	}
	return found
}

// addresses are those of the pods whose names begin so.
func (m *mesh) addresses(namespace, prefix string) (out []string) {
	m.t.Helper()
	for _, p := range m.podsOf(namespace, prefix) {
		out = append(out, p.IPs...)
	}
	return out
}

// waypointPod gives the name of the waypoint's pod.
func (m *mesh) waypointPod() string {
	m.t.Helper()
	list := m.podsOf("app", "wp-")
	if len(list) == 0 {
		m.t.Fatal("there is no waypoint pod")
	}
	return list[0].Name
}

// logged waits for an access log line of the waypoint that has all of words.
func (m *mesh) logged(words ...string) string {
	m.t.Helper()
	return m.lineOf(words, []string{m.waypointPod(), "-n", "app"})
}

// ztunnelLogs are the access logs of both nodes.
var ztunnelLogs = [][]string{{"n1/access"}, {"n2/access"}}

// accessLog waits for an access log line of a ztunnel that has all of words.
func (m *mesh) accessLog(words ...string) string {
	m.t.Helper()
	return m.lineOf(words, ztunnelLogs...)
}

func (m *mesh) lineOf(words []string, logs ...[]string) string {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		line, near := m.find(words, logs...)
		if line != "" {
			return line
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("no line with %q; with the first:\n%s", words, tail(near, 6000))
		}
		pause(m.t)
	}
}

// find gives the first line with all of words, or else those with the first.
func (m *mesh) find(words []string, logs ...[]string) (line string, near []byte) {
	m.t.Helper()
	var all []byte
	for _, log := range logs {
		out, _ := m.command(m.t.Context(), append([]string{"logs"}, log...)...).CombinedOutput()
		all = append(all, out...)
	}
lines:
	for line := range strings.Lines(string(all)) {
		for i, w := range words {
			if !strings.Contains(line, w) {
				if i > 0 {
					near = append(near, line...)
				}
				continue lines
			}
		}
		return line, nil
	}
	return "", near
}

// counted waits until a metric of the waypoint, with labels that have all of
// words, is above zero.
func (m *mesh) counted(name string, words ...string) {
	m.t.Helper()
	m.countedAt("wp", name, words...)
}

// countedAt is counted for another waypoint, which has one pod.
func (m *mesh) countedAt(waypoint, name string, words ...string) {
	m.t.Helper()
	m.untilFrom(waypoint, fmt.Sprintf("%s with %q is counted", name, words), request{URL: "http://127.0.0.1:15020/metrics", Lines: name}, func(r response) bool {
	lines:
		for line := range strings.Lines(r.Body) {
			for _, w := range append(words, name) {
				if !strings.Contains(line, w) || strings.HasSuffix(line, " 0\n") || strings.HasPrefix(line, "#") {
					continue lines
				}
			}
			return true
		}
		return false
	})
}
