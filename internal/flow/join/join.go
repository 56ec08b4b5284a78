package join

import (
	"container/list"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// Call is one connection or request. At least one of its records is there.
type Call struct {
	// Waypoint's record of the request, or of the connection that it carried.
	Waypoint *flowpb.FlowRecord
	// Source and Destination are the ztunnels' records of the streams that carried
	// it.
	Source, Destination *flowpb.FlowRecord
}

// Records gives those that are there, in the order of the call's way.
func (c Call) Records() []*flowpb.FlowRecord {
	var all []*flowpb.FlowRecord
	for _, r := range []*flowpb.FlowRecord{c.Source, c.Waypoint, c.Destination} {
		if r != nil {
			all = append(all, r)
		}
	}
	return all
}

// Config bounds a Joiner. Zero values mean the defaults that are given.
type Config struct {
	// Window is how long a call waits for what is missing; 1 s.
	Window time.Duration
	// Calls that wait at a time; 10,000. The oldest is given as it is for a new one.
	Calls int
	// Streams that are remembered; 50,000. The one that was not heard of for the
	// longest time is forgotten for a new one.
	Streams int
}

// Joiner joins records. It is used by one goroutine.
type Joiner struct {
	cfg     Config
	streams map[string]*list.Element // of *stream
	recent  *list.List               // of *stream, the one heard of last at the back
	waiting *list.List               // of *pending, the one that began to wait first at the front
	late    int
}

// stream is a tunnel stream, by what the records of both its ends say.
type stream struct {
	id                  string
	source, destination *flowpb.FlowRecord
	// toWaypoint and fromWaypoint say that requests came or went by it.
	toWaypoint, fromWaypoint bool
	// silent says that an end's record was awaited in vain: it is not waited for
	// again.
	silentSource, silentDestination bool
	call                            *pending // of the connection that it carries
	requests                        []*pending
	told                            *flowpb.FlowRecord // the connection was given, with this outcome
}

// pending is a call that waits.
type pending struct {
	waypoint *flowpb.FlowRecord
	// in and out are the streams of a waypoint's call; of a connection between
	// ztunnels both are the one stream.
	in, out  *stream
	deadline time.Time
	place    *list.Element
}

// New gives a joiner.
func New(cfg Config) *Joiner {
	if cfg.Window == 0 {
		cfg.Window = time.Second
	}
	if cfg.Calls == 0 {
		cfg.Calls = 10_000
	}
	if cfg.Streams == 0 {
		cfg.Streams = 50_000
	}
	return &Joiner{cfg: cfg, streams: make(map[string]*list.Element), recent: list.New(), waiting: list.New()}
}

// Late is how many records came after their call had been given.
func (j *Joiner) Late() int { return j.late }

// Add takes a record and gives the calls that are whole now, or have to make room.
func (j *Joiner) Add(r *flowpb.FlowRecord, now time.Time) []Call {
	var calls []Call
	switch {
	case r.GetReporter() == flowpb.Reporter_REPORTER_WAYPOINT:
		calls = j.addWaypoint(r, now)
	case r.GetTunnelIn() == "" && r.GetTunnelOut() == "":
		if ended(r) {
			calls = []Call{Single(r)}
		}
	default:
		calls = j.addEnd(r, now)
	}
	for j.waiting.Len() > j.cfg.Calls {
		calls = j.giveUp(j.waiting.Front().Value.(*pending), calls)
	}
	return calls
}

// Expire gives the calls that have waited long enough.
func (j *Joiner) Expire(now time.Time) []Call {
	var calls []Call
	for e := j.waiting.Front(); e != nil && !e.Value.(*pending).deadline.After(now); e = j.waiting.Front() {
		calls = j.giveUp(e.Value.(*pending), calls)
	}
	return calls
}

// Flush gives all calls that wait.
func (j *Joiner) Flush() []Call {
	var calls []Call
	for e := j.waiting.Front(); e != nil; e = j.waiting.Front() {
		calls = j.giveUp(e.Value.(*pending), calls)
	}
	return calls
}

// Next is when Expire has something to do; false when nothing waits.
func (j *Joiner) Next() (time.Time, bool) {
	e := j.waiting.Front()
	if e == nil {
		return time.Time{}, false
	}
	return e.Value.(*pending).deadline, true
}

// addWaypoint takes a request, or a connection that a waypoint carried.
func (j *Joiner) addWaypoint(r *flowpb.FlowRecord, now time.Time) []Call {
	if !ended(r) {
		return nil
	}
	p := &pending{waypoint: r}
	if id := r.GetTunnelIn(); id != "" {
		p.in = j.stream(id)
		p.in.toWaypoint = true
		j.dismiss(p.in)
	}
	if id := r.GetTunnelOut(); id != "" {
		p.out = j.stream(id)
		p.out.fromWaypoint = true
		j.dismiss(p.out)
	}
	if p.whole() {
		return []Call{p.result()}
	}
	for _, s := range []*stream{p.in, p.out} {
		if s != nil {
			s.requests = append(s.requests, p)
		}
	}
	j.wait(p, now)
	return nil
}

// dismiss takes back that a stream is a connection between ztunnels.
func (j *Joiner) dismiss(s *stream) {
	if s.call != nil {
		j.waiting.Remove(s.call.place)
		s.call = nil
	}
}

// addEnd takes a ztunnel's record of a stream.
func (j *Joiner) addEnd(r *flowpb.FlowRecord, now time.Time) []Call {
	isSource := r.GetReporter() == flowpb.Reporter_REPORTER_SOURCE
	id := r.GetTunnelIn()
	if isSource {
		id = r.GetTunnelOut()
	}
	if id == "" { // it names only what is not its own
		if ended(r) {
			return []Call{Single(r)}
		}
		return nil
	}
	s := j.stream(id)
	place := &s.destination
	if isSource {
		place = &s.source
	}
	if *place == nil || ended(r) {
		*place = r
	}
	calls := j.wake(s)
	if !ended(r) || isSource && s.toWaypoint || !isSource && s.fromWaypoint {
		return calls
	}
	if s.told != nil {
		j.late++
		if s.told.GetVerdict() != r.GetVerdict() {
			calls = append(calls, Single(r))
		}
		return calls
	}
	return append(calls, j.connection(s, now)...)
}

// connection looks at a stream that may be a connection between ztunnels.
func (j *Joiner) connection(s *stream, now time.Time) []Call {
	if s.call == nil {
		s.call = &pending{in: s, out: s}
		j.wait(s.call, now)
	}
	if !s.call.whole() {
		return nil
	}
	return []Call{j.tell(s)}
}

// tell gives the connection of a stream.
func (j *Joiner) tell(s *stream) Call {
	c := s.call.result()
	j.dismiss(s)
	s.told = c.Records()[0]
	return c
}

// wake gives the requests of a stream that are whole now.
func (j *Joiner) wake(s *stream) (calls []Call) {
	kept := s.requests[:0]
	for _, p := range s.requests {
		switch {
		case p.place == nil: // given already
		case p.whole():
			j.waiting.Remove(p.place)
			p.place = nil
			calls = append(calls, p.result())
		default:
			kept = append(kept, p)
		}
	}
	clear(s.requests[len(kept):])
	s.requests = kept
	return calls
}

func (j *Joiner) wait(p *pending, now time.Time) {
	p.deadline = now.Add(j.cfg.Window)
	p.place = j.waiting.PushBack(p)
}

// giveUp gives a call without what is missing.
func (j *Joiner) giveUp(p *pending, calls []Call) []Call {
	if p.waypoint == nil {
		if p.in.source != nil && p.in.toWaypoint || p.in.destination != nil && p.in.fromWaypoint {
			j.dismiss(p.in)
			return calls
		}
		return append(calls, j.tell(p.in))
	}
	j.waiting.Remove(p.place)
	p.place = nil
	calls = append(calls, p.result())
	for _, s := range []*stream{p.in, p.out} {
		if s == nil {
			continue
		}
		s.silentSource = s.silentSource || s == p.in && s.source == nil
		s.silentDestination = s.silentDestination || s == p.out && s.destination == nil
		// Others that wait for the same need not.
		calls = append(calls, j.wake(s)...)
	}
	return calls
}

// stream gives what is known of a stream, and makes room for a new one.
func (j *Joiner) stream(id string) *stream {
	if e := j.streams[id]; e != nil {
		j.recent.MoveToBack(e)
		return e.Value.(*stream)
	}
	for e := j.recent.Front(); e != nil && j.recent.Len() >= j.cfg.Streams; e = j.recent.Front() {
		// Calls that wait hold on to their streams.
		j.recent.Remove(e)
		delete(j.streams, e.Value.(*stream).id)
	}
	s := &stream{id: id}
	j.streams[id] = j.recent.PushBack(s)
	return s
}

// whole reports whether nothing is missing that may still come.
func (p *pending) whole() bool {
	if p.waypoint == nil {
		s := p.in
		// What goes to a waypoint becomes a call of its own only when no request
		// comes of it.
		return ended(s.source) && ended(s.destination) && s.source.GetWaypoint() == ""
	}
	return (p.in == nil || p.in.source != nil || p.in.silentSource) && (p.out == nil || p.out.destination != nil || p.out.silentDestination)
}

func (p *pending) result() Call {
	c := Call{Waypoint: p.waypoint}
	if p.in != nil {
		c.Source = p.in.source
	}
	if p.out != nil {
		c.Destination = p.out.destination
	}
	return c
}

// Single makes a call of one record.
func Single(r *flowpb.FlowRecord) Call {
	switch r.GetReporter() {
	case flowpb.Reporter_REPORTER_WAYPOINT:
		return Call{Waypoint: r}
	case flowpb.Reporter_REPORTER_SOURCE:
		return Call{Source: r}
	}
	return Call{Destination: r}
}

func ended(r *flowpb.FlowRecord) bool {
	return r != nil && r.GetEvent() != flowpb.FlowRecord_EVENT_OPENED
}
