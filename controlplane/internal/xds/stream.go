package xds

import (
	"context"
	"errors"
	"io"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/time/rate"
)

// deltaStream is what of a gRPC stream is used.
type deltaStream interface {
	Context() context.Context
	Send(*discovery.DeltaDiscoveryResponse) error
	Recv() (*discovery.DeltaDiscoveryRequest, error)
}

// run serves one stream. The receiving and the sending goroutine end when it
// has returned, because that ends the stream under them.
func (c *client) run(stream deltaStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	requests, received := make(chan *discovery.DeltaDiscoveryRequest), make(chan error, 1)
	go func() { received <- c.receive(ctx, stream, requests) }()
	responses, sent := make(chan *discovery.DeltaDiscoveryResponse), make(chan error, 1)
	go func() { sent <- send(ctx, stream, responses) }()

	stall := newDeadline(c.server.cfg.StallTimeout)
	defer stall.stop()
	var next *discovery.DeltaDiscoveryResponse
	for {
		if err := c.pump(ctx); err != nil {
			return err
		}
		var out chan<- *discovery.DeltaDiscoveryResponse
		if next == nil {
			next = c.chunk()
		}
		if next != nil {
			out = responses
		}
		stall.set(c.push != nil)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.wake:
		case <-stall.timer.C:
			return c.stalled()
		case err := <-received:
			return err
		case err := <-sent:
			return err
		case req := <-requests:
			answered, err := c.handle(req)
			if err != nil {
				return err
			}
			if answered {
				stall.extend()
			}
		case out <- next:
			next = nil
			stall.extend()
		}
	}
}

// deadline is until when a client must have made progress, while it has to.
type deadline struct {
	limit time.Duration
	timer *time.Timer
	on    bool
}

func newDeadline(limit time.Duration) *deadline {
	d := &deadline{limit: limit, timer: time.NewTimer(limit)}
	d.timer.Stop()
	return d
}

// set starts or stops the deadline; one that runs is left alone.
func (d *deadline) set(on bool) {
	switch {
	case on && !d.on:
		d.timer.Reset(d.limit)
	case !on && d.on:
		d.timer.Stop()
	}
	d.on = on
}

// extend gives a running deadline its whole time again.
func (d *deadline) extend() {
	if d.on {
		d.timer.Reset(d.limit)
	}
}

func (d *deadline) stop() { d.timer.Stop() }

// receive reads requests no faster than a client may make them; what comes
// faster waits in the client's own window. It gives nil at the stream's end.
func (c *client) receive(ctx context.Context, stream deltaStream, to chan<- *discovery.DeltaDiscoveryRequest) error {
	limiter := rate.NewLimiter(rate.Limit(c.server.cfg.RequestRate), c.server.cfg.RequestBurst)
	for {
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case to <- req:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send writes responses one by one, and blocks where the client does not read.
func send(ctx context.Context, stream deltaStream, from <-chan *discovery.DeltaDiscoveryResponse) error {
	for {
		select {
		case resp := <-from:
			if err := stream.Send(resp); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
