package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/local"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

// marker is in the environment of everything that a test starts.
const marker = "AMBIT_LOCAL_TEST_MARKER"

// marked gives the processes with a marker, by argv[0].
func marked(t *testing.T, value string) map[string][]int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !bytes.Contains(env, []byte(marker+"="+value)) {
			continue
		}
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		found[name] = append(found[name], pid)
	}
	return found
}

func TestNothingIsLeft(t *testing.T) {
	mounts := func() string {
		raw, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	before := mounts()
	kill := func(t *testing.T, value string, names ...string) {
		t.Helper()
		all := marked(t, value)
		for _, name := range names {
			if len(all[name]) != 1 {
				t.Fatalf("processes %v, want one %s", all, name)
			}
		}
		for _, name := range names {
			if err := syscall.Kill(all[name][0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, m *testMesh, value string)
	}{
		{"down", func(t *testing.T, m *testMesh, _ string) {
			ctx, cancel := m.context()
			defer cancel()
			if err := m.Call(ctx, control.OpDown, control.DownArgs{}, nil); err != nil {
				t.Fatal(err)
			}
		}},
		{"pid 1 is killed", func(t *testing.T, _ *testMesh, v string) { kill(t, v, "ambit-local-init") }},
		{"the keeper is killed", func(t *testing.T, _ *testMesh, v string) { kill(t, v, "ambit-local-keeper") }},
		{"both are killed", func(t *testing.T, m *testMesh, v string) {
			kill(t, v, "ambit-local-keeper", "ambit-local-init")
			awaitGone(t, v)
			// The kernel may not be done with the lock that they held.
			for deadline := time.Now().Add(patience); sandbox.Running(m.state) && time.Now().Before(deadline); {
				<-time.After(10 * time.Millisecond)
			}
			if err := sandbox.Clean(m.state, "test"); err != nil && !errors.As(err, new(*sandbox.NotRunningError)) {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			value := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
			t.Setenv(marker, value)
			o := options(t, map[string]string{"client.yaml": client, "server.yaml": server(2, "1")})
			if err := local.StartDetached(o); err != nil {
				if strings.Contains(err.Error(), "user namespaces are needed") {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			m := attach(t, o)
			m.awaitReady()
			if err := local.StartDetached(o); err == nil || !strings.Contains(err.Error(), `local mesh "test" is already running`) {
				t.Errorf("a second one of that name: %v", err)
			}
			tc.end(t, m, value)
			awaitGone(t, value)
			for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
				if _, err := os.Stat(o.RuntimeDir); os.IsNotExist(err) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s is left", o.RuntimeDir)
				}
			}
			if now := mounts(); now != before {
				t.Errorf("mounts were\n%s\nand are\n%s", before, now)
			}
		})
	}
}

func awaitGone(t *testing.T, value string) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(marked(t, value)) > 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes are left: %v", marked(t, value))
		}
	}
}

// TestRootless runs the other tests once more without root.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run without root already")
	}
	dir, err := os.MkdirTemp("", "rootless-") //nolint:usetesting // others cannot get at those of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "local.test")
	temp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, raw, 0o755), os.Mkdir(temp, 0o755), os.Chown(temp, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^(TestNetwork|TestExec|TestNothingIsLeft|TestPodLifecycle)$", "-test.v")
	cmd.Dir = temp
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "XDG_") }), "TMPDIR="+temp, "HOME="+temp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "SKIP") {
		t.Skipf("%s", out)
	}
}
