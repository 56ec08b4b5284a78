package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// web is the shop's front.
type web struct {
	cart   string
	rates  string
	client *http.Client
	asked  sightings
}

// runWeb serves the shop's pages.
func runWeb(ctx context.Context) error {
	w := &web{cart: setting("CART", "http://cart:8080"), rates: setting("RATES", "rates:9100"), client: perRequest(5 * time.Second)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /buy", w.buy)
	mux.HandleFunc("GET /deal", w.deal)
	mux.HandleFunc("GET /seen", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, w.asked.of(r.FormValue("id"))) })
	return serveHTTP(ctx, mux)
}

// buy places an order.
func (web *web) buy(w http.ResponseWriter, r *http.Request) {
	q := url.Values{"sku": {r.FormValue("sku")}, "card": {r.FormValue("card")}}
	if id := r.FormValue("id"); id != "" {
		q.Set("id", id)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, web.cart+"/order?"+q.Encode(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	carry(r.Header, req.Header)
	resp, err := web.client.Do(req)
	if err != nil {
		http.Error(w, "cart: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		http.Error(w, fmt.Sprintf("cart: %s %v: %s", resp.Status, err, body), http.StatusBadGateway)
		return
	}
	rate, err := askRate(r.Context(), web.rates, "USD")
	if err != nil {
		http.Error(w, "rates: "+err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set(versionHeader, resp.Header.Get(versionHeader))
	fmt.Fprintf(w, "Thank you for shopping at %s. You were served from %s.\n%sFor guests from overseas: %s.\n", os.Getenv("HOSTNAME"), r.RemoteAddr, body, rate)
}

// deal is flaky on purpose: each process refuses the first call of an id.
func (web *web) deal(w http.ResponseWriter, r *http.Request) {
	if web.asked.note(r.FormValue("id")) == 1 {
		http.Error(w, "the deal of the day is not decided yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "The deal of the day: two mugs, 14.90 EUR")
}
