package controlplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit"
)

// process is a control plane that runs.
type process struct {
	t                         *testing.T
	cmd                       *exec.Cmd
	done                      chan struct{} // closed when it has ended
	xds, admin, metrics, live string
	began                     time.Time
}

// build makes the program.
func build(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ambit-controlplane")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", name, "../../../cmd/controlplane")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return name
}

// start runs the program until stop, and waits until it is ready.
func start(t *testing.T, program, kubeconfig string) *process {
	t.Helper()
	p := &process{t: t, xds: address(t), admin: address(t), metrics: address(t), live: address(t), done: make(chan struct{}), began: time.Now()}
	log, err := os.Create(filepath.Join(t.TempDir(), "controlplane.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, "--source=kubernetes", "--kubeconfig", kubeconfig, "--log-level=warn", //nolint:noctx // it is ended by stop, in order
		"--xds-address", p.xds, "--admin-address", p.admin, "--metrics-address", p.metrics, "--ready-address", p.live)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.stop)
	testkit.Until(t, "ready; see "+log.Name(), func() bool {
		select {
		case <-p.done:
			text, err := os.ReadFile(log.Name())
			t.Fatalf("the control plane ended: %s, %v", text, err)
		default:
		}
		_, err := fetch(t.Context(), "http://"+p.live+"/healthz/ready")
		return err == nil
	})
	return p
}

// stop ends it, in order. It may be called twice.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Error("the control plane does not end")
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// fetch gets a page.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// resources is how many of a type are distributed.
func (p *process) resources(typeURL string) int {
	p.t.Helper()
	body, err := fetch(p.t.Context(), "http://"+p.metrics+"/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	series := fmt.Sprintf("ambit_xds_resources{type=%q} ", strings.TrimPrefix(typeURL, "type.googleapis.com/"))
	for line := range strings.Lines(string(body)) {
		if text, ok := strings.CutPrefix(line, series); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return int(n)
		}
	}
	p.t.Fatalf("the control plane has no metric %s", series)
	return 0
}

// cpu is the user and system time so far.
func (p *process) cpu() time.Duration {
	const user, system, ticks = 11, 12, 100 // fields after the name (proc(5)); USER_HZ
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var sum int
	for _, f := range []int{user, system} {
		n, err := strconv.Atoi(fields[f])
		if err != nil {
			p.t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks
}

// memory is a field of /proc/PID/status such as VmRSS or VmHWM (the largest so
// far), in MB.
func (p *process) memory(field string) float64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				p.t.Fatal(err)
			}
			return float64(kb) / 1000 * 1.024
		}
	}
	p.t.Fatalf("no %s", field)
	return 0
}

// profile keeps a profile where it is asked for.
func (p *process) profile(name, query string) {
	if *profiles == "" {
		return
	}
	body, err := fetch(p.t.Context(), "http://"+p.admin+"/debug/pprof/"+query)
	if err == nil {
		err = os.WriteFile(filepath.Join(*profiles, name+".pprof"), body, 0o644)
	}
	if err != nil {
		p.t.Error(err)
	}
}

func address(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
