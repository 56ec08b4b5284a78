package ztunnel

import (
	"encoding/pem"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
)

// The shapes below are what tools that read /config_dump of ambient node proxies
// expect (reference section 6).

type dump struct {
	Workloads     []workloadDump     `json:"workloads"`
	Services      []serviceDump      `json:"services"`
	Policies      []policyDump       `json:"policies"`
	Certificates  []certificateDump  `json:"certificates"`
	WorkloadState map[string]podDump `json:"workloadState"`
	Config        map[string]any     `json:"config"`
	Version       map[string]string  `json:"version"`
	XDS           xdsDump            `json:"xds"`
	State         stateDump          `json:"state"`
}

type workloadDump struct {
	UID               string       `json:"uid"`
	WorkloadIPs       []netip.Addr `json:"workloadIps"`
	Waypoint          *gatewayDump `json:"waypoint,omitempty"`
	Protocol          string       `json:"protocol"`
	Name              string       `json:"name"`
	Namespace         string       `json:"namespace"`
	ServiceAccount    string       `json:"serviceAccount"`
	WorkloadName      string       `json:"workloadName"`
	WorkloadType      string       `json:"workloadType"`
	CanonicalName     string       `json:"canonicalName"`
	CanonicalRevision string       `json:"canonicalRevision"`
	ClusterID         string       `json:"clusterId"`
	TrustDomain       string       `json:"trustDomain,omitempty"`
	Node              string       `json:"node,omitempty"`
	NativeTunnel      bool         `json:"nativeTunnel,omitempty"`
	Policies          []string     `json:"authorizationPolicies,omitempty"`
	Status            string       `json:"status"`
	Capacity          uint32       `json:"capacity"`
	Services          []string     `json:"services,omitempty"`
	Connections       int64        `json:"connections"`
}

type gatewayDump struct {
	Destination   string `json:"destination"`
	HBONEMTLSPort uint16 `json:"hboneMtlsPort"`
	FailOpen      bool   `json:"failOpen,omitempty"`
	Refusal       string `json:"refusal,omitempty"`
}

type serviceDump struct {
	Name      string                  `json:"name"`
	Namespace string                  `json:"namespace"`
	Hostname  string                  `json:"hostname"`
	VIPs      []string                `json:"vips"`
	Ports     map[uint16]uint16       `json:"ports"`
	Waypoint  *gatewayDump            `json:"waypoint,omitempty"`
	Endpoints map[string]endpointDump `json:"endpoints"`
}

type endpointDump struct {
	WorkloadUID string            `json:"workloadUid"`
	Port        map[uint16]uint16 `json:"port"`
}

type policyDump struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Scope     string `json:"scope"`
	Action    string `json:"action"`
	Rules     int    `json:"rules"`
	DryRun    bool   `json:"dryRun,omitempty"`
	Refusal   string `json:"refusal,omitempty"`
}

type certificateDump struct {
	Identity string `json:"identity"`
	State    string `json:"state"`
	// Renewal is valid, overdue, expired or missing.
	Renewal   string     `json:"renewal"`
	CertChain []certDump `json:"certChain"`
	Roots     []certDump `json:"rootCerts"`
	Error     string     `json:"error,omitempty"`
}

type certDump struct {
	PEM            string `json:"pem"`
	SerialNumber   string `json:"serialNumber"`
	ValidFrom      string `json:"validFrom"`
	ExpirationTime string `json:"expirationTime"`
}

type podDump struct {
	State string `json:"state"`
	Info  struct {
		Name           string `json:"name"`
		Namespace      string `json:"namespace"`
		ServiceAccount string `json:"serviceAccount"`
	} `json:"info"`
	Netns       string                 `json:"netns,omitempty"`
	Error       string                 `json:"error,omitempty"`
	Connections []proxy.ConnectionInfo `json:"connections"`
}

type xdsDump struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	LastError string    `json:"lastError,omitempty"`
}

