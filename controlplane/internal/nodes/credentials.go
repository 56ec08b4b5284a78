package nodes

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// maxFile bounds the credentials file: 100,000 nodes.
const maxFile = 16 << 20

// credential is one token's hash and whom it proves.
type credential struct {
	caller Caller
	hash   [sha256.Size]byte
}

// table is all valid credentials. It is immutable.
type table []credential

// file is the shape of the credentials file, YAML or JSON.
type file struct {
	Nodes []struct {
		Node        string `json:"node"`
		TokenSHA256 string `json:"tokenSHA256"`
		// Workload: the token proves this pod of the node and not the node.
		Workload *workloadEntry `json:"workload"`
	} `json:"nodes"`
}

type workloadEntry struct {
	Namespace      string `json:"namespace"`
	Pod            string `json:"pod"`
	UID            string `json:"uid"`
	ServiceAccount string `json:"serviceAccount"`
	Gateway        string `json:"gateway"`
}

// workload checks an entry; nil is none.
func (e *workloadEntry) workload() (*Workload, error) {
	if e == nil {
		return nil, nil
	}
	for _, f := range []struct{ name, value string }{
		{"namespace", e.Namespace}, {"pod", e.Pod}, {"serviceAccount", e.ServiceAccount}, {"gateway", e.Gateway},
	} {
		if problems := validation.IsDNS1123Subdomain(f.value); len(problems) > 0 {
			return nil, fmt.Errorf("%s %q: %s", f.name, clip(f.value), problems[0])
		}
	}
	if e.UID == "" || len(e.UID) > maxUID {
		return nil, fmt.Errorf("uid: want 1 to %d bytes", maxUID)
	}
	return &Workload{Namespace: e.Namespace, Pod: e.Pod, UID: e.UID, ServiceAccount: e.ServiceAccount, Gateway: e.Gateway}, nil
}

func readTable(path string) (table, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("node credentials: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("node credentials %s: larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("node credentials: %w", err)
	}
	t, err := parseTable(data)
	if err != nil {
		return nil, fmt.Errorf("node credentials %s: %w", path, err)
	}
	return t, nil
}

// parseTable reads a credentials file. A node or workload may have several
// tokens, so that they can be exchanged; a token proves one of them.
func parseTable(data []byte) (table, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty; for no nodes at all write: nodes: []")
	}
	var f file
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return nil, err
	}
	t := make(table, 0, len(f.Nodes))
	owner := make(map[[sha256.Size]byte]Caller, len(f.Nodes))
	for i, n := range f.Nodes {
		if problems := validation.IsDNS1123Subdomain(n.Node); len(problems) > 0 {
			return nil, fmt.Errorf("nodes[%d].node %q: %s", i, clip(n.Node), problems[0])
		}
		hash, err := hex.DecodeString(n.TokenSHA256)
		if err != nil || len(hash) != sha256.Size {
			return nil, fmt.Errorf("nodes[%d].tokenSHA256: want the token's SHA-256 as %d hexadecimal digits", i, 2*sha256.Size)
		}
		w, err := n.Workload.workload()
		if err != nil {
			return nil, fmt.Errorf("nodes[%d].workload.%w", i, err)
		}
		c := credential{caller: Caller{Node: n.Node, Workload: w}, hash: [sha256.Size]byte(hash)}
		if other, ok := owner[c.hash]; ok && !other.equal(c.caller) {
			return nil, fmt.Errorf("nodes[%d]: the token of %s is that of %s too; give each node and workload its own", i, c.caller.Name(), other.Name())
		}
		owner[c.hash] = c.caller
		t = append(t, c)
	}
	return t, nil
}

// caller gives whom a token's hash proves. It takes the same time whoever it is.
func (t table) caller(hash [sha256.Size]byte) (Caller, bool) {
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(t[i].hash[:], hash[:]), i, found)
	}
	if found < 0 {
		return Caller{}, false
	}
	return t[found].caller, true
}

func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
