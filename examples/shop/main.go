package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	roles := map[string]func(context.Context) error{
		"web": runWeb, "cart": runCart, "catalog": runCatalog, "stock": runStock, "rates": runRates, "load": runLoad, "get": runGet,
		"collector": runCollector,
	}
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: shop web | cart | catalog | stock | rates | load | collector | get URL")
		os.Exit(2)
	}
	if err := roles[os.Args[1]](ctx); err != nil {
		fmt.Fprintf(os.Stderr, "shop %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// setting reads an environment variable.
func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// drain is how long a server goes on for those who are on their way to it while
// the word spreads that it ends.
const drain = time.Second

// serveHTTP serves until ctx ends, and then finishes what it has begun.
func serveHTTP(ctx context.Context, h http.Handler) error {
	l, err := net.Listen("tcp", setting("LISTEN", ":8080"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		time.Sleep(drain)
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// perRequest is a client that opens a connection for each request, as many
// programs do.
func perRequest(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
}
