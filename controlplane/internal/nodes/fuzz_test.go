package nodes

import (
	"crypto/sha256"
	"strings"
	"testing"
)

// FuzzParseTable: no file crashes, and a token proves one node.
func FuzzParseTable(f *testing.F) {
	h := strings.Repeat("ab", sha256.Size)
	f.Add([]byte("nodes: [{node: n1, tokenSHA256: " + h + "}]"))
	f.Add([]byte(`{"nodes":[{"node":"n1","tokenSHA256":"` + h + `"},{"node":"n2","tokenSHA256":"` + h + `"}]}`))
	f.Add([]byte("nodes: []"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseTable(data)
		if err != nil {
			return
		}
		for _, c := range table {
			if node, ok := table.node(c.hash); !ok || node != c.node {
				t.Fatalf("hash of %s proves %q", c.node, node)
			}
		}
		if _, ok := table.node([sha256.Size]byte{}); ok && !strings.Contains(string(data), strings.Repeat("0", 2*sha256.Size)) {
			t.Fatal("a hash that is not in the file")
		}
	})
}
