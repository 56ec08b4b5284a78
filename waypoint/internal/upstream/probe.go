package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Defaults of active health checks.
const (
	defaultInterval  = 10 * time.Second
	defaultTimeout   = time.Second
	defaultUnhealthy = 3
	defaultHealthy   = 2
)

// prober keeps a goroutine for each endpoint that is to be probed.
type prober struct {
	set     *Set
	running map[*Endpoint]*probe
}

type probe struct {
	policy *waypoint.HealthCheck
	cancel context.CancelFunc
	done   chan struct{}
}

func newProber(s *Set) *prober { return &prober{set: s, running: make(map[*Endpoint]*probe)} }

// reconcile starts and ends probes as policies and endpoints say.
func (p *prober) reconcile(ctx context.Context) {
	wanted := make(map[*Endpoint]*waypoint.HealthCheck)
	for _, c := range p.set.list() {
		// Probes are connections and requests, of which a UDP port says nothing.
		if hc := c.policy.Load().GetHealthCheck(); hc != nil && !c.key.udp {
			for _, e := range c.current().endpoints {
				wanted[e] = hc
			}
		}
	}
	for e, pr := range p.running {
		hc := wanted[e]
		if hc != nil && proto.Equal(hc, pr.policy) {
			continue
		}
		pr.cancel()
		<-pr.done
		delete(p.running, e)
		if hc == nil {
			e.health.unhealthy.Store(false) // nobody would ever say so again
		}
	}
	for e, hc := range wanted {
		if p.running[e] == nil {
			ctx, cancel := context.WithCancel(ctx)
			pr := &probe{policy: hc, cancel: cancel, done: make(chan struct{})}
			p.running[e] = pr
			go func() {
				defer close(pr.done)
				e.probeLoop(ctx, hc)
			}()
		}
	}
}

func (p *prober) stop() {
	for _, pr := range p.running {
		pr.cancel()
		<-pr.done
	}
}

// probeLoop probes at intervals with jitter, so that waypoints do not fall into
// step.
func (e *Endpoint) probeLoop(ctx context.Context, hc *waypoint.HealthCheck) {
	interval := max(durationOr(hc.GetInterval(), defaultInterval), 10*time.Millisecond)
	good, bad := uint32(0), uint32(0)
	for {
		err := e.probe(ctx, hc)
		outcome := "healthy"
		if err != nil {
			outcome = "unhealthy"
			good, bad = 0, bad+1
		} else {
			good, bad = good+1, 0
		}
		if ctx.Err() != nil {
			return
		}
		e.cluster.set.metrics.probes.WithLabelValues(e.cluster.key.service, outcome).Inc()
		switch {
		case bad >= orDefault(hc.GetUnhealthyThreshold(), defaultUnhealthy):
			e.health.unhealthy.Store(true)
		case good >= orDefault(hc.GetHealthyThreshold(), defaultHealthy):
			e.health.unhealthy.Store(false)
		}
		wait := time.NewTimer(interval/2 + rand.N(interval))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

func orDefault(v, d uint32) uint32 {
	if v == 0 {
		return d
	}
	return v
}

// probe asks once.
func (e *Endpoint) probe(ctx context.Context, hc *waypoint.HealthCheck) error {
	ctx, cancel := context.WithTimeout(ctx, durationOr(hc.GetTimeout(), defaultTimeout))
	defer cancel()
	self := new(Client) // the waypoint itself
	switch t := hc.GetType().(type) {
	case *waypoint.HealthCheck_HttpPath:
		req := &message.Request{Method: "GET", Scheme: "http", Authority: e.Address(true).String(), Path: t.HttpPath, Version: message.HTTP11}
		return e.ask(ctx, self, waypoint.Protocol_PROTOCOL_HTTP1, req, func(r *message.Response) error {
			if r.Status < 200 || r.Status > 299 {
				return fmt.Errorf("status %d", r.Status)
			}
			return nil
		})
	case *waypoint.HealthCheck_Grpc:
		body := grpcHealthRequest(t.Grpc.GetService())
		req := &message.Request{
			Method: "POST", Scheme: "http", Authority: e.Address(true).String(), Path: "/grpc.health.v1.Health/Check",
			Fields:        message.Fields{{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}},
			Body:          message.BytesBody(body),
			ContentLength: int64(len(body)), Version: message.HTTP2,
		}
		return e.ask(ctx, self, waypoint.Protocol_PROTOCOL_HTTP2, req, grpcHealthy)
	}
	c, _, err := e.cluster.Connect(ctx, e, self, 0)
	if err != nil {
		return err
	}
	return c.Close()
}

func (e *Endpoint) ask(ctx context.Context, self *Client, version waypoint.Protocol, req *message.Request, judge func(*message.Response) error) error {
	resp, _, err := e.cluster.RoundTrip(ctx, e, self, version, 0, req, nil)
	if err != nil {
		return err
	}
	if resp.Body != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	return judge(resp)
}

// grpcHealthRequest is a length-prefixed HealthCheckRequest.
func grpcHealthRequest(service string) []byte {
	m, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		m = nil // the name is no UTF-8, which no policy can have
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// maxHealthAnswer is what is read of an answer, in bytes.
const maxHealthAnswer = 1 << 10

var errNotServing = errors.New("not serving")

// grpcHealthy reads a length-prefixed HealthCheckResponse and the status behind it.
func grpcHealthy(r *message.Response) error {
	if r.Status != 200 || r.Body == nil {
		return fmt.Errorf("status %d", r.Status)
	}
	b := make([]byte, maxHealthAnswer)
	n, err := 0, error(nil)
	for n < len(b) && err == nil {
		var m int
		m, err = r.Body.Read(b[n:])
		n += m
	}
	if err != io.EOF {
		return fmt.Errorf("no answer of at most %d bytes: %w", maxHealthAnswer, err)
	}
	if code := r.Body.Trailers().Get("grpc-status"); code != "" && code != "0" {
		return fmt.Errorf("gRPC status %s", code)
	}
	if n < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(n-5) {
		return errors.New("the answer is not one uncompressed message")
	}
	var answer healthpb.HealthCheckResponse
	if err := proto.Unmarshal(b[5:n], &answer); err != nil {
		return err
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return errNotServing
	}
	return nil
}
