package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

func (p *Pod) unshareFlags() int {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	if !p.obj.Spec.HostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// enter runs in the pod's new namespaces.
func (p *Pod) enter() error {
	hostname := p.hostname()
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name %s: %w", hostname, err)
	}
	if !p.obj.Spec.HostNetwork {
		if err := sysctls(); err != nil {
			return err
		}
	}
	// The copies of other pods' names would keep their namespaces alive.
	if err := unix.Unmount(sandbox.NetnsDir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", sandbox.NetnsDir, err)
	}
	for _, name := range []string{"resolv.conf", "hosts"} {
		if err := place(filepath.Join(p.filesDir(), name), "/etc/"+name); err != nil {
			return fmt.Errorf("give the pod its /etc/%s: %w", name, err)
		}
	}
	if p.secrets != nil {
		if err := p.placeSecrets(); err != nil {
			return err
		}
	}
	for _, dir := range p.host.Hidden {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,mode=0700"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}

// sysctls sets what differs between distributions to what capture expects.
func sysctls() error {
	for path, value := range map[string]string{
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/default/disable_ipv6": "0",
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
	} {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set net.%s=%s: %w", path, value, err)
		}
	}
	return nil
}

// place puts a file over another one, which may be a link, may dangle because
// /run is the sandbox's own, and may not exist at all.
func place(source, target string) error {
	real, err := filepath.EvalSymlinks(target)
	if errors.Is(err, fs.ErrNotExist) {
		real, err = makeTarget(target)
	}
	if err != nil {
		return err
	}
	return unix.Mount(source, real, "", unix.MS_BIND, "")
}

// makeTarget makes an empty file to mount over: where a dangling link points if
// that is below /run, or else in a writable layer over the directory.
func makeTarget(target string) (string, error) {
	real := target
	if link, err := os.Readlink(target); err == nil {
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(target), link)
		}
		if strings.HasPrefix(link, "/run/") {
			real = link
		}
	}
	if real == target {
		if err := writableOver(filepath.Dir(target)); err != nil {
			return "", err
		}
		// A link that dangles elsewhere is in the way.
		_ = os.Remove(target)
	}
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		return "", err
	}
	f, err := os.OpenFile(real, os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	return real, f.Close()
}

func writableOver(dir string) error {
	scratch := filepath.Join(sandbox.NetnsDir) // its tmpfs was unmounted: an empty directory of ours
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("%s does not have the file, and a layer over it: %w; create an empty one", dir, err)
	}
	return nil
}

func (p *Pod) hostname() string {
	name := p.obj.Spec.Hostname
	if name == "" {
		name = p.obj.Name
	}
	if p.obj.Spec.HostNetwork {
		name = p.host.Node.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// writeFiles writes what the pod sees as /etc/resolv.conf, and an empty
// /etc/hosts until its addresses are known.
func (p *Pod) writeFiles() error {
	if err := os.MkdirAll(p.filesDir(), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.filesDir(), "resolv.conf"), []byte(p.resolvConf()), 0o644); err != nil {
		return err
	}
	if p.secrets != nil {
		if err := p.writeSecrets(); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(p.filesDir(), "hosts"), nil, 0o644)
}

func (p *Pod) resolvConf() string {
	var servers, searches, options []string
	if p.obj.Spec.DNSPolicy != corev1.DNSNone {
		for _, a := range p.host.DNS[:1] {
			servers = append(servers, a.String())
		}
		svc := "svc." + p.host.Domain
		searches = []string{p.obj.Namespace + "." + svc, svc, p.host.Domain}
		options = []string{"ndots:5"}
	}
	if c := p.obj.Spec.DNSConfig; c != nil {
		servers = append(servers, c.Nameservers...)
		searches = append(searches, c.Searches...)
		for _, o := range c.Options {
			if o.Value != nil {
				options = append(options, o.Name+":"+*o.Value)
			} else {
				options = append(options, o.Name)
			}
		}
	}
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintln(&b, "nameserver", s)
	}
	if len(searches) > 0 {
		fmt.Fprintln(&b, "search", strings.Join(searches, " "))
	}
	if len(options) > 0 {
		fmt.Fprintln(&b, "options", strings.Join(options, " "))
	}
	return b.String()
}

func (p *Pod) writeHosts() error {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	names := p.hostname()
	if s := p.obj.Spec.Subdomain; s != "" {
		names = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", names, s, p.obj.Namespace, p.host.Domain, names)
	}
	for _, a := range p.addrs() {
		fmt.Fprintf(&b, "%s\t%s\n", a, names)
	}
	for _, alias := range p.obj.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	// In place: the file is mounted already.
	return os.WriteFile(filepath.Join(p.filesDir(), "hosts"), []byte(b.String()), 0o644)
}

func (p *Pod) addrs() []netip.Addr {
	if p.port != nil {
		return p.port.Addrs
	}
	addrs := []netip.Addr{p.host.Node.Addr4}
	if p.host.Node.Addr6.IsValid() {
		addrs = append(addrs, p.host.Node.Addr6)
	}
	return addrs
}
