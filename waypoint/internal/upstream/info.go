package upstream

import (
	"cmp"
	"slices"
	"time"
)

// ClusterInfo is what a dump says of a cluster.
type ClusterInfo struct {
	Service   string         `json:"service"`
	Port      uint16         `json:"port"`
	UDP       bool           `json:"udp,omitempty"`
	Requests  int64          `json:"requests"`
	Error     string         `json:"error,omitempty"`
	Endpoints []EndpointInfo `json:"endpoints"`
}

// EndpointInfo is what a dump says of an endpoint.
type EndpointInfo struct {
	Workload string `json:"workload"`
	Address  string `json:"address"`
	Requests int64  `json:"requests"`
	Ejected  bool   `json:"ejected,omitempty"`
	Failing  bool   `json:"failingProbes,omitempty"`
}

// Info describes the clusters that are in use, sorted.
func (s *Set) Info() []ClusterInfo {
	out := []ClusterInfo{}
	now := time.Now()
	for _, c := range s.list() {
		snap := c.current()
		info := ClusterInfo{Service: c.key.service, Port: c.key.port, UDP: c.key.udp, Requests: c.requests.Load(), Endpoints: []EndpointInfo{}}
		if snap.err != nil {
			info.Error = snap.err.Error()
		}
		for _, e := range snap.endpoints {
			w := e.Workload()
			info.Endpoints = append(info.Endpoints, EndpointInfo{
				Workload: w.Namespace + "/" + w.Name, Address: e.Address(true).String(), Requests: e.inflight.Load(),
				Ejected: e.health.ejected.Load() > now.UnixNano(), Failing: e.health.unhealthy.Load(),
			})
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b ClusterInfo) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port), compareBools(a.UDP, b.UDP))
	})
	return out
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
