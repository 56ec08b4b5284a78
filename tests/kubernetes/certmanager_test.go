package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

// certManagerCRDs gives the folder of cert-manager's definitions, from its module.
func certManagerCRDs(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/cert-manager/cert-manager")
	cmd.Dir = "certmanager"
	out, err := cmd.Output()
	var module struct{ Dir string }
	if err != nil || json.Unmarshal(out, &module) != nil {
		t.Fatalf("cert-manager's module: %v\n%s", err, out)
	}
	return filepath.Join(module.Dir, "deploy", "crds")
}

// authority is one that signs others: a company's root, or what is below it.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign issues a CA certificate for a key; a nil authority makes a root.
func (a *authority) sign(t *testing.T, name pkix.Name, key *ecdsa.PublicKey, by *ecdsa.PrivateKey, life time.Duration) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent := tmpl
	if a != nil {
		parent, by = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// certManager plays cert-manager: it makes what is asked for by a Certificate.
type certManager struct {
	t      *testing.T
	s      *apitest.Server
	root   *authority
	issuer *authority // what the issuer signs with, below root
	mount  string     // where the control plane has the Secret
	rounds int
}

func newCertManager(t *testing.T, s *apitest.Server) *certManager {
	t.Helper()
	rootKey, issuerKey := newKey(t), newKey(t)
	var none *authority
	root := &authority{none.sign(t, pkix.Name{CommonName: "Company root"}, &rootKey.PublicKey, rootKey, 100*time.Hour), rootKey}
	issuer := &authority{root.sign(t, pkix.Name{CommonName: "Company issuer"}, &issuerKey.PublicKey, nil, 90*time.Hour), issuerKey}
	return &certManager{t: t, s: s, root: root, issuer: issuer, mount: t.TempDir()}
}

// certificate is what of cert-manager.io/v1 Certificate is used.
type certificate struct {
	Spec struct {
		SecretName, CommonName, Duration string
		IsCA                             bool
		Usages                           []string
		Subject                          struct{ Organizations []string }
		PrivateKey                       struct {
			Algorithm, Encoding, RotationPolicy string
			Size                                int
		}
		IssuerRef map[string]string
	}
}

// fulfil does for a Certificate what cert-manager does, by way of a CertificateRequest,
// and gives the certificate that is in the Secret then, which is mounted.
func (m *certManager) fulfil(namespace, name string) *x509.Certificate {
	m.t.Helper()
	var want certificate
	if err := json.Unmarshal([]byte(kubectl(m.t, m.s, "", "get", "certificates.cert-manager.io", "-n", namespace, name, "-o", "json")), &want); err != nil {
		m.t.Fatal(err)
	}
	spec := want.Spec
	if !spec.IsCA || spec.PrivateKey.Algorithm != "ECDSA" || spec.PrivateKey.Size != 256 || spec.PrivateKey.Encoding != "PKCS8" || spec.IssuerRef["name"] == "" {
		m.t.Fatalf("the Certificate asks for %+v", spec)
	}
	key := newKey(m.t)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: spec.CommonName, Organization: spec.Subject.Organizations}}, key)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rounds++
	request, err := json.Marshal(map[string]any{
		"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": map[string]string{"namespace": namespace, "name": fmt.Sprintf("%s-%d", name, m.rounds)},
		"spec": map[string]any{"request": []byte(encode("CERTIFICATE REQUEST", csr)), "isCA": true, "usages": spec.Usages, "duration": spec.Duration, "issuerRef": spec.IssuerRef},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	kubectl(m.t, m.s, string(request), "create", "--validate=strict", "-f", "-")
	life, err := time.ParseDuration(spec.Duration)
	if err != nil {
		m.t.Fatal(err)
	}
	cert := m.issuer.sign(m.t, pkix.Name{CommonName: spec.CommonName, Organization: spec.Subject.Organizations}, &key.PublicKey, nil, min(life, 80*time.Hour))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	m.store(namespace, spec.SecretName, map[string]string{
		"tls.crt": encode("CERTIFICATE", cert.Raw) + encode("CERTIFICATE", m.issuer.cert.Raw),
		"tls.key": encode("PRIVATE KEY", der), "ca.crt": encode("CERTIFICATE", m.root.cert.Raw),
	})
	return cert
}

// store puts the Secret in the API, and where the kubelet would mount it.
func (m *certManager) store(namespace, name string, data map[string]string) {
	m.t.Helper()
	encoded := make(map[string]string)
	for key, text := range data {
		encoded[key] = base64.StdEncoding.EncodeToString([]byte(text))
		file := filepath.Join(m.mount, key)
		if err := os.WriteFile(file+".new", []byte(text), 0o440); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			m.t.Fatal(err)
		}
	}
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": map[string]string{"namespace": namespace, "name": name}, "data": encoded})
	if err != nil {
		m.t.Fatal(err)
	}
	kubectl(m.t, m.s, string(secret), "apply", "--server-side", "-f", "-")
}

