package l7

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// result of a row and a proxy: one value a round where nothing else is said.
type result struct {
	max      []float64 // requests a second
	perCPU   []float64 // requests a second of processor time
	p50, p99 []float64 // microseconds at half load, one value a piece
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// warm is how long a load runs before it is measured.
const warm = 700 * time.Millisecond

// piece is how long a proxy has the load at half its rate before it is the next one's turn.
// A machine that stops for ten milliseconds once a second decides the p99 of every second;
// of pieces this short, the median is one in which it did not.
const piece = 500 * time.Millisecond

// rates measures all rows, with and without access log.
func (b *bench) rates(ctx context.Context) error {
	for _, logs := range b.logs {
		for _, rules := range tables {
			if err := b.table(ctx, rules, logs == "on"); err != nil {
				return err
			}
		}
		b.print("access log " + logs)
		clear(b.results)
	}
	return nil
}

// table measures the rows of one route table.
func (b *bench) table(ctx context.Context, rules int, logged bool) error {
	todo := slices.DeleteFunc(rows(rules), func(r row) bool { return !b.rows.MatchString(r.String()) })
	if len(todo) == 0 {
		return nil
	}
	p, err := b.start(ctx, rules, logged)
	if err != nil {
		return err
	}
	defer p.stop()
	for _, r := range todo {
		fmt.Fprintf(os.Stderr, "%s, access log %t, %s\n", r, logged, loadavg())
		if err := b.measure(ctx, p, r); err != nil {
			return err
		}
	}
	return nil
}

// measure takes turns between the proxies: floods, and then half of what the
// slower one could do.
func (b *bench) measure(ctx context.Context, p *proxies, r row) error {
	loads := make(map[string]*load)
	results := make(map[string]*result)
	b.results[r.String()] = results
	for _, name := range b.names {
		l, err := newLoad(ctx, p.dialers[name], r, connections)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, p.running[name].tail())
		}
		defer l.close()
		loads[name], results[name] = l, new(result)
		if _, err := l.flood(warm); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	half := 0.0
	for range b.rounds {
		for _, name := range b.names {
			if err := b.flood(ctx, p.running[name], loads[name], results[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, res := range results {
		if m := median(res.max) / 2; half == 0 || m < half {
			half = m
		}
	}
	for range max(1, int(time.Duration(b.rounds)*b.duration/piece)) {
		for _, name := range b.names {
			times, err := loads[name].pace(half, piece)
			if err != nil || len(times) == 0 {
				return fmt.Errorf("%s at %.0f/s: %d answers, %w", name, half, len(times), err)
			}
			res := results[name]
			res.p50 = append(res.p50, float64(times[len(times)/2])/1e3)
			res.p99 = append(res.p99, float64(times[len(times)*99/100])/1e3)
		}
	}
	if b.profiles != "" {
		return b.profile(ctx, loads[ambit])
	}
	return ctx.Err()
}

func (b *bench) flood(ctx context.Context, proc *process, l *load, res *result) error {
	before, begin := proc.cpu(), time.Now()
	n, err := l.flood(b.duration)
	if err != nil {
		return err
	}
	cpu, took := proc.cpu()-before, time.Since(begin)
	res.max = append(res.max, float64(n)/took.Seconds())
	res.perCPU = append(res.perCPU, float64(n)/cpu.Seconds())
	return ctx.Err()
}

func loadavg() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	if len(f) == 0 {
		return ""
	}
	return "load of the machine " + f[0]
}

// print gives a table as docs/user/performance.md has it.
func (b *bench) print(title string) {
	if len(b.results) == 0 {
		return
	}
	fmt.Printf("\n%s (%s)\n\n", title, loadavg())
	fmt.Println("| row | proxy | requests/s | requests/CPU-s | p50, µs | p99, µs |\n|---|---|---|---|---|---|")
	for _, rules := range tables {
		for _, r := range rows(rules) {
			found := b.results[r.String()]
			for _, name := range b.names {
				if res := found[name]; res != nil {
					fmt.Printf("| %s | %s | %.0f | %.0f | %.0f | %.0f |\n", r, name, median(res.max), median(res.perCPU), median(res.p50), median(res.p99))
				}
			}
			a := found[ambit]
			for _, name := range b.names[1:] {
				if e := found[name]; a != nil && e != nil {
					fmt.Printf("| | **Ambit / %s** | %.2f | **%.2f** | %.2f | **%.2f** |\n", name, ratio(a.max, e.max), ratio(a.perCPU, e.perCPU), ratio(a.p50, e.p50), ratio(a.p99, e.p99))
				}
			}
		}
	}
}

// ratio is the median of the ratios of each round, or piece, whose two halves ran one
// after the other on the same machine.
func ratio(a, b []float64) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return median(all)
}

// profile floods the waypoint once more and keeps what it says of itself.
func (b *bench) profile(ctx context.Context, l *load) error {
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	name := strings.NewReplacer(", ", "-", " ", "", "/", "").Replace(l.row.String())
	saved := make(chan error, 1)
	go func() {
		saved <- save(ctx, fmt.Sprintf("http://%s:%d/debug/pprof/profile?seconds=%d", waypointHost, adminPort, max(1, int(b.duration.Seconds()))), filepath.Join(b.profiles, name+"-cpu.pb.gz"))
	}()
	if _, err := l.flood(b.duration + time.Second); err != nil {
		return err
	}
	if err := <-saved; err != nil {
		return err
	}
	return save(ctx, fmt.Sprintf("http://%s:%d/debug/pprof/allocs", waypointHost, adminPort), filepath.Join(b.profiles, name+"-allocs.pb.gz"))
}
