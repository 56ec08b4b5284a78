package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/local"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

// patience bounds every wait. Machines that run tests are busy.
const patience = 60 * time.Second

// testMesh is a running local mesh.
type testMesh struct {
	t     *testing.T
	files string // its manifests
	state string
	*control.Client
	end func() error // ends it in good order
}

func options(t *testing.T, manifests map[string]string) local.Options {
	t.Helper()
	dir := t.TempDir()
	for name, text := range manifests {
		writeFile(t, filepath.Join(dir, name), text)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return local.Options{
		Name: "test", RuntimeDir: filepath.Join(t.TempDir(), "ambit"), Manifests: dir, Nodes: 2, BinDir: filepath.Dir(self),
		TrustDomain: "cluster.local", ClusterDomain: "cluster.local", LogLevel: "debug",
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(filepath.Dir(path), ".new")
	if err := errors.Join(os.WriteFile(temp, []byte(strings.ReplaceAll(text, "SELF", self)), 0o644), os.Rename(temp, path)); err != nil {
		t.Fatal(err)
	}
}

// up starts a mesh and waits until it is ready. It ends with the test.
func up(t *testing.T, o local.Options) *testMesh {
	t.Helper()
	sb, err := local.Start(o)
	if err != nil {
		if errors.Is(err, syscall.EPERM) || strings.Contains(err.Error(), "user namespaces are needed") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sb.Wait(ctx) }()
	m := attach(t, o)
	ended := false
	m.end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(m.state, sandbox.LogName))
			t.Logf("log of pid 1:\n%s", log)
		}
		if err := m.end(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(o.RuntimeDir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", o.RuntimeDir, err)
		}
	})
	m.awaitReady()
	return m
}

func attach(t *testing.T, o local.Options) *testMesh {
	t.Helper()
	state, err := sandbox.Path(o.RuntimeDir, o.Name)
	if err != nil {
		t.Fatal(err)
	}
	return &testMesh{t: t, files: o.Manifests, state: state, Client: control.NewClient(state)}
}

func (m *testMesh) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (m *testMesh) awaitReady() {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	var events []string
	err := m.Watch(ctx, func(e control.Event) bool {
		events = append(events, e.Message)
		return e.Ready
	})
	if err != nil {
		m.t.Fatalf("%v; events:\n%s", err, strings.Join(events, "\n"))
	}
}

func (m *testMesh) status() control.Status {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	var st control.Status
	if err := m.Call(ctx, control.OpStatus, nil, &st); err != nil {
		m.t.Fatal(err)
	}
	return st
}

// await waits until the status is as wanted.
func (m *testMesh) await(what string, ok func(control.Status) bool) control.Status {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		st := m.status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("waited in vain until %s: %+v", what, st)
		}
	}
}

// result is what a program that ran inside left.
type result struct {
	code     int
	out, err string
}

// run runs this test's binary in a role, or another program, inside.
func (m *testMesh) run(target string, argv ...string) result {
	m.t.Helper()
	wait := m.start(target, nil, argv...)
	r, err := wait()
	if err != nil {
		m.t.Fatalf("%s: %v: %v", target, argv, err)
	}
	return r
}

// start begins what run does, and gives what waits for its end.
func (m *testMesh) start(target string, signals <-chan os.Signal, argv ...string) func() (result, error) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	if strings.HasPrefix(argv[0], "role-") {
		argv = append([]string{self}, argv...)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		m.t.Fatal(err)
	}
	out, outText := m.pipe()
	errOut, errText := m.pipe()
	type ended struct {
		code int
		err  error
	}
	done := make(chan ended, 1)
	go func() {
		ctx, cancel := m.context()
		defer cancel()
		code, err := m.Exec(ctx, control.ExecArgs{Target: control.Target{Name: target}, Argv: argv}, [3]*os.File{null, out, errOut}, signals)
		for _, f := range []*os.File{null, out, errOut} {
			f.Close()
		}
		done <- ended{code, err}
	}()
	return func() (result, error) {
		e := <-done
		return result{e.code, <-outText, <-errText}, e.err
	}
}

func (m *testMesh) pipe() (*os.File, <-chan string) {
	m.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		defer r.Close()
		var b bytes.Buffer
		_, _ = io.Copy(&b, r)
		text <- b.String()
	}()
	return w, text
}

// log reads the output of a container or a component.
func (m *testMesh) log(target string) string {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	var a control.LogsAnswer
	if err := m.Call(ctx, control.OpLogs, control.Target{Name: target}, &a); err != nil {
		m.t.Fatal(err)
	}
	raw, err := os.ReadFile(a.Path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(raw)
}

// server gives manifests of a Deployment and a Service in front of it.
func server(replicas int, version string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: %d
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: server
          command: [SELF, role-server]
          env: [{name: VERSION, value: "%s"}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: http}, {name: udp, port: 81, targetPort: 8080, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: server}
  ports: [{name: http, port: 8080}]
`, replicas, version)
}

const client = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: client, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
`
