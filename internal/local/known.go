package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/system"
)

const (
	// knownRetry is the pause before ztunnels are asked again what they know.
	knownRetry = 50 * time.Millisecond
	// knownTimeout bounds a question.
	knownTimeout = time.Second
)

// isKnown reports whether every ztunnel has heard that the ready pods are, so that
// a connection to them works from the moment that everything is said to be ready.
// If not, it has reconcile look again soon.
func (s *supervisor) isKnown(pods []*corev1.Pod) bool {
	if !s.options.Mesh {
		return true
	}
	for _, n := range s.nodes {
		healthy, err := askZtunnel(system.Client(n.wire.Namespaces.Net))
		if missing := firstUnknown(pods, healthy); err != nil || missing != "" {
			s.log.Debug("not everything is known on each node", zap.String("node", n.wire.Name), zap.String("pod", missing), zap.Error(err))
			time.AfterFunc(knownRetry, s.kick)
			return false
		}
	}
	return true
}

// firstUnknown gives the first ready pod that is not among what a ztunnel knows as
// healthy; "" if there is none.
func firstUnknown(pods []*corev1.Pod, healthy map[string]bool) string {
	for _, p := range pods {
		if key := knownKey(p.Namespace, p.Name, p.Status.PodIP); isReady(p) && !healthy[key] {
			return key
		}
	}
	return ""
}

// knownKey tells a pod from its predecessor of the same name.
func knownKey(namespace, name, ip string) string { return namespace + "/" + name + " at " + ip }

// proxyDump is the part of a ztunnel's or waypoint's dump that is looked at.
type proxyDump struct {
	Workloads []struct {
		Name      string   `json:"name"`
		Namespace string   `json:"namespace"`
		IPs       []string `json:"workloadIps"`
		Status    string   `json:"status"`
	} `json:"workloads"`
	// Clusters are a waypoint's.
	Clusters []struct {
		Endpoints []struct {
			Workload string `json:"workload"` // <namespace>/<name>
			Address  string `json:"address"`
		} `json:"endpoints"`
	} `json:"clusters"`
	Certificates []struct {
		Identity string `json:"identity"`
		Renewal  string `json:"renewal"`
		Error    string `json:"error"`
		Chain    []struct {
			Expires time.Time `json:"expirationTime"`
		} `json:"certChain"`
	} `json:"certificates"`
}

// certificates sums up what a ztunnel holds.
func (d *proxyDump) certificates() *control.Certificates {
	c := &control.Certificates{States: make(map[string]int), Errors: make(map[string]string)}
	for _, held := range d.Certificates {
		c.States[held.Renewal]++
		if held.Error != "" {
			c.Errors[held.Identity] = held.Error
		}
		if len(held.Chain) > 0 && (c.Soonest.IsZero() || held.Chain[0].Expires.Before(c.Soonest)) {
			c.Soonest = held.Chain[0].Expires
		}
	}
	return c
}

// askZtunnel gives the pods that a ztunnel knows as healthy.
func askZtunnel(client *http.Client) (map[string]bool, error) {
	dump, err := dumpProxy(context.Background(), client)
	if err != nil {
		return nil, err
	}
	return dump.healthy(), nil
}

// healthy gives the pods that a ztunnel knows as such.
func (d *proxyDump) healthy() map[string]bool {
	healthy := make(map[string]bool)
	for _, w := range d.Workloads {
		for _, ip := range w.IPs {
			if w.Status == "Healthy" {
				healthy[knownKey(w.Namespace, w.Name, ip)] = true
			}
		}
	}
	return healthy
}

func dumpProxy(ctx context.Context, client *http.Client) (*proxyDump, error) {
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/config_dump", portAdmin), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	dump := new(proxyDump)
	if err := json.NewDecoder(resp.Body).Decode(dump); err != nil {
		return nil, fmt.Errorf("config dump: %w", err)
	}
	return dump, nil
}
