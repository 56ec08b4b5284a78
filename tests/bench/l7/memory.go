package l7

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// held is how many connections are kept open; a process has 20,000 descriptors on
// small machines, and this one holds the other end.
const held = 10_000

// memory measures what is resident in each proxy at rest, and with connections
// that have asked once and then say nothing.
func (b *bench) memory(ctx context.Context) error {
	fmt.Printf("\nresident memory, MB, after %s of rest\n\n| proxy | %d rules | %d rules | %d connections |\n|---|---|---|---|\n", b.settle, tables[0], tables[1], held)
	large, err := b.start(ctx, tables[1], true)
	if err != nil {
		return err
	}
	err = b.rest(ctx, large)
	many := sizesOf(large)
	large.stop()
	if err != nil {
		return err
	}
	p, err := b.start(ctx, tables[0], true)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := b.rest(ctx, p); err != nil {
		return err
	}
	few := sizesOf(p)
	for _, name := range b.names {
		full, err := b.hold(ctx, p, name, p.dialers[name])
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.1f | %.1f |\n", name, few[name], many[name], full)
	}
	apart, err := newTunnels(b.client, waypointHost, true)
	if err != nil {
		return err
	}
	defer apart.close()
	full, err := b.hold(ctx, p, ambit, apart)
	if err != nil {
		return err
	}
	fmt.Printf("| %s, a tunnel for each connection | | | %.1f |\n", ambit, full)
	return nil
}

// rest sends one request through each proxy, and waits.
func (b *bench) rest(ctx context.Context, p *proxies) error {
	for _, name := range b.names {
		l, err := newLoad(ctx, p.dialers[name], row{http1Row, sizes[0], tables[0]}, 1)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		err = l.once()
		l.close()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, p.running[name].tail())
		}
	}
	return pause(ctx, b.settle)
}

func sizesOf(p *proxies) map[string]float64 {
	out := make(map[string]float64)
	for name, proc := range p.running {
		out[name] = float64(proc.memory()) / 1024
	}
	return out
}

// hold opens connections, some at a time, and gives the memory of the proxy when
// all of them have been at rest.
func (b *bench) hold(ctx context.Context, p *proxies, name string, d dialer) (float64, error) {
	const parallel = 16
	var mu sync.Mutex
	var all []*load
	var failed error
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for range held / parallel {
				l, err := newLoad(ctx, d, row{http1Row, sizes[0], tables[0]}, 1)
				if err == nil {
					err = l.once()
				}
				mu.Lock()
				all, failed = append(all, l), err
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, l := range slices.DeleteFunc(all, func(l *load) bool { return l == nil }) {
			l.close()
		}
	}()
	if failed != nil {
		return 0, fmt.Errorf("%s, connection %d: %w", name, len(all), failed)
	}
	err := pause(ctx, b.settle)
	return float64(p.running[name].memory()) / 1024, err
}

// save keeps what a page says.
func save(ctx context.Context, url, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, resp.Body)
	return err
}
