package plugin

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Config is what the plugin's entry in the CNI configuration says.
type Config struct {
	// Type is the name of the plugin's program.
	Type string `json:"type"`
	// Socket is the node agent's, EnrolledFile what it leaves for the time when it
	// is away; paths on the node.
	Socket       string `json:"socket"`
	EnrolledFile string `json:"enrolledFile"`
	// ExemptNamespaces are those whose pods start whatever the agent says.
	ExemptNamespaces []string `json:"exemptNamespaces,omitempty"`
	// TimeoutSeconds bounds an addition; 35 if zero.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// Validate names the first field that cannot be used.
func (c *Config) Validate() error {
	switch {
	case c.Type == "":
		return fmt.Errorf("type: must be set")
	case !filepath.IsAbs(c.Socket):
		return fmt.Errorf("socket %q: want an absolute path", c.Socket)
	case !filepath.IsAbs(c.EnrolledFile):
		return fmt.Errorf("enrolledFile %q: want an absolute path", c.EnrolledFile)
	case c.TimeoutSeconds < 0 || c.TimeoutSeconds > 600:
		return fmt.Errorf("timeoutSeconds %d: want 0 to 600", c.TimeoutSeconds)
	}
	return nil
}

func (c *Config) timeout() time.Duration {
	if c.TimeoutSeconds == 0 {
		return 35 * time.Second
	}
	return time.Duration(c.TimeoutSeconds) * time.Second
}

// input is what the plugin reads: its entry, with what the runtime adds.
type input struct {
	Config
	PrevResult json.RawMessage `json:"prevResult"`
}

func parseInput(b []byte) (*input, error) {
	in := &input{}
	if err := json.Unmarshal(b, in); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "ambit-cni: configuration is not JSON as it should be", err.Error())
	}
	if err := in.Validate(); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "ambit-cni: "+err.Error(), "the node agent writes this entry; let it do so again by removing the entry")
	}
	return in, nil
}

// pod is what the runtime says about the pod.
type pod struct {
	namespace, name, uid string
	netns                string
	ips                  []string
}

func (p *pod) String() string { return p.namespace + "/" + p.name }

// parsePod reads CNI_ARGS: K=V;K=V. A sandbox that is no pod of Kubernetes has no
// name.
func parsePod(args *skel.CmdArgs) *pod {
	p := &pod{netns: filepath.Clean(args.Netns)}
	for _, pair := range strings.Split(args.Args, ";") {
		k, v, _ := strings.Cut(pair, "=")
		switch k {
		case "K8S_POD_NAMESPACE":
			p.namespace = v
		case "K8S_POD_NAME":
			p.name = v
		case "K8S_POD_UID":
			p.uid = v
		}
	}
	return p
}

// addresses reads those of a result of versions 0.3.0 to 1.1.0.
func addresses(result []byte) ([]string, error) {
	var r struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return nil, err
	}
	var out []string
	for i, ip := range r.IPs {
		prefix, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return nil, fmt.Errorf("ips[%d].address %.60q: %w", i, ip.Address, err)
		}
		if a := prefix.Addr().String(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}
