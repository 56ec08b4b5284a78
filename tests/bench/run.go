package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/tests/bench/l7"
)

// Names of the chains that are compared.
const (
	direct = "direct"
	tcp    = "TCP relays"
	tlsPer = "TLS relays"
	ambit  = "Ambit"
)

var chainNames = []string{direct, tcp, tlsPer, ambit}

// bench is one run.
type bench struct {
	self, cli, dir string
	name           string
	churnPods      int    // to replace
	profiles       string // folder; "" for none
	tcp            string // congestion control of TCP over slow links; "" for the machine's
	transport      string // annotation of the namespace; "" for none
	awake          bool   // no core halts
	clientCores    cores  // of what runs in the client's pod; "" for any
	duration       time.Duration
	workloads      []workload
	chains         []string
	paths          []path
	linkLoads      []workload
	results        map[string]map[string][]result // by row and chain
}

// run does the whole benchmark and prints its tables.
func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	cli := f.String("ambit", "bin/ambit", "the ambit program")
	rounds := f.Int("rounds", 3, "rounds; the median counts")
	duration := f.Duration("duration", 4*time.Second, "of each measurement")
	only := f.String("only", "", "data, links, churn, idle, mesh, or waypoint: one part of it; flags of waypoint come after --")
	chains := f.String("chains", "", "of the data path only the chains that this regular expression finds")
	loads := f.String("loads", "", "of the data path, or of links, only the rows that this regular expression finds")
	links := f.String("links", "", "only the links that this regular expression finds")
	replace := f.Int("replace", 1000, "pods that churn replaces")
	profiles := f.String("profiles", "", "folder for CPU profiles of both ztunnels under the loads of the data path, and one of the memory of that which knows a large mesh")
	share := f.String("cores", "any", "any: all share the cores; node: each node and its pod have a half of them")
	awake := f.Bool("awake", true, "of the data path and of waypoint: idle cores poll and do not halt, where the kernel lets us")
	tcp := f.String("tcp", "", "over slow links the congestion control of TCP, for example cubic; that of the machine if empty")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *share != "node" && *share != "any" {
		return fmt.Errorf("-cores %q: want node or any", *share)
	}
	b := &bench{name: "bench", duration: *duration, tcp: *tcp, profiles: *profiles, churnPods: *replace, awake: *awake, results: make(map[string]map[string][]result)}
	var err error
	name := func(w workload) string { return w.row }
	if *only == "links" {
		b.linkLoads, err = choose("-loads", *loads, linkLoads, name)
	} else {
		b.workloads, err = choose("-loads", *loads, workloads, name)
		b.linkLoads = linkLoads
	}
	if err != nil {
		return err
	}
	if b.paths, err = choose("-links", *links, paths, func(p path) string { return p.name }); err != nil {
		return err
	}
	if b.chains, err = choose("-chains", *chains, chainNames, func(c string) string { return c }); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path, err := filepath.Abs(*cli)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ambit-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.self, b.cli, b.dir = self, path, dir
	if *only == "" || *only == "waypoint" {
		stop := b.stayAwake()
		err := l7.Run(ctx, self, append([]string{"-waypoint", b.sibling("ambit-waypoint")}, f.Args()...))
		if stop(); err != nil {
			return fmt.Errorf("waypoint: %w", err)
		}
	}
	if *only == "waypoint" {
		return nil
	}
	if *only == "" || *only == "mesh" {
		if err := b.mesh(ctx); err != nil {
			return fmt.Errorf("mesh size: %w", err)
		}
	}
	if *only == "mesh" {
		return nil
	}
	return b.dataPath(ctx, *rounds, *only, *share == "node")
}

// stayAwake keeps idle cores polling until stop is called, if that was asked for and can be.
func (b *bench) stayAwake() (stop func()) {
	if !b.awake {
		return func() {}
	}
	stop, err := keepAwake()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: idle cores may halt, which makes a lone round trip's time the machine's:", err)
		return func() {}
	}
	return stop
}

