package gather

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// Proxy is one that tells of flows.
type Proxy struct {
	// Name is what users are told. No two that run at a time have the same.
	Name string
	// Dial connects to its admin port.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Source finds proxies.
type Source interface {
	// Proxies gives those that run.
	Proxies(ctx context.Context) ([]Proxy, error)
	// Changed returns when there may be others than Proxies gave last, or when ctx
	// ends.
	Changed(ctx context.Context)
}

// Told is one thing that a proxy tells, or that is told of it. One field of Record,
// Lost, Problem and Change is set.
type Told struct {
	// From names the proxy; where proxies are looked for if Problem is about that.
	From   string
	Record *flowpb.FlowRecord
	// Lost is how many records are missing here.
	Lost uint64
	// Problem says why the proxy tells nothing.
	Problem string
	// Change says that the proxy came or went, when following.
	Change string
}

// Changes of proxies.
const (
	Came = "is new"
	Went = "is gone"
)

// ErrNoProxy is a mesh in which no proxy runs.
var ErrNoProxy = errors.New("no proxy runs")

// NoneError is a mesh none of whose proxies can be reached.
type NoneError struct{ Asked int }

func (e *NoneError) Error() string {
	return fmt.Sprintf("none of the proxies can be reached (%d asked)", e.Asked)
}

// Reader asks all proxies of a source.
type Reader struct {
	Source  Source
	Request *flowpb.ObserveRequest
	// Each takes what is told; it is called by one at a time.
	Each func(Told)
	// Need makes it an error when there is no proxy at first, ErrNoProxy, or when
	// none of them can be reached, NoneError.
	Need bool

	mu    sync.Mutex
	seen  seen
	began time.Time
	first first
}

// first counts what became of the proxies that were there at first.
type first struct {
	asked, waiting int
	reached        bool
}

// grace is how long a proxy that is gone may go on to tell: its last records are on
// their way.
const grace = 5 * time.Second

// asked is a proxy that is being asked.
type asked struct {
	gone   chan struct{}
	cancel context.CancelFunc
}

// leave lets go of a proxy that is not there any more.
func (a asked) leave() {
	close(a.gone)
	time.AfterFunc(grace, a.cancel)
}

// Run asks until all is told, or when following until ctx ends, which is no error.
func (r *Reader) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	r.began = time.Now()
	list, err := r.Source.Proxies(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case r.Need && len(list) == 0:
		return ErrNoProxy
	}
	running := make(map[string]asked)
	start := func(p Proxy, req *flowpb.ObserveRequest, done func(reached bool)) {
		pctx, stop := context.WithCancel(ctx)
		a := asked{gone: make(chan struct{}), cancel: stop}
		running[p.Name] = a
		wg.Go(func() {
			defer stop()
			r.ask(pctx, p, a.gone, req, done)
		})
	}
	r.first = first{asked: len(list), waiting: len(list)}
	for _, p := range list {
		start(p, r.Request, func(reached bool) {
			if err := r.count(reached); err != nil {
				cancel(err)
			}
		})
	}
	if !r.Request.GetFollow() {
		wg.Wait()
		return result(ctx)
	}
	r.follow(ctx, running, func(p Proxy) { start(p, r.all(), func(bool) {}) })
	return result(ctx)
}

// result is why the reading ended, if that is an error.
func result(ctx context.Context) error {
	var none *NoneError
	if errors.As(context.Cause(ctx), &none) {
		return none
	}
	return nil
}

// follow keeps up with the proxies that there are.
func (r *Reader) follow(ctx context.Context, running map[string]asked, start func(Proxy)) {
	said := "" // the problem, once
	for {
		r.Source.Changed(ctx)
		if ctx.Err() != nil {
			return
		}
		list, err := r.Source.Proxies(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if text := err.Error(); text != said {
				said = text
				r.tell(Told{From: "the list of proxies", Problem: text})
			}
			continue
		}
		said = ""
		now := make(map[string]bool, len(list))
		for _, p := range list {
			now[p.Name] = true
			if _, ok := running[p.Name]; !ok {
				r.tell(Told{From: p.Name, Change: Came})
				start(p)
			}
		}
		for name, a := range running {
			if !now[name] {
				a.leave()
				delete(running, name)
				r.tell(Told{From: name, Change: Went})
			}
		}
	}
}

// all is the request to a proxy that was not there before: what it has is new.
func (r *Reader) all() *flowpb.ObserveRequest {
	req := proto.CloneOf(r.Request)
	req.Since, req.Last = timestamppb.New(r.began), 0
	return req
}

// count takes what became of the first attempt to reach a proxy.
func (r *Reader) count(reached bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first.waiting--
	r.first.reached = r.first.reached || reached
	if r.Need && r.first.waiting == 0 && !r.first.reached {
		return &NoneError{r.first.asked}
	}
	return nil
}

func (r *Reader) tell(t Told) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A stream that is taken up again begins before its break.
	if t.Record != nil && r.Request.GetFollow() && !r.seen.add(t.Record) {
		return
	}
	r.Each(t)
}
