package pod

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Secrets are files that one pod finds in a directory and no other pod sees.
type Secrets struct {
	// Dir is where the pod finds them.
	Dir string
	// Token goes into TokenFile; what is in the file Root, into RootFile.
	Token, TokenFile string
	Root, RootFile   string
}

// Provide gives the pod secrets. It is called before Run.
func (p *Pod) Provide(s Secrets) { p.secrets = &s }

func (p *Pod) secretsDir() string { return filepath.Join(p.filesDir(), "secrets") }

func (p *Pod) writeSecrets() error {
	if err := os.MkdirAll(p.secretsDir(), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.secretsDir(), p.secrets.TokenFile), []byte(p.secrets.Token), 0o600); err != nil {
		return err
	}
	return p.copyRoot()
}

// placeSecrets runs in the pod's namespaces. It mounts the directory and not the
// files, so that a file can be replaced.
func (p *Pod) placeSecrets() error {
	if err := os.MkdirAll(p.secrets.Dir, 0o755); err != nil {
		return fmt.Errorf("give the pod its %s: %w", p.secrets.Dir, err)
	}
	if err := unix.Mount(p.secretsDir(), p.secrets.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("give the pod its %s: %w", p.secrets.Dir, err)
	}
	return nil
}

// RefreshRoot hands the pod the roots as they are now. It does nothing for a pod
// without secrets, or without files yet.
func (p *Pod) RefreshRoot() error {
	p.mu.Lock()
	up := p.network && !p.closing
	p.mu.Unlock()
	if p.secrets == nil || !up {
		return nil
	}
	return p.copyRoot()
}

// copyRoot replaces the copy if it is another one.
func (p *Pod) copyRoot() error {
	root, err := os.ReadFile(p.secrets.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the control plane has published no root certificate: see its log")
	}
	if err != nil {
		return err
	}
	path := filepath.Join(p.secretsDir(), p.secrets.RootFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, root) {
		return nil
	}
	if err := os.WriteFile(path+".new", root, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