// controlPlane gives the Deployment of the control plane that a chart has made.
func controlPlane(t *testing.T, text string) *appsv1.Deployment {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var d appsv1.Deployment
		if yaml.Unmarshal([]byte(doc), &d) == nil && d.Kind == "Deployment" && d.Name == "ambit-controlplane" {
			return &d
		}
	}
	t.Fatal("no control plane in the chart")
	return nil
}

// TestCertManager: with an issuer of cert-manager the mesh's certificates lead to the
// company's root, and the issuing certificate is renewed without a restart.
func TestCertManager(t *testing.T) {
	s := apitest.Start(t)
	kubectl(t, s, "", "apply", "--server-side", "-f", certManagerCRDs(t))
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	deployment := controlPlane(t, install(t, s, map[string]any{"ca": map[string]any{"certManager": map[string]any{"issuer": "company", "duration": "48h"}}}))
	kubectl(t, s, mesh, "apply", "--server-side", "--force-conflicts", "-f", "-")
	kubectl(t, s, "", "patch", "pod", "-n", "shop", "web", "--subresource=status", "-p", `{"status":{"phase":"Running","podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"}]}}`)
	m := newCertManager(t, s)

	// The control plane is started as the Deployment has it, with its volume.
	cfg := config(t, s)
	pod := deployment.Spec.Template.Spec
	mounted := pod.Containers[0].VolumeMounts[0].MountPath
	for flag, field := range map[string]*string{"--ca-root-cert=": &cfg.CARootCert, "--ca-cert=": &cfg.CACert, "--ca-key=": &cfg.CAKey} {
		for _, arg := range pod.Containers[0].Args {
			if path, ok := strings.CutPrefix(arg, flag+mounted); ok {
				*field = filepath.Join(m.mount, path)
			}
		}
	}
	if _, err := controlplane.New(cfg); err == nil || !strings.Contains(err.Error(), "ca.crt") || !strings.Contains(err.Error(), "Secret") {
		t.Errorf("without the Secret: %v", err)
	}
	first := m.fulfil(root, "ambit-issuing-ca")
	if got := pod.Volumes[0].Secret.SecretName; kubectl(t, s, "", "get", "secret", "-n", root, got, "-o", "name") != "secret/"+got+"\n" {
		t.Errorf("the pod mounts Secret %s, which is another one", got)
	}
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	l := find(t, r, token(t, client, root, "ambit-nodeagent", "agent", "ambit-mesh.io"))
	issued := func(by *x509.Certificate) bool {
		chain, err := l.certificate("spiffe://cluster.local/ns/shop/sa/web")
		if err != nil {
			t.Fatal(err)
		}
		var certs []*x509.Certificate
		for rest := []byte(strings.Join(chain, "")); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			certs = append(certs, c)
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(m.root.cert)
		for _, c := range certs[1:] {
			between.AddCert(c)
		}
		chains, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			t.Fatalf("what is issued does not lead to the company's root: %v", err)
		}
		return chains[0][1].Equal(by)
	}
	if !issued(first) {
		t.Error("something else has issued")
	}
	testkit.Until(t, "the company's root is published", func() bool {
		out, err := s.Kubectl("", "get", "configmap", "-n", "shop", "ambit-root-cert", "-o", `jsonpath={.data.root-cert\.pem}`)
		return err == nil && strings.TrimSpace(out) == strings.TrimSpace(encode("CERTIFICATE", m.root.cert.Raw))
	})
	second := m.fulfil(root, "ambit-issuing-ca")
	testkit.Until(t, "what was renewed is taken", func() bool {
		var status struct{ CA struct{ IssuerSerial string } }
		return r.get("http://"+r.AdminAddr().String()+"/debug/status", &status) && status.CA.IssuerSerial == second.SerialNumber.Text(16)
	})
	if !issued(second) {
		t.Error("what was renewed does not issue")
	}
	if out, err := s.Kubectl("", "get", "secret", "-n", root, "ambit-ca"); err == nil {
		t.Errorf("an authority of its own was made as well: %s", out)
	}
}
