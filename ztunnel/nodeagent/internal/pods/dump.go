package pods

import (
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// Dump is what /config_dump shows.
type Dump struct {
	Pods               []PodDump `json:"pods"`
	EnrolledNamespaces []string  `json:"enrolledNamespaces"`
}

// PodDump is one pod.
type PodDump struct {
	UID            string       `json:"uid"`
	Name           string       `json:"name"`
	Namespace      string       `json:"namespace"`
	ServiceAccount string       `json:"serviceAccount"`
	IPs            []netip.Addr `json:"ips,omitempty"`
	Netns          string       `json:"netns,omitempty"`
	NetnsID        string       `json:"netnsID,omitempty"`
	Wanted         string       `json:"wanted"`
	Reason         string       `json:"reason,omitempty"`
	Since          time.Time    `json:"since,omitzero"`
	Phase          ledger.Phase `json:"phase"`
	RulesInPlace   bool         `json:"rulesInPlace"`
	HandedOver     bool         `json:"handedOver"`
	Listening      bool         `json:"listening"`
	DrainUntil     time.Time    `json:"drainUntil,omitzero"`
	Error          string       `json:"error,omitempty"`
}

// Dump lists what is known of each pod.
func (s *Set) Dump() Dump {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Dump{Pods: make([]PodDump, 0, len(s.pods)), EnrolledNamespaces: sortedKeys(s.enrolled)}
	for _, uid := range sortedKeys(s.pods) {
		p := s.pods[uid]
		f := p.facts()
		pd := PodDump{
			UID: uid, Name: p.rec.Name, Namespace: p.rec.Namespace, ServiceAccount: p.rec.ServiceAccount,
			IPs: p.rec.IPs, Netns: p.rec.Netns, Wanted: p.wanted.String(), Reason: p.reason, Since: p.since,
			Phase: p.rec.Phase, RulesInPlace: p.inPlace, HandedOver: f.handed, Listening: f.acked, Error: p.err,
		}
		if p.ns != nil {
			pd.NetnsID = p.ns.ID().String()
		}
		if p.rec.Phase == ledger.Draining {
			pd.DrainUntil = p.drainUntil
		}
		if pd.Error == "" {
			pd.Error = p.proxyErr
		}
		d.Pods = append(d.Pods, pd)
	}
	return d
}