// dataPath measures bytes and connections between two pods on two nodes.
func (b *bench) dataPath(ctx context.Context, rounds int, only string, share bool) error {
	if err := b.manifests(false); err != nil {
		return err
	}
	if err := b.ambit(ctx, "local", "up", "--name", b.name, "-f", filepath.Join(b.dir, "manifests"), "--nodes", "2", "--detach"); err != nil {
		return err
	}
	defer func() { _ = b.ambit(context.WithoutCancel(ctx), "local", "down", "--name", b.name) }()
	if share {
		if err := b.shareCores(ctx); err != nil {
			return err
		}
	}
	if only == "" || only == "data" {
		stop := b.stayAwake()
		defer stop()
		for round := range rounds {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
			if err := b.round(ctx); err != nil {
				return err
			}
		}
		b.print()
		stop()
	}
	if only == "" || only == "links" {
		if err := b.links(ctx, rounds); err != nil {
			return err
		}
		b.transport = ""
	}
	if only == "" || only == "churn" {
		if err := b.churn(ctx); err != nil {
			return err
		}
	}
	if only != "" && only != "idle" {
		return nil
	}
	if err := b.enrol(ctx, true); err != nil {
		return err
	}
	return b.idle(ctx)
}

func (b *bench) ambit(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.cli, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ambit %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// workload is a load of one row of the table.
type workload struct {
	row, kind string
	conns     int
}

var workloads = []workload{
	{"bulk, 1 connection", "bulk", 1},
	{"bulk, 8 connections", "bulk", 8},
	{"1 KB round trip, 1 connection", "roundtrip", 1},
	{"1 KB round trip, 64 connections", "roundtrip", 64},
	{"new connections, 16 at a time", "connect", 16},
	{"datagrams of 64 bytes, 4 sockets", "datagrams64", 4},
	{"datagrams of 1200 bytes, 4 sockets", "datagrams1200", 4},
	{"datagrams of 64 bytes, paced", "datagrams64paced", 4},
	{"datagrams of 1200 bytes, paced", "datagrams1200paced", 4},
}

// choose gives those of all whose name the expression of a flag finds.
func choose[T any](flag, expr string, all []T, name func(T) string) ([]T, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !re.MatchString(name(v)) })
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%s %q finds nothing", flag, expr)
	}
	return chosen, nil
}

// targets are where the client connects for each chain: the echo and the sink.
func targets(chain string) (echo, sink string) {
	at := func(host string, base int) (string, string) {
		return host + ":" + strconv.Itoa(base+echoPort), host + ":" + strconv.Itoa(base+sinkPort)
	}
	switch chain {
	case tcp:
		return at("server.bench.svc.cluster.local", 100)
	case tlsPer:
		return at("server.bench.svc.cluster.local", 200)
	}
	return at("server.bench.svc.cluster.local", 0)
}

func (b *bench) round(ctx context.Context) error {
	for _, chain := range b.chains {
		if err := b.enrol(ctx, chain == ambit); err != nil {
			return err
		}
		echo, sink := targets(chain)
		for _, w := range b.workloads {
			target := echo
			switch {
			case w.kind == "bulk":
				target = sink
			case strings.HasPrefix(w.kind, "datagrams"):
				if chain != direct && chain != ambit {
					continue // the relays are for TCP
				}
				target = "server.bench.svc.cluster.local:" + strconv.Itoa(datagramPort)
			}
			var r result
			load := func() (err error) {
				r, err = b.load(ctx, "--kind", w.kind, "--conns", strconv.Itoa(w.conns), "--target", target, "--duration", b.duration.String())
				return err
			}
			var err error
			if chain == ambit {
				err = b.profiled(ctx, w.row, load)
			} else {
				err = load()
			}
			if err != nil {
				return fmt.Errorf("%s over %s: %w", w.row, chain, err)
			}
			if b.results[w.row] == nil {
				b.results[w.row] = make(map[string][]result)
			}
			b.results[w.row][chain] = append(b.results[w.row][chain], r)
		}
	}
	return nil
}

