package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/flow/gather"
	"github.com/ambit-mesh/ambit/internal/flow/join"
	"github.com/ambit-mesh/ambit/internal/flow/report"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

// Mesh is one whose proxies tell of flows: a local one, or that of a cluster.
type Mesh interface {
	// Flows hands over what the proxies tell, until all is told, or when following
	// until ctx ends.
	Flows(ctx context.Context, req *flowpb.ObserveRequest, each func(gather.Told)) error
}

// localMesh is asked through its supervisor.
type localMesh struct{ client *control.Client }

func (m localMesh) Flows(ctx context.Context, req *flowpb.ObserveRequest, each func(gather.Told)) error {
	raw, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	return m.client.Flows(ctx, control.FlowsArgs{Request: raw}, func(f control.Flow) bool {
		t := gather.Told{From: f.From, Lost: f.Lost, Problem: f.Problem, Change: f.Change}
		if f.Record != nil {
			t.Record = new(flowpb.FlowRecord)
			if proto.Unmarshal(f.Record, t.Record) != nil {
				return false
			}
		}
		each(t)
		return false
	})
}

// observer reads what the proxies tell, joins it and prints it.
type observer struct {
	mesh    Mesh
	request *flowpb.ObserveRequest
	joined  bool
	limit   int // of calls, unless following; 0 is none
	printer *report.Printer
	errs    io.Writer
	filter  *flow.Filter
}

func (o *observer) run(ctx context.Context) error {
	var err error
	if o.filter, err = flow.NewFilter(o.request.GetInclude(), o.request.GetExclude()); err != nil {
		return Usage(err)
	}
	if !o.request.GetFollow() {
		calls, err := o.past(ctx)
		if err != nil {
			return err
		}
		if n := len(calls); o.limit > 0 && n > o.limit {
			calls = calls[n-o.limit:]
		}
		return o.print(calls)
	}
	return o.follow(ctx)
}

// past gives the calls that are kept and wanted, in the order in which they ended.
func (o *observer) past(ctx context.Context) ([]join.Call, error) {
	var records []*flowpb.FlowRecord
	if err := o.read(ctx, func(r *flowpb.FlowRecord) { records = append(records, r) }); err != nil {
		return nil, err
	}
	slices.SortStableFunc(records, func(a, b *flowpb.FlowRecord) int { return end(a).Compare(end(b)) })
	j := o.joiner(join.Config{Calls: len(records), Streams: 2 * len(records)})
	var calls []join.Call
	for _, r := range records {
		calls = append(calls, j.Add(r, end(r))...)
	}
	calls = o.wanted(append(calls, j.Flush()...))
	// A call that waited for its other half ended before those that did not.
	slices.SortStableFunc(calls, func(a, b join.Call) int { return cmp.Compare(endOf(a).UnixNano(), endOf(b).UnixNano()) })
	return calls, nil
}

// joiner joins, or does not.
func (o *observer) joiner(cfg join.Config) joiner {
	if o.joined {
		return join.New(cfg)
	}
	return apart{}
}

// joiner is what follow and past need of join.Joiner.
type joiner interface {
	Add(r *flowpb.FlowRecord, now time.Time) []join.Call
	Expire(now time.Time) []join.Call
	Next() (time.Time, bool)
	Flush() []join.Call
}

// apart makes each record a call.
type apart struct{}

func (apart) Add(r *flowpb.FlowRecord, _ time.Time) []join.Call { return []join.Call{join.Single(r)} }
func (apart) Expire(time.Time) []join.Call                      { return nil }
func (apart) Next() (time.Time, bool)                           { return time.Time{}, false }
func (apart) Flush() []join.Call                                { return nil }

// end is when a call was over.
func end(r *flowpb.FlowRecord) time.Time {
	return r.GetStart().AsTime().Add(r.GetDuration().AsDuration())
}

func endOf(c join.Call) time.Time {
	if c.Waypoint != nil {
		return end(c.Waypoint)
	}
	return end(c.Records()[0])
}

// follow prints calls as they come, until ctx ends.
func (o *observer) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records, done := make(chan *flowpb.FlowRecord, 256), make(chan error, 1)
	go func() {
		done <- o.read(ctx, func(r *flowpb.FlowRecord) {
			select {
			case records <- r:
			case <-ctx.Done():
			}
		})
	}()
	j := o.joiner(join.Config{})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var calls []join.Call
		select {
		case r := <-records:
			calls = j.Add(r, time.Now())
		case <-timer.C:
			calls = j.Expire(time.Now())
		case err := <-done:
			for len(records) > 0 {
				calls = append(calls, j.Add(<-records, time.Now())...)
			}
			return errors.Join(ignoreCanceled(err), o.print(o.wanted(append(calls, j.Flush()...))))
		}
		if err := o.print(o.wanted(calls)); err != nil {
			cancel()
			return errors.Join(err, ignoreCanceled(<-done))
		}
		if at, waits := j.Next(); waits {
			timer.Reset(time.Until(at))
		}
	}
}

// read hands over the records that the proxies tell of.
func (o *observer) read(ctx context.Context, each func(*flowpb.FlowRecord)) error {
	req := o.request
	if o.joined {
		// Conditions are met by a call or not; which of its records would meet them
		// a proxy cannot know.
		req = proto.CloneOf(req)
		req.Include, req.Exclude = nil, nil
	}
	return o.mesh.Flows(ctx, req, func(t gather.Told) {
		switch {
		case t.Problem != "":
			fmt.Fprintf(o.errs, "%s tells nothing: %s\n", t.From, t.Problem)
		case t.Lost > 0:
			fmt.Fprintf(o.errs, "%s: %d records are lost, because they were read too slowly\n", t.From, t.Lost)
		case t.Change != "":
			fmt.Fprintf(o.errs, "%s %s\n", t.From, t.Change)
		case t.Record != nil:
			each(t.Record)
		}
	})
}

func (o *observer) wanted(calls []join.Call) []join.Call {
	return slices.DeleteFunc(calls, func(c join.Call) bool { return !o.filter.MatchAny(c.Records()) })
}

func (o *observer) print(calls []join.Call) error {
	for _, c := range calls {
		if err := o.printer.Print(report.Of(c)); err != nil {
			return err
		}
	}
	return nil
}

// edges gathers the calls that are kept and wanted.
func (o *observer) edges(ctx context.Context) ([]report.Edge, error) {
	var err error
	if o.filter, err = flow.NewFilter(o.request.GetInclude(), o.request.GetExclude()); err != nil {
		return nil, Usage(err)
	}
	calls, err := o.past(ctx)
	if err != nil {
		return nil, err
	}
	all := report.NewEdges()
	for _, c := range calls {
		all.Add(report.Of(c))
	}
	return all.List(), nil
}

// ignoreCanceled drops the error of what was told to end.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
