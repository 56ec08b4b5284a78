package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/process"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
	"github.com/ambit-mesh/ambit/internal/local/system"
	"github.com/ambit-mesh/ambit/internal/local/wire"
)

// Ports of the mesh's processes that the supervisor needs to know.
const (
	portXDS        = 15012
	portReady      = 15021
	portAgentReady = 15022
	portAdmin      = 15000
)

const (
	serverName = "ambit-controlplane.ambit-system.svc"
	clusterID  = "Kubernetes"
	// componentGrace is what the mesh's processes have to end by themselves
	// when the whole mesh goes.
	componentGrace = 2 * time.Second
)

// meshFiles are the paths that the mesh's processes share.
type meshFiles struct {
	state string // of the sandbox
}

func (f meshFiles) overlay() string     { return filepath.Join(f.state, "overlay") }
func (f meshFiles) logs() string        { return filepath.Join(f.state, "logs") }
func (f meshFiles) pods() string        { return filepath.Join(f.state, "pods") }
func (f meshFiles) credentials() string { return filepath.Join(f.state, "credentials", "nodes.json") }

func (f meshFiles) token(node string) string {
	return filepath.Join(f.state, "credentials", node+".token")
}
func (f meshFiles) controlPlane() string     { return filepath.Join(f.state, "controlplane") }
func (f meshFiles) root() string             { return filepath.Join(f.controlPlane(), "root-cert.pem") }
func (f meshFiles) agent(node string) string { return filepath.Join(f.state, node, "nodeagent") }
func (f meshFiles) zds(node string) string   { return filepath.Join(sandbox.SocketDir, node, "zds.sock") }

func (f meshFiles) snapshot(node string) string {
	return filepath.Join(f.state, node, "ztunnel", "mesh.snapshot")
}

func (f meshFiles) cni(node string) string    { return filepath.Join(sandbox.SocketDir, node, "cni.sock") }
func (f meshFiles) access(node string) string { return filepath.Join(f.logs(), node+"-access.log") }

func (f meshFiles) make(nodes []string) error {
	dirs := []string{f.overlay(), f.logs(), f.pods(), f.controlPlane(), filepath.Dir(f.credentials())}
	for _, n := range nodes {
		dirs = append(dirs, f.agent(n), filepath.Dir(f.zds(n)))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}

// meshComponents gives the mesh's processes in the order of their start.
func (s *supervisor) meshComponents() []*system.Component {
	all := []*system.Component{s.controlPlane()}
	for _, n := range s.nodes {
		all = append(all, s.nodeAgent(n), s.ztunnel(n))
	}
	return all
}

func (s *supervisor) component(name, program string, ready int, ns process.Namespaces, before func(context.Context) error, args ...string) *system.Component {
	return system.New(s.process(name, program, ready, ns, before, args...))
}

// process describes one of the mesh's processes.
func (s *supervisor) process(name, program string, ready int, ns process.Namespaces, before func(context.Context) error, args ...string) system.Config {
	o := s.options
	argv := append([]string{filepath.Join(o.BinDir, program)}, args...)
	argv = append(argv, "--log-level="+o.LogLevel, "--log-format=json")
	return system.Config{
		Name: name, Argv: append(argv, o.Args[argsOf(program)]...),
		Env: []string{"PATH=" + o.SearchPath, "HOME=" + os.Getenv("HOME")},
		Log: s.componentLog(name), Namespaces: ns, ReadyPort: ready, Before: before,
		Changed: s.kick, Grace: componentGrace, Reaper: &s.reaper, Logger: s.log,
	}
}

func (s *supervisor) componentLog(name string) string {
	return filepath.Join(s.files.logs(), strings.ReplaceAll(name, "/", "-")+".log")
}

func (s *supervisor) controlPlane() *system.Component {
	o := s.options
	return s.component("controlplane", programControlPlane, portReady, process.Namespaces{}, nil,
		"--manifests="+o.Manifests, "--manifests="+s.files.overlay(),
		"--state-dir="+s.files.controlPlane(), "--node-credentials="+s.files.credentials(),
		fmt.Sprintf("--xds-address=0.0.0.0:%d", portXDS), "--trust-domain="+o.TrustDomain,
		"--cluster-id="+clusterID, "--cluster-domain="+o.ClusterDomain, "--serving-name="+serverName)
}

func (s *supervisor) nodeAgent(n *node) *system.Component {
	name := n.wire.Name
	return s.component(name+"/nodeagent", programNodeAgent, portAgentReady, n.wire.Namespaces, s.needsRoot,
		append(s.nodeArgs(name), "--zds-socket="+s.files.zds(name), "--cni-socket="+s.files.cni(name),
			"--state-dir="+s.files.agent(name))...)
}

func (s *supervisor) ztunnel(n *node) *system.Component {
	name := n.wire.Name
	cfg := s.process(name+"/ztunnel", programZtunnel, portReady, n.wire.Namespaces, s.needsRoot,
		append(s.nodeArgs(name), "--release-ports", "--zds-socket="+s.files.zds(name), "--cluster-id="+clusterID,
			"--trust-domain="+s.options.TrustDomain, "--access-log="+s.files.access(name), "--snapshot-file="+s.files.snapshot(name))...)
	// The next ztunnel takes over at once, while this one keeps its connections.
	cfg.Successor = true
	return system.New(cfg)
}

func (s *supervisor) nodeArgs(node string) []string {
	return []string{
		"--node=" + node, fmt.Sprintf("--xds-address=%s:%d", wire.ControlPlane4, portXDS),
		"--xds-server-name=" + serverName, "--xds-root=" + s.files.root(), "--token-file=" + s.files.token(node),
	}
}

// needsRoot holds a node's processes back until they can know whom to trust.
func (s *supervisor) needsRoot(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(s.files.root()); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the control plane has published no root certificate: see its log")
		case <-tick.C:
		}
	}
}