func (b *bench) exec(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.cli, append([]string{"local", "exec", "--name", b.name, "-n", "bench", "client", "-c", "hold", "--", b.self}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	return cmd
}

func (b *bench) load(ctx context.Context, args ...string) (result, error) {
	var r result
	if b.clientCores != "" {
		args = append(args, "--cores", string(b.clientCores))
	}
	out, err := b.exec(ctx, append([]string{"load"}, args...)...).Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// enrol labels the namespace, or takes the label away, and waits until it is so.
func (b *bench) enrol(ctx context.Context, in bool) error {
	if err := b.manifests(in); err != nil {
		return err
	}
	want := "false"
	if in {
		want = "true"
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		captured, err := b.captured(ctx)
		if err == nil && captured == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pods are captured: %s, want %s (%w)", captured, want, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// captured tells whether both pods tunnel: true, false or mixed.
func (b *bench) captured(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, b.cli, "local", "status", "--name", b.name, "-o", "json").Output()
	if err != nil {
		return "unknown", err
	}
	var st struct {
		Pods []struct {
			Namespace string `json:"namespace"`
			Captured  string `json:"captured"`
		} `json:"pods"`
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return "unknown", err
	}
	var yes, no int
	for _, p := range st.Pods {
		switch {
		case p.Namespace != "bench":
		case p.Captured == "yes":
			yes++
		default:
			no++
		}
	}
	switch {
	case yes+no < 2:
		return "unknown", errors.New("pods are missing")
	case no == 0:
		return "true", nil
	case yes == 0:
		return "false", nil
	}
	return "mixed", nil
}

// manifests writes the two pods and their relays.
func (b *bench) manifests(enrolled bool) error {
	dir := filepath.Join(b.dir, "manifests")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(b.dir, 0o755)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.dir, "cert.pem")); err != nil {
		if err := writeCerts(b.dir); err != nil {
			return err
		}
	}
	label := "none"
	if enrolled {
		label = "ambient"
	}
	annotations := ""
	if b.transport != "" {
		annotations = "  annotations: {ambit-mesh.io/transport: " + b.transport + "}\n"
	}
	container := func(name string, args ...string) string {
		quoted := make([]string, len(args))
		for i, a := range args {
			quoted[i] = strconv.Quote(a)
		}
		return fmt.Sprintf("  - {name: %s, image: none, command: [%q, %s]}\n", name, b.self, strings.Join(quoted, ", "))
	}
	var client, server strings.Builder
	client.WriteString(container("hold", "hold"))
	server.WriteString(container("serve", "serve"))
	for _, port := range []int{echoPort, sinkPort} {
		remote := func(base int) string { return fmt.Sprintf("server.bench.svc.cluster.local:%d", base+port) }
		local := func(base int) string { return fmt.Sprintf("127.0.0.1:%d", base+port) }
		redirected := func(base int) string { return strconv.Itoa(base + port) }
		client.WriteString(container(fmt.Sprintf("tcp-%d", port), "relay", "--listen", local(10100), "--redirect", redirected(100), "--to", remote(100)))
		client.WriteString(container(fmt.Sprintf("tls-%d", port), "relay", "--listen", local(10200), "--redirect", redirected(200), "--to", remote(200), "--tls", "client", "--certs", b.dir))
		server.WriteString(container(fmt.Sprintf("tcp-%d", port), "relay", "--listen", fmt.Sprintf(":%d", 100+port), "--to", local(0)))
		server.WriteString(container(fmt.Sprintf("tls-%d", port), "relay", "--listen", fmt.Sprintf(":%d", 200+port), "--to", local(0), "--tls", "server", "--certs", b.dir))
	}
	files := map[string]string{
		"namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: bench\n  labels: {ambit-mesh.io/dataplane-mode: " + label + "}\n" + annotations,
		"service.yaml":   "apiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: bench}\nspec:\n  clusterIP: None\n  selector: {app: server}\n  ports: [{name: echo, port: 7000}, {name: sink, port: 7001}, {name: datagrams, port: 7002, protocol: UDP}]\n",
		"client.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: bench, labels: {app: client}}\nspec:\n  nodeName: n1\n  containers:\n" + client.String(),
		"server.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: server, namespace: bench, labels: {app: server}}\nspec:\n  nodeName: n2\n  containers:\n" + server.String(),
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		tmp := filepath.Join(dir, "."+name)
		if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, path)); err != nil {
			return err
		}
	}
	return nil
}

// median of a value of the results of a row and chain.
func (b *bench) median(row, chain string, value func(result) float64) float64 {
	return medianOf(b.results[row][chain], value)
}
