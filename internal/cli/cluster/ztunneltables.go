package cluster

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/flow/gather"
	"github.com/ambit-mesh/ambit/internal/flow/join"
	"github.com/ambit-mesh/ambit/internal/flow/report"
)

// ztunnelDump is what is shown of ztunnel's /config_dump.
type ztunnelDump struct {
	Workloads    []dumpedWorkload     `json:"workloads"`
	Services     []dumpedService      `json:"services"`
	Policies     []dumpedPolicy       `json:"policies"`
	Certificates []dumpedCert         `json:"certificates"`
	Pods         map[string]dumpedPod `json:"workloadState"`
}

type dumpedGateway struct {
	Destination string `json:"destination"`
	Refusal     string `json:"refusal,omitempty"`
}

func (g *dumpedGateway) String() string {
	switch {
	case g == nil:
		return ""
	case g.Refusal != "":
		return g.Destination + " (not available: " + g.Refusal + ")"
	}
	return g.Destination
}

type dumpedWorkload struct {
	UID            string         `json:"uid"`
	Name           string         `json:"name"`
	Namespace      string         `json:"namespace"`
	Addresses      []string       `json:"workloadIps"`
	Node           string         `json:"node,omitempty"`
	Protocol       string         `json:"protocol"`
	Status         string         `json:"status"`
	ServiceAccount string         `json:"serviceAccount"`
	Waypoint       *dumpedGateway `json:"waypoint,omitempty"`
	Policies       []string       `json:"authorizationPolicies,omitempty"`
}

type dumpedService struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Hostname  string            `json:"hostname"`
	VIPs      []string          `json:"vips"`
	Ports     map[uint16]uint16 `json:"ports"`
	Waypoint  *dumpedGateway    `json:"waypoint,omitempty"`
	Endpoints map[string]any    `json:"endpoints"`
}

type dumpedPolicy struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Scope     string `json:"scope"`
	Action    string `json:"action"`
	Rules     int    `json:"rules"`
	DryRun    bool   `json:"dryRun,omitempty"`
	Refusal   string `json:"refusal,omitempty"`
}

type dumpedCert struct {
	Identity string `json:"identity"`
	State    string `json:"state"`
	Error    string `json:"error,omitempty"`
	Chain    []struct {
		SerialNumber   string `json:"serialNumber"`
		ValidFrom      string `json:"validFrom"`
		ExpirationTime string `json:"expirationTime"`
	} `json:"certChain"`
}

