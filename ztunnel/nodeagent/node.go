package nodeagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cni"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/install"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/pods"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/sandbox"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/plugin"
)

// pluginType is the CNI plugin's name.
const pluginType = "ambit-cni"

// pluginSlack is how much longer the plugin waits than the agent lets it, so that
// it hears the agent's reason.
const pluginSlack = 5 * time.Second

func (c Config) hostOr(own *netns.Namespace) *netns.Namespace {
	if c.host != nil {
		return c.host
	}
	return own
}

func (a *Agent) finder() pods.Finder {
	if a.cfg.ProcDir == "" {
		return nil
	}
	return &sandbox.Finder{Proc: a.cfg.ProcDir, Dir: a.cfg.NetnsDir}
}

func (a *Agent) installer() (*install.Installer, error) {
	c := a.cfg.CNI
	if c.ConfDir == "" {
		return nil, nil
	}
	entry := plugin.Config{
		Type: pluginType, Socket: c.HostSocket, EnrolledFile: c.HostEnrolledFile, ExemptNamespaces: c.ExemptNamespaces,
		TimeoutSeconds: int((a.cfg.StartTimeout + pluginSlack).Round(time.Second).Seconds()),
	}
	if err := entry.Validate(); err != nil {
		return nil, fmt.Errorf("entry of the CNI plugin: %w", err)
	}
	raw, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	return install.New(install.Config{
		ConfDir: c.ConfDir, BinDir: c.BinDir, Program: c.Program, Entry: raw, Type: pluginType,
		Interval: a.cfg.RepairInterval, Settle: 100 * time.Millisecond,
		Readiness: a.ready, Logger: a.cfg.Log, Registerer: a.registry,
	})
}

// handler answers the plugin, and who takes the agent off the node.
type handler struct {
	*pods.Set
	agent *Agent
}

var _ cni.Handler = handler{}

// Uninstall implements cni.Handler. The plugin goes first, so that pods start
// untouched while others are released.
func (h handler) Uninstall(ctx context.Context) error {
	a := h.agent
	a.cfg.Log.Info("the agent takes everything of the mesh off this node")
	if a.install != nil {
		if err := a.install.Remove(); err != nil {
			return err
		}
	}
	if err := a.pods.Leave(ctx); err != nil {
		return err
	}
	return removeFile(a.cfg.EnrolledFile)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Uninstall takes everything of the agent off the node: through the agent if one
// runs, which releases pods without cutting what they are at, and otherwise at
// once.
func Uninstall(ctx context.Context, cfg Config) error {
	if err := cfg.validateUninstall(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	err := askAgent(ctx, cfg)
	if err == nil || !isAway(err) {
		return err
	}
	cfg.Log.Info("no node agent runs here; its traces are removed without it", zap.Error(err))
	return uninstallAlone(cfg)
}

func (c Config) validateUninstall() error {
	c.Node = "any"
	return c.Validate()
}

func isAway(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func askAgent(ctx context.Context, cfg Config) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", cfg.CNISocket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nodeagent/uninstall", bytes.NewReader([]byte("{}")))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says enough
	return fmt.Errorf("node agent: %s: %s", resp.Status, bytes.TrimSpace(b))
}

// uninstallAlone cuts connections that go through ztunnel, of which there is none
// without an agent that hands pods over.
func uninstallAlone(cfg Config) error {
	if cfg.CNI.ConfDir != "" {
		if err := install.Remove(install.Config{ConfDir: cfg.CNI.ConfDir, BinDir: cfg.CNI.BinDir, Type: pluginType}); err != nil {
			return err
		}
	}
	own, err := netns.Own()
	if err != nil {
		return err
	}
	defer own.Close()
	errs := []error{capture.NewHost(cfg.hostOr(own)).Remove(), releaseAll(cfg, own)}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	book, err := ledger.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	err = errors.Join(removeFile(cfg.EnrolledFile), removeFile(cfg.CNISocket), removeFile(cfg.ZDSSocket), book.Remove())
	if cfg.ZtunnelSnapshot != "" {
		err = errors.Join(err, removeFile(cfg.ZtunnelSnapshot))
	}
	for _, dir := range []string{filepath.Dir(cfg.CNISocket), filepath.Dir(cfg.ZDSSocket), cfg.StateDir, filepath.Dir(cfg.StateDir)} {
		// A folder with something else in it stays, and so does one that a container has as a mount.
		if err := os.Remove(dir); err == nil {
			cfg.Log.Info("folder is removed", zap.String("folder", dir))
		}
	}
	return err
}

// releaseAll takes our rules out of the network namespaces that the ledger knows,
// and of those that the runtime keeps, should the ledger be lost.
func releaseAll(cfg Config, own *netns.Namespace) error {
	c, err := capture.New()
	if err != nil {
		return err
	}
	finder := &sandbox.Finder{Dir: cfg.NetnsDir}
	all := finder.Kept(func(id netns.ID) bool { return id == own.ID() })
	all = append(all, known(cfg, own)...)
	var errs []error
	for _, ns := range all {
		state, err := c.Inspect(ns)
		if err == nil && state != capture.Absent {
			err = c.Release(ns)
			cfg.Log.Info("pod is released", zap.Stringer("netns", ns), zap.Error(err))
		}
		if err != nil {
			errs = append(errs, err)
		}
		_ = ns.Close()
	}
	return errors.Join(errs...)
}

// known gives the namespaces of the ledger that are still what they were.
func known(cfg Config, own *netns.Namespace) []*netns.Namespace {
	book, err := ledger.Open(cfg.StateDir)
	if err != nil {
		cfg.Log.Warn("state of the node agent", zap.Error(err))
		return nil
	}
	state, err := book.Load()
	if err != nil {
		cfg.Log.Warn("state of the node agent", zap.Error(err))
	}
	var out []*netns.Namespace
	for _, p := range state.Pods {
		ns, err := netns.Open(p.Netns)
		if err != nil {
			continue // its rules are gone with it
		}
		if ns.ID() != (netns.ID{Device: p.Device, Inode: p.Inode}) || ns.ID() == own.ID() {
			_ = ns.Close()
			continue
		}
		out = append(out, ns)
	}
	return out
}
