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

// runWeb serves the shop's pages.
func runWeb(ctx context.Context) error {
	cart := setting("CART", "http://cart:8080")
	client := perRequest(5 * time.Second)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /buy", func(w http.ResponseWriter, r *http.Request) {
		q := url.Values{"sku": {r.FormValue("sku")}, "card": {r.FormValue("card")}}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, cart+"/order?"+q.Encode(), nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		resp, err := client.Do(req)
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
		fmt.Fprintf(w, "Thank you for shopping at %s. You were served from %s.\n%s", os.Getenv("HOSTNAME"), r.RemoteAddr, body)
	})
	return serveHTTP(ctx, mux)
}