func (z *Ztunnel) configDump(w http.ResponseWriter, _ *http.Request) {
	workloads, services, policies := z.store.Snapshot()
	d := dump{
		WorkloadState: z.pods.dump(),
		Config:        map[string]any{"localNode": z.cfg.Node, "clusterId": z.cfg.Cluster, "network": z.cfg.Network, "trustDomain": z.cfg.TrustDomain, "xdsAddress": z.cfg.XDS.Address, "caAddress": z.cfg.CA.Address, "zdsSocket": z.cfg.ZDSSocket, "certTtl": z.cfg.CertTTL.String(), "drain": z.cfg.Drain.String()},
		Version:       map[string]string{"version": z.version},
	}
	endpoints := make(map[string]map[string]endpointDump)
	for _, w := range workloads {
		d.Workloads = append(d.Workloads, dumpWorkload(w, endpoints))
	}
	for _, s := range services {
		d.Services = append(d.Services, dumpService(s, endpoints))
	}
	for _, p := range policies {
		d.Policies = append(d.Policies, dumpPolicy(p))
	}
	d.Certificates = z.dumpCertificates()
	d.State = z.memory.dump()
	var err error
	if d.XDS.Connected, d.XDS.Since, err = z.xds.Status(); err != nil {
		d.XDS.LastError = err.Error()
	}
	admin.WriteJSON(w, d)
}

func dumpWorkload(w *wds.Workload, endpoints map[string]map[string]endpointDump) workloadDump {
	d := workloadDump{
		UID: w.UID, WorkloadIPs: w.Addresses, Waypoint: dumpGateway(w.Waypoint), Protocol: "TCP", Name: w.Name, Namespace: w.Namespace,
		ServiceAccount: w.ServiceAccount, WorkloadName: w.Owner, WorkloadType: w.Type, CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		ClusterID: w.Cluster, TrustDomain: w.TrustDomain, Node: w.Node, NativeTunnel: w.Native, Policies: w.Policies, Status: "Healthy", Capacity: w.Capacity, Connections: w.Active(),
	}
	if w.HBONE {
		d.Protocol = "HBONE"
	}
	if !w.Healthy {
		d.Status = "Unhealthy"
	}
	for _, m := range w.Services {
		d.Services = append(d.Services, m.Service)
		if endpoints[m.Service] == nil {
			endpoints[m.Service] = make(map[string]endpointDump)
		}
		endpoints[m.Service][w.UID] = endpointDump{WorkloadUID: w.UID, Port: portMap(m.Ports)}
	}
	return d
}

func portMap(ports []wds.Port) map[uint16]uint16 {
	m := make(map[uint16]uint16, len(ports))
	for _, p := range ports {
		m[p.Service] = p.Target
	}
	return m
}

func dumpGateway(g *wds.Gateway) *gatewayDump {
	if g == nil {
		return nil
	}
	return &gatewayDump{Destination: g.String(), HBONEMTLSPort: g.Port, FailOpen: g.FailOpen, Refusal: g.Refusal}
}

func dumpService(s *wds.Service, endpoints map[string]map[string]endpointDump) serviceDump {
	d := serviceDump{Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, Ports: portMap(s.Ports), Waypoint: dumpGateway(s.Waypoint), Endpoints: endpoints[s.Key]}
	for _, v := range s.VIPs {
		d.VIPs = append(d.VIPs, "/"+v.String())
	}
	return d
}

func dumpPolicy(p *authz.Policy) policyDump {
	return policyDump{Name: p.Key().Name, Namespace: p.Key().Namespace, Scope: strings.ToLower(p.Scope().String()), Action: p.Action().String(), Rules: p.Rules(), DryRun: p.DryRun(), Refusal: p.Refusal()}
}

func (z *Ztunnel) dumpCertificates() []certificateDump {
	var out []certificateDump
	for _, s := range z.certs.Snapshot() {
		d := certificateDump{Identity: s.ID.String(), State: "Initializing", Renewal: s.State(time.Now())}
		if s.Err != nil {
			d.State, d.Error = "Unavailable", s.Err.Error()
		}
		if s.Cert != nil {
			if s.Err == nil {
				d.State = "Available"
			}
			for _, c := range s.Cert.Chain {
				d.CertChain = append(d.CertChain, certDump{pemText(c.Raw), c.SerialNumber.String(), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)})
			}
			for _, c := range s.Cert.Roots {
				d.Roots = append(d.Roots, certDump{pemText(c.Raw), c.SerialNumber.String(), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)})
			}
		}
		out = append(out, d)
	}
	return out
}

func pemText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
