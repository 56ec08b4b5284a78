package pki

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

// ControlPlane are the files of a control plane, in folder PKI, and the kubeconfigs, in folder Dir.
type ControlPlane struct {
	Dir, PKI, Server string
	ca               *Authority
}

// New makes everything that a control plane needs: certificates and keys in dir/pki, and kubeconfigs for the server's
// URL in dir. Hosts are the names and addresses that the server is reached by.
func New(dir, server string, hosts ...string) (*ControlPlane, error) {
	c := &ControlPlane{Dir: dir, PKI: filepath.Join(dir, "pki"), Server: server}
	if err := os.MkdirAll(c.PKI, 0o700); err != nil {
		return nil, err
	}
	var err error
	if c.ca, err = NewAuthority(c.PKI, "ca"); err != nil {
		return nil, err
	}
	front, err := NewAuthority(c.PKI, "front-proxy-ca")
	if err != nil {
		return nil, err
	}
	if _, err := front.Issue("front-proxy-client", Subject{Name: "front-proxy-client"}); err != nil {
		return nil, err
	}
	if _, err := c.ca.Issue("apiserver", Subject{Name: "kube-apiserver", Hosts: hosts}); err != nil {
		return nil, err
	}
	if _, err := c.ca.Issue("apiserver-kubelet", Subject{Name: "kube-apiserver-kubelet-client", Group: "system:masters"}); err != nil {
		return nil, err
	}
	if err := SigningKey(c.PKI, "sa"); err != nil {
		return nil, err
	}
	return c, c.Kubeconfig("admin", Subject{Name: "admin", Group: "system:masters"})
}

// Serve issues a certificate that serves and calls, as a kubelet needs it.
func (c *ControlPlane) Serve(name string, s Subject) error {
	_, err := c.ca.Issue(name, s)
	return err
}

// Kubeconfig writes dir/name.kubeconfig for a subject.
func (c *ControlPlane) Kubeconfig(name string, s Subject) error {
	pair, err := c.ca.Issue(name, s)
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: user
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: cluster
  context: {cluster: cluster, user: user}
current-context: cluster
`, c.Server, b64(c.ca.pem), b64(pair.Cert), b64(pair.Key))
	return os.WriteFile(filepath.Join(c.Dir, name+".kubeconfig"), []byte(text), 0o600)
}

// APIServerFlags are the flags of kube-apiserver that name these files.
func (c *ControlPlane) APIServerFlags() []string {
	at := func(flag, file string) string { return "--" + flag + "=" + filepath.Join(c.PKI, file) }
	return []string{
		at("client-ca-file", "ca.crt"), at("tls-cert-file", "apiserver.crt"), at("tls-private-key-file", "apiserver.key"),
		at("service-account-key-file", "sa.pub"), at("service-account-signing-key-file", "sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		at("kubelet-client-certificate", "apiserver-kubelet.crt"), at("kubelet-client-key", "apiserver-kubelet.key"), at("kubelet-certificate-authority", "ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		at("requestheader-client-ca-file", "front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		at("proxy-client-cert-file", "front-proxy-client.crt"), at("proxy-client-key-file", "front-proxy-client.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
	}
}
