package stats

import (
	"strconv"

	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Protocol of requests.
type Protocol uint8

// Protocols.
const (
	HTTP Protocol = iota
	GRPC
)

func (p Protocol) String() string {
	if p == GRPC {
		return "grpc"
	}
	return "http"
}

// Key is what tells series apart. It is comparable; whoever counts builds one for
// each request.
type Key struct {
	// Source sent the request, as proved by SourceID. Destination was chosen to
	// answer it; nil when none was.
	Source, Destination     *wds.Workload
	SourceID, DestinationID identity.ID
	// Service was asked.
	Service  *wds.Service
	Protocol Protocol
	// Code is the HTTP status that the client got; 0 when it got none.
	Code int
	// GRPCStatus counts only when Protocol is GRPC.
	GRPCStatus int
	// Flags are the response flags, "" for none. They must come from a list, never
	// from a peer.
	Flags string
	// Plaintext says that the request did not come through a tunnel.
	Plaintext bool
}

// labelNames are those of ambient's request metrics, in order.
var labelNames = [...]string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace", "source_principal",
	"source_app", "source_version", "source_cluster", "source_region", "source_zone",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace", "destination_principal",
	"destination_app", "destination_version", "destination_cluster", "destination_region", "destination_zone",
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy",
}

type labelSet [len(labelNames)]string

const (
	reporter = "waypoint"
	unknown  = "unknown"
	other    = "other"
)

// labels gives what a key means.
func (k *Key) labels() (l labelSet) {
	l[0] = reporter
	workload(l[1:11], k.Source, k.SourceID)
	l[11], l[12], l[13] = unknown, unknown, unknown
	if s := k.Service; s != nil {
		l[11], l[12], l[13] = s.Hostname, s.Namespace, s.Name
	}
	workload(l[14:24], k.Destination, k.DestinationID)
	l[24], l[25], l[27], l[28] = k.Protocol.String(), strconv.Itoa(k.Code), k.Flags, "mutual_tls"
	if k.Protocol == GRPC {
		l[26] = strconv.Itoa(k.GRPCStatus)
	}
	if k.Flags == "" {
		l[27] = "-"
	}
	if k.Plaintext {
		l[28] = unknown
	}
	return l
}

// workload fills the labels of one end: workload, canonical service and revision,
// namespace, principal, app, version, cluster, region, zone.
func workload(l []string, w *wds.Workload, id identity.ID) {
	for i := range l {
		l[i] = unknown
	}
	if !id.IsZero() {
		l[4] = id.String()
	}
	if w == nil {
		return
	}
	l[0], l[1], l[2], l[3] = known(w.Owner), known(w.CanonicalName), known(w.CanonicalRevision), known(w.Namespace)
	l[5], l[6], l[7], l[8], l[9] = known(w.CanonicalName), known(w.CanonicalRevision), known(w.Cluster), known(w.Region), known(w.Zone)
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

// overflow is the label set of what there is no room for.
func overflow() (l labelSet) {
	for i := range l {
		l[i] = other
	}
	l[0] = reporter
	return l
}
