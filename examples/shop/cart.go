package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// versionHeader says which version of the cart took an order.
const versionHeader = "X-Cart-Version"

// runCart takes orders: it asks the catalog for the price and the stock for the
// number.
func runCart(ctx context.Context) error {
	conn, err := grpc.NewClient(setting("CATALOG", "catalog:50051"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stock := setting("STOCK", "stock:9000")
	version := setting("VERSION", "v1")
	var orders sightings
	mux := http.NewServeMux()
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, orders.of(r.FormValue("id"))) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 4*time.Second)
		defer cancel()
		orders.note(r.FormValue("id"))
		sku := r.FormValue("sku")
		product, err := describe(carryRPC(ctx, r.Header), conn, sku)
		if err != nil {
			http.Error(w, "catalog: "+err.Error(), http.StatusBadGateway)
			return
		}
		left, err := askStock(ctx, stock, sku)
		if err != nil {
			http.Error(w, "stock: "+err.Error(), http.StatusBadGateway)
			return
		}
		card := r.FormValue("card")
		w.Header().Set(versionHeader, version)
		fmt.Fprintf(w, "1 x %s, paid with card %s. %s left. Packed by cart %s.\n", product, card, left, version)
	})
	return serveHTTP(ctx, mux)
}

// askStock speaks the stock's protocol: wait for the greeting, ask, read.
func askStock(ctx context.Context, address, sku string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	r := bufio.NewReader(conn)
	greeting, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("greeting: %w", err)
	}
	if !strings.HasPrefix(greeting, "220 ") {
		return "", fmt.Errorf("greeting %q", greeting)
	}
	if _, err := fmt.Fprintf(conn, "COUNT %s\n", sku); err != nil {
		return "", err
	}
	answer, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	count, ok := strings.CutPrefix(strings.TrimSpace(answer), "250 ")
	if !ok {
		return "", fmt.Errorf("answer %q", answer)
	}
	return count, nil
}