type dumpedPod struct {
	State string `json:"state"`
	Info  struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"info"`
	Error       string             `json:"error,omitempty"`
	Connections []dumpedConnection `json:"connections"`
}

type dumpedConnection struct {
	Pod                string    `json:"pod,omitempty"`
	Direction          string    `json:"direction"`
	Src                string    `json:"src"`
	OriginalDst        string    `json:"originalDst,omitempty"`
	ActualDst          string    `json:"actualDst,omitempty"`
	Protocol           string    `json:"protocol"`
	SourceIdentity     string    `json:"sourceIdentity,omitempty"`
	Since              time.Time `json:"since"`
	BytesToDestination int64     `json:"bytesToDestination"`
	BytesToSource      int64     `json:"bytesToSource"`
}

// The tables give what is shown, and write it where they are given a writer.

func workloadTable(w *tabwriter.Writer, d *ztunnelDump) any {
	if w != nil {
		cli.Row(w, "NAMESPACE", "WORKLOAD", "ADDRESSES", "NODE", "PROTOCOL", "STATUS", "SERVICE-ACCOUNT", "WAYPOINT")
		for _, x := range d.Workloads {
			cli.Row(w, x.Namespace, x.Name, strings.Join(x.Addresses, ","), x.Node, x.Protocol, x.Status, x.ServiceAccount, x.Waypoint.String())
		}
	}
	return d.Workloads
}

func serviceTable(w *tabwriter.Writer, d *ztunnelDump) any {
	if w != nil {
		cli.Row(w, "NAMESPACE", "SERVICE", "ADDRESSES", "ENDPOINTS", "WAYPOINT")
		for _, x := range d.Services {
			cli.Row(w, x.Namespace, x.Name, strings.Join(x.VIPs, ","), len(x.Endpoints), x.Waypoint.String())
		}
	}
	return d.Services
}

func policyTable(w *tabwriter.Writer, d *ztunnelDump) any {
	if w != nil {
		cli.Row(w, "NAMESPACE", "POLICY", "SCOPE", "ACTION", "RULES", "DRY-RUN", "REFUSED, AND DENIES, BECAUSE")
		for _, x := range d.Policies {
			cli.Row(w, x.Namespace, x.Name, x.Scope, x.Action, x.Rules, cli.YesNo(x.DryRun), x.Refusal)
		}
	}
	return d.Policies
}

func certTable(w *tabwriter.Writer, d *ztunnelDump) any {
	if w != nil {
		cli.Row(w, "IDENTITY", "STATE", "SERIAL", "NOT BEFORE", "NOT AFTER", "ERROR")
		for _, x := range d.Certificates {
			if len(x.Chain) == 0 {
				cli.Row(w, x.Identity, x.State, "", "", "", x.Error)
				continue
			}
			cli.Row(w, x.Identity, x.State, x.Chain[0].SerialNumber, x.Chain[0].ValidFrom, x.Chain[0].ExpirationTime, x.Error)
		}
	}
	return d.Certificates
}

func connectionTable(w *tabwriter.Writer, d *ztunnelDump) any {
	all := []dumpedConnection{}
	for _, key := range slices.Sorted(maps.Keys(d.Pods)) {
		p := d.Pods[key]
		for _, c := range p.Connections {
			c.Pod = p.Info.Namespace + "/" + p.Info.Name
			all = append(all, c)
		}
	}
	if w != nil {
		cli.Row(w, "POD", "DIRECTION", "SOURCE", "DESTINATION", "VIA", "PROTOCOL", "CLIENT", "SENT", "RECEIVED", "AGE")
		for _, c := range all {
			cli.Row(w, c.Pod, c.Direction, c.Src, c.OriginalDst, c.ActualDst, c.Protocol, c.SourceIdentity, report.Bytes(uint64(c.BytesToDestination)), report.Bytes(uint64(c.BytesToSource)), cli.Age(c.Since))
		}
	}
	return all
}

func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

// newZtunnelConnections shows open connections, or the flow records of those that
// ended.
func newZtunnelConnections(f *ztunnelFlags) *cobra.Command {
	cmd := f.show("connections", "Show open connections of the pods that it serves, or with --ended those that are over", connectionTable)
	open := cmd.RunE
	ended := cmd.Flags().Uint32("ended", 0, "show the newest so many that have ended, with what became of them, instead")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *ended == 0 {
			return open(cmd, args)
		}
		c, err := f.Connect(cmd.Context())
		if err != nil {
			return err
		}
		pod, err := f.find(cmd.Context(), c)
		if err != nil {
			return err
		}
		how := report.Table
		if cmd.Flags().Lookup("output").Value.String() == "json" {
			how = report.JSON
		}
		p := report.NewPrinter(f.s.Out, how, time.Local)
		one := gather.Proxy{Name: pod, Dial: func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, c.System, pod, portAdmin) }}
		var problem error
		r := &gather.Reader{Source: only{one}, Request: &flowpb.ObserveRequest{Last: *ended}, Each: func(t gather.Told) {
			switch {
			case problem != nil:
			case t.Problem != "":
				problem = errors.New(t.Problem)
			case t.Record != nil:
				problem = p.Print(report.Of(join.Single(t.Record)))
			}
		}}
		return errors.Join(r.Run(cmd.Context()), problem)
	}
	return cmd
}

// only is a gather.Source of proxies that do not change.
type only []gather.Proxy

func (o only) Proxies(context.Context) ([]gather.Proxy, error) { return o, nil }
func (o only) Changed(ctx context.Context)                     { <-ctx.Done() }
