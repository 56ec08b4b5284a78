package waypoint

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// dump is what the waypoint works with.
type dump struct {
	Gateway   string                     `json:"gateway"`
	Identity  string                     `json:"identity"`
	Version   string                     `json:"version"`
	Requests  int64                      `json:"requests"`
	Frontends map[string]json.RawMessage `json:"frontends"`
	Clusters  []upstream.ClusterInfo     `json:"clusters"`
	XDS       xdsDump                    `json:"xds"`
}

type xdsDump struct {
	Connected bool   `json:"connected"`
	LastError string `json:"lastError,omitempty"`
}

func (w *Waypoint) configDump(rw http.ResponseWriter, _ *http.Request) {
	d := dump{
		Gateway: w.cfg.Gateway, Identity: w.cfg.identity().String(), Version: version(), Requests: w.proxy.Active(),
		Frontends: make(map[string]json.RawMessage), Clusters: w.upstream.Info(),
	}
	for _, e := range w.frontends.All() {
		text, err := protojson.Marshal(shown(e.Config))
		if err != nil {
			text, _ = json.Marshal(err.Error())
		}
		d.Frontends[e.Key] = text
	}
	var err error
	if d.XDS.Connected, _, err = w.xds.Status(); err != nil {
		d.XDS.LastError = err.Error()
	}
	admin.WriteJSON(rw, d)
}

// redacted is shown in place of credentials.
const redacted = "(redacted)"

// shown is a frontend without the credentials of its collector.
func shown(f *waypointpb.Frontend) *waypointpb.Frontend {
	if len(f.GetTelemetry().GetCollector().GetHeaders()) == 0 {
		return f
	}
	f = proto.CloneOf(f)
	for _, h := range f.GetTelemetry().GetCollector().GetHeaders() {
		h.Value = redacted
	}
	return f
}

// explain says what would become of a request:
// /explain?service=shop/web.shop.svc.cluster.local&port=80&from=spiffe://...&method=GET&path=/x&header=name:value
// or, of a session of datagrams, with protocol=udp and without what is of requests.
func (w *Waypoint) explain(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	e := w.frontends.Key(q.Get("service"))
	if e == nil {
		http.Error(rw, fmt.Sprintf("service %q is not bound to waypoint %s; give <namespace>/<hostname>", q.Get("service"), w.cfg.Gateway), http.StatusNotFound)
		return
	}
	port, err := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil {
		http.Error(rw, "port: want a number", http.StatusBadRequest)
		return
	}
	client := route.Client{}
	if from := q.Get("from"); from != "" {
		if client.Identity, err = identity.Parse(from); err != nil {
			http.Error(rw, "from: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	client.Address, _ = netip.ParseAddr(q.Get("address"))
	if q.Get("protocol") == "udp" {
		writeExplained(rw, q.Get("output"), e.Routes.ExplainUDP(client, uint16(port)))
		return
	}
	req := &message.Request{Method: orText(q.Get("method"), "GET"), Scheme: "http", Authority: orText(q.Get("host"), e.Config.GetHostname()), Path: orText(q.Get("path"), "/"), Version: message.HTTP11}
	for _, h := range q["header"] {
		name, value, _ := strings.Cut(h, ":")
		req.Fields.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
	}
	if req.Path, err = route.NormalizePath(req.Path); err != nil {
		http.Error(rw, "path: "+err.Error(), http.StatusBadRequest)
		return
	}
	writeExplained(rw, q.Get("output"), e.Routes.Explain(client, uint16(port), req))
}

func writeExplained(rw http.ResponseWriter, output string, x route.Explanation) {
	if output == "json" {
		admin.WriteJSON(rw, x)
		return
	}
	fmt.Fprintln(rw, x.String())
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
