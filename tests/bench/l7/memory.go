package l7

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// held is how many connections are kept open; a process has 20,000 descriptors on
// small machines, and this one holds the other end.
const held = 10_000

// memory measures what is resident in each proxy at rest, and with connections
// that have asked once and then say nothing.
func (b *bench) memory(ctx context.Context) error {
	many, _, err := b.footprint(ctx, tables[1], false)
	if err != nil {
		return err
	}
	few, full, err := b.footprint(ctx, tables[0], true)
	if err != nil {
		return err
	}
	fmt.Printf("\nresident memory, MB, after %s of rest\n\n| proxy | %d rules | %d rules | %d connections |\n|---|---|---|---|\n", b.settle, tables[0], tables[1], held)
	for _, name := range b.names {
		fmt.Printf("| %s | %.1f | %.1f | %.1f |\n", name, few[name], many[name], full[name])
	}
	apart, err := b.apart(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("| %s, a tunnel for each connection | | | %.1f |\n", ambit, apart)
	return nil
}

// footprint gives the memory of fresh proxies at rest, and with connections.
func (b *bench) footprint(ctx context.Context, rules int, connected bool) (atRest, full map[string]float64, err error) {
	p, err := b.start(ctx, rules, true)
	if err != nil {
		return nil, nil, err
	}
	defer p.stop()
	if err := b.rest(ctx, p); err != nil {
		return nil, nil, err
	}
	atRest = sizesOf(p)
	if !connected {
		return atRest, nil, nil
	}
	for _, name := range b.names {
		release, err := b.hold(ctx, p.dialers[name])
		defer release()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err = pause(ctx, b.settle)
	return atRest, sizesOf(p), err
}

// apart gives the memory of a fresh waypoint each of whose connections came in a
// tunnel of its own, which clients of one node never do.
func (b *bench) apart(ctx context.Context) (float64, error) {
	p, err := b.start(ctx, tables[0], true)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	t, err := newTunnels(b.client, waypointHost, true)
	if err != nil {
		return 0, err
	}
	defer t.close()
	release, err := b.hold(ctx, t)
	defer release()
	if err == nil {
		err = pause(ctx, b.settle)
	}
	return sizesOf(p)[ambit], err
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

// hold opens connections, some at a time, each of which asks once.
func (b *bench) hold(ctx context.Context, d dialer) (release func(), err error) {
	const parallel = 16
	var mu sync.Mutex
	var all []*load
	release = func() {
		for _, l := range all {
			l.close()
		}
	}
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for range held / parallel {
				l, lerr := newLoad(ctx, d, row{http1Row, sizes[0], tables[0]}, 1)
				if lerr == nil {
					lerr = l.once()
				}
				mu.Lock()
				if l != nil {
					all = append(all, l)
				}
				if lerr != nil {
					err = lerr
				}
				mu.Unlock()
				if lerr != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return release, err
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
