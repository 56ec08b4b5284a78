package local

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// credentials is the control plane's file of who may call it: the nodes, and the
// pods of waypoints while there are any.
type credentials struct {
	path string

	mu      sync.Mutex
	nodes   []credential               // guarded by mu
	pods    map[types.UID][]credential // guarded by mu
	written bool                       // the file is up to date; guarded by mu
}

// credential is an entry of the file.
type credential struct {
	Node        string              `json:"node"`
	TokenSHA256 string              `json:"tokenSHA256"`
	Workload    *workloadCredential `json:"workload,omitempty"`
}

type workloadCredential struct {
	Namespace      string    `json:"namespace"`
	Pod            string    `json:"pod"`
	UID            types.UID `json:"uid"`
	ServiceAccount string    `json:"serviceAccount"`
	Gateway        string    `json:"gateway"`
}

func newCredentials(path string) *credentials {
	return &credentials{path: path, pods: make(map[types.UID][]credential)}
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// issueNodes gives each node a secret of its own, in the file that tokenFile
// names.
func (c *credentials) issueNodes(nodes []string, tokenFile func(node string) string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		token := rand.Text()
		if err := os.WriteFile(tokenFile(n), []byte(token), 0o600); err != nil {
			return fmt.Errorf("node credentials: %w", err)
		}
		c.nodes = append(c.nodes, credential{Node: n, TokenSHA256: hashOf(token)})
	}
	return c.writeLocked()
}

// issuePod gives the pod of a waypoint a secret of its own.
func (c *credentials) issuePod(p *corev1.Pod) (token string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	token = rand.Text()
	c.pods[p.UID] = append(c.pods[p.UID], credential{
		Node: p.Spec.NodeName, TokenSHA256: hashOf(token), Workload: &workloadCredential{
			Namespace: p.Namespace, Pod: p.Name, UID: p.UID, ServiceAccount: p.Spec.ServiceAccountName, Gateway: p.Labels[graph.LabelGatewayName],
		},
	})
	return token, c.writeLocked()
}

// withdraw ends what a pod that is gone could do. It reports failures to write
// again until they are overcome.
func (c *credentials) withdraw(uid types.UID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, had := c.pods[uid]
	if !had && c.written {
		return nil
	}
	delete(c.pods, uid)
	return c.writeLocked()
}

// writeLocked replaces the file, which the control plane looks at all the time.
func (c *credentials) writeLocked() error {
	list := struct {
		Nodes []credential `json:"nodes"`
	}{Nodes: slices.Clone(c.nodes)}
	for _, pod := range c.pods {
		list.Nodes = append(list.Nodes, pod...)
	}
	slices.SortFunc(list.Nodes, func(a, b credential) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.TokenSHA256, b.TokenSHA256))
	})
	c.written = false
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if err := os.Rename(c.path+".new", c.path); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	c.written = true
	return nil
}
