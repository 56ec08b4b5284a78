package waypoint_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
)

// certificateOf prints the certificate that a server shows.
func certificateOf(addr string) error {
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // what is shown is what is asked for
	if err != nil {
		return err
	}
	defer conn.Close()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
	return json.NewEncoder(os.Stdout).Encode(string(text))
}

// A waypoint speaks TLS to an application that wants it, and to none that is not
// the one that a BackendTLSPolicy names.
func TestBackendTLS(t *testing.T) {
	m := use(t)
	plain := service("sealed", "v1")
	m.apply(plain)
	m.until("it is there", request{URL: "http://sealed/"}, status(200))
	var ca string
	m.run("client", nil, &ca, "certificate", "sealed:443")

	sealed := strings.Replace(plain, "{name: http, port: 80, targetPort: 8080,", "{name: http, port: 80, targetPort: 8443,", 1)
	policy := func(config, hostname string) string {
		return fmt.Sprintf(`
---
apiVersion: v1
kind: ConfigMap
metadata: {name: sealed-ca, namespace: app}
data:
  ca.crt: |
    %s
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: sealed, namespace: app}
spec:
  targetRefs: [{group: "", kind: Service, name: sealed}]
  validation:
    caCertificateRefs: [{group: "", kind: ConfigMap, name: %s}]
    hostname: %s
`, strings.ReplaceAll(strings.TrimSpace(ca), "\n", "\n    "), config, hostname)
	}
	m.apply(sealed + policy("sealed-ca", "secure.example.com"))
	m.until("requests go over TLS", request{URL: "http://sealed/"}, func(r response) bool { return r.Status == 200 && r.Seen.Proto == "HTTP/1.1" })
	m.condition("BackendTLSPolicy", "sealed", `"Accepted"`, `"ResolvedRefs"`, `"True"`)

	m.apply(sealed + policy("sealed-ca", "another.example.com"))
	m.until("who has another name is sent nothing", request{URL: "http://sealed/"}, status(503))
	m.apply(sealed + policy("missing", "secure.example.com"))
	m.until("without an authority nothing is sent", request{URL: "http://sealed/"}, status(503))
	m.condition("BackendTLSPolicy", "sealed", "NoValidCACertificate", "InvalidCACertificateRef", "app/missing")
	m.apply(sealed + policy("sealed-ca", "secure.example.com"))
	m.until("it is put right", request{URL: "http://sealed/"}, status(200))
}
