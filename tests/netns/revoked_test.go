package netns_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// authority is a plugged-in CA that revokes.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64 // of the latest list
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority that revokes"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write("root.pem", "CERTIFICATE", der)
	a.write("key.pem", "PRIVATE KEY", private)
	a.revoke()
	return a
}

// write puts a file in place at once.
func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		a.t.Fatal(err)
	}
}

// revoke publishes the list that follows the former one, with these serial numbers.
func (a *authority) revoke(serials ...*big.Int) {
	a.t.Helper()
	a.n++
	list := &x509.RevocationList{Number: big.NewInt(a.n), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("crl.pem", "X509 CRL", der)
}

// args have a mesh use it.
func (a *authority) args() (args []string) {
	for flag, name := range map[string]string{"--ca-root-cert=": "root.pem", "--ca-cert=": "root.pem", "--ca-key=": "key.pem", "--ca-crl=": "crl.pem"} {
		args = append(args, "--component-arg", "controlplane="+flag+filepath.Join(a.dir, name))
	}
	return args
}

// A revocation list that is put in place reaches all ztunnels: the tunnels of the
// workload that is on it end, over TCP and QUIC, new ones are refused for that reason, and
// nobody else notices. When it is taken off, all is as before.
func TestRevokedWorkload(t *testing.T) {
	ca := newAuthority(t)
	m := start(t, world(), ca.args()...)
	m.captured("in")
	const far, near = "server-n2.in.svc.cluster.local", "server-n1.in.svc.cluster.local"
	echo := []check{{Kind: "echo", Addr: far + ":8080", Size: 1000}, {Kind: "echo", Addr: near + ":8080", Size: 1000}}
	m.succeed("in", "client", echo)
	stream := m.hold("in", "client", far+":8085")
	datagrams := m.holdOver("udp", "in", "client", far+":"+strconv.Itoa(datagramPort))
	others := m.hold("in", "server-n1", far+":8085")
	load := m.steady("in", "server-n2", near+":8080")
	bystander := m.steady("out", "client", "server-n2.out.svc.cluster.local:8080")
	stream.beat()
	datagrams.beat()

	serial := m.serial("n1", "/ns/in/sa/client")
	if out, err := m.command(t.Context(), "logs", "controlplane").Output(); err != nil || !strings.Contains(string(out), serial.Text(16)) {
		t.Errorf("the control plane's log does not name certificate %s: %v", serial.Text(16), err)
	}
	ca.revoke(serial)
	m.revokedCertificates(1)
	m.until("the connection of the revoked workload is cut", func() bool { return stream.try() != "ok" })
	for _, o := range m.checks("in", "client", echo) {
		if o.Error == "" {
			t.Errorf("a revoked workload reached %s", o.Check.Addr)
		}
	}
	for _, server := range []string{"server-n1", "server-n2"} {
		m.until(server+" has refused the revoked workload, and said why", func() bool {
			return len(m.accessLog(func(l map[string]any) bool {
				why, _ := l["error"].(string)
				return l["direction"] == "inbound" && l["dst.workload"] == server && strings.Contains(why, serial.Text(16)) && strings.Contains(why, "is revoked")
			})) > 0
		})
	}
	// One over TCP, and the one over QUIC that has the datagrams.
	m.until("both of the workload's tunnels to n2 are cut", func() bool { return m.metric("n2", "ambit_revoked_connections_total") >= 2 })
	if n := m.metric("n2", "ambit_revoked_handshakes_total"); n == 0 {
		t.Error("no refused handshake was counted")
	}
	others.beat()

	ca.revoke()
	m.revokedCertificates(0)
	m.until("the workload is let in again", func() bool {
		for _, o := range m.checks("in", "client", echo) {
			if o.Error != "" {
				return false
			}
		}
		return true
	})
	m.encryptedBetween(far + ":8080")
	again := m.holdOver("udp", "in", "client", far+":"+strconv.Itoa(datagramPort))
	again.beat()
	others.beat()
	for who, l := range map[string]*steady{"another workload": load, "not enrolled": bystander} {
		if ok, failures := l.end(); failures != "" || ok < atLeast {
			t.Errorf("%s: %d connections worked, failures: %s\n%s", who, ok, failures, m.linesOf(failures))
		}
	}
}

// serial gives the serial number of the certificate that a node's ztunnel holds for the
// identity that ends so.
func (m *mesh) serial(node, identity string) *big.Int {
	m.t.Helper()
	var dump struct {
		Certificates []struct {
			Identity string `json:"identity"`
			Chain    []struct {
				PEM string `json:"pem"`
			} `json:"certChain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(m.fetch(node, "http://127.0.0.1:15000/config_dump")), &dump); err != nil {
		m.t.Fatalf("config dump of %s: %v", node, err)
	}
	for _, c := range dump.Certificates {
		if !strings.HasSuffix(c.Identity, identity) || len(c.Chain) == 0 {
			continue
		}
		block, _ := pem.Decode([]byte(c.Chain[0].PEM))
		if block == nil {
			m.t.Fatalf("no PEM in the config dump of %s", node)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			m.t.Fatal(err)
		}
		return cert.SerialNumber
	}
	m.t.Fatalf("%s holds no certificate of %s", node, identity)
	return nil
}

// revokedCertificates waits until both ztunnels know of so many.
func (m *mesh) revokedCertificates(n float64) {
	m.t.Helper()
	for _, node := range []string{"n1", "n2"} {
		m.until(node+" has the revocation list", func() bool { return m.metric(node, "ambit_revoked_certificates") == n })
	}
}

// metric is the value of a metric without labels of a node's ztunnel.
func (m *mesh) metric(node, name string) float64 {
	m.t.Helper()
	for line := range strings.Lines(m.fetch(node, "http://127.0.0.1:15020/metrics")) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				m.t.Fatalf("%s of %s: %v", name, node, err)
			}
			return f
		}
	}
	m.t.Fatalf("%s has no metric %s", node, name)
	return 0
}
