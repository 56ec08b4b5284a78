package upstream

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// endpointKey tells endpoints apart.
type endpointKey struct {
	uid  string
	port uint16
}

// Endpoint is a workload's port as requests see it. It outlives updates of the
// workload.
type Endpoint struct {
	cluster *Cluster
	key     endpointKey
	// Hash is the same in every waypoint and as long as the workload lives.
	Hash uint64
	born time.Time

	current  atomic.Pointer[wds.Endpoint]
	inflight atomic.Int64
	latency  latency
	health   health

	conns conns
}

func newEndpoint(c *Cluster, key endpointKey, e wds.Endpoint, now time.Time) *Endpoint {
	ep := &Endpoint{cluster: c, key: key, born: now, Hash: route.HashEndpoint(key.uid)}
	ep.current.Store(&e)
	ep.conns.init()
	return ep
}

// Workload is what runs at the endpoint.
func (e *Endpoint) Workload() *wds.Workload { return e.current.Load().Workload }

// Address of the endpoint as a client of that family reaches it.
func (e *Endpoint) Address(v4 bool) netip.AddrPort { return e.current.Load().Address(v4) }

// Use notes that a request or connection is under way, until done is called with
// how it went.
func (e *Endpoint) Use() *Use {
	e.inflight.Add(1)
	return &Use{endpoint: e, start: time.Now()}
}

// Use is a request or connection under way. It counts towards the endpoint's
// latency and health as far as it is told.
type Use struct {
	endpoint *Endpoint
	start    time.Time
	once     sync.Once
	began    atomic.Bool
	judged   atomic.Bool
}

// Answered notes the response's beginning; failed says that it is an error of the
// endpoint.
func (u *Use) Answered(failed bool) {
	u.Began(failed)
	u.Judge(failed)
}

// Began notes the response's beginning, from which it is not yet clear whether the
// endpoint has done well, or that there is none.
func (u *Use) Began(failed bool) {
	if u.began.Swap(true) {
		return
	}
	now := time.Now()
	took := now.Sub(u.start)
	if failed {
		took = max(took, failureCost)
	}
	u.endpoint.latency.observe(took, now)
}

// Judge notes whether the endpoint has done well.
func (u *Use) Judge(failed bool) {
	if !u.judged.Swap(true) {
		u.endpoint.cluster.outlier(u.endpoint, failed, time.Now())
	}
}

// Done ends the use.
func (u *Use) Done() { u.once.Do(func() { u.endpoint.inflight.Add(-1) }) }
