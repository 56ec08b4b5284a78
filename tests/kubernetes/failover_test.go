package kubernetes

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

// output collects what a program prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// program runs a control plane as a process of its own, which can be killed, and
// gives its log and what kills it.
func program(t *testing.T, bin string, s *apitest.Server) (log *output, kill func()) {
	t.Helper()
	log = new(output)
	cmd := exec.Command(bin, "--source=kubernetes", "--kubeconfig="+s.Kubeconfig, "--waypoint-image=ambit/waypoint:1", //nolint:noctx // it is killed
		"--xds-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0", "--ready-address=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = os.Environ()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Log(log)
		}
	})
	return log, kill
}

// TestLeaderIsKilled: the leader is killed without a chance to hand over, and what it
// did goes on: the other replica leads when the lease has ended.
func TestLeaderIsKilled(t *testing.T) {
	s := apitest.Start(t)
	install(t, s, nil)
	kubectl(t, s, mesh, "apply", "--server-side", "--force-conflicts", "-f", "-")
	bin := filepath.Join(t.TempDir(), "controlplane")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/controlplane").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	waypoint := func(name string) {
		t.Helper()
		kubectl(t, s, gatewayHead+"name: "+name+"}, spec: {gatewayClassName: ambit-waypoint, "+hbone+"}}", "apply", "--server-side", "-f", "-")
		kubectl(t, s, "", "wait", "-n", "shop", "gateway/"+name, `--for=jsonpath={.status.conditions[?(@.type=="Accepted")].status}=True`, "--timeout=90s")
		kubectl(t, s, "", "wait", "-n", "shop", "deployment/"+name, "--for=create", "--timeout=30s")
	}
	const leads = "this replica leads"
	first, kill := program(t, bin, s)
	testkit.Until(t, "the first leads", func() bool { return strings.Contains(first.String(), leads) })
	second, _ := program(t, bin, s)
	waypoint("before")
	if strings.Contains(second.String(), leads) {
		t.Fatal("two lead")
	}
	kill()
	waypoint("after")
	if !strings.Contains(second.String(), leads) {
		t.Fatal("somebody else has done it")
	}
}
