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
	f.Add([]byte("nodes: [{node: n1, tokenSHA256: " + h + ", workload: {namespace: a, pod: wp-1, uid: u, serviceAccount: wp, gateway: wp}}]"))
	f.Add([]byte("nodes: []"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseTable(data)
		if err != nil {
			return
		}
		for _, c := range table {
			if caller, ok := table.caller(c.hash); !ok || !caller.equal(c.caller) {
				t.Fatalf("hash of %+v proves %+v", c.caller, caller)
			}
			if c.caller.Node == "" || c.caller.Workload != nil && c.caller.Workload.Gateway == "" {
				t.Fatalf("a caller without a name: %+v", c.caller)
			}
		}
		if _, ok := table.caller([sha256.Size]byte{}); ok && !strings.Contains(string(data), strings.Repeat("0", 2*sha256.Size)) {
			t.Fatal("a hash that is not in the file")
		}
	})
}
