package main

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/examples/shop/internal/traces"
)

// runCollector takes spans by OTLP and shows traces: /trace/ID.
func runCollector(ctx context.Context) error {
	c, err := traces.Listen(setting("OTLP", ":4317"))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return serveHTTP(ctx, c.Handler()) })
	return g.Wait()
}
