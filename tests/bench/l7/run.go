package l7

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Config of a run.
type Config struct {
	waypoint, cache string
	rounds          int
	duration        time.Duration
	rows            *regexp.Regexp
	logs            []string
	memory          bool
	settle          time.Duration
	proxyCore       int
	loadCore        int
	nice            int
	profiles        string
	ambitOnly       bool
}

func parse(args []string) (Config, error) {
	var c Config
	f := flag.NewFlagSet("waypoint", flag.ContinueOnError)
	f.StringVar(&c.waypoint, "waypoint", "bin/ambit-waypoint", "the waypoint program")
	f.StringVar(&c.cache, "cache", ".cache", "where Envoy is kept")
	f.IntVar(&c.rounds, "rounds", 3, "rounds; the median counts")
	f.DurationVar(&c.duration, "duration", 3*time.Second, "of each measurement")
	rows := f.String("rows", "", "only the rows that this regular expression finds")
	logs := f.String("access-log", "on,off", "on, off or both")
	f.BoolVar(&c.memory, "memory", true, "measure memory, which takes minutes")
	f.DurationVar(&c.settle, "settle", 150*time.Second, "how long memory is left to settle: two collections")
	f.IntVar(&c.proxyCore, "proxy-core", 0, "core of the proxy that is measured")
	f.IntVar(&c.loadCore, "load-core", 1, "core of load and backends")
	f.IntVar(&c.nice, "nice", -20, "nice value of the benchmark as a session; below 0 keeps other work of the machine away, if that is allowed")
	f.StringVar(&c.profiles, "profiles", "", "folder for CPU profiles of the waypoint under each row's load")
	f.BoolVar(&c.ambitOnly, "ambit-only", false, "without Envoy")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var err error
	c.rows, err = regexp.Compile(*rows)
	c.logs = strings.Split(*logs, ",")
	return c, err
}

// Run starts the benchmark in a process of its own on the load's core, and waits
// for it. self is the program whose subcommand "waypoint" is Main.
func Run(ctx context.Context, self string, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if runtime.NumCPU() < 2 {
		return errors.New("waypoint: two cores are needed, one for the proxy and one for the load")
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"waypoint"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	// A session of its own is scheduled as one beside others.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := onCore(c.loadCore, cmd.Start); err != nil {
		return err
	}
	return cmd.Wait()
}

// Main is the process on the load's core.
func Main(ctx context.Context, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if err := prefer(c.nice); err != nil {
		fmt.Fprintf(os.Stderr, "nice %d: %v\n", c.nice, err)
	}
	debug.SetGCPercent(400) // the load's own collections are nobody's business
	dir, err := os.MkdirTemp("", "ambit-bench-l7-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{Config: c, dir: dir, results: make(map[string]map[string]*result)}
	if b.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := b.authority.write(dir, account("waypoint")); err != nil {
		return err
	}
	if b.client, _, err = b.authority.issue(account("client")); err != nil {
		return err
	}
	b.names = []string{ambit}
	if !c.ambitOnly {
		if b.envoyPath, err = envoyBinary(ctx, c.cache); err != nil {
			fmt.Fprintf(os.Stderr, "Envoy cannot be had, so that Ambit is measured alone: %v\n", err)
		} else {
			b.names = append(b.names, envoy, envoyHBONE)
		}
	}
	backends, err := startBackends(ctx, b.authority)
	defer backends.stop()
	if err != nil {
		return err
	}
	if c.memory {
		if err := b.memory(ctx); err != nil {
			return err
		}
	}
	return b.rates(ctx)
}

// Names of the proxies.
const (
	ambit      = "Ambit"
	envoy      = "Envoy, mTLS"
	envoyHBONE = "Envoy, HBONE"
)

type bench struct {
	Config
	dir       string
	authority *authority
	client    *identity.Certificate
	envoyPath string
	names     []string                      // of the proxies
	results   map[string]map[string]*result // by row and proxy
}

// proxies of one route table.
type proxies struct {
	stopControl func()
	running     map[string]*process
	dialers     map[string]dialer
}

func (p *proxies) stop() {
	for _, d := range p.dialers {
		d.close()
	}
	for _, r := range p.running {
		r.stop()
	}
	p.stopControl()
}

// start starts the proxies with a route table and waits until they are ready.
func (b *bench) start(ctx context.Context, rules int, logged bool) (*proxies, error) {
	p := &proxies{running: make(map[string]*process), dialers: make(map[string]dialer)}
	var err error
	if p.stopControl, err = serveControl(b.authority, rules); err != nil {
		return nil, err
	}
	if err := b.startAmbit(ctx, p, logged); err != nil {
		p.stop()
		return nil, err
	}
	for _, name := range b.names[1:] {
		if err := b.startEnvoy(ctx, p, name, rules, logged); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

func (b *bench) startAmbit(ctx context.Context, p *proxies, logged bool) error {
	accessLog := "off"
	if logged {
		accessLog = filepath.Join(b.dir, "ambit-access.log")
	}
	token := filepath.Join(b.dir, "token")
	if err := os.WriteFile(token, []byte("bench"), 0o600); err != nil {
		return err
	}
	on := func(port int) string { return fmt.Sprintf("%s:%d", waypointHost, port) }
	ran, err := launch(ctx, b.proxyCore, filepath.Join(b.dir, "ambit.log"), b.waypoint, "--gateway", "app/waypoint", "--pod", "waypoint", "--service-account", "waypoint",
		"--node", "n1", "--xds-address", on(controlPort), "--xds-server-name", serverName, "--xds-root", filepath.Join(b.dir, "root.pem"), "--token-file", token,
		"--hbone-address", on(hbonePort), "--admin-address", on(adminPort), "--metrics-address", on(metricsPort), "--ready-address", on(readyPort), "--access-log", accessLog)
	if err != nil {
		return err
	}
	p.running[ambit] = ran
	if err := ready(ctx, "http://"+on(readyPort)+"/healthz/ready"); err != nil {
		return fmt.Errorf("waypoint: %w\n%s", err, ran.tail())
	}
	p.dialers[ambit], err = newTunnels(b.client, waypointHost, false)
	return err
}

func (b *bench) startEnvoy(ctx context.Context, p *proxies, name string, rules int, logged bool) error {
	c := envoyConfig{dir: b.dir, host: envoyHost, rules: rules}
	write := c.plain
	if name == envoyHBONE {
		c.host, write = envoyHBONEHost, c.hbone
	}
	if logged {
		c.accessLog = filepath.Join(b.dir, c.host+"-access.log")
	}
	config, err := write()
	if err != nil {
		return err
	}
	ran, err := launch(ctx, b.proxyCore, filepath.Join(b.dir, c.host+".log"), b.envoyPath, "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	if err != nil {
		return err
	}
	p.running[name] = ran
	if err := ready(ctx, fmt.Sprintf("http://%s:%d/ready", c.host, adminPort)); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, ran.tail())
	}
	if name == envoyHBONE {
		p.dialers[name], err = newTunnels(b.client, c.host, false)
	} else {
		p.dialers[name], err = newSecured(b.client)
	}
	return err
}

// ready waits until a proxy says so.
func ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("not ready: %w", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
