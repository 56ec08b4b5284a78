package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// path is a kind of link between the two nodes.
type path struct {
	name  string
	delay time.Duration // one way
	loss  float64       // in each direction
}

var paths = []path{
	{name: "clean"},
	{name: "20 ms", delay: 10 * time.Millisecond},
	{name: "20 ms, 1 % lost", delay: 10 * time.Millisecond, loss: 0.01},
	{name: "20 ms, 3 % lost", delay: 10 * time.Millisecond, loss: 0.03},
}

// How the client reaches the server: by the transport annotation of the namespace.
const overH2, overH3 = "HTTP/2", "HTTP/3"

var transports = map[string]string{overH2: "h2", overH3: "h3"}

var linkLoads = []workload{
	{"1 KB round trip, 64 connections", "roundtrip", 64},
	{"bulk, 1 connection", "bulk", 1},
	{"bulk, 8 connections", "bulk", 8},
}

// links compares the two transports over links that are better and worse.
func (b *bench) links(ctx context.Context, rounds int) error {
	got := make(map[string][]result) // by path, load and chain
	key := func(p path, w workload, chain string) string { return p.name + "/" + w.row + "/" + chain }
	for round := range rounds {
		for i, p := range paths {
			fmt.Fprintf(os.Stderr, "links: round %d of %d, %s\n", round+1, rounds, p.name)
			end := func() error { return nil }
			if p.delay > 0 {
				var err error
				if end, err = b.slowLink(ctx, p, uint64(round*len(paths)+i+1)); err != nil {
					return err
				}
			}
			err := b.linkChains(ctx, func(chain string, w workload, r result) { got[key(p, w, chain)] = append(got[key(p, w, chain)], r) })
			if err := errors.Join(err, end()); err != nil {
				return err
			}
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "link\tload\tmeasure\t%s\t%s\t%s\tHTTP/3 to HTTP/2\t\n", direct, overH2, overH3)
	for _, p := range paths {
		for _, w := range linkLoads {
			for _, m := range linkMeasures(w) {
				fmt.Fprintf(out, "%s\t%s\t%s\t", p.name, w.row, m.name)
				for _, chain := range []string{direct, overH2, overH3} {
					fmt.Fprintf(out, "%.4g\t", medianOf(got[key(p, w, chain)], m.value))
				}
				var ratios []float64
				for i, r := range got[key(p, w, overH3)] {
					ratios = append(ratios, m.value(r)/m.value(got[key(p, w, overH2)][i]))
				}
				slices.Sort(ratios)
				fmt.Fprintf(out, "%.2f (%.2f to %.2f)\t\n", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
			}
		}
	}
	return out.Flush()
}

func linkMeasures(w workload) []measure {
	if w.kind == "bulk" {
		return []measure{{name: "Mbit/s", value: func(r result) float64 { return gbits(r) * 1000 }}, {name: "CPU, s/GB", value: cpuPerGB}}
	}
	return []measure{{name: "p50, µs", value: p50}, {name: "p99, µs", value: p99}, {name: "per second", value: rate}, {name: "CPU, µs", value: cpuPerOp}}
}

// linkChains puts every load on every chain over the link that is there.
func (b *bench) linkChains(ctx context.Context, note func(chain string, w workload, r result)) error {
	echo, sink := targets(ambit)
	for _, chain := range []string{direct, overH2, overH3} {
		b.transport = transports[chain]
		if err := b.enrol(ctx, chain != direct); err != nil {
			return err
		}
		if chain != direct {
			if err := b.tunnels(ctx, transports[chain]); err != nil {
				return err
			}
		}
		for _, w := range linkLoads {
			target := echo
			if w.kind == "bulk" {
				target = sink
			}
			r, err := b.load(ctx, "--kind", w.kind, "--conns", strconv.Itoa(w.conns), "--target", target, "--duration", b.duration.String())
			if err != nil {
				return fmt.Errorf("%s over %s: %w", w.row, chain, err)
			}
			note(chain, w, r)
		}
	}
	return nil
}

// tunnels waits until connections go over a transport, as the access log says.
func (b *bench) tunnels(ctx context.Context, transport string) error {
	echo, _ := targets(ambit)
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := b.load(ctx, "--kind", "roundtrip", "--conns", "1", "--target", echo, "--duration", "10ms"); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, b.cli, "local", "logs", "--name", b.name, "n1/access").Output()
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var last struct{ Tunnel string }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err == nil && last.Tunnel == transport {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("tunnels speak %q, want %q", last.Tunnel, transport)
		}
	}
}

// slowLink puts a link between the nodes; end takes it away.
func (b *bench) slowLink(ctx context.Context, p path, seed uint64) (end func() error, err error) {
	pids, err := b.ztunnels(ctx)
	if err != nil {
		return nil, err
	}
	nodes := fmt.Sprintf("%d=10.244.1.0/24+fd00:10:244:1::/64,%d=10.244.2.0/24+fd00:10:244:2::/64", pids["n1"], pids["n2"])
	cmd := exec.CommandContext(ctx, b.cli, "local", "exec", "--name", b.name, "wire", "--", b.self, "link",
		"--delay", p.delay.String(), "--loss", fmt.Sprint(p.loss), "--seed", fmt.Sprint(seed), "--nodes", nodes)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(stdout)
	end = func() error {
		_ = in.Close()
		said, rerr := io.ReadAll(r)
		err := errors.Join(rerr, cmd.Wait())
		var s linkStats
		if err == nil {
			err = json.Unmarshal(said, &s)
		}
		fmt.Fprintf(os.Stderr, "  %d packets passed, %d lost, %d overflowed\n", s.Passed, s.Lost, s.Overflowed)
		return err
	}
	if line, err := r.ReadString('\n'); strings.TrimSpace(line) != linkReady {
		return nil, fmt.Errorf("the link says %q: %w", line, errors.Join(err, end()))
	}
	return end, nil
}

// ztunnels gives the process of each node's ztunnel, as the sandbox knows it.
func (b *bench) ztunnels(ctx context.Context) (map[string]int, error) {
	out, err := exec.CommandContext(ctx, b.cli, "local", "status", "--name", b.name, "-o", "json").Output()
	if err != nil {
		return nil, err
	}
	var st struct {
		Components []struct {
			Name string `json:"name"`
			Pid  int    `json:"pid"`
		} `json:"components"`
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, err
	}
	pids := make(map[string]int)
	for _, c := range st.Components {
		if node, ok := strings.CutSuffix(c.Name, "/ztunnel"); ok {
			pids[node] = c.Pid
		}
	}
	if len(pids) != 2 {
		return nil, fmt.Errorf("ztunnels: %v, want those of two nodes", pids)
	}
	return pids, nil
}

// medianOf is the median of a value of some results.
func medianOf(results []result, value func(result) float64) float64 {
	all := make([]float64, 0, len(results))
	for _, r := range results {
		all = append(all, value(r))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
