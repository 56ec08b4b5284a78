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

// credential is one token's hash and the node it proves.
type credential struct {
	node string
	hash [sha256.Size]byte
}

// table is all valid credentials. It is immutable.
type table []credential

// file is the shape of the credentials file, YAML or JSON.
type file struct {
	Nodes []struct {
		Node        string `json:"node"`
		TokenSHA256 string `json:"tokenSHA256"`
	} `json:"nodes"`
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

// parseTable reads a credentials file. A node may have several tokens, so that
// they can be exchanged; a token proves one node.
func parseTable(data []byte) (table, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty; for no nodes at all write: nodes: []")
	}
	var f file
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return nil, err
	}
	t := make(table, 0, len(f.Nodes))
	owner := make(map[[sha256.Size]byte]string, len(f.Nodes))
	for i, n := range f.Nodes {
		if problems := validation.IsDNS1123Subdomain(n.Node); len(problems) > 0 {
			return nil, fmt.Errorf("nodes[%d].node %q: %s", i, clip(n.Node), problems[0])
		}
		hash, err := hex.DecodeString(n.TokenSHA256)
		if err != nil || len(hash) != sha256.Size {
			return nil, fmt.Errorf("nodes[%d].tokenSHA256: want the token's SHA-256 as %d hexadecimal digits", i, 2*sha256.Size)
		}
		c := credential{node: n.Node, hash: [sha256.Size]byte(hash)}
		if other, ok := owner[c.hash]; ok && other != c.node {
			return nil, fmt.Errorf("nodes[%d]: the token of node %s is that of node %s too; give each node its own", i, c.node, other)
		}
		owner[c.hash] = c.node
		t = append(t, c)
	}
	return t, nil
}

// node gives the node that a token's hash proves. It takes the same time
// whichever it is.
func (t table) node(hash [sha256.Size]byte) (string, bool) {
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(t[i].hash[:], hash[:]), i, found)
	}
	if found < 0 {
		return "", false
	}
	return t[found].node, true
}

func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
