package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// stats is what the load has seen so far.
type stats struct {
	Requests int      `json:"requests"`
	Failures int      `json:"failures"`
	Last     []string `json:"lastFailures"`
}

// warmUp is how many purchases in a row have to succeed before counting begins:
// while the shop opens, its parts still look for each other.
const warmUp = 30

// load buys, and counts.
type load struct {
	url   string
	mu    sync.Mutex
	warm  int   // guarded by mu
	stats stats // guarded by mu
}

// runLoad buys RATE times a second from WEB, by IPv4 and IPv6 in turn, and tells
// at /stats how that goes. Each purchase opens a connection of its own.
func runLoad(ctx context.Context) error {
	rate, err := strconv.Atoi(setting("RATE", "20"))
	if err != nil || rate < 1 || rate > 1000 {
		return fmt.Errorf("RATE: want 1 to 1000 purchases a second")
	}
	card := setting("CARD", "4111-1111-1111-1111")
	l := &load{url: setting("WEB", "http://web:8080") + "/buy?" + url.Values{"sku": {"mug"}, "card": {card}}.Encode()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", l.serveStats)
	var buyers sync.WaitGroup
	defer buyers.Wait()
	buyers.Go(func() { l.buyAll(ctx, rate) })
	return serveHTTP(ctx, mux)
}

func (l *load) buyAll(ctx context.Context, rate int) {
	families := []string{"tcp4"}
	if setting("FAMILIES", "both") == "both" {
		families = append(families, "tcp6")
	}
	var open sync.WaitGroup
	defer open.Wait()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		family := families[i%len(families)]
		open.Go(func() { l.note(family, buy(family, l.url)) })
	}
}

// buy buys once over an address family.
func buy(family, target string) error {
	var d net.Dialer
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, family, address)
		},
	}}
	resp, err := client.Get(target)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

func (l *load) note(family string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.warm < warmUp {
		if l.warm++; err != nil {
			l.warm = 0
		}
		return
	}
	l.stats.Requests++
	if err == nil {
		return
	}
	l.stats.Failures++
	line := fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), family, err)
	l.stats.Last = append(l.stats.Last[max(0, len(l.stats.Last)-19):], line)
	fmt.Println("FAILED", line)
}

func (l *load) serveStats(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	// A client that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(l.stats)
}
